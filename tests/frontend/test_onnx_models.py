"""Real models: the imported float graph computes what ONNX Runtime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_support import floats, runtime

from qcc.frontend.onnx import load
from qcc.ir.evaluate import run_float

MODELS = ["mnist_cnn", "mobilenet_v1_0.75_224", "mobilenet_v2_1.0_224_deq", "resnet20_cifar10", "resnet20_cifar10_bn"]


@pytest.mark.parametrize("name", MODELS)
def test_real_model(data_dir: Path, name: str) -> None:
    path = data_dir / "models" / f"{name}.onnx"
    graph = load(path)
    assert graph.name == name
    feed = {value: floats(*graph.types[value].shape, seed=5) for value in graph.inputs}
    for output, want in runtime(path.read_bytes(), feed).items():
        found = run_float(graph, feed)[output]
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-5 * max(1, float(np.abs(want).max())))


def test_shape_subgraphs_vanish(data_dir: Path) -> None:
    """The old exporter's Shape, Gather, ConstantOfShape around Pad are folded: both exports hold the same operators."""
    clean, messy = (load(data_dir / "models" / f"resnet20_cifar10{suffix}.onnx") for suffix in ("", "_bn"))
    ignored = ("batch_norm", "transpose")
    assert [n.op for n in messy.nodes if n.op not in ignored] == [n.op for n in clean.nodes if n.op not in ignored]
