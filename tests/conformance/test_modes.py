"""Modes that run float, on every target that has them: compiled bytes are the reference's, nothing else is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_kernels import machine_for, target_here

from float_graphs import Builder
from qcc import pipeline
from qcc.ir.graph import Graph
from qcc.ops.pointwise import FUNCTIONS
from qcc.quantize.modes import convert_mode
from qcc.runtime import Model
from qcc.target import Target, known_targets
from qcc.verify import random_samples, verify_model
from random_graphs import FAMILIES, random_model

MODES = ("dynamic", "float16")
TARGETS = [name for name in known_targets() if not Target.load(name).float_fault]
EVERYWHERE = ("depthwise", "grouped", "residual", "attention")
"""Families that are run on every target."""
CONSTANTS = {"clip": (-0.5, 0.75), "pow": (1.7,), "elu": (0.7,), "leaky": (0.1,), "grid": (0.0625, 3.0)}


def program(seed: int, mode: Any) -> Graph:
    print("seed", seed, FAMILIES[seed % len(FAMILIES)].__name__, mode)
    *_, (_, graph) = pipeline.stages(random_model(seed), mode=mode)
    return graph


def inputs(graph: Graph, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=graph.types[name].shape).astype(np.float32) for name in graph.inputs}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", range(0, len(FAMILIES), 8))
def test_random_graphs(first: int, mode: str, tmp_path: Path) -> None:
    programs = [program(seed, mode) for seed in range(first, min(first + 8, len(FAMILIES)))]
    machine = machine_for(programs, target_here("host"), tmp_path)
    for number, graph in enumerate(programs):
        machine.check(number, inputs(graph, first + number))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TARGETS)
def test_families_on_every_target(name: str, mode: str, tmp_path: Path) -> None:
    target = target_here(name)
    seeds = [i for i, family in enumerate(FAMILIES) if family.__name__ in EVERYWHERE]
    programs = [program(seed + len(FAMILIES), mode) for seed in seeds]
    machine = machine_for(programs, target, tmp_path)
    for number, graph in enumerate(programs):
        machine.check(number, inputs(graph, number))


@pytest.mark.parametrize("name", TARGETS)
def test_every_function_of_one_number(name: str, tmp_path: Path) -> None:
    target = target_here(name)
    b, positive = Builder(0, x=(3, 64), v=(5,)), ("add", ("abs", "x"), 0.01)
    made = []
    for function, kind in FUNCTIONS.items():
        operand = positive if function in ("sqrt", "log", "pow", "div") else "x"
        expr = (function, *[operand] * kind.operands, *CONSTANTS.get(function, ()))
        made.append(b("pointwise", x="x", expr=expr))
    made.append(b("pointwise", x="v", expr=("tanh", "x")))
    made += [b("pointwise", x="x", expr=("pow", positive, exponent)) for exponent in (0.0, 2.0, -1.0, 3.0, 0.5, -0.5)]
    made.append(b("pointwise", x="x", expr=("add", ("mul", "x", "x"), ("mul", 0.3, "x"))))
    graph = convert_mode(b.done(*made), "float16")
    machine = machine_for([graph], target, tmp_path)
    for scale in (1, 30, 1000):
        machine.check(0, {name: x * np.float32(scale) for name, x in inputs(graph, scale).items()})


@pytest.mark.parametrize("mode", MODES)
def test_library_on_threads(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcc.emit.entry.PARALLEL_BYTES", 64)
    model = pipeline.build(program(1, mode), target_here("host"), tmp_path / "model", jobs=1)
    assert isinstance(model, Model)
    for threads in (1, 2):
        model.set_threads(threads)
        assert verify_model(model, random_samples(model, 2, threads)) is None


def test_a_layer_reads_inputs_and_outputs_that_are_the_callers(tmp_path: Path) -> None:
    """Depthwise and residual read whole vectors, which the caller's arrays may not hold."""
    b = Builder(3, x=(1, 4, 4, 5), r=(1, 4, 4, 5))
    depthwise = b("conv2d", x="x", w=b.normal(5, 1, 1, 1), stride=(1, 1), pad=(0,) * 4, dilation=(1, 1), groups=5,
                  clamp=None)  # fmt: skip
    residual = b.conv(depthwise, 5, 1, residual="r")
    again = b("conv2d", x=residual, w=b.normal(5, 1, 1, 1), residual=depthwise, stride=(1, 1), pad=(0,) * 4,
              dilation=(1, 1), groups=5, clamp=None)  # fmt: skip
    graph = b.done(depthwise, residual, again)
    for mode in MODES:
        made = convert_mode(graph, mode)  # type: ignore[arg-type]
        model = pipeline.build(made, target_here("host"), tmp_path / mode, jobs=1)
        assert isinstance(model, Model)
        assert verify_model(model, [inputs(made, 0)]) is None
