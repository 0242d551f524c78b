"""Convolutions and matrix products of the integer reference against Python's integers and against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper
from single_node import CONV, float_graph, generator, quantized

from qcc import numerics
from qcc.ir.evaluate import run_integer
from qcc.ir.graph import Graph
from qcc.quantize.convert import Converter

Shape = tuple[int, ...]

GEOMETRIES: list[tuple[Shape, Shape, dict[str, Any]]] = [
    ((1, 5, 6, 4), (3, 3, 3, 4), {"pad": (1, 1, 1, 1)}),
    ((1, 6, 5, 6), (6, 3, 2, 1), {"groups": 6, "stride": (2, 1), "pad": (0, 1, 1, 0)}),
    ((2, 5, 5, 4), (6, 2, 2, 2), {"groups": 2, "dilation": (2, 1)}),
    ((1, 4, 4, 3), (6, 2, 2, 1), {"groups": 3, "clamp": (0.0, 1.0)}),
    ((1, 3, 3, 9), (5, 1, 1, 9), {"stride": (2, 2)}),
]


class HalfRange(Converter):
    """Weights within [-64, 64], so that ONNX Runtime's 16-bit sums do not saturate on machines without VNNI."""

    def weight_scales(self, node: Any, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        return numerics.weight_scales(weight, 0) * 127 / 64


def requantized(acc: int, multiplier: int, attrs: Mapping[str, Any]) -> int:
    """The formula in Python's integers."""
    low, high = attrs["clamp"]
    shift = attrs["shift"]
    return int(min(max(((acc * int(multiplier) + (1 << (shift - 1))) >> shift) + attrs["zero_point"], low), high))


def session(op: str, inputs: list[str], arrays: Mapping[str, NDArray[Any]], **attrs: Any) -> NDArray[Any]:
    """Result of one ONNX Runtime node whose operands are all initializers (``x`` excepted)."""
    kinds = {k: helper.np_dtype_to_tensor_dtype(v.dtype) for k, v in arrays.items()}
    constants = [helper.make_tensor(k, kinds[k], v.shape, v.tobytes(), raw=True) for k, v in arrays.items() if k != "x"]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["y"], **attrs)],
        "peer",
        [helper.make_tensor_value_info("x", kinds["x"], arrays["x"].shape)],
        [helper.make_tensor_value_info("y", kinds["x"], None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": arrays["x"]})[0]


def scalars(graph: Graph, **values: str) -> dict[str, NDArray[Any]]:
    """``<prefix>_scale`` float32 and ``<prefix>_zero`` int8 of values, as ONNX wants them."""
    found: dict[str, NDArray[Any]] = {}
    for prefix, value in values.items():
        q = graph.types[value].qparams
        found[prefix + "_scale"] = np.asarray(q.scale, np.float32)
        found[prefix + "_zero"] = np.full(np.shape(q.scale), q.zero_point, np.int8)
    return found


def random_conv(shape: Shape, weights: Shape, attrs: Mapping[str, Any]) -> tuple[Graph, NDArray[Any]]:
    """An integer convolution and an int8 input."""
    rng = generator(shape, weights, attrs)
    x = rng.normal(0.2, 1, shape).astype(np.float32)
    c = {"w": rng.normal(0, 1, weights).astype(np.float32), "b": rng.normal(0, 1, weights[0]).astype(np.float32)}
    integer, _ = quantized(float_graph("conv2d", {"x": x}, c, {**CONV, **attrs}), {"x": x}, HalfRange)
    return integer, rng.integers(-128, 128, shape).astype(np.int8)


@pytest.mark.parametrize(("shape", "weights", "attrs"), GEOMETRIES)
def test_conv_equals_python_integers(shape: Shape, weights: Shape, attrs: dict[str, Any]) -> None:
    graph, x = random_conv(shape, weights, attrs)
    a, c, zero = graph.nodes[0].attrs, graph.constants, graph.types["x"].zero_point
    found = run_integer(graph, {"x": x})["y"]
    (sh, sw), (dh, dw), (top, left, _, _) = a["stride"], a["dilation"], a["pad"]
    per_group = weights[0] // a["groups"]
    for n, oy, ox, o in np.ndindex(*found.shape):
        acc = int(c["y.bias"][o])
        for ky, kx, ci in product(*map(range, weights[1:])):
            iy, ix = oy * sh - top + ky * dh, ox * sw - left + kx * dw
            if 0 <= iy < shape[1] and 0 <= ix < shape[2]:
                pixel = int(x[n, iy, ix, o // per_group * weights[3] + ci])
                acc += (pixel - zero) * int(c["w"][o, ky, kx, ci])
        assert found[n, oy, ox, o] == requantized(acc, c["y.multiplier"][o], a)


@pytest.mark.parametrize(("shape", "weights", "attrs"), GEOMETRIES)
def test_conv_within_one_of_onnx_runtime(shape: Shape, weights: Shape, attrs: dict[str, Any]) -> None:
    graph, x = random_conv(shape, weights, attrs)
    a = graph.nodes[0].attrs
    arrays = {
        "x": np.ascontiguousarray(x.transpose(0, 3, 1, 2)),
        **scalars(graph, x="x", w="w", y="y"),
        "w": np.ascontiguousarray(graph.constants["w"].transpose(0, 3, 1, 2)),
        "b": graph.constants["y.bias"],
    }
    names = ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero", "b"]
    peer = session("QLinearConv", names, arrays, strides=a["stride"], pads=a["pad"], dilations=a["dilation"],
                   group=a["groups"]).transpose(0, 2, 3, 1)  # fmt: skip
    found = run_integer(graph, {"x": x})["y"].astype(int)
    assert np.abs(found - np.clip(peer.astype(int), *a["clamp"])).max() <= 1


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("shapes", [((3, 7), (7, 5)), ((2, 3, 4, 9), (3, 9, 6))])
def test_matmul_against_both(shapes: tuple[Shape, Shape], transpose: bool) -> None:
    rng = generator(shapes, transpose)
    first, second = shapes
    stored = (*second[:-2], second[-1], second[-2]) if transpose else second
    real = {key: rng.normal(0.1, 1, shape).astype(np.float32) for key, shape in (("a", first), ("b", stored))}
    graph, _ = quantized(float_graph("matmul", real, {}, {"transpose_b": transpose}), real)
    a = rng.integers(-128, 128, first).astype(np.int8)
    b = rng.integers(-64, 65, stored).astype(np.int8)
    found = run_integer(graph, {"a": a, "b": b})["y"]

    right = b.swapaxes(-1, -2) if transpose else b
    left, wide = (np.vectorize(int, otypes=[object])(v) for v in (a, right))
    exact = np.matmul(left - graph.types["a"].zero_point, wide - graph.types["b"].zero_point)
    multiplier, attrs = graph.constants["y.multiplier"][0], graph.nodes[0].attrs
    assert found.tolist() == np.vectorize(lambda acc: requantized(acc, multiplier, attrs))(exact).tolist()

    arrays = {"x": a, "b": np.ascontiguousarray(right), **scalars(graph, a="a", b="b", y="y")}
    peer = session("QLinearMatMul", ["x", "a_scale", "a_zero", "b", "b_scale", "b_zero", "y_scale", "y_zero"], arrays)
    assert np.abs(found.astype(int) - peer).max() <= 1


def test_dense_equals_matmul_in_python_integers() -> None:
    rng = generator("dense")
    x = {"x": rng.normal(0, 1, (3, 40)).astype(np.float32)}
    c = {"w": rng.normal(0, 1, (5, 40)).astype(np.float32), "b": rng.normal(0, 1, 5).astype(np.float32)}
    graph, _ = quantized(float_graph("dense", x, c, {"clamp": None}), x)
    q = rng.integers(-128, 128, (3, 40)).astype(np.int8)
    found = run_integer(graph, {"x": q})["y"]
    weight, zero = graph.constants["w"], graph.types["x"].zero_point
    for n, o in np.ndindex(3, 5):
        acc = sum((int(v) - zero) * int(w) for v, w in zip(q[n], weight[o], strict=True))
        acc += int(graph.constants["y.bias"][o])
        assert found[n, o] == requantized(acc, graph.constants["y.multiplier"][o], graph.nodes[0].attrs)


def test_residual_and_table_in_python_integers() -> None:
    """Every step of the epilogue."""
    rng = generator("epilogue")
    x = {"x": rng.normal(0, 1, (6, 10)).astype(np.float32), "residual": rng.normal(0, 1, (6, 4)).astype(np.float32)}
    w = rng.normal(0, 1, (4, 10)).astype(np.float32)
    graph, _ = quantized(float_graph("dense", x, {"w": w}, {"clamp": None}), x)
    node, c = graph.nodes[0], graph.constants
    node.inputs["table"] = graph.add_constant("table", rng.integers(-128, 128, 256).astype(np.int8))
    q = {key: rng.integers(-128, 128, v.shape).astype(np.int8) for key, v in x.items()}
    found = run_integer(graph, q)["y"]
    a, zeros = node.attrs, {key: graph.types[key].zero_point for key in x}
    for n, o in np.ndindex(6, 4):
        acc = sum((int(v) - zeros["x"]) * int(k) for v, k in zip(q["x"][n], c["w"][o], strict=True))
        acc += int(c["y.bias"][o])
        v = (acc * int(c["y.multiplier"][o]) + (1 << (a["shift"] - 1))) >> a["shift"]
        v += (int(q["residual"][n, o]) - zeros["residual"]) * a["residual_multiplier"]
        v = (v + (1 << (a["fraction"] - 1))) >> a["fraction"]
        y = min(max(v + a["zero_point"], a["clamp"][0]), a["clamp"][1])
        assert found[n, o] == c["table"][y + 128]


@pytest.mark.parametrize("wide", [False, True])
def test_both_float_dtypes_are_exact(wide: bool) -> None:
    """exact_operands chooses float32 while sums stay below 2^24, float64 beyond; both equal int64 arithmetic."""
    rng = generator("operands", wide)
    depth = 9000 if wide else 500
    x = rng.integers(-128, 128, (4, depth)).astype(np.int8)
    w = rng.integers(-100, 101, (3, depth)).astype(np.int8)
    left, right = numerics.exact_operands(x, -7, w)
    assert left.dtype == (np.float64 if wide else np.float32)
    assert (left @ right.T == (x.astype(np.int64) + 7) @ w.astype(np.int64).T).all()
