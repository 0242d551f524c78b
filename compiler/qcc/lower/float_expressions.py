"""float32 arithmetic as TIR expressions, scalars or vectors: the twins of ``numerics_float``."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from qcc.numerics_float import LEAST_PEAK, SQRT_HALF_BITS

Expr = Any


def _dtype(v: Expr) -> str:
    return str(v.ty) if hasattr(v, "ty") else str(v.dtype)


def _lanes(v: Expr) -> int:
    return int(_dtype(v).partition("x")[2] or 1)


def broadcast(v: Expr, lanes: int) -> Expr:
    """A scalar in every lane."""
    return v if lanes == 1 else tirx.Broadcast(v, lanes)


def intrinsic(name: str, *operands: Expr) -> Expr:
    """An LLVM intrinsic whose result is like its first operand."""
    return tirx.call_llvm_pure_intrin(_dtype(operands[0]), f"llvm.{name}", *operands)


class Tir:
    """``float_math.Machine`` of expressions. LLVM would contract a product and a sum: a fence keeps them apart."""

    def const(self, like: Expr, value: float) -> Expr:
        """A constant in as many lanes as ``like`` has."""
        return broadcast(tirx.const(value, "float32"), _lanes(like))

    def add(self, a: Expr, b: Expr) -> Expr:
        """a + b."""
        return a + b

    def sub(self, a: Expr, b: Expr) -> Expr:
        """a - b."""
        return a - b

    def mul(self, a: Expr, b: Expr) -> Expr:
        """a * b."""
        return intrinsic("arithmetic.fence", a * b)

    def div(self, a: Expr, b: Expr) -> Expr:
        """a / b."""
        return a / b

    def fma(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """a * b + c."""
        return intrinsic("fma", a, b, c)

    def maximum(self, a: Expr, b: Expr) -> Expr:
        """a if a > b else b."""
        return tirx.Max(a, b)

    def minimum(self, a: Expr, b: Expr) -> Expr:
        """a if a < b else b."""
        return tirx.Min(a, b)

    def where_ge0(self, c: Expr, then: Expr, other: Expr) -> Expr:
        """then where c >= 0, else other."""
        return tirx.Select(c >= self.const(c, 0.0), then, other)

    def sqrt(self, a: Expr) -> Expr:
        """Square root."""
        return intrinsic("sqrt", a)

    def rint(self, a: Expr) -> Expr:
        """Half to even."""
        return intrinsic("rint", a)

    def floor(self, a: Expr) -> Expr:
        """Downwards."""
        return intrinsic("floor", a)

    def ceil(self, a: Expr) -> Expr:
        """Upwards."""
        return intrinsic("ceil", a)

    def magnitude(self, a: Expr) -> Expr:
        """Absolute value."""
        return intrinsic("fabs", a)

    def power_of_two(self, n: Expr) -> Expr:
        """2^n."""
        lanes = _lanes(n)
        whole = n.astype(_like("int32", lanes)) + broadcast(tirx.const(127, "int32"), lanes)
        return tirx.reinterpret(_like("float32", lanes), whole << broadcast(tirx.const(23, "int32"), lanes))

    def split(self, a: Expr) -> tuple[Expr, Expr]:
        """Mantissa in [sqrt(1/2), sqrt(2)) and exponent."""
        lanes = _lanes(a)
        start, mask, width = (broadcast(tirx.const(v, "int32"), lanes) for v in (SQRT_HALF_BITS, 0x7FFFFF, 23))
        bits = tirx.reinterpret(_like("int32", lanes), a) - start
        fraction = tirx.reinterpret(_like("float32", lanes), (bits & mask) + start)
        return fraction, (bits >> width).astype(_like("float32", lanes))


def _like(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


TIR = Tir()


def layer(acc: Expr, constants: dict[str, Expr], residual: Expr | None, limits: tuple[Expr, Expr]) -> Expr:
    """What follows the sums of a layer: bias, residual, clamp; int32 sums become reals before.

    ``constants``: ``addend``, which is the layer's bias, and with int32 sums ``scale``, ``step`` and ``bias``: int32,
    what the zero point adds, left out where the sums have it already.
    """
    if "step" in constants:
        acc = acc + constants["bias"] if "bias" in constants else acc
        scale = TIR.mul(constants["step"], constants["scale"])
        v = TIR.fma(acc.astype(_like("float32", _lanes(acc))), scale, constants["addend"])
    else:
        v = acc + constants["addend"]
    if residual is not None:
        v = v + residual
    return TIR.minimum(TIR.maximum(v, limits[0]), limits[1])


def steps(peak: Expr, levels: int) -> tuple[Expr, Expr]:
    """``numerics_float.dynamic_steps`` of the largest magnitude."""
    zero, least, count = (tirx.const(v, "float32") for v in (0.0, LEAST_PEAK, float(levels)))
    some = peak >= least
    return tirx.Select(some, peak / count, zero), tirx.Select(some, count / peak, zero)
