"""Selected positions along one axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.same_scale import SameScale

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext


class Take(SameScale):
    """``numpy.take(x, indices, axis)`` with constant ``indices`` (a tuple; not negative)."""

    name = "take"
    attributes = ("axis", "indices")

    def infer(self, node: Node, types: Types) -> TensorType:
        """x's shape with ``len(indices)`` along ``axis``."""
        x, axis, indices = types["x"], node.attrs["axis"], node.attrs["indices"]
        self.require(0 <= axis < len(x.shape), node, f"axis {axis} is not an axis of {x.shape}")
        self.require(len(indices) > 0 and min(indices) >= 0 and max(indices) < x.shape[axis], node,
                     f"indices leave axis {axis} of {x.shape}, or there are none")
        return TensorType((*x.shape[:axis], len(indices), *x.shape[axis + 1 :]), x.dtype)

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return np.asarray(np.take(x["x"], node.attrs["indices"], axis=node.attrs["axis"]))

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.moves``."""
        from qcc.lower.moves import take_calls

        return take_calls(node, ctx)
