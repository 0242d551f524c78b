"""Every violation that the verifier knows, made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from float_graphs import Builder, random_graph
from integer_programs import Builder as IntegerBuilder
from integer_programs import Q
from qcc.ir.graph import Graph, Node, TensorType
from qcc.ir.verify import IllegalGraph, verify
from qcc.numerics import QParams


def float_graph() -> Graph:
    """x -> conv c -> pool p -> pad d, a legal graph."""
    b = Builder(x=(1, 4, 4, 3))
    b("conv2d", "c", x="x", w=b.normal(2, 3, 3, 3), b=b.normal(2), stride=(1, 1), pad=(1, 1, 1, 1), dilation=(1, 1),
      groups=1, clamp=None)
    b("max_pool", "p", x="c", kernel=(2, 2), stride=(2, 2), pad=(0, 0, 0, 0), dilation=(1, 1))
    b("concat", "d", x0="p", x1="p", axis=3)
    return b.done("d")


def integer_graph() -> Graph:
    """x -> conv v0 -> reshape v1, with softmax v2 beside it."""
    b = IntegerBuilder()
    y = b.conv(b.input((1, 4, 4, 3)), 2)
    b.node("reshape", {"x": y}, shape=(1, 32))
    table = b.graph.add_constant("table", np.ones(256, np.int32))
    b.node("softmax", {"x": y, "table": table}, QParams(1 / 256, -128))
    return b.output("v1", "v2")


def node(graph: Graph, value: str) -> Node:
    return graph.node_of()[value]


def attr(value: str, key: str, content: Any) -> Callable[[Graph], object]:
    return lambda g: node(g, value).attrs.update({key: content})


def kind(value: str, *fields: Any) -> Callable[[Graph], object]:
    return lambda g: g.types.update({value: TensorType(*fields)})


def weights(content: Any, q: QParams | None) -> Callable[[Graph], object]:
    def change(g: Graph) -> None:
        array = np.full(g.types["w"].shape, content, np.int8)
        g.constants["w"], g.types["w"] = array, TensorType(array.shape, "int8", q)

    return change


def activation_weights(g: Graph) -> None:
    g.nodes.insert(0, Node("late", "pointwise", {"x": "c.b"}, {"expr": "x"}))
    g.types["late"] = g.types["c.b"]
    node(g, "c").inputs["b"] = "late"


def huge_bias(g: Graph) -> None:
    g.constants["b"] = np.full(2, 2**31 - 1, np.int32)


SCALES = QParams((0.01, 0.01), 0, 0)
FLOAT: list[tuple[str, Callable[[Graph], object]]] = [
    ("x: defined twice", lambda g: g.inputs.append("x")),
    ("c: defined twice", lambda g: g.nodes.append(g.nodes[0])),
    ("c.w: defined twice", lambda g: g.inputs.append("c.w")),
    ("c: input x reads 'p', which is computed later", lambda g: node(g, "c").inputs.update(x="p")),
    ("p: input x reads 'q', which is not defined", lambda g: node(g, "p").inputs.update(x="q")),
    ("the graph has no outputs", lambda g: g.outputs.clear()),
    ("q: an output that is not defined", lambda g: g.outputs.append("q")),
    ("p: has no type", lambda g: g.types.pop("p")),
    ("q: has a type but is not defined", kind("q", (1,))),
    ("c.b: is float32[2], but its array is float32[3]", lambda g: g.constants.update({"c.b": np.zeros(3, np.float32)})),
    ("c.b: is float32[2], but its array is float64[2]", lambda g: g.constants.update({"c.b": np.zeros(2)})),
    ("d: unknown op 'warp'", lambda g: setattr(node(g, "d"), "op", "warp")),
    ("c: conv2d lacks input w", lambda g: node(g, "c").inputs.pop("w")),
    ("d: concat lacks input x1", lambda g: node(g, "d").inputs.update(x2=node(g, "d").inputs.pop("x1"))),
    ("d: concat has no input x2", lambda g: node(g, "d").inputs.update(x2=node(g, "d").inputs.pop("x1"))),
    ("p: max_pool has no input y", lambda g: node(g, "p").inputs.update(y="c")),
    ("c: input b of conv2d must be a constant", activation_weights),
    ("c: conv2d lacks attribute clamp", lambda g: node(g, "c").attrs.pop("clamp")),
    ("p: max_pool has no attribute zeal", attr("p", "zeal", 1)),
    ("c: conv2d has no attribute shift in a float graph", attr("c", "shift", 1)),
    ("c: attribute stride is of type list", attr("c", "stride", [1, 1])),
    ("c: attribute pad is of type tuple", attr("c", "pad", (np.int64(1), 1, 1, 1))),
    ("c: conv2d: 3 input and 2 output channels do not fit 3 groups", attr("c", "groups", 3)),
    ("p: is float32[1, 9, 2, 2], but max_pool gives float32[1, 2, 2, 2]", kind("p", (1, 9, 2, 2))),
    ("p: is int8[1, 2, 2, 2], but max_pool gives float32[1, 2, 2, 2]", kind("p", (1, 2, 2, 2), "int8", Q)),
    ("c: float32 values have no quantization parameters", kind("c", (1, 4, 4, 2), "float32", Q)),
]
INTEGER: list[tuple[str, Callable[[Graph], object]]] = [
    ("v0: an int8 activation without quantization parameters", kind("v0", (1, 4, 4, 2), "int8")),
    ("v1: input x has no quantization parameters", kind("v0", (1, 4, 4, 2), "int8")),
    ("x: scales must be positive and finite", kind("x", (1, 4, 4, 3), "int8", QParams(0.0))),
    ("x: scales must be positive and finite", kind("x", (1, 4, 4, 3), "int8", QParams(float("inf")))),
    ("x: zero point 128 leaves int8", kind("x", (1, 4, 4, 3), "int8", QParams(0.5, 128))),
    ("x: several scales need an axis, one scale has none", kind("x", (1, 4, 4, 3), "int8", QParams(0.5, 0, 3))),
    ("w: several scales need an axis", weights(1, QParams((0.01, 0.01)))),
    ("x: an activation has one scale, not one per channel", kind("x", (1, 4, 4, 3), "int8", QParams((0.5,) * 3, 0, 3))),
    ("v1: reshape moves data, but input x has scale 0.05 and zero point -3, the output scale 0.5 and zero point 0",
     kind("v1", (1, 32), "int8", QParams(0.5))),
    ("v2: softmax gives scale 0.00390625 and zero point -128, not scale 0.5",
     kind("v2", (1, 4, 4, 2), "int8", QParams(0.5))),
    ("v0: attribute zero_point 4 is not the output's -3", attr("v0", "zero_point", 4)),
    ("v0: attribute zero_point 300 leaves int8", attr("v0", "zero_point", 300)),
    ("v0: shift 63 is not within 0..62", attr("v0", "shift", 63)),
    ("v0: shift -1 is not within 0..62", attr("v0", "shift", -1)),
    ("v0: conv2d: clamp (-200, 127) leaves int8", attr("v0", "clamp", (-200, 127))),
    ("v0: conv2d lacks attribute shift", lambda g: node(g, "v0").attrs.pop("shift")),
    ("v0: conv2d lacks attribute fraction", lambda g: node(g, "v0").inputs.update(residual="x")),
    ("v0: conv2d: the integer form wants b and multiplier", lambda g: node(g, "v0").inputs.pop("multiplier")),
    ("v0: conv2d: multiplier must be int32[2], got int8[2]", lambda g: g.types.update(m=TensorType((2,), "int8"))),
    ("v2: softmax: table must be int32[256], got int32[3]", lambda g: g.types.update(table=TensorType((3,), "int32"))),
    ("v0: weights 'w' need a scale for each of the 2 output channels", weights(1, None)),
    ("v0: weights 'w' need a scale for each of the 2 output channels", weights(1, QParams((0.1,) * 3, 0, 0))),
    ("v0: weights 'w' need a scale for each of the 2 output channels", weights(1, QParams((0.1,) * 2, 5, 0))),
    ("v0: weights 'w' hold -128, the least is -127", weights(-128, SCALES)),
    ("v0: an accumulator may reach 21", huge_bias),
]


def violations(graph: Graph) -> tuple[str, ...]:
    with pytest.raises(IllegalGraph) as caught:
        verify(graph)
    return caught.value.violations


@pytest.mark.parametrize(("message", "change"), FLOAT)
def test_float_graphs(message: str, change: Callable[[Graph], object]) -> None:
    graph = float_graph()
    verify(graph)
    change(graph)
    assert any(v.startswith(message) for v in violations(graph))


@pytest.mark.parametrize(("message", "change"), INTEGER)
def test_integer_programs(message: str, change: Callable[[Graph], object]) -> None:
    graph = integer_graph()
    verify(graph)
    change(graph)
    assert any(v.startswith(message) for v in violations(graph))


def test_all_violations_are_listed_at_once() -> None:
    graph = float_graph()
    attr("c", "groups", 3)(graph)
    attr("p", "zeal", 1)(graph)
    assert len(violations(graph)) == 2
    with pytest.raises(IllegalGraph) as caught:
        verify(graph)
    first, *rest = str(caught.value).splitlines()
    assert first == "graph 'test': 2 violations"
    assert [line[:4] for line in rest] == ["  c:", "  p:"]


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_are_legal(seed: int) -> None:
    verify(random_graph(seed))
