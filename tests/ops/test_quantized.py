"""Each op's integer meaning against its float meaning, on the reals that the int8 operands stand for.

The bounds are in steps of the output: half a step of rounding, 2^-7 for fixed-point multipliers and float32, and what
each case adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from single_node import CONV, float_graph, generator, quantized, reals, snapped

from qcc import numerics
from qcc.ir.evaluate import run_float, run_integer
from qcc.ir.graph import Graph, Node, TensorType
from qcc.ops import OPS, IllegalNode

ROUNDING = 0.5 + 2**-7
Shapes = Mapping[str, tuple[int, ...]]

WEIGHTED: list[tuple[str, Shapes, Shapes, dict[str, Any]]] = [
    ("conv2d", {"x": (1, 7, 9, 5)}, {"w": (6, 3, 3, 5), "b": (6,)}, {"pad": (1, 0, 2, 1), "stride": (2, 1)}),
    ("conv2d", {"x": (2, 6, 6, 8)}, {"w": (8, 3, 3, 1)}, {"groups": 8, "clamp": (0.0, 2.0)}),
    ("conv2d", {"x": (1, 5, 5, 3)}, {"w": (6, 3, 2, 1), "b": (6,)}, {"groups": 3, "dilation": (2, 1)}),
    ("conv2d", {"x": (1, 5, 4, 6)}, {"w": (4, 1, 1, 3), "b": (4,)}, {"groups": 2}),
    ("conv2d", {"x": (1, 1, 16, 3)}, {"w": (4, 1, 5, 3), "b": (4,)}, {"pad": (0, 2, 0, 2)}),
    ("conv_transpose2d", {"x": (1, 4, 5, 6)}, {"w": (4, 3, 3, 6), "b": (4,)},
     {"stride": (2, 3), "pad": (1, 0, 0, 1), "output_pad": (1, 0)}),
    ("conv_transpose2d", {"x": (2, 3, 3, 4)}, {"w": (6, 2, 3, 2)},
     {"groups": 2, "dilation": (2, 1), "output_pad": (0, 0)}),
    ("dense", {"x": (3, 20)}, {"w": (7, 20), "b": (7,)}, {}),
    ("dense", {"x": (2, 3, 9)}, {"w": (5, 9)}, {"clamp": (-1.0, float("inf"))}),
]


def worst_error(graph: Graph, x: Mapping[str, NDArray[Any]]) -> tuple[float, Graph]:
    """Largest distance in output steps of the integer from the float form on the same reals; the integer form."""
    integer, _ = quantized(graph, x)
    q_in = {key: numerics.quantize(v, integer.types[key].qparams) for key, v in x.items()}
    seen = {key: reals(v, integer.types[key].qparams) for key, v in q_in.items()}
    found = run_integer(integer, q_in)["y"]
    wanted = run_float(snapped(graph, integer), seen)["y"]
    kind = integer.types["y"]
    assert found.shape == wanted.shape == kind.shape
    assert (str(found.dtype), str(wanted.dtype)) == (kind.dtype, "float32")
    steps = np.clip(wanted / kind.qparams.step + kind.zero_point, -128, 127)
    worst = float(np.abs(found - steps).max())
    print(f"worst {worst:.3f} steps")
    return worst, integer


def compare(op: str, shapes: Shapes, constants: Shapes, attrs: Mapping[str, Any], bound: float) -> None:
    """Quantize a random node; require integer and float within ``bound`` steps of the output."""
    rng = generator(op, shapes, constants, attrs)
    x = {key: rng.normal(0.3, 1, shape).astype(np.float32) for key, shape in shapes.items()}
    c = {key: rng.normal(0, 1, shape).astype(np.float32) for key, shape in constants.items()}
    assert worst_error(float_graph(op, x, c, attrs), x)[0] <= bound


@pytest.mark.parametrize(("op", "shapes", "constants", "attrs"), WEIGHTED)
def test_weighted(op: str, shapes: Shapes, constants: Shapes, attrs: dict[str, Any]) -> None:
    """The bias is rounded to s_x * s_w, and a real clamp limit to a step: half a step each at most."""
    base = {"clamp": None} if op == "dense" else CONV
    extra = 0.5 if "clamp" in attrs else 0.02
    compare(op, shapes, constants, {**base, **attrs}, ROUNDING + extra)


@pytest.mark.parametrize("op", ["conv2d", "dense"])
def test_residual(op: str) -> None:
    """F fraction bits: the residual's multiplier is off by 2^-(F + 1), which counts up to 255 times."""
    rng = generator("residual", op)
    shapes = {"x": (1, 5, 5, 16), "residual": (1, 5, 5, 8)}
    weights, attrs = ((8, 3, 3, 16), {**CONV, "pad": (1, 1, 1, 1)}) if op == "conv2d" else ((8, 16), {"clamp": None})
    x = {key: rng.normal(0, 1, shape).astype(np.float32) for key, shape in shapes.items()}
    c = {"w": rng.normal(0, 0.1, weights).astype(np.float32), "b": rng.normal(0, 1, 8).astype(np.float32)}
    worst, integer = worst_error(float_graph(op, x, c, attrs), x)
    fraction = integer.nodes[0].attrs["fraction"]
    print(f"fraction {fraction}")
    assert fraction >= 4
    assert worst <= ROUNDING + 0.02 + 2.0**-fraction * (1 + 127.5)


