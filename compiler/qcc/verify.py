"""Comparing a compiled model with the integer reference, and finding the first layer that differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.evaluate import run_integer
from qcc.runtime import Model

if TYPE_CHECKING:
    from qcc.npu.artifact import NpuModel

Arrays = Mapping[str, NDArray[Any]]


def random_samples(model: Model | NpuModel, count: int = 4, seed: int = 0) -> list[dict[str, NDArray[Any]]]:
    """Inputs that reach every int8 value: uniform in the range of each input; normal ones where it has none."""
    rng = np.random.default_rng(seed)

    def draw(entry: Mapping[str, Any]) -> NDArray[Any]:
        if entry["dtype"] == "float32" and "scale" not in entry:
            return np.asarray(rng.normal(size=entry["shape"]), np.float32)
        q = rng.integers(-128, 128, entry["shape"])
        if entry["dtype"] == "float32":
            q = (q - entry["zero_point"]) * entry["scale"]
        return np.asarray(q, entry["dtype"])

    return [{entry["name"]: draw(entry) for entry in model.manifest["inputs"]} for _ in range(count)]


def verify_model(model: Model | NpuModel, samples: Sequence[Arrays]) -> str | None:
    """None if every output of every sample equals the reference's bytes, else where the first difference is."""
    program = model.program()
    for number, sample in enumerate(samples):
        expected = run_integer(program, sample)
        got = model.run(sample)
        for name, reference in expected.items():
            if reference.tobytes() != got[name].tobytes():
                what = _difference(f"output '{name}'", got[name], reference)
                return f"sample {number}, {what}; {_locate(model, sample)}"
    return None


def _difference(what: str, got: NDArray[Any], expected: NDArray[Any]) -> str:
    wrong = np.argwhere(_bits(got) != _bits(expected))
    at = tuple(int(i) for i in wrong[0])
    largest = np.abs(got.astype(np.float64) - expected.astype(np.float64)).max()
    return (f"{what}: {len(wrong)} of {got.size} elements, at most by {largest:g}, "
            f"first at {at}: {got[at]} instead of {expected[at]}")  # fmt: skip


def _bits(x: NDArray[Any]) -> NDArray[Any]:
    """The elements as integers: zeros of either sign differ, and equal NaNs do not."""
    return np.ascontiguousarray(x).view(f"u{x.itemsize}").reshape(x.shape)


def _locate(model: Model | NpuModel, sample: Arrays) -> str:
    """The first node whose result in the arena differs."""
    program = model.program()
    trace = model.trace(sample)
    expected = run_integer(program, sample, keep=trace)
    for node in program.nodes:
        if node.output in trace and trace[node.output].tobytes() != expected[node.output].tobytes():
            layer = f"layer '{node.output}' ({node.op}" + (f", from {node.source})" if node.source else ")")
            return "first in " + _difference(layer, trace[node.output], expected[node.output])
    return "no layer in the arena differs"
