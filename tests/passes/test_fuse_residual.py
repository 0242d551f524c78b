"""fuse_residual."""

from __future__ import annotations

import pytest

from float_graphs import Builder, apply, ops
from qcc.passes.fuse_residual import fuse_residual


def test_the_layer_takes_the_addition_and_its_clamp() -> None:
    b = Builder(x=(1, 4, 4, 3))
    y = b("add", a="x", b=b.conv("x", 3), clamp=(0.0, 6.0))
    graph = apply(fuse_residual, b.done(y))
    (node,) = graph.nodes
    assert (node.op, node.output, node.inputs["residual"], node.attrs["clamp"]) == ("conv2d", y, "x", (0.0, 6.0))
    assert node.source.startswith("conv2d 'conv2d0', add")


@pytest.mark.parametrize("swap", [False, True])
def test_of_two_layers_the_later_one_adds(swap: bool) -> None:
    b = Builder(x=(1, 4, 4, 3))
    first = b.conv("x", 4)
    second = b.conv(b.clip("x"), 4, kernel=1)
    a, c = (second, first) if swap else (first, second)
    graph = apply(fuse_residual, b.done(b("add", a=a, b=c, clamp=None)))
    assert ops(graph) == ["conv2d", "pointwise", "conv2d"]
    assert graph.nodes[-1].inputs["residual"] == first


def test_the_layer_moves_behind_what_it_adds() -> None:
    b = Builder(x=(1, 4, 4, 3))
    layer = b.conv("x", 3)
    other = b("pointwise", x="x", expr=("tanh", "x"))
    graph = apply(fuse_residual, b.done(b("add", a=layer, b=other, clamp=None)))
    assert ops(graph) == ["pointwise", "conv2d"]


def test_chains_of_blocks_and_dense() -> None:
    b = Builder(x=(2, 4))
    x = "x"
    for _ in range(3):
        x = b("add", a=b("dense", x=x, w=b.normal(4, 4), clamp=None), b=x, clamp=None)
    assert ops(apply(fuse_residual, b.done(x))) == ["dense"] * 3


def test_additions_that_stay() -> None:
    b = Builder(x=(1, 4, 4, 3))
    layer = b.conv("x", 3)
    both = b("add", a=layer, b=layer, clamp=None)
    clamped = b("add", a=b.conv("x", 3, clamp=(0.0, 1.0)), b="x", clamp=None)
    shared = b.conv("x", 3)
    read_twice = b("add", a=shared, b="x", clamp=None)
    constant = b("add", a=b.conv("x", 3), b=b.normal(1, 4, 4, 3), clamp=None)
    pooled = b("reduce_mean", x="x", axes=(1, 2), keepdims=True)
    broadcast = b("add", a=b.conv("x", 3), b=pooled, clamp=None)
    graph = apply(fuse_residual, b.done(both, clamped, shared, read_twice, constant, broadcast))
    assert ops(graph).count("add") == 5


def test_one_residual_a_layer() -> None:
    b = Builder(x=(1, 4, 4, 3), y=(1, 4, 4, 3))
    y = b("add", a=b("add", a=b.conv("x", 3), b="x", clamp=None), b="y", clamp=None)
    assert ops(apply(fuse_residual, b.done(y))) == ["conv2d", "add"]
