"""Another shape for the same elements in the same order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.same_scale import SameScale

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext


class Reshape(SameScale):
    """x with the static ``shape`` (no -1)."""

    name = "reshape"
    attributes = ("shape",)

    def infer(self, node: Node, types: Types) -> TensorType:
        """``shape`` and x's dtype."""
        out = TensorType(tuple(node.attrs["shape"]), types["x"].dtype)
        self.require(min(out.shape, default=0) >= 0 and out.size == types["x"].size, node,
                     f"{types['x'].shape} does not have the elements of {out.shape}")
        return out

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return np.reshape(x["x"], node.attrs["shape"])

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.moves``."""
        from qcc.lower.moves import reshape_calls

        return reshape_calls(node, ctx)