POOL = {"kernel": (3, 2), "stride": (2, 1), "pad": (1, 1, 0, 1)}
CLIPPED = ("clip", ("mul", "x", ("sigmoid", "x")), -0.2, 1.5)

REQUANTIZED: list[tuple[str, Shapes, Shapes, dict[str, Any]]] = [
    ("matmul", {"a": (2, 3, 4, 8), "b": (3, 8, 5)}, {}, {"transpose_b": False}),
    ("matmul", {"a": (4, 8), "b": (5, 8)}, {}, {"transpose_b": True}),
    ("matmul", {"a": (2, 4, 8)}, {"b": (2, 8, 3)}, {"transpose_b": False}),
    ("add", {"a": (2, 3, 4), "b": (3, 1)}, {}, {"clamp": None}),
    ("add", {"a": (2, 3, 4)}, {"b": (4,)}, {"clamp": None}),
    ("sub", {"a": (2, 3, 4), "b": (2, 3, 4)}, {}, {"clamp": None}),
    ("sub", {"b": (2, 3, 4)}, {"a": (1,)}, {"clamp": None}),
    ("mul", {"a": (2, 3, 4), "b": (2, 1, 4)}, {}, {"clamp": None}),
    ("mul", {"a": (2, 3, 4)}, {"b": (4,)}, {"clamp": None}),
    ("prelu", {"x": (2, 5, 6)}, {"slope": (6,)}, {}),
    ("avg_pool", {"x": (1, 7, 6, 3)}, {}, {**POOL, "count_include_pad": False}),
    ("avg_pool", {"x": (1, 7, 6, 3)}, {}, {**POOL, "count_include_pad": True}),
    ("avg_pool", {"x": (1, 6, 6, 3)}, {},
     {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0, 0, 0), "count_include_pad": False}),
    ("reduce_mean", {"x": (2, 7, 7, 5)}, {}, {"axes": (1, 2), "keepdims": True}),
    ("reduce_mean", {"x": (2, 7, 5)}, {}, {"axes": (0, 2), "keepdims": False}),
    ("reduce_sum", {"x": (2, 7, 5)}, {}, {"axes": (1,), "keepdims": True}),
    ("reduce_sum", {"x": (4, 9)}, {}, {"axes": (0, 1), "keepdims": False}),
    ("pointwise", {"x": (2, 50)}, {}, {"expr": CLIPPED}),
    ("pointwise", {"x": (2, 50)}, {}, {"expr": ("elu", "x", 1.0)}),
    ("softmax", {"x": (5, 10)}, {}, {}),
    ("softmax", {"x": (1, 1000)}, {}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "shapes", "constants", "attrs"), REQUANTIZED)
def test_requantized(op: str, shapes: Shapes, constants: Shapes, attrs: dict[str, Any]) -> None:
    """One rounding; softmax adds the rounding of each exponential to 2^-20, of which there are up to 1000."""
    compare(op, shapes, constants, attrs, ROUNDING + (1000 * 256 * 2**-21 if op == "softmax" else 0))


