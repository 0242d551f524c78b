"""Quantized graphs as QDQ ONNX: reading the file back gives the same bytes, and ONNX Runtime computes nearly them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from float_graphs import Builder, feed, random_graph
from qcc import pipeline
from qcc.cli import main
from qcc.errors import CalibrationError
from qcc.ir.evaluate import run_integer
from qcc.ir.graph import Graph
from qcc.ir.to_onnx import to_onnx


def samples(graph: Graph) -> list[dict[str, object]]:
    return [dict(feed(graph, seed)) for seed in range(1, 9)]


@pytest.mark.parametrize("seed", range(12))
def test_the_file_is_the_same_program(seed: int) -> None:
    graph = random_graph(seed)
    calib = samples(graph)
    first = pipeline.quantize(graph, calib=calib)
    proto = pipeline.export(graph, calib=calib)
    onnx.checker.check_model(proto)
    second = pipeline.quantize(proto)
    assert second.outputs == first.outputs
    for x in calib[:3]:
        want, found = run_integer(first, x), run_integer(second, x)
        for value in graph.outputs:
            np.testing.assert_array_equal(want[value], found[value], err_msg=f"seed {seed}, {value}")


def network() -> Graph:
    """A residual block, a hard-swish, a pool and a dense layer."""
    b = Builder(x=(1, 8, 8, 4))
    first = b.clip(b.conv("x", 4))
    sum_ = b.clip(b("add", a=b.conv(first, 4), b=first, clamp=None))
    swish = b("pointwise", x=b.conv(sum_, 6),
              expr=("mul", "x", ("clip", ("add", ("div", "x", 6.0), 0.5), 0.0, 1.0)))
    flat = b("reshape", x=b("avg_pool", x=swish, kernel=(2, 2), stride=(2, 2), pad=(0,) * 4, count_include_pad=False),
             shape=(1, 96))
    return b.done(b("dense", x=flat, w=b.normal(5, 96), b=b.normal(5), clamp=None))


def test_onnx_runtime_agrees() -> None:
    import onnxruntime

    graph = network()
    calib = samples(graph)
    program, proto = pipeline.quantize(graph, calib=calib), pipeline.export(graph, calib=calib)
    kinds = Counter(t.data_type for t in proto.graph.initializer)
    assert kinds[onnx.TensorProto.INT32] == 4, "biases"
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = graph.outputs
    q = program.types[program.node_of()[output].inputs["x"]].qparams
    assert q is not None
    for x in calib:
        distance = np.abs(session.run([output], x)[0] - run_integer(program, x)[output]).max() / q.step
        assert distance <= 3.01


def test_command(tmp_path: Path) -> None:
    graph = network()
    model, calib, made = tmp_path / "m.onnx", tmp_path / "calib.npy", tmp_path / "q.onnx"
    onnx.save(to_onnx(graph), model)
    np.save(calib, np.concatenate([s["x"] for s in samples(graph)]))
    result = CliRunner().invoke(main, ["export", str(model), "--format", "qdq", "--calib", str(calib), "-o", str(made)])
    assert result.exit_code == 0, result.output
    x = samples(graph)[0]
    want = run_integer(pipeline.quantize(model, calib=calib), x)
    found = run_integer(pipeline.quantize(made), x)
    for value in graph.outputs:
        np.testing.assert_array_equal(want[value], found[value])


def test_a_float_model_needs_samples() -> None:
    with pytest.raises(CalibrationError, match="needs calibration samples"):
        pipeline.export(network())
