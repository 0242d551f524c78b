"""Ops whose output shares the input's quantization parameters, so that their integer meaning is the float one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from qcc import numerics
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.base import Op

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext
    from qcc.quantize.convert import Converter


class SameScale(Op):
    """Data moves or is compared: ``real`` works on any dtype and serves as ``integer``; attributes stay as they are."""

    scale_rule = "same"

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """The same movement of float32 data."""
        return self.real(node, x)

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """The same movement of int8 (or int32) data."""
        return self.real(node, x)

    def quantize(self, node: Node, convert: Converter) -> None:
        """The node again; a constant operand is quantized with the output's parameters."""
        inputs = {}
        for key, value in node.inputs.items():
            if value in convert.source.constants and node.output in convert.params:
                q = convert.qparams(node.output)
                inputs[key] = convert.emit_constant(value, numerics.quantize(convert.constant(value), q), q)
            else:
                inputs[key] = convert.value(value)
        convert.emit(node, node.op, inputs, dict(node.attrs))

    def float_kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """The kernels that move int8 data move float32 as well."""
        return self.kernels(node, ctx)
