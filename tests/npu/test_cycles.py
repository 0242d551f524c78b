"""Cycle counts: SCALE-Sim's where the machine is SCALE-Sim's, and what must hold for any."""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from integer_programs import random_program
from qcc import numerics
from qcc.ir.graph import Graph, Node, TensorType
from qcc.npu import timing
from qcc.npu.compile import compile_graph
from qcc.npu.cycles import Timeline, analyse
from qcc.npu.description import Description, known_npus
from qcc.npu.split import split
from qcc.numerics import QParams

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import networks

GEMMS = ((784, 64, 147), (196, 512, 512), (49, 1000, 1280), (1, 1001, 1024), (100, 65, 63))
SCALESIM = {
    "ws64": (2921, 24703, 76479, 48895, 579),
    "os64": (3548, 20415, 22495, 18399, 755),
    "is64": (9905, 22463, 23799, 19055, 509),
}
"""What SCALE-Sim 3.0 reports for (pixels, channels, products) on 64 x 64 cells."""


def gemm(M: int, N: int, K: int) -> Graph:
    q = QParams(0.05, -3)
    graph = Graph("gemm", ["x"], ["y"], {"x": TensorType((M, K), "int8", q), "y": TensorType((M, N), "int8", q)})
    weight = np.random.default_rng(0).integers(-127, 128, (N, K)).astype(np.int8)
    multiplier, shift = numerics.requant_multipliers(np.full(N, 1e-3))
    inputs = {"x": "x", "w": graph.add_constant("w", weight, QParams((0.1,) * N, 0, 0)),
              "b": graph.add_constant("b", np.zeros(N, np.int32)), "multiplier": graph.add_constant("m", multiplier)}
    attrs = {"shift": shift, "zero_point": -3, "clamp": (-128, 127)}
    graph.nodes.append(Node("y", "dense", inputs, attrs))
    return graph


def timeline(graph: Graph, d: Description) -> Timeline:
    return analyse(compile_graph(split(graph, d), d))


def array_alone(name: str) -> Description:
    """A variant whose memories and vector unit cost nothing, so that no tiling pays that costs the array anything."""
    return Description.load(name).vary({"dram.mb_per_s": 1e7, "dram.latency_cycles": 0, "vector.lanes": 65536,
                                        "vector.startup": 0, "cache.bytes": 0, "memory.act.bytes_per_cycle": 65536.0,
                                        "memory.acc.bytes_per_cycle": 65536.0})  # fmt: skip


@pytest.mark.parametrize("name", SCALESIM)
def test_compiled_gemms_take_scalesims_cycles(name: str) -> None:
    """Where only the array costs anything, as in SCALE-Sim's compute cycles, tiling does not add to it."""
    d = array_alone(name)
    for shape, reported in zip(GEMMS, SCALESIM[name], strict=True):
        M, N, K = shape
        assert timing.gemm(d, M, 1, N, K).array == reported + 1
        assert timeline(gemm(*shape), d).compute_only == reported + 1


def test_compiled_resnet50_takes_scalesims_cycles() -> None:
    """The 54 layers of SCALE-Sim's file (its convolutions are not padded), which reports one cycle less for each."""
    t = timeline(networks.resnet50_topology(), array_alone("ws64"))
    layers = [x.array for x in t.layers if x.array]
    assert len(layers) == 54
    assert sum(layers) - len(layers) == 2_043_372
    assert sum(layers) == t.compute_only


def test_compiled_resnet50_takes_what_the_formula_says() -> None:
    """The real network: 3x3 convolutions are padded, strided ones have half the pixels."""
    graph, d = networks.resnet50(), array_alone("ws64")
    expected = 0
    for node in graph.nodes:
        if "w" in node.inputs:
            shape, weight = graph.types[node.output].shape, graph.constants[node.inputs["w"]]
            expected += timing.gemm(d, math.prod(shape[:-1]), 1, shape[-1], weight[0].size).array
    assert timeline(graph, d).compute_only == expected


@pytest.mark.parametrize("name", known_npus())
def test_accounts_add_up(name: str) -> None:
    for seed in range(6):
        t = timeline(random_program(seed), Description.load(name))
        assert sum(x.elapsed for x in t.layers) == t.total
        for unit in range(5):
            spans = sorted((start, end) for u, _, start, end in t.events if u == unit)
            assert all(a[1] <= b[0] for a, b in pairwise(spans)), "a unit does one thing at a time"
        busy = sum(x.compute for x in t.layers)
        assert busy == sum(end - start for u, _, start, end in t.events if u == 2) <= t.total
        assert t.compute_only <= busy


def test_hardware_parameters_change_the_outcome() -> None:
    d = Description.load("ws16-mcu")
    graph = gemm(200, 96, 300)
    base = timeline(graph, d).total
    slower = ({"dram.mb_per_s": 50.0}, {"vector.lanes": 1}, {"array.columns": 4},
              {"memory.weight.bytes_per_cycle": 0.5}, {"memory.weight.bytes": 512}, {"fetch.bytes_per_cycle": 0.05},
              {"dram.latency_cycles": 5000})
    for change in slower:
        assert timeline(graph, d.vary(change)).total > base, change
    assert timeline(graph, d.vary({"dram.mb_per_s": 5000.0, "cache.bytes": 65536})).total < base


def test_double_buffering_overlaps() -> None:
    d = Description.load("ws16-mcu")
    single = {f"memory.{m}.double_buffered": False for m in ("weight", "acc", "param")}
    graph = gemm(400, 64, 256)
    assert timeline(graph, d).total < timeline(graph, d.vary(single)).total
