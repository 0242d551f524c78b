"""Repetition by broadcasting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.same_scale import SameScale

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext


class Expand(SameScale):
    """x broadcast to ``shape`` by NumPy's rule."""

    name = "expand"
    attributes = ("shape",)

    def infer(self, node: Node, types: Types) -> TensorType:
        """``shape`` and x's dtype."""
        x, shape = types["x"], tuple(node.attrs["shape"])
        tail = shape[len(shape) - len(x.shape) :]
        self.require(len(x.shape) <= len(shape) and all(d in (1, e) for d, e in zip(x.shape, tail, strict=True)), node,
                     f"{x.shape} does not broadcast to {shape}")
        return TensorType(shape, x.dtype)

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return np.broadcast_to(x["x"], node.attrs["shape"]).copy()

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.moves``."""
        from qcc.lower.moves import expand_calls

        return expand_calls(node, ctx)
