"""Permuted axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.same_scale import SameScale

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext


class Transpose(SameScale):
    """Axis i of the output is axis ``perm[i]`` of x."""

    name = "transpose"
    attributes = ("perm",)

    def infer(self, node: Node, types: Types) -> TensorType:
        """Permuted shape, x's dtype."""
        x, perm = types["x"], tuple(node.attrs["perm"])
        self.require(sorted(perm) == list(range(len(x.shape))), node, f"perm {perm} does not permute {x.shape}")
        return TensorType(tuple(x.shape[i] for i in perm), x.dtype)

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return np.ascontiguousarray(x["x"].transpose(node.attrs["perm"]))

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.moves``."""
        from qcc.lower.moves import transpose_calls

        return transpose_calls(node, ctx)
