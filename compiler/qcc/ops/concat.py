"""Joining tensors along an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.same_scale import SameScale

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext


class Concat(SameScale):
    """x0, x1, … one after the other along ``axis`` (not negative); the other extents are equal."""

    name = "concat"
    required = ("x*",)
    attributes = ("axis",)

    def infer(self, node: Node, types: Types) -> TensorType:
        """x0's shape with the sum of the extents along ``axis``."""
        self.require(len(types) > 0 and list(types) == [f"x{i}" for i in range(len(types))], node,
                     f"operands must be x0, x1, …, got {', '.join(types) or 'none'}")
        axis, first = node.attrs["axis"], types["x0"]
        self.require(0 <= axis < len(first.shape), node, f"axis {axis} is not an axis of {first.shape}")
        for key, x in types.items():
            self.require(x.dtype == first.dtype, node, f"x0 is {first.dtype}, but {key} is {x.dtype}")
            others = [shape[:axis] + shape[axis + 1 :] for shape in (x.shape, first.shape)]
            self.require(len(x.shape) == len(first.shape) and others[0] == others[1], node,
                         f"{key} {x.shape} does not fit x0 {first.shape} along axis {axis}")
        total = sum(x.shape[axis] for x in types.values())
        return TensorType((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype)

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return np.concatenate([x[f"x{i}"] for i in range(len(x))], axis=node.attrs["axis"])

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.moves``."""
        from qcc.lower.moves import concat_calls

        return concat_calls(node, ctx)
