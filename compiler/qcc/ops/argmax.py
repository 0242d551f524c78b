"""Position of the maximum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.base import Op

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext
    from qcc.quantize.convert import Converter


class ArgMax(Op):
    """int32 position of the (first) maximum along ``axis`` (not negative); ``keepdims`` keeps the axis."""

    name = "argmax"
    attributes = ("axis", "keepdims")

    def infer(self, node: Node, types: Types) -> TensorType:
        """x's shape without ``axis`` (extent 1 with ``keepdims``), int32."""
        x, axis = types["x"], node.attrs["axis"]
        self.require(x.dtype in ("float32", "int8"), node, f"wants float32 or int8, got {x.dtype}")
        self.require(0 <= axis < len(x.shape), node, f"axis {axis} is not an axis of {x.shape}")
        kept = (1,) if node.attrs["keepdims"] else ()
        return TensorType((*x.shape[:axis], *kept, *x.shape[axis + 1 :]), "int32")

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return np.asarray(x["x"].argmax(axis=node.attrs["axis"], keepdims=node.attrs["keepdims"]), np.int32)

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return self.real(node, x)

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """As in the class docstring: quantization keeps the order."""
        return self.real(node, x)

    def quantize(self, node: Node, convert: Converter) -> None:
        """The node again."""
        convert.emit(node, self.name, {"x": convert.value(node.inputs["x"])}, dict(node.attrs))

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.reduce``."""
        from qcc.lower.reduce import argmax_calls

        return argmax_calls(node, ctx)

    def float_kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """The same comparisons of float32."""
        return self.kernels(node, ctx)
