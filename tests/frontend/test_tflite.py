"""Edges, names and float models of the TFLite front end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from qcc import pipeline
from qcc.cli import main
from qcc.errors import CalibrationError, UnsupportedError
from qcc.frontend.detect import is_tflite
from qcc.frontend.tflite import load
from qcc.ir.evaluate import run_float, run_integer
from qcc.ir.verify import verify
from tflite_cases import CASES
from tflite_writer import Writer, litert

REAL = {"kws_float": 0.02, "ad_float": 1e-3, "ic_float": 1e-3, "vww_float": 1e-3}
"""Tolerance of each; kws_float has int8 weights, for which LiteRT quantizes activations at run time."""


def test_uint8_edges_keep_the_files_numbers() -> None:
    graph = load(CASES["conv_2d"](np.random.default_rng(3), "uint8"), "edges")
    x, y = graph.types[graph.inputs[0]], graph.types[graph.outputs[0]]
    assert (graph.name, graph.inputs, graph.outputs) == ("edges", ["x"], ["y"])
    assert (x.dtype, y.dtype) == ("uint8", "uint8")
    assert x.qparams is not None
    inner = graph.types[graph.nodes[0].output]
    assert inner.zero_point == x.qparams.zero_point - 128


def test_the_pipeline_knows_the_file_by_its_contents(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    content = CASES["add"](np.random.default_rng(0), "int8")
    path.write_bytes(content)
    assert is_tflite(path)
    assert is_tflite(content)
    assert not is_tflite(b"other")
    assert not is_tflite(tmp_path / "absent")
    assert [stage for stage, _ in pipeline.stages(path)] == ["import", "quantize"]


def test_a_table_behind_a_layer_becomes_part_of_it() -> None:
    w = Writer()
    x, hidden = w.tensor("x", (1, 8), scale=0.1, zero_point=0), w.tensor("h", (1, 4), scale=0.2, zero_point=1)
    y = w.tensor("y", (1, 4), scale=1 / 256, zero_point=-128)
    weights = w.constant("w", np.ones((4, 8), np.int8), 0.1, 0)
    w.op("FULLY_CONNECTED", [x, weights], [hidden], "FullyConnectedOptions")
    w.op("LOGISTIC", [hidden], [y])
    *_, (_, graph) = pipeline.stages(w.finish([x], [y]))
    assert [n.op for n in graph.nodes] == ["dense"]
    assert "table" in graph.nodes[0].inputs


def float_layers() -> bytes:
    """Convolution with weights that are float16 behind a DEQUANTIZE, pooling, a dense layer."""
    rng = np.random.default_rng(0)
    w = Writer()
    x, hidden = w.tensor("x", (1, 6, 6, 3), "float32"), w.tensor("h", (1, 6, 6, 4), "float32")
    half = w.constant("w16", rng.normal(size=(4, 3, 3, 3)).astype(np.float16))
    weights = w.tensor("w", (4, 3, 3, 3), "float32")
    bias = w.constant("b", rng.normal(size=4).astype(np.float32))
    pooled, flat, y = (w.tensor(n, s, "float32") for n, s in (("p", (1, 3, 3, 4)), ("f", (1, 36)), ("y", (1, 5))))
    matrix = w.constant("m", rng.integers(-127, 128, (5, 36)).astype(np.int8), 0.01, 0)
    w.op("DEQUANTIZE", [half], [weights], "DequantizeOptions")
    w.op("CONV_2D", [x, weights, bias], [hidden], "Conv2DOptions", Padding=0, StrideW=1, StrideH=1, DilationWFactor=1,
         DilationHFactor=1, FusedActivationFunction=3)
    w.op("MAX_POOL_2D", [hidden], [pooled], "Pool2DOptions", Padding=1, StrideW=2, StrideH=2, FilterWidth=2,
         FilterHeight=2)
    w.op("RESHAPE", [pooled, w.constant("shape", np.array([1, 36], np.int32))], [flat], "ReshapeOptions")
    real = w.constant("r", (w.tensors[matrix].data * np.float32(0.01)).astype(np.float32))  # type: ignore[operator]
    w.op("FULLY_CONNECTED", [flat, real], [y], "FullyConnectedOptions")
    return w.finish([x], [y])


def test_a_float_model_is_a_float_graph() -> None:
    pytest.importorskip("ai_edge_litert")
    model = float_layers()
    graph = load(model)
    verify(graph)
    x = np.random.default_rng(1).normal(size=(1, 6, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(run_float(graph, {"x": x})["y"], litert(model, [x])[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(CalibrationError):
        list(pipeline.stages(model))


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_float_models(name: str, data_dir: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    path = data_dir / "models" / f"{name}.tflite"
    graph = load(path)
    value = graph.inputs[0]
    x = np.random.default_rng(2).normal(size=graph.types[value].shape).astype(np.float32)
    got = run_float(graph, {value: x})[graph.outputs[0]]
    np.testing.assert_allclose(got, litert(path.read_bytes(), [x])[0], rtol=1e-3, atol=REAL[name])


def test_float_layers_behind_integer_ones_are_refused() -> None:
    w = Writer()
    x, y = w.tensor("x", (1, 8), scale=0.1, zero_point=0), w.tensor("y", (1, 8), "float32")
    middle = w.tensor("f", (1, 8), "float32")
    w.op("DEQUANTIZE", [x], [middle], "DequantizeOptions")
    w.op("EXP", [middle], [y], "ExpOptions")
    with pytest.raises(UnsupportedError, match="computes in float32 in an integer model, for EXP 'y'"):
        load(w.finish([x], [y]))


def test_the_shape_operand_of_a_reshape_may_be_computed() -> None:
    w = Writer()
    x, shape, y = w.tensor("x", (1, 2, 3), scale=0.1), w.tensor("s", (2,), "int32"), w.tensor("y", (1, 6), scale=0.1)
    w.op("SHAPE", [x], [shape], "ShapeOptions")
    w.op("RESHAPE", [x, shape], [y], "ReshapeOptions")
    graph = load(w.finish([x], [y]))
    assert run_integer(graph, {"x": np.zeros((1, 2, 3), np.int8)})["y"].shape == (1, 6)


def test_the_command_prints_an_integer_model_after_any_stage(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(CASES["add"](np.random.default_rng(0), "int8"))
    for stage in ("import", "simplify", "quantize"):
        result = CliRunner().invoke(main, ["compile", str(path), "--stop-after", stage])
        assert result.exit_code == 0
        assert 'rounding="tflite"' in result.output
