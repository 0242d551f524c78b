"""fuse_clamp."""

from __future__ import annotations

import math

import pytest

from float_graphs import POOL, Builder, apply, ops
from qcc.passes.fuse_clamp import fuse_clamp


def test_clips_in_a_row_narrow_the_clamp() -> None:
    b = Builder(x=(1, 4, 4, 3))
    y = b.clip(b.clip(b.conv("x", 4), -1.0, 2.0), 0.0, 6.0)
    graph = apply(fuse_clamp, b.done(y))
    assert (ops(graph), graph.nodes[0].output) == (["conv2d"], y)
    assert graph.nodes[0].attrs["clamp"] == (0.0, 2.0)


@pytest.mark.parametrize("op", ["add", "sub", "mul"])
def test_binary_ops_clamp(op: str) -> None:
    b = Builder(x=(2, 3), y=(2, 3))
    graph = apply(fuse_clamp, b.done(b.clip(b(op, a="x", b="y", clamp=None))))
    assert [(n.op, n.attrs["clamp"]) for n in graph.nodes] == [(op, (0.0, math.inf))]


def test_across_a_pool_and_a_reshape() -> None:
    b = Builder(x=(1, 4, 4, 3))
    y = b("max_pool", x=b.conv("x", 4), dilation=(1, 1), **POOL)
    graph = apply(fuse_clamp, b.done(b.clip(b("reshape", x=y, shape=(1, 16)))))
    assert (ops(graph), graph.nodes[0].attrs["clamp"]) == (["conv2d", "max_pool", "reshape"], (0.0, math.inf))


def test_a_value_that_others_read_is_not_clipped() -> None:
    b = Builder(x=(1, 4, 4, 3))
    y = b.conv("x", 4)
    assert ops(apply(fuse_clamp, b.done(b.clip(y), y))) == ["conv2d", "pointwise"]
    b = Builder(x=(1, 4, 4, 3))
    y = b.conv("x", 4)
    assert ops(apply(fuse_clamp, b.done(b.clip(y), b.conv(y, 2)))) == ["conv2d", "pointwise", "conv2d"]


def test_what_is_not_a_clip_stays() -> None:
    b = Builder(x=(1, 4, 4, 3))
    y = b("pointwise", x=b.conv("x", 4), expr=("tanh", "x"))
    assert ops(apply(fuse_clamp, b.done(y))) == ["conv2d", "pointwise"]


def test_a_sum_is_not_a_maximum() -> None:
    b = Builder(x=(1, 4, 4, 3))
    y = b("avg_pool", x=b.conv("x", 4), count_include_pad=True, **POOL)
    assert ops(apply(fuse_clamp, b.done(b.clip(y)))) == ["conv2d", "avg_pool", "pointwise"]
