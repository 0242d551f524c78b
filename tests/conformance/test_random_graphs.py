"""Random CNNs, from the ONNX model to the library: its bytes are those of the integer reference."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcc import pipeline
from qcc.emit import entry
from qcc.frontend.onnx import load
from qcc.ir.evaluate import run_float, run_integer
from qcc.ir.graph import Graph
from qcc.ops import OPS
from qcc.quantize.observers import METHODS
from qcc.runtime import Model
from qcc.target import Target
from qcc.verify import random_samples, verify_model
from random_graphs import FAMILIES, random_model
from random_graphs import random_samples as calibration_samples

GRAPHS = 7 * len(FAMILIES)
NEAR = 0.25
"""Largest RMS error of an int8 output, relative to the RMS of the float one, over the calibration samples."""

Sample = dict[str, Any]


def quantized(seed: int) -> Graph:
    """The integer program of a seed; checks that it is near the float model."""
    print("seed", seed, FAMILIES[seed % len(FAMILIES)].__name__)
    model = random_model(seed)
    samples = calibration_samples(model, 4, seed)
    method = list(METHODS)[seed % len(METHODS)]
    *_, (_, simplified), (_, program) = pipeline.stages(model, calib=samples, method=method)
    real, found = ([run(graph, x) for x in samples] for run, graph in ((run_float, simplified), (run_integer, program)))
    for value in program.outputs:
        if program.types[value].dtype == "float32":
            expected, got = (np.stack([y[value] for y in runs]) for runs in (real, found))
            error = np.sqrt(np.mean((got - expected) ** 2) / max(np.mean(expected**2), 1e-9))
            assert error < NEAR, f"seed {seed}: '{value}' is off by {error:.2f} of its RMS"
    return program


def inputs(model: Model, seed: int) -> list[Sample]:
    """Every int8 value; the lowest and the highest everywhere; normal ones."""
    drawn = random_samples(model, 3, seed)
    low, high = ({k: np.full_like(x, end) for k, x in drawn[0].items()} for end in (-1e9, 1e9))
    rng = np.random.default_rng(seed)
    normal = {k: rng.normal(size=x.shape).astype(x.dtype) for k, x in drawn[0].items()}
    return [*drawn, low, high, normal]


def check(seed: int, target: Target, folder: Path) -> None:
    """Compile, and compare on one thread and on two."""
    model = pipeline.build(quantized(seed), target, folder / "model", jobs=1)
    for threads in (1, 2):
        model.set_threads(threads)
        difference = verify_model(model, inputs(model, seed + threads))
        assert difference is None, f"seed {seed} on {threads} threads: {difference}"
    model.set_threads(1)


@pytest.mark.parametrize("seed", range(GRAPHS))
def test_host(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2:
        monkeypatch.setattr(entry, "PARALLEL_BYTES", 64)
    check(seed, Target.load("host"), tmp_path)


@pytest.mark.parametrize("seed", range(0, GRAPHS, 5))
def test_avx2(seed: int, tmp_path: Path) -> None:
    target = Target.load("x86-avx2")
    if target.missing():
        pytest.skip(f"this machine lacks {', '.join(target.missing())}")
    if find_spec(f"qcc.schedule.{target.family}") is None:
        pytest.skip(f"there are no schedules for {target.name}")
    check(seed, target, tmp_path)


def test_every_op_and_a_name_for_every_graph() -> None:
    """The graphs hold every op that a float model can have."""
    found = {node.op for seed in range(GRAPHS) for node in load(random_model(seed)).nodes}
    assert found == OPS.keys() - {"quantize", "dequantize", "recentre", "lut", "fake_quant", "dynamic_steps",
                                 "dynamic_quantize"}
