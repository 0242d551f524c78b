"""Real models quantized by ONNX Runtime: the class is the same, and each operator is within one step."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import quantized as benchmark
from accuracy import load_evaluation

from qcc import pipeline
from qcc.ir.evaluate import run_integer


@pytest.mark.parametrize("types", benchmark.TYPES)
def test_resnet20(types: str, data_dir: Path, tmp_path: Path) -> None:
    name = "resnet20_cifar10"
    evaluation = load_evaluation(data_dir)
    samples = evaluation.calibration(name, 16)
    path = benchmark.quantized(data_dir / "models" / f"{name}.onnx", tmp_path, samples, types)
    program, exact = pipeline.quantize(path), evaluation.runner(str(path))
    images, _ = evaluation.load("cifar10_lossless")
    for image in images[:12]:
        x = evaluation.prepare(image, evaluation.E[name])
        want, found = exact(x), run_integer(program, {program.inputs[0]: x})[program.outputs[0]]
        assert want.argmax() == found.argmax()
        assert np.abs(want - found).max() < 0.1 * np.abs(want).max()
    assert max(benchmark.operator_distances(path, samples[:1]).values()) <= (2 if types == "u8u8" else 1)
