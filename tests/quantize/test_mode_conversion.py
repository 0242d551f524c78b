"""Modes that run float: which nodes change, which values need no sign, what is refused, and how weights are rounded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import qcc
from float_graphs import CONV, Builder
from qcc import pipeline
from qcc.cli import main
from qcc.errors import CalibrationError, ModelError, QccError, TargetError, UnsupportedError
from qcc.ir.evaluate import run_float, run_integer
from qcc.ir.graph import Graph
from qcc.ir.verify import verify
from qcc.numerics import QParams, weight_scales
from qcc.quantize.modes import FLOAT16_MAX, convert_mode, nonnegative
from qcc.quantize.weights import cancelling
from random_graphs import random_model

MODES = ("dynamic", "float16")


def network() -> Graph:
    """Two layers that read one value, after a rectifier and before."""
    b = Builder(1, x=(1, 8, 8, 3))
    first = b.clip(b.conv(b("transpose", x="x", perm=(0, 1, 2, 3)), 8))
    return b.done(b("add", a=b.conv(first, 4), b=b.conv(first, 4, 1), clamp=None))


@pytest.mark.parametrize("mode", MODES)
def test_the_program_is_legal_and_near_the_float_graph(mode: Any) -> None:
    graph = network()
    program = convert_mode(graph, mode)
    verify(program)
    x = {"x": np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)}
    (exact,), (got,) = run_float(graph, x).values(), run_integer(program, x).values()
    assert np.abs(got - exact).max() < (0.1 if mode == "dynamic" else 0.02)


def test_a_value_is_quantized_once() -> None:
    program = convert_mode(network(), "dynamic")
    steps = [node for node in program.nodes if node.op == "dynamic_steps"]
    assert [node.attrs["levels"] for node in steps] == [127, 255]
    assert sum(node.op == "conv2d" for node in program.nodes) == 3


def test_values_that_are_never_negative() -> None:
    b = Builder(0, x=(1, 4, 4, 2))
    rectified = b.clip("x")
    known = [
        rectified, b("max_pool", x=rectified, kernel=(2, 2), stride=(2, 2), pad=(0,) * 4, dilation=(1, 1)),
        b("softmax", x="x"), b("mul", a=rectified, b=rectified, clamp=None),
        b("add", a="x", b="x", clamp=(0.0, 6.0)), b("pointwise", x="x", expr=("sigmoid", "x")),
        b("pointwise", x=rectified, expr=("mul", "x", ("sigmoid", "x"))),
        b("pointwise", x="x", expr=("where_ge0", "x", 1.0, ("exp", "x"))), b.conv("x", 2, clamp=(0.0, np.inf)),
        b("pointwise", x="x", expr=("max", "x", 0.0)), b("pointwise", x=rectified, expr=("elu", "x", 1.0)),
        b("concat", x0=rectified, x1=rectified, axis=3),
    ]  # fmt: skip
    unknown = [
        b("add", a=rectified, b="x", clamp=None), b("pointwise", x="x", expr=("tanh", "x")), b.conv("x", 2),
        b("sub", a=rectified, b=rectified, clamp=None), b("pointwise", x=rectified, expr=("log", "x")),
        b("mul", a=rectified, b="x", clamp=(-1.0, 1.0)),
    ]  # fmt: skip
    found = nonnegative(b.done(*known, *unknown))
    assert found >= set(known)
    assert not found & {"x", *unknown}


def test_rounding_errors_of_a_channel_cancel() -> None:
    weight = np.random.default_rng(2).normal(size=(16, 3, 3, 32))
    scales = weight_scales(weight, 0)
    q = cancelling(weight, QParams(tuple(scales), 0, 0))
    error = q - weight / scales[:, None, None, None]
    assert np.abs(error.reshape(16, -1).sum(axis=1)).max() <= 0.5 + 1e-9
    assert np.abs(error).max() < 1
    assert np.abs(q.astype(int)).max() == 127


def test_a_channel_of_zeros_and_weights_at_the_limit() -> None:
    weight = np.stack([np.zeros(4), np.array([1.0, 1.0, 1.0, 0.497])])
    q = cancelling(weight, QParams(tuple(weight_scales(weight, 0)), 0, 0))
    assert q.tolist() == [[0, 0, 0, 0], [127, 127, 127, 63]]


def test_weights_beyond_float16_stay_float32() -> None:
    b = Builder(0, x=(2, 3))
    y = b("dense", x="x", w=np.full((4, 3), 2 * FLOAT16_MAX), clamp=None)
    remarks: list[str] = []
    program = convert_mode(b.done(y), "float16", remarks)
    assert remarks == [f"{y}: weights beyond 65504 stay float32"]
    assert program.types[program.node_of()[y].inputs["w"]].dtype == "float32"


def test_sums_that_could_leave_int32_stay_float32() -> None:
    b = Builder(0, x=(1, 40_000))
    y = b("dense", x="x", w=np.ones((1, 40_000)), clamp=None)
    remarks: list[str] = []
    program = convert_mode(b.done(y), "dynamic", remarks)
    assert remarks == [f"{y}: stays float32, as sums of int8 products might leave 32 bits"]
    assert [node.op for node in program.nodes if node.op.startswith("dynamic")] == []


def test_every_node_without_a_float_form_is_named() -> None:
    b = Builder(0, x=(2, 3))
    ones = {key: np.ones(3) for key in ("mean", "variance", "weight", "bias")}
    x = b("batch_norm", x=b("batch_norm", x="x", epsilon=0.1, **ones), epsilon=0.1, **ones)
    with pytest.raises(UnsupportedError) as caught:
        convert_mode(b.done(x), "float16")
    assert str(caught.value).count("it has no float32 form. Hint: use --mode int8") == 2


@pytest.mark.parametrize("mode", MODES)
def test_a_quantized_model_is_refused(mode: Any) -> None:
    b = Builder(0, x=(2, 3))
    graph = b.done(b("dense", x=b("fake_quant", x="x", scale=0.1, zero_point=0), w=b.normal(4, 3), clamp=None))
    for model in (graph, pipeline.quantize(random_model(0), calib=[first_input(random_model(0))])):
        with pytest.raises(QccError, match=r"quantized already.*--mode int8"):
            list(pipeline.stages(model, mode=mode))


def first_input(model: onnx.ModelProto) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {i.name: rng.normal(size=[d.dim_value for d in i.type.tensor_type.shape.dim]).astype(np.float32)
            for i in model.graph.input}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"target": "cortex-m4"}, TargetError, "needs a CPU that runs float32: its programs are integer-only C"),
        ({"target": "armv7-neon"}, TargetError, "needs a CPU .*: its float vectors take subnormal numbers for zeros"),
        ({"target": "edge-npu"}, TargetError, "mode dynamic needs a CPU that runs float32: it has no float unit"),
        ({"calib": np.zeros((1, 3), np.float32)}, CalibrationError, "mode dynamic takes no samples. Hint: leave out"),
        ({"io": "int8"}, QccError, "inputs and outputs are float in mode dynamic"),
    ],
)
def test_what_a_mode_refuses(given: dict[str, Any], kind: type[QccError], message: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=message):
        qcc.compile(random_model(0), mode="dynamic", out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", MODES)
def test_command_line(mode: str, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(dense_model(), model)
    run: Callable[..., Any] = lambda *a: CliRunner().invoke(main, list(map(str, a)))  # noqa: E731
    made = run("compile", model, "--mode", mode, "-o", tmp_path / "out", "--jobs", 1)
    assert made.exit_code == 0, made.output
    assert f"mode    {mode}" in made.output
    assert run("verify", tmp_path / "out").output == "byte-identical (4 inferences)\n"
    shown = run("compile", model, "--mode", mode, "--stop-after", "quantize").output
    assert ("float16[4,8]" if mode == "float16" else "dynamic_quantize") in shown
    assert f"mode    {mode}" in run("inspect", tmp_path / "out").output


def dense_model() -> onnx.ModelProto:
    """One Gemm."""
    weight = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    info = [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", [1, 8]), ("y", [1, 4]))]
    node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", info[:1], info[1:], [onnx.numpy_helper.from_array(weight, "w")])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])


def test_conv_attributes_stay(tmp_path: Path) -> None:
    """A layer that reads the caller's memory hands its padding to the copy; others keep theirs."""
    b = Builder(0, x=(1, 5, 5, 4))
    graph = b.done(b.conv(b.conv("x", 4), 4))
    program = convert_mode(graph, "float16")
    first, second = (node for node in program.nodes if node.op == "conv2d")
    assert (first.attrs["pad"], second.attrs["pad"]) == ((0, 0, 0, 0), CONV["pad"])
    assert program.types[first.inputs["x"]].shape == (1, 7, 7, 4)


def test_constants_must_be_finite() -> None:
    graph = network()
    next(a for a in graph.constants.values() if a.ndim > 1)[...] = np.inf
    with pytest.raises(ModelError, match=r"leaves float32 where batch norms and scales are folded .* Hint: check"):
        convert_mode(graph, "float16")
