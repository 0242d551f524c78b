"""Scalar integer arithmetic as TIR expressions: the twins of ``numerics``, written once for computes and intrinsics.

Activations are stored as they are (int8) or as q + 128 (uint8). A zero point, clamp limit or table index that is read
here is in stored form, so the arithmetic does not depend on the storage.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from qcc.numerics import INT32_MAX

STORED = {"int8": (-128, 127), "uint8": (0, 255)}
"""Range of a stored activation by storage dtype."""

Expr = Any


def i32(v: int) -> Expr:
    """An int32 constant."""
    return tirx.const(v, "int32")


def i64(v: int) -> Expr:
    """An int64 constant."""
    return tirx.const(v, "int64")


def rounding_shift(v: Expr, shift: int, dtype: str = "int32") -> Expr:
    """``numerics.rounding_shift`` of an expression of ``dtype`` (int32 or int64)."""
    if shift == 0:
        return v
    return (v + tirx.const(1 << (shift - 1), dtype)) >> tirx.const(shift, dtype)


def high_mul(a: Expr, b: Expr) -> Expr:
    """``numerics_tflite.high_mul`` of int32, int32 result."""
    return ((a.astype("int64") * b.astype("int64") + i64(1 << 30)) >> i64(31)).astype("int32")


def divide_by_power(v: Expr, exponent: Expr) -> Expr:
    """``numerics_tflite.divide_by_power`` of int32: the rest decides, as adding half to v could leave int32."""
    mask = (i32(1) << exponent) - i32(1)
    threshold = (mask >> i32(1)) + (v < 0).astype("int32")
    return (v >> exponent) + ((v & mask) > threshold).astype("int32")


def multiply(v: Expr, multiplier: Expr, shift: Expr) -> Expr:
    """``numerics_tflite.multiply`` of int32."""
    raised = v << tirx.Max(-shift, i32(0))
    return divide_by_power(high_mul(raised, multiplier), tirx.Max(shift, i32(0)))


def requantize(acc: Expr, multiplier: Expr, shift: int | Expr) -> Expr:
    """``numerics.requantize``: int32 operands, 64-bit product, int32 result. An expression as shift: ``multiply``."""
    if not isinstance(shift, int):
        return multiply(acc, multiplier, shift)
    return rounding_shift(acc.astype("int64") * multiplier.astype("int64"), shift, "int64").astype("int32")


def clamp(v: Expr, low: Expr, high: Expr) -> Expr:
    """``min(max(v, low), high)``."""
    return tirx.Min(tirx.Max(v, low), high)


def inverse(divisor: Expr) -> Expr:
    """``INT32_MAX // divisor`` of a positive int32."""
    return tirx.truncdiv(i32(INT32_MAX), divisor)


def quotient(dividend: Expr, divisor: Expr, inverse: Expr, most: int) -> Expr:
    """``min(dividend // divisor, most)`` of positive int32 values, by multiplication with ``inverse(divisor)``.

    The product falls short of the quotient by less than (dividend + quotient) / 2^31. Where that is at most 1, the
    estimate is at most one too low, and the remainder tells.
    """
    estimate = ((dividend.astype("int64") * inverse.astype("int64")) >> i64(31)).astype("int32")
    whole = estimate + tirx.Select(dividend - estimate * divisor >= divisor, i32(1), i32(0))
    return tirx.Min(whole, i32(most))


def finish(acc: Expr, multiplier: Expr, shift: int | Expr, q: Any) -> Expr:
    """Centred accumulator → stored activation as int32; ``q`` = [zero point, low, high, …]."""
    return clamp(requantize(acc, multiplier, shift) + q[0], q[1], q[2])


def epilogue(acc: Expr, multiplier: Expr, q: Any, shift: int | Expr, residual: Expr | None, fraction: int, storage: str,
             clamped: bool) -> Expr:
    """Accumulator with bias → stored activation.

    ``q`` = [zero point, low, high, residual's zero point, residual's multiplier].
    """
    v = requantize(acc, multiplier, shift)
    if residual is not None:
        v = rounding_shift(v + (residual.astype("int32") - q[3]) * q[4], fraction)
    low, high = (q[1], q[2]) if clamped else (i32(STORED[storage][0]), i32(STORED[storage][1]))
    return clamp(v + q[0], low, high).astype(storage)
