"""Descriptions drawn at random, and programs on them."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.ir.evaluate import run_integer
from qcc.ir.graph import Graph
from qcc.npu.compile import DoesNotFitError
from qcc.npu.description import Description, known_npus
from qcc.npu.host import Device, build


def random_description(seed: int) -> Description:
    """Arrays of 4 to 128, memories far too small, with and without double buffering and a cache."""
    rng = np.random.default_rng(seed)
    d = Description.load(known_npus()[seed % len(known_npus())])
    changes: dict[str, Any] = {"array.rows": int(rng.integers(4, 129)), "array.columns": int(rng.integers(4, 129)),
                               "vector.lanes": int(rng.integers(1, 300)), "fetch.queue": int(rng.integers(1, 20)),
                               "cache.bytes": int(rng.choice([0, 500, 100_000]))}
    if d.array.dataflow == "tiled":
        changes |= {"array.lanes": int(rng.integers(1, 65)), "array.dot": int(rng.integers(1, 9))}
    for memory in ("act", "weight", "acc", "param"):
        banks = int(rng.choice([1, 2, 4]))
        changes |= {f"memory.{memory}.banks": banks, f"memory.{memory}.bytes": int(rng.choice([64, 256, 4096])) * banks,
                    f"memory.{memory}.double_buffered": bool(banks > 1 and rng.integers(2))}
    return d.vary(changes)


def smallest(graph: Graph, d: Description, host: bool = False) -> Device:
    """Enlarge each memory by just the bytes that an error says are missing, until the program fits."""
    for _ in range(200):
        try:
            return build(graph, d, host)
        except DoesNotFitError as error:
            memory = getattr(d.memory, error.memory)
            wanted = -(-(memory.bytes + max(error.short, 0)) // memory.banks) * memory.banks
            d = d.vary({f"memory.{error.memory}.bytes": wanted})
    raise AssertionError("it never fits")


def check(device: Device, graph: Graph, inputs: dict[str, Any]) -> None:
    """The simulator's bytes are the integer reference's."""
    expected, found = run_integer(graph, inputs), device.run(inputs)
    for name, value in expected.items():
        assert value.tobytes() == found[name].tobytes(), name
