"""Elementwise ops of two tensors, with NumPy broadcasting; either operand may be a constant."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcc import numerics, numerics_float, numerics_tflite
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.base import Op
from qcc.ops.epilogue import check_clamp, integer_clamp
from qcc.ops.requant import (
    REQUANT_ATTRIBUTES,
    REQUANT_INPUTS,
    TFLITE_REQUANT_ATTRIBUTES,
    check_requant,
    emit_requantized,
    finish,
)
from qcc.ops.rounding import follows_tflite
from qcc.ops.same_scale import SameScale

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext
    from qcc.quantize.convert import Converter


def broadcast(op: Op, node: Node, types: Types) -> TensorType:
    """Type of an elementwise result of ``a`` and ``b``; raises ``IllegalNode``."""
    a, b = types["a"], types["b"]
    op.require(a.dtype == b.dtype, node, f"operands are {a.dtype} and {b.dtype}")
    op.require(a.dtype in ("float32", "int8"), node, f"wants float32 or int8, got {a.dtype}")
    try:
        return TensorType(tuple(np.broadcast_shapes(a.shape, b.shape)), a.dtype)
    except ValueError:
        op.require(False, node, f"shapes {a.shape} and {b.shape} do not broadcast")
        raise


def clamped(node: Node, y: NDArray[Any]) -> NDArray[Any]:
    """Real clamp of the attribute ``clamp``, as float32."""
    return np.asarray(np.clip(y, *(node.attrs["clamp"] or (-math.inf, math.inf))), np.float32)


class Add(Op):
    """``y = clamp(a + b)``. Float attribute: clamp (low, high) in reals or None.

    Integer form, within int32: ``y = clamp(rounding_shift((a - z_a) * multiplier_a + (b - z_b) * multiplier_b, shift) +
    zero_point)``; attributes multiplier_a, multiplier_b, shift, zero_point, clamp (ints). With ``rounding="tflite"``:
    ``numerics_tflite.add`` with the attributes multipliers and shifts, each of a, b and the sum.
    """

    name = "add"
    required = ("a", "b")
    attributes = ("clamp",)
    integer_attributes = ("multiplier_a", "multiplier_b", "shift", "zero_point")
    tflite_attributes = ("multipliers", "shifts", "zero_point")
    sign: ClassVar[int] = 1

    def infer(self, node: Node, types: Types) -> TensorType:
        """Broadcast shape, the operands' dtype."""
        out = broadcast(self, node, types)
        check_clamp(self, node, out.dtype)
        return out

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return clamped(node, x["a"] + self.sign * x["b"])

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """Rounded once."""
        y = x["a"] + x["b"] if self.sign > 0 else x["a"] - x["b"]
        return numerics_float.clamp(y, node.attrs["clamp"])

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """As in the class docstring."""
        a = node.attrs
        if follows_tflite(node):
            centred = [x[key].astype(np.int64) - types[key].zero_point for key in ("a", "b")]
            v = numerics_tflite.add(centred[0], centred[1], self.sign, a["multipliers"], a["shifts"])
            return numerics.clamp(v + a["zero_point"], *a["clamp"])
        left, right = (x[key].astype(np.int32) - types[key].zero_point for key in ("a", "b"))
        v = numerics.rounding_shift(left * a["multiplier_a"] + right * a["multiplier_b"], a["shift"])
        return numerics.clamp(v + a["zero_point"], *a["clamp"])

    def quantize(self, node: Node, convert: Converter) -> None:
        """Multipliers from ``numerics.add_multipliers``."""
        a, b, out = (convert.qparams(v) for v in (node.inputs["a"], node.inputs["b"], node.output))
        m = numerics.add_multipliers(a.step, b.step, out.step, self.sign)
        attrs = {"multiplier_a": m.a, "multiplier_b": m.b, "shift": m.shift, "zero_point": out.zero_point}
        inputs = {key: convert.value(node.inputs[key]) for key in ("a", "b")}
        convert.emit(node, self.name, inputs, {**attrs, "clamp": integer_clamp(node.attrs["clamp"], out)})

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.elementwise``."""
        from qcc.lower import elementwise, tflite

        return tflite.add_calls(node, ctx, self.sign) if follows_tflite(node) else elementwise.add_calls(node, ctx)

    def float_kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.floats``."""
        from qcc.lower.floats import binary_calls

        return binary_calls(node, ctx)


class Sub(Add):
    """``y = clamp(a - b)``; as ``Add``, with a negative multiplier_b in the integer form."""

    name = "sub"
    sign = -1


class Mul(Op):
    """``y = clamp(a * b)``. Float attribute: clamp (low, high) in reals or None.

    Integer form: ``acc = (a - z_a) * (b - z_b)``, requantized by multiplier [1] (see ``ops.requant``).
    """

    name = "mul"
    required = ("a", "b")
    optional = REQUANT_INPUTS
    attributes = ("clamp",)
    integer_attributes = REQUANT_ATTRIBUTES
    tflite_attributes = TFLITE_REQUANT_ATTRIBUTES

    def infer(self, node: Node, types: Types) -> TensorType:
        """Broadcast shape, the operands' dtype."""
        out = broadcast(self, node, types)
        check_requant(self, node, types, out.dtype)
        return out

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return clamped(node, x["a"] * x["b"])

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """Rounded once."""
        return numerics_float.clamp(x["a"] * x["b"], node.attrs["clamp"])

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """As in the class docstring."""
        left, right = (x[key].astype(np.int64) - types[key].zero_point for key in ("a", "b"))
        return finish(node, x, left * right)

    def quantize(self, node: Node, convert: Converter) -> None:
        """Multiplier ``s_a * s_b / s_y``."""
        a, b, out = (convert.qparams(v) for v in (node.inputs["a"], node.inputs["b"], node.output))
        inputs = {key: convert.value(node.inputs[key]) for key in ("a", "b")}
        emit_requantized(node, convert, inputs, a.step * b.step / out.step)

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.elementwise``."""
        from qcc.lower.elementwise import mul_calls

        return mul_calls(node, ctx)

    def float_kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.floats``."""
        from qcc.lower.floats import binary_calls

        return binary_calls(node, ctx)


class Maximum(SameScale):
    """``y = max(a, b)``."""

    name = "maximum"
    required = ("a", "b")
    function: ClassVar[np.ufunc] = np.maximum
    rule: ClassVar[Callable[..., NDArray[Any]]] = staticmethod(numerics_float.maximum)

    def infer(self, node: Node, types: Types) -> TensorType:
        """Broadcast shape, the operands' dtype."""
        return broadcast(self, node, types)

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return np.asarray(self.function(x["a"], x["b"]))

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """``numerics_float``'s, which knows the sign of zero."""
        return self.rule(x["a"], x["b"])

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.elementwise``."""
        from qcc.lower.elementwise import compare_calls

        return compare_calls(node, ctx)


class Minimum(Maximum):
    """``y = min(a, b)``."""

    name = "minimum"
    function = np.minimum
    rule = staticmethod(numerics_float.minimum)
