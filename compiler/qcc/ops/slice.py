"""Rectangular parts of a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.same_scale import SameScale

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext


class Slice(SameScale):
    """``x[begin:end:step]`` on every axis; 0 <= begin < end <= extent, step > 0."""

    name = "slice"
    attributes = ("begin", "end", "step")

    def infer(self, node: Node, types: Types) -> TensorType:
        """``ceil((end - begin) / step)`` along each axis, x's dtype."""
        x, (begin, end, step) = types["x"], (node.attrs[key] for key in self.attributes)
        self.require(len(begin) == len(end) == len(step) == len(x.shape), node,
                     f"begin, end and step must have the rank of {x.shape}")
        for axis, (b, e, s, d) in enumerate(zip(begin, end, step, x.shape, strict=True)):
            self.require(0 <= b < e <= d and s > 0, node, f"{b}:{e}:{s} is not a part of axis {axis} of {x.shape}")
        return TensorType(tuple(-(-(e - b) // s) for b, e, s in zip(begin, end, step, strict=True)), x.dtype)

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        parts = (node.attrs[key] for key in self.attributes)
        return np.ascontiguousarray(x["x"][tuple(slice(b, e, s) for b, e, s in zip(*parts, strict=True))])

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.moves``."""
        from qcc.lower.moves import slice_calls

        return slice_calls(node, ctx)
