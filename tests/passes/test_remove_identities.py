"""remove_identities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from float_graphs import POOL, Builder, apply, ops
from qcc.passes.remove_identities import remove_identities

IMAGE = (1, 4, 4, 3)
NOTHING: list[tuple[str, dict[str, Any]]] = [
    ("reshape", {"shape": IMAGE}),
    ("expand", {"shape": IMAGE}),
    ("transpose", {"perm": (0, 1, 2, 3)}),
    ("slice", {"begin": (0,) * 4, "end": IMAGE, "step": (1,) * 4}),
    ("pad", {"pads": ((0, 0),) * 4, "mode": "edge", "value": 0.0}),
    ("pointwise", {"expr": "x"}),
    ("pointwise", {"expr": ("clip", "x", float("-inf"), float("inf"))}),
    ("take", {"axis": 3, "indices": (0, 1, 2)}),
    ("max_pool", {**POOL, "kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1)}),
    ("avg_pool", {**POOL, "kernel": (1, 1), "stride": (1, 1), "count_include_pad": True}),
    ("reduce_max", {"axes": (0,), "keepdims": True}),
]
SOMETHING: list[tuple[str, dict[str, Any]]] = [
    ("transpose", {"perm": (0, 2, 1, 3)}),
    ("take", {"axis": 3, "indices": (0, 2, 1)}),
    ("slice", {"begin": (0,) * 4, "end": (1, 4, 4, 2), "step": (1,) * 4}),
    ("pointwise", {"expr": ("clip", "x", 0.0, float("inf"))}),
]


@pytest.mark.parametrize(("op", "attrs"), NOTHING)
def test_a_node_that_does_nothing_goes(op: str, attrs: dict[str, Any]) -> None:
    b = Builder(x=IMAGE)
    graph = apply(remove_identities, b.done(b.clip(b(op, x=b.clip("x", -1.0), **attrs), -2.0, 2.0)))
    assert ops(graph) == ["pointwise", "pointwise"]


@pytest.mark.parametrize(("op", "attrs"), SOMETHING)
def test_a_node_that_does_something_stays(op: str, attrs: dict[str, Any]) -> None:
    b = Builder(x=IMAGE)
    assert ops(apply(remove_identities, b.done(b(op, x="x", **attrs)))) == [op]


@pytest.mark.parametrize(("op", "neutral"), [("add", 0.0), ("mul", 1.0), ("sub", 0.0)])
def test_neutral_elements_go_and_others_stay(op: str, neutral: float) -> None:
    for value, left in ((neutral, 1), (2.0, 2)):
        b = Builder(x=(2, 3))
        x = b(op, a=b.clip("x"), b=np.full(1, value), clamp=None)
        assert len(apply(remove_identities, b.done(x)).nodes) == left


def test_the_neutral_element_may_come_first_but_not_widen_the_result() -> None:
    b = Builder(x=(2, 3))
    assert ops(apply(remove_identities, b.done(b("add", a=np.zeros(1), b=b.clip("x"), clamp=None)))) == ["pointwise"]
    b = Builder(x=(1, 3))
    wider = b("add", a=np.zeros((2, 1)), b=b.clip("x"), clamp=None)
    assert ops(apply(remove_identities, b.done(wider))) == ["pointwise", "add"]


def test_concat_of_one() -> None:
    b = Builder(x=(2, 3))
    assert ops(apply(remove_identities, b.done(b("concat", x0=b.clip("x"), axis=0)))) == ["pointwise"]


def test_reshapes_and_slices_in_a_row_merge() -> None:
    b = Builder(x=(1, 9, 8, 2))
    x = b("slice", x="x", begin=(0, 1, 0, 0), end=(1, 9, 8, 2), step=(1, 3, 1, 1))
    x = b("slice", x=x, begin=(0, 1, 2, 0), end=(1, 3, 7, 1), step=(1, 1, 2, 1))
    x = b("reshape", x=b("reshape", x=x, shape=(6,)), shape=(2, 3))
    graph = apply(remove_identities, b.done(x))
    assert ops(graph) == ["slice", "reshape"]
    assert graph.nodes[0].attrs == {"begin": (0, 4, 2, 0), "end": (1, 8, 7, 1), "step": (1, 3, 2, 1)}


def test_outputs_keep_their_names() -> None:
    b = Builder(x=(2, 3))
    inner = b.clip("x")
    outer = b("reshape", x=inner, shape=(2, 3))
    graph = apply(remove_identities, b.done(outer))
    assert (ops(graph), graph.outputs) == (["pointwise"], [outer])
    b = Builder(x=(2, 3))
    inner = b.clip("x")
    assert len(apply(remove_identities, b.done(inner, b("reshape", x=inner, shape=(2, 3)))).nodes) == 2
    b = Builder(x=(2, 3))
    assert ops(apply(remove_identities, b.done(b("reshape", x="x", shape=(2, 3))))) == ["reshape"]


