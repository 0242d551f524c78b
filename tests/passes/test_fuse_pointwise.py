"""fuse_pointwise."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from float_graphs import Builder, apply, ops
from qcc.passes.fuse_pointwise import LARGEST, functions, fuse_pointwise, tidy


def scalar(b: Builder, op: str, x: str, value: float, first: bool = False) -> str:
    fields = {"a": np.full((1,), value), "b": x} if first else {"a": x, "b": np.full((1, 1), value)}
    return b(op, **fields, **({"clamp": None} if op in ("add", "sub", "mul") else {}))


def apply_function(b: Builder, name: str, x: str) -> str:
    return b("pointwise", x=x, expr=(name, "x"))


def silu(b: Builder, x: str) -> str:
    return b("mul", a=x, b=apply_function(b, "sigmoid", x), clamp=None)


def erf_gelu(b: Builder, x: str) -> str:
    half = scalar(b, "mul", x, 0.5)
    phi = scalar(b, "add", apply_function(b, "erf", scalar(b, "mul", x, 0.70710678)), 1.0)
    return b("mul", a=half, b=phi, clamp=None)


def tanh_gelu(b: Builder, x: str) -> str:
    cube = b("pointwise", x=x, expr=("pow", "x", 3.0))
    inner = b("add", a=x, b=scalar(b, "mul", cube, 0.044715), clamp=None)
    phi = scalar(b, "add", apply_function(b, "tanh", scalar(b, "mul", inner, 0.7978845608)), 1.0, first=True)
    return scalar(b, "mul", b("mul", a=x, b=phi, clamp=None), 0.5)


def hard_swish(b: Builder, x: str) -> str:
    gate = scalar(b, "minimum", scalar(b, "maximum", scalar(b, "add", x, 3.0), 0.0), 6.0)
    return scalar(b, "mul", b("mul", a=x, b=gate, clamp=None), 1 / 6)


def mish(b: Builder, x: str) -> str:
    soft = apply_function(b, "log", scalar(b, "add", apply_function(b, "exp", x), 1.0))
    return b("mul", a=x, b=apply_function(b, "tanh", soft), clamp=None)


@pytest.mark.parametrize("formula", [silu, erf_gelu, tanh_gelu, hard_swish, mish])
def test_formulas_become_one_node(formula: Callable[[Builder, str], str]) -> None:
    b = Builder(x=(1, 4, 4, 3))
    y = b.conv(formula(b, b.conv("x", 4)), 2)
    graph = apply(fuse_pointwise, b.done(y))
    assert ops(graph) == ["conv2d", "pointwise", "conv2d"]
    assert not set(graph.types) - {v for n in graph.nodes for v in (n.output, *n.inputs.values())}


def test_vectors_and_two_tensors_stay() -> None:
    b = Builder(x=(2, 3), y=(2, 3))
    z = b("mul", a="x", b=b.normal(3), clamp=None)
    assert ops(apply(fuse_pointwise, b.done(b("add", a=z, b="y", clamp=None)))) == ["mul", "add"]


def test_a_number_that_widens_the_result_stays() -> None:
    b = Builder(x=(3,))
    assert ops(apply(fuse_pointwise, b.done(b("add", a="x", b=np.ones((1, 1)), clamp=None)))) == ["add"]


def test_a_value_that_others_read_stays() -> None:
    b = Builder(x=(2, 3))
    s = apply_function(b, "sigmoid", "x")
    graph = apply(fuse_pointwise, b.done(scalar(b, "mul", s, 2.0), s))
    assert ops(graph) == ["pointwise", "pointwise"]


def test_the_nearest_common_tensor_is_the_operand() -> None:
    b = Builder(x=(1, 4, 4, 3))
    relu = b.clip(b.conv("x", 4))
    graph = apply(fuse_pointwise, b.done(silu(b, relu)))
    assert ops(graph) == ["conv2d", "pointwise", "pointwise"]
    assert graph.nodes[1].attrs["expr"] == ("clip", "x", 0.0, math.inf)


def test_a_clip_merges_where_nothing_before_it_can_clamp() -> None:
    b = Builder(x=(2, 3))
    assert ops(apply(fuse_pointwise, b.done(apply_function(b, "exp", b.clip("x", -1.0, 1.0))))) == ["pointwise"]


def test_a_fused_clamp_is_kept() -> None:
    b = Builder(x=(2, 3))
    graph = apply(fuse_pointwise, b.done(b("add", a="x", b=np.ones(1), clamp=(0.5, 1.5))))
    assert graph.nodes[0].attrs["expr"] == ("clip", ("add", "x", 1.0), 0.5, 1.5)


def test_expressions_stay_small() -> None:
    b = Builder(x=(2, 3))
    x = "x"
    for _ in range(12):
        x = silu(b, x)
    graph = apply(fuse_pointwise, b.done(x))
    assert 1 < len(graph.nodes) < 24
    assert max(functions(n.attrs["expr"]) for n in graph.nodes if n.op == "pointwise") <= LARGEST


@pytest.mark.parametrize(("expr", "expected"), [
    (("max", "x", 0.0), ("clip", "x", 0.0, math.inf)),
    (("min", 6.0, "x"), ("clip", "x", -math.inf, 6.0)),
    (("min", ("max", "x", 0.0), 6.0), ("clip", "x", 0.0, 6.0)),
    (("clip", ("clip", "x", 0.0, 1.0), 2.0, 3.0), ("clip", "x", 2.0, 2.0)),
    (("exp", ("max", 1.0, ("neg", "x"))), ("exp", ("clip", ("neg", "x"), 1.0, math.inf))),
])  # fmt: skip
def test_tidy(expr: object, expected: object) -> None:
    assert tidy(expr) == expected


def quantized_silu(b: Builder, x: str, *, shared: bool = False) -> str:
    """As ONNX Runtime quantizes it: the gate has a grid of its own."""
    x = b("fake_quant", x=x, scale=0.04, zero_point=-3)
    gate = b("fake_quant", x=apply_function(b, "sigmoid", x), scale=1 / 256, zero_point=-128)
    y = b("fake_quant", x=b("mul", a=x, b=gate, clamp=None), scale=0.02, zero_point=-100)
    return b("add", a=y, b=b.conv(gate, 4), clamp=None) if shared else y


def test_quantization_between_functions_becomes_part_of_them() -> None:
    b = Builder(x=(1, 4, 4, 3))
    graph = apply(fuse_pointwise, b.done(quantized_silu(b, b.conv("x", 4))))
    assert ops(graph) == ["conv2d", "fake_quant", "pointwise", "fake_quant"]
    assert graph.nodes[2].attrs["expr"] == ("mul", "x", ("grid", ("sigmoid", "x"), 1 / 256, -128.0))


def test_a_quantized_value_that_others_read_stays() -> None:
    b = Builder(x=(1, 4, 4, 3))
    graph = apply(fuse_pointwise, b.done(quantized_silu(b, b.conv("x", 4), shared=True)))
    assert ops(graph).count("pointwise") == 2
    assert "mul" not in ops(graph)


def test_functions_in_a_row_are_one_whatever_is_quantized_between() -> None:
    b = Builder(x=(1, 4, 4, 3))
    y = b.conv("x", 4)
    for function in ("tanh", "sigmoid"):
        y = apply_function(b, function, b("fake_quant", x=y, scale=0.01, zero_point=5))
    assert ops(apply(fuse_pointwise, b.done(y))) == ["conv2d", "fake_quant", "pointwise"]