@pytest.mark.parametrize("op", ["add", "sub", "mul"])
def test_clamped_binary(op: str) -> None:
    """A clamp limit in reals is rounded to a step."""
    compare(op, {"a": (50,), "b": (50,)}, {}, {"clamp": (0.0, 1.1)}, 0.5 + ROUNDING)


SAME_SCALE: list[tuple[str, Shapes, dict[str, Any]]] = [
    ("maximum", {"a": (2, 3, 4), "b": (3, 1)}, {}),
    ("minimum", {"a": (2, 3, 4), "b": (3, 1)}, {}),
    ("max_pool", {"x": (1, 7, 6, 3)}, {**POOL, "dilation": (1, 1)}),
    ("max_pool", {"x": (2, 7, 6, 3)}, {"kernel": (2, 2), "stride": (1, 1), "pad": (1, 0, 0, 0), "dilation": (2, 3)}),
    ("reduce_max", {"x": (2, 7, 5)}, {"axes": (0, 2), "keepdims": False}),
    ("concat", {"x0": (2, 3, 4), "x1": (2, 1, 4), "x2": (2, 2, 4)}, {"axis": 1}),
    ("slice", {"x": (4, 9)}, {"begin": (1, 0), "end": (3, 9), "step": (1, 2)}),
    ("pad", {"x": (2, 3, 4)}, {"pads": ((0, 0), (1, 2), (0, 3)), "mode": "constant", "value": 0.0}),
    ("pad", {"x": (2, 3, 4)}, {"pads": ((0, 0), (1, 2), (0, 3)), "mode": "reflect", "value": 0.0}),
    ("pad", {"x": (2, 3, 4)}, {"pads": ((0, 1), (1, 2), (0, 9)), "mode": "edge", "value": 0.0}),
    ("reshape", {"x": (2, 3, 4)}, {"shape": (6, 4)}),
    ("transpose", {"x": (2, 3, 4)}, {"perm": (2, 0, 1)}),
    ("expand", {"x": (3, 1)}, {"shape": (2, 3, 4)}),
    ("take", {"x": (2, 3, 4)}, {"axis": 2, "indices": (3, 3, 0)}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "shapes", "attrs"), SAME_SCALE)
def test_same_scale_moves_data(op: str, shapes: Shapes, attrs: dict[str, Any]) -> None:
    """Equal, up to float32's representation of the reals."""
    compare(op, shapes, {}, attrs, 1e-4)


@pytest.mark.parametrize("op", ["maximum", "minimum"])
def test_same_scale_constant(op: str) -> None:
    """A constant operand takes the output's parameters, saturating where they end."""
    compare(op, {"a": (2, 3, 4)}, {"b": (4,)}, {}, 1e-4)


def test_pad_value() -> None:
    """A constant other than 0 is rounded to a step."""
    compare("pad", {"x": (2, 3)}, {}, {"pads": ((0, 0), (1, 2)), "mode": "constant", "value": 0.7}, ROUNDING)


def test_resize_bilinear() -> None:
    """One rounding of the exact weighted sum."""
    rows = ((0, 0, 1, 2), (0, 1, 2, 2), (0, 1024, 512, 2048))
    cols = ((0, 1, 1), (1, 2, 1), (300, 2047, 0))
    compare("resize_bilinear", {"x": (2, 3, 3, 5)}, {}, {"rows": rows, "cols": cols}, ROUNDING)


def test_argmax_first_wins() -> None:
    x = {"x": np.array([[1, 3, 3, 0], [2, 2, 1, 2]], np.float32)}
    graph = float_graph("argmax", x, {}, {"axis": 1, "keepdims": True})
    integer, _ = quantized(graph, x)
    found = run_integer(integer, {"x": numerics.quantize(x["x"], integer.types["x"].qparams)})["y"]
    assert found.dtype == run_float(graph, x)["y"].dtype == np.int32
    assert found.tolist() == run_float(graph, x)["y"].tolist() == [[1], [0]]


