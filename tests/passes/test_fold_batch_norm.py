"""fold_batch_norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from float_graphs import CONV, Builder, apply, ops
from qcc.passes.fold_batch_norm import fold_batch_norm


def batch_norm(b: Builder, x: str) -> str:
    c = b.shape(x)[-1]
    variance = b.rng.uniform(0.5, 2, c)
    return b("batch_norm", x=x, mean=b.normal(c), variance=variance, weight=b.normal(c), bias=b.normal(c), epsilon=1e-3)


def layer(b: Builder, op: str, bias: bool) -> str:
    extra: dict[str, Any] = {"b": b.normal(6)} if bias else {}
    if op == "dense":
        return b(op, x="x", w=b.normal(6, 4), clamp=None, **extra)
    if op == "conv2d":
        return b(op, x="x", w=b.normal(6, 3, 3, 2), **{**CONV, "groups": 2}, **extra)
    return b(op, x="x", w=b.normal(6, 3, 3, 2), output_pad=(0, 0), **{**CONV, "groups": 2}, **extra)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d", "dense"])
def test_into_a_layer(op: str, bias: bool) -> None:
    b = Builder(x=(1, 5, 5, 4))
    y = batch_norm(b, layer(b, op, bias))
    graph = apply(fold_batch_norm, b.done(y))
    assert (ops(graph), graph.nodes[0].output, set(graph.nodes[0].inputs)) == ([op], y, {"x", "w", "b"})
    assert len(graph.constants) == 2
    assert graph.nodes[0].source.count("'") == 4


def test_constants_per_channel_and_scalars() -> None:
    b = Builder(x=(1, 5, 5, 4))
    y = layer(b, "conv2d", True)
    y = b("mul", a=b.normal(1, 1, 6), b=y, clamp=None)
    y = b("add", a=y, b=b.normal(6), clamp=None)
    y = b("sub", a=y, b=b.normal(1, 1, 1, 1), clamp=None)
    y = b("sub", a=b.normal(6), b=y, clamp=None)
    assert ops(apply(fold_batch_norm, b.done(y))) == ["conv2d"]


@pytest.mark.parametrize("other", [(1, 5, 1, 6), (1, 5, 5, 1), (2, 1, 1, 6)])
def test_constants_of_other_shapes_stay(other: tuple[int, ...]) -> None:
    b = Builder(x=(1, 5, 5, 4))
    y = b("add", a=layer(b, "conv2d", True), b=b.normal(*other), clamp=None)
    assert ops(apply(fold_batch_norm, b.done(y))) == ["conv2d", "add"]


def test_shared_weights_are_not_changed() -> None:
    b = Builder(x=(1, 5, 5, 4))
    first = layer(b, "conv2d", True)
    second = b("conv2d", x="x", w=f"{first}.w", b=f"{first}.b", **{**CONV, "groups": 2})
    graph = apply(fold_batch_norm, b.done(batch_norm(b, first), second))
    assert ops(graph).count("conv2d") == 2
    assert len(graph.constants) == 4


def test_a_result_that_others_read_is_not_scaled() -> None:
    b = Builder(x=(1, 5, 5, 4))
    y = layer(b, "conv2d", False)
    graph = apply(fold_batch_norm, b.done(y, batch_norm(b, y)))
    assert ops(graph) == ["conv2d", "conv2d"]
    assert graph.nodes[1].attrs["groups"] == 6


def test_without_a_layer() -> None:
    b = Builder(x=(2, 4, 5, 3))
    graph = apply(fold_batch_norm, b.done(batch_norm(b, "x")))
    assert (ops(graph), graph.nodes[0].attrs["groups"]) == (["conv2d"], 3)
    b = Builder(x=(2, 7))
    assert ops(apply(fold_batch_norm, b.done(batch_norm(b, "x")))) == ["mul", "add"]


def test_two_norms_in_a_row() -> None:
    b = Builder(x=(1, 4, 5, 3))
    assert ops(apply(fold_batch_norm, b.done(batch_norm(b, batch_norm(b, "x"))))) == ["conv2d"]


def test_activations_are_not_constants() -> None:
    b = Builder(x=(1, 5, 5, 4), s=(1, 1, 1, 6))
    y = b("mul", a=layer(b, "conv2d", True), b="s", clamp=None)
    graph = apply(fold_batch_norm, b.done(y))
    assert ops(graph) == ["conv2d", "mul"]
    assert all(np.isfinite(array).all() for array in graph.constants.values())
