"""Softmax along the last axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics, numerics_float, numerics_tflite
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.base import Op
from qcc.ops.rounding import follows_tflite

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext
    from qcc.quantize.convert import Converter


class Softmax(Op):
    """``y = exp(x - max x) / sum exp(x - max x)`` over the last axis.

    Integer form: constant table int32 [256] (``numerics.softmax_table``), output in ``numerics.SOFTMAX_QPARAMS``. With
    ``rounding="tflite"`` the table is ``numerics_tflite.softmax_table``.
    """

    name = "softmax"
    optional = ("table",)
    tflite_attributes = ()
    scale_rule = "fixed"

    def infer(self, node: Node, types: Types) -> TensorType:
        """Type of x."""
        x = types["x"]
        self.require(len(x.shape) >= 1, node, "wants x of rank 1 or more")
        self.require(x.dtype in ("float32", "int8"), node, f"wants float32 or int8, got {x.dtype}")
        if x.dtype == "int8":
            self.require("table" in types, node, "the integer form wants a table")
            table = types["table"]
            self.require((table.dtype, table.shape) == ("int32", (256,)), node,
                         f"table must be int32[256], got {table.dtype}{list(table.shape)}")
            self.require(not follows_tflite(node) or x.shape[-1] <= numerics_tflite.SOFTMAX_LONGEST, node,
                         f"sums of {x.shape[-1]} exponentials may leave 32 bits "
                         f"(at most {numerics_tflite.SOFTMAX_LONGEST})")
        return TensorType(x.shape, x.dtype)

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        e = np.exp(x["x"] - x["x"].max(axis=-1, keepdims=True))
        return np.asarray(e / e.sum(axis=-1, keepdims=True)).astype(np.float32)

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """``numerics_float.softmax``."""
        return numerics_float.softmax(x["x"])

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """``numerics.softmax``, or TFLite's."""
        if follows_tflite(node):
            return numerics_tflite.softmax(x["x"], x["table"])
        return numerics.softmax(x["x"], x["table"])

    def quantize(self, node: Node, convert: Converter) -> None:
        """The table of the input's scale."""
        value = node.inputs["x"]
        table = numerics.softmax_table(convert.qparams(value).step, convert.source.types[value].shape[-1])
        name = convert.emit_constant(node.output + ".table", table)
        convert.emit(node, self.name, {"x": convert.value(value), "table": name}, {})

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.reduce``."""
        from qcc.lower.reduce import softmax_calls

        return softmax_calls(node, ctx)

    def float_kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.floats``."""
        from qcc.lower.floats import softmax_calls

        return softmax_calls(node, ctx)