def test_negative_prelu_slope() -> None:
    """Slopes of either sign, and 0."""
    x = {"x": np.linspace(-2, 2, 80, dtype=np.float32).reshape(20, 4)}
    graph = float_graph("prelu", x, {"slope": np.array([-0.5, 0, 0.25, 1.5], np.float32)}, {})
    integer, _ = quantized(graph, x)
    assert np.sign(integer.constants["y.multiplier"]).tolist() == [-1, 0, 1, 1]
    q = integer.types["x"].qparams
    q_x = numerics.quantize(x["x"], q)
    out = integer.types["y"]
    wanted = run_float(graph, {"x": reals(q_x, q)})["y"] / out.qparams.step + out.zero_point
    assert np.abs(run_integer(integer, {"x": q_x})["y"] - wanted).max() <= ROUNDING


def test_widened_weights_are_reported() -> None:
    """40,000 full weights can leave 32 bits: they get a coarser scale; the result stays right and the user is told."""
    x = {"x": np.ones((1, 40_000), np.float32)}
    graph = float_graph("dense", x, {"w": np.ones((1, 40_000), np.float32)}, {"clamp": None})
    integer, convert = quantized(graph, x)
    assert "widened" in convert.remarks[0]
    y = run_integer(integer, {"x": np.full((1, 40_000), 127, np.int8)})["y"]
    assert reals(y, integer.types["y"].qparams).item() == pytest.approx(4e4, rel=2**-8)


def test_weights_without_effect_keep_the_shift() -> None:
    """Tiny weights under a large bias: their scale has a floor, so that the multiplier stays at 2^-16 and 31 bits."""
    x = {"x": np.array([[1e-3, -1e-3]], np.float32)}
    graph = float_graph("dense", x, {"w": np.full((1, 2), 1e-4, np.float32), "b": np.array([1e3], np.float32)},
                        {"clamp": None})
    integer, convert = quantized(graph, x)
    assert convert.remarks == []
    assert integer.nodes[0].attrs["shift"] == numerics.DEFAULT_SHIFT
    y = run_integer(integer, {"x": np.array([[127, -128]], np.int8)})["y"]
    assert reals(y, integer.types["y"].qparams).item() == pytest.approx(1e3, rel=2**-8)


@pytest.mark.parametrize(("op", "key"), [("lut", "real"), ("quantize", "real"), ("batch_norm", "integer"),
                                         ("pointwise", "integer")])  # fmt: skip
def test_forms_that_do_not_exist(op: str, key: str) -> None:
    """Float-only and integer-only ops say so."""
    x = np.ones(3, np.float32)
    node = float_graph("reshape", {"x": x}, {}, {"shape": (3,)}).nodes[0]
    node.op = op
    with pytest.raises(IllegalNode, match=r"belongs to|no integer form"):
        OPS[op].real(node, {"x": x}) if key == "real" else OPS[op].integer(node, {"x": x}, {}, None)
    if op != "pointwise":
        with pytest.raises(IllegalNode, match=r"belongs to|no integer form"):
            OPS[op].quantize(node, None)


@pytest.mark.parametrize("perm", [None, (0, 2, 3, 1)])
def test_edges(perm: tuple[int, ...] | None) -> None:
    """Quantize and dequantize convert and permute; together they lose at most half a step."""
    rng = generator("edges", perm)
    x = rng.uniform(-1, 3, (1, 2, 3, 4)).astype(np.float32)
    q = numerics.activation_qparams(-1, 3)
    graph = Graph("edges", ["x"], ["y"], {"x": TensorType(x.shape)})
    back = None if perm is None else tuple(np.argsort(perm).tolist())
    for node, params in ((Node("q", "quantize", {"x": "x"}, {"perm": perm}), q),
                         (Node("y", "dequantize", {"x": "q"}, {"perm": back}), None)):  # fmt: skip
        kind = OPS[node.op].infer(node, graph.input_types(node))
        graph.types[node.output] = TensorType(kind.shape, kind.dtype, params)
        graph.nodes.append(node)
    found = run_integer(graph, {"x": x}, keep=["q"])
    assert found["q"].dtype == np.int8
    assert found["q"].shape == graph.types["q"].shape
    assert found["y"].dtype == np.float32
    assert np.abs(found["y"] - x).max() <= q.step * (0.5 + 1e-5)
