"""merge_pads."""

from __future__ import annotations

import math
from typing import Any

import pytest

from float_graphs import CONV, POOL, Builder, apply, ops
from qcc.passes.merge_pads import merge_pads

PADS = ((0, 0), (1, 0), (0, 1), (0, 0))
MAX: dict[str, Any] = {**POOL, "dilation": (1, 1)}


def pad(b: Builder, x: str, **fields: Any) -> str:
    return b("pad", x=x, **{"pads": PADS, "mode": "constant", "value": 0.0, **fields})


def test_convolutions_pad_for_themselves() -> None:
    b = Builder(x=(1, 5, 5, 3))
    padded = pad(b, "x")
    y, z = b("conv2d", x=padded, w=b.normal(2, 3, 3, 3), **CONV), b.conv(padded, 4, kernel=1)
    graph = apply(merge_pads, b.done(y, z))
    assert [(n.op, n.attrs["pad"]) for n in graph.nodes] == [("conv2d", (2, 1, 1, 2)), ("conv2d", (1, 0, 0, 1))]


def test_a_pad_that_others_read_remains() -> None:
    b = Builder(x=(1, 5, 5, 3))
    padded = pad(b, "x")
    graph = apply(merge_pads, b.done(b.conv(padded, 4), padded))
    assert ops(graph) == ["pad", "conv2d"]
    assert graph.nodes[1].inputs["x"] == "x"


@pytest.mark.parametrize("fields", [
    {"value": 1.0}, {"mode": "edge"},
    {"pads": ((0, 0), (1, 1), (1, 1), (0, 1))}, {"pads": ((1, 0), (1, 1), (1, 1), (0, 0))},
])  # fmt: skip
def test_other_pads_stay(fields: dict[str, Any]) -> None:
    b = Builder(x=(1, 5, 5, 3))
    assert ops(apply(merge_pads, b.done(b.conv(pad(b, "x", **fields), 4)))) == ["pad", "conv2d"]


@pytest.mark.parametrize(("own", "counts", "merged"), [
    ((0, 0, 0, 0), False, True), ((1, 0, 0, 0), True, True), ((1, 0, 0, 0), False, False),
])  # fmt: skip
def test_averages(own: tuple[int, ...], counts: bool, merged: bool) -> None:
    b = Builder(x=(1, 5, 5, 3))
    graph = apply(merge_pads, b.done(b("avg_pool", x=pad(b, "x"), count_include_pad=counts, **{**POOL, "pad": own})))
    assert ops(graph) == (["avg_pool"] if merged else ["pad", "avg_pool"])
    assert graph.nodes[-1].attrs["count_include_pad"] is merged


def test_maxima_take_what_cannot_win() -> None:
    b = Builder(x=(1, 5, 5, 3))
    y = b("max_pool", x=pad(b, "x", value=-math.inf), **MAX)
    assert ops(apply(merge_pads, b.done(y))) == ["max_pool"]
    b = Builder(x=(1, 5, 5, 3))
    y = b("max_pool", x=pad(b, b("reshape", x=b.clip("x"), shape=(1, 5, 5, 3))), **MAX)
    assert ops(apply(merge_pads, b.done(y))) == ["pointwise", "reshape", "max_pool"]
    b = Builder(x=(1, 5, 5, 3))
    y = b("max_pool", x=pad(b, b.conv("x", 4, clamp=(0.0, 6.0))), **MAX)
    assert ops(apply(merge_pads, b.done(y))) == ["conv2d", "max_pool"]


def test_maxima_do_not_take_what_could_win() -> None:
    b = Builder(x=(1, 5, 5, 3))
    assert ops(apply(merge_pads, b.done(b("max_pool", x=pad(b, "x"), **MAX)))) == ["pad", "max_pool"]
    b = Builder(x=(1, 5, 5, 3))
    wide = pad(b, b.clip("x"), pads=((0, 0), (2, 0), (0, 0), (0, 0)))
    assert ops(apply(merge_pads, b.done(b("max_pool", x=wide, **MAX)))) == ["pointwise", "pad", "max_pool"]
