"""fold_constants."""

from __future__ import annotations

import numpy as np

from float_graphs import Builder, apply, ops
from qcc.passes.fold_constants import fold_constants


def test_what_depends_on_constants_alone_becomes_a_constant() -> None:
    b = Builder(x=(2, 3))
    scale = b("mul", a=b.normal(3), b=b.normal(1), clamp=None)
    graph = apply(fold_constants, b.done(b("add", a="x", b=b("reshape", x=scale, shape=(1, 3)), clamp=None)))
    assert ops(graph) == ["add"]
    assert [array.shape for array in graph.constants.values()] == [(1, 3)]


def test_a_returned_value_stays_a_node() -> None:
    b = Builder(x=(2, 3))
    value = b("pointwise", x=np.ones(3), expr=("exp", "x"))
    assert ops(apply(fold_constants, b.done(value))) == ["pointwise"]
