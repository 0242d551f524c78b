"""The exported graph computes in ONNX Runtime what the float graph computes in NumPy, at every value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from float_graphs import CONV, NCHW, NHWC, POOL, Builder, close, feed, random_graph
from integer_programs import Builder as IntegerBuilder
from qcc.errors import QccError
from qcc.frontend.onnx import load
from qcc.ir.evaluate import run_float
from qcc.ir.graph import Graph
from qcc.ir.to_onnx import WRITERS, to_onnx
from qcc.ops import OPS
from qcc.ops.pointwise import FUNCTIONS
from qcc.passes import SIMPLIFY

NOT_IN_MODELS = ("lut", "quantize", "dequantize", "recentre", "dynamic_steps", "dynamic_quantize")
"""Ops that only programs have."""


def run(model: onnx.ModelProto, x: dict[str, Any]) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, x), strict=True))


def check(graph: Graph, values: Iterable[str] | None = None) -> onnx.ModelProto:
    """Every node's value, unless told otherwise, equals the NumPy one."""
    wanted = list(dict.fromkeys(values or [n.output for n in graph.nodes]))
    model = to_onnx(graph, wanted)
    onnx.checker.check_model(model, full_check=True)
    x = feed(graph)
    expected, found = run_float(graph, x, wanted), run(model, x)
    assert list(found) == wanted
    for value in wanted:
        assert found[value].dtype == expected[value].dtype, value
        assert close(found[value], expected[value]), value
    return model


def image(b: Builder, x: str) -> str:
    """An image that exists as NCHW in the exported model."""
    return b("max_pool", x=x, dilation=(1, 1), **{**POOL, "kernel": (1, 1), "stride": (1, 1)})


def test_pools_with_pads_as_large_as_the_kernel() -> None:
    """Rounding a pool's extents up gives such pads."""
    b = Builder(x=(2, 6, 5, 4))
    wide = {"kernel": (2, 2), "stride": (3, 3), "pad": (1, 0, 2, 2)}
    b("max_pool", x="x", dilation=(1, 1), **wide)
    b("max_pool", x="x", dilation=(2, 2), **{**wide, "pad": (2, 2, 2, 2), "stride": (1, 1)})
    b("avg_pool", x="x", count_include_pad=False, **wide)
    check(b.done(b("avg_pool", x="x", count_include_pad=True, **{**wide, "stride": (1, 1)})))


@pytest.mark.parametrize("first", [False, True], ids=["written", "nchw"])
def test_every_op(first: bool) -> None:
    b = Builder(x=(2, 6, 5, 4), v=(3, 4))
    x = image(b, "x") if first else "x"
    c4 = {"x": x, "b": b.normal(4)}
    y = b("conv2d", **c4, w=b.normal(4, 3, 2, 2), residual=x,
          **{**CONV, "pad": (2, 0, 0, 1), "groups": 2, "clamp": (-1.0, 2.0)})
    b("conv2d", x=x, w=b.normal(8, 3, 3, 1), **{**CONV, "groups": 4, "stride": (2, 1), "dilation": (1, 2)})
    b("conv_transpose2d", **c4, w=b.normal(4, 3, 2, 2), output_pad=(1, 0),
      **{**CONV, "stride": (2, 3), "pad": (1, 0, 0, 1), "groups": 2, "clamp": (0.0, math.inf)})
    b("dense", x=x, w=b.normal(4, 4), b=b.normal(4), residual=y, clamp=(-math.inf, 0.5))
    b("dense", x="v", w=b.normal(2, 4), clamp=None)
    b("matmul", a="v", b=b.normal(4, 2), transpose_b=False)
    b("matmul", a=x, b=y, transpose_b=True)
    b("batch_norm", x=x, mean=b.normal(4), variance=np.ones(4), weight=b.normal(4), bias=b.normal(4), epsilon=1e-5)
    b("batch_norm", x="v", mean=b.normal(4), variance=np.ones(4), weight=b.normal(4), bias=b.normal(4), epsilon=1e-5)
    for other in (y, b.normal(4), b.normal(5, 1), b.normal(1), b("reduce_mean", x=x, axes=(1, 2), keepdims=True)):
        for op in ("add", "sub", "mul"):
            b(op, a=x, b=other, clamp=(0.0, math.inf))
        b("maximum", a=other, b=x)
        b("minimum", a=x, b=other)
    b("add", a=x, b=b("slice", x="v", begin=(0, 0), end=(1, 4), step=(1, 1)), clamp=None)
    b("prelu", x=x, slope=b.normal(4))
    b("prelu", x="v", slope=b.normal(4))
    b("softmax", x=x)
    b("softmax", x="v")
    b("max_pool", x=x, **{**POOL, "kernel": (3, 2), "pad": (1, 0, 1, 1)}, dilation=(1, 2))
    for counts in (False, True):
        b("avg_pool", x=x, **{**POOL, "kernel": (3, 2), "pad": (1, 0, 0, 1)}, count_include_pad=counts)
    for axes in ((1, 2), (3,), (1,), (0, 3), (2, 3), (0, 1, 2, 3)):
        for keepdims in (False, True):
            for op in ("reduce_mean", "reduce_sum", "reduce_max"):
                b(op, x=x, axes=axes, keepdims=keepdims)
    for axis in range(4):
        b("argmax", x=x, axis=axis, keepdims=True)
        b("argmax", x=x, axis=axis, keepdims=False)
        b("concat", x0=x, x1=y, x2=b.normal(2, 6, 5, 4), axis=axis)
        b("take", x=x, axis=axis, indices=(1, 0, 1))
    b("slice", x=x, begin=(0, 1, 2, 3), end=(2, 6, 5, 4), step=(1, 2, 2, 1))
    for mode in ("constant", "edge", "reflect"):
        b("pad", x=x, pads=((0, 0), (1, 2), (3, 0), (0, 1)), mode=mode, value=0.5)
    b("expand", x=b("slice", x=x, begin=(0, 0, 0, 0), end=(1, 6, 1, 4), step=(1,) * 4), shape=(2, 6, 5, 4))
    b("reshape", x=x, shape=(12, 20))
    for perm in (NHWC, NCHW, (3, 0, 2, 1)):
        b.clip(b("transpose", x=x, perm=perm))
    b("transpose", x="v", perm=(1, 0))
    b("resize_bilinear", x=x, rows=((0, 2, 4), (1, 3, 5), (0, 1024, 2048)), cols=((0, 4), (1, 4), (300, 0)))
    b("fake_quant", x=x, scale=0.03, zero_point=-7)
    b("pointwise", x=x, expr="x")
    b("pointwise", x=x, expr=2.5)
    b("pointwise", x=x, expr=("add", 1.0, ("exp", 0.5)))
    graph = b.done(b.graph.nodes[-1].output)
    float_only = {n for n, op in OPS.items() if n not in NOT_IN_MODELS}
    assert {n.op for n in graph.nodes} | {"pointwise"} == float_only == set(WRITERS)
    check(graph)


