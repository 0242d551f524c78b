"""Scores of integer programs of real models; top-1 is in ``conformance/test_real_models.py``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcc.frontend import onnx
from qcc.ir.evaluate import run_float, run_integer
from qcc.ir.graph import Graph
from qcc.ir.verify import verify
from qcc.passes import simplify
from qcc.quantize.assign import assign
from qcc.quantize.calibrate import calibrate
from qcc.quantize.convert import convert


def evaluation_of(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module ``evaluate`` of the data folder."""
    monkeypatch.setattr(sys, "path", [str(data_dir), *sys.path])
    return importlib.import_module("evaluate")


def quantized(evaluation: Any, data_dir: Path, name: str) -> tuple[Graph, Graph]:
    """The float graph and the integer program of a model file, calibrated with 100 samples."""
    graph = onnx.load(data_dir / "models" / f"{name}.onnx")
    graph = simplify(graph)
    found = calibrate(graph, evaluation.calibration(name, 100))
    params, graph = assign(graph, found.ranges)
    remarks: list[str] = []
    program = convert(graph, params, means=found.means, remarks=remarks)
    verify(program)
    assert remarks == []
    return graph, program


@pytest.mark.parametrize("name", ["mobilenet_v1_0.75_224", "mobilenet_v2_1.0_224_deq"])
def test_scores_stay_close_to_the_float_models(name: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """21 dB over 16 images; without bias correction MobileNetV1 has 16."""
    evaluation = evaluation_of(data_dir, monkeypatch)
    graph, program = quantized(evaluation, data_dir, name)
    signal = noise = 0.0
    for sample in evaluation.load("imagenet224")[0][:16]:
        x = {graph.inputs[0]: evaluation.prepare(sample, evaluation.E[name])}
        exact, found = run_float(graph, x)[graph.outputs[0]], run_integer(program, x)[graph.outputs[0]]
        signal += np.square(exact - exact.mean()).sum()
        noise += np.square(exact - exact.mean() - (found - found.mean())).sum()
    print(f"{name}: {10 * np.log10(signal / noise):.1f} dB")
    assert 10 * np.log10(signal / noise) >= 21