CONSTANTS = {"clip": (-0.5, 0.75), "pow": (2.0,), "elu": (0.7,), "leaky": (0.1,), "grid": (0.0625, 3.0)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function(name: str) -> None:
    function = FUNCTIONS[name]
    positive = ("add", ("abs", "x"), 0.25)
    operands = [positive, ("mul", "x", 2.0), ("sub", 1.0, "x")][: function.operands]
    if name == "where_ge0":
        operands[0] = "x"
    if function.operands == 1 and name not in ("log", "sqrt"):
        operands = ["x"]
    b = Builder(x=(2, 3, 4, 5))
    check(b.done(b("pointwise", x=image(b, "x"), expr=(name, *operands, *CONSTANTS.get(name, ())))))


def test_outputs_are_the_graphs_unless_named() -> None:
    b = Builder(x=(1, 4, 4, 3))
    y = b.conv("x", 2)
    graph = b.done(b.clip(y))
    assert [o.name for o in to_onnx(graph).graph.output] == graph.outputs
    model = to_onnx(graph, [y, "x"])
    found = run(model, feed(graph))
    assert list(found) == [y, "x"]


def test_no_transposes_between_convolutions() -> None:
    b = Builder(x=(1, 3, 8, 8))
    x = b("transpose", x="x", perm=NHWC)
    for _ in range(3):
        y = b.conv(b("pointwise", x=x, expr=("sigmoid", "x")), 3)
        x = b("concat", x0=b("add", a=y, b=x, clamp=(0.0, 6.0)), x1=y, axis=3)
        x = b("pad", x=x, pads=((0, 0), (1, 0), (0, 1), (0, 0)), mode="edge", value=0.0)
        x = b.conv(b("slice", x=x, begin=(0, 0, 0, 1), end=b.shape(x), step=(1, 2, 2, 1)), 3)
    graph = b.done(b("reshape", x=b("reduce_mean", x=x, axes=(1, 2), keepdims=False), shape=(3,)))
    model = check(graph, graph.outputs)
    assert not [n for n in model.graph.node if n.op_type == "Transpose"]


def test_names_that_look_like_the_exporters_own() -> None:
    b = Builder(x=(1, 4, 4, 3))
    b("max_pool", "a", x="x", dilation=(1, 1), **POOL)
    b("max_pool", "a/nchw", x="a", dilation=(1, 1), **POOL)
    b("pointwise", "t0", x="a/nchw", expr=("exp", ("neg", "x")))
    check(b.done(b("pointwise", "c0", x="t0", expr=("pow", "x", 2.0))))


def test_integer_programs_have_no_float_form() -> None:
    b = IntegerBuilder()
    x = b.input((1, 4))
    table = b.graph.add_constant("table", np.zeros(256, np.int8))
    with pytest.raises(QccError, match="lut has no float form in ONNX"):
        to_onnx(b.output(b.node("lut", {"x": x, "table": table})))


@pytest.mark.parametrize("seed", range(30))
def test_random_graphs(seed: int) -> None:
    print("seed", seed)
    check(random_graph(seed))


@pytest.mark.parametrize("simplify", [False, True], ids=["imported", "simplified"])
@pytest.mark.parametrize("model", [
    "mnist_cnn", "mobilenet_v1_0.75_224", "mobilenet_v2_1.0_224_deq", "resnet20_cifar10", "resnet20_cifar10_bn",
])  # fmt: skip
def test_real_models(model: str, simplify: bool, data_dir: Path) -> None:
    path = data_dir / "models" / f"{model}.onnx"
    graph = load(path)
    for rewrite in SIMPLIFY if simplify else ():
        graph = rewrite(graph)
    check(graph)
    x = feed(graph)
    original, found = run(onnx.load(path), x), run(to_onnx(graph), x)
    assert all(close(found[v], original[v]) for v in graph.outputs)
