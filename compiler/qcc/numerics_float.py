"""Arithmetic of the modes that run float (docs/modes.md): every rule as NumPy float32, defined to the bit.

The twins for generated code are in ``lower.float_expressions``. Sums are taken in a stated order, one element after the
other; products of layers are added by fused multiply-adds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import float_math
from qcc.numerics import QParams

Floats = NDArray[np.float32]

LEAST_PEAK = 2.0**-100
"""A tensor whose largest magnitude is smaller is all zeros to ``dynamic_steps``: its inverse might leave float32."""
WHOLE = 1.5 * 2.0**23
"""Within 2^22 of it float32 has whole numbers, whose last bits are those of the difference as an int32."""
HALF = np.int64(1 << 28)
"""Half a unit in the last place of a float32, in the last 29 bits of a float64."""


def fma(a: Floats, b: Floats, c: Floats) -> Floats:
    """``a * b + c`` of float32, rounded once; arrays broadcast.

    The product is exact in float64. The sum is rounded to float64 and again to float32, which goes wrong only where the
    first result lies half-way between two float32 (or is subnormal there): these sums are rounded to odd first (Boldo
    and Melquiond, Emulation of FMA and correctly rounded sums, 2008).
    """
    product = np.multiply(a, b, dtype=np.float64)
    total = np.add(product, c, dtype=np.float64)
    result = total.astype(np.float32)
    suspect = (total.view(np.int64) & (2 * HALF - 1)) == HALF
    suspect |= (np.abs(result) < np.finfo(np.float32).tiny) & (total != 0)
    if suspect.any():
        addend = np.broadcast_to(c, total.shape)[suspect].astype(np.float64)
        result[suspect] = _to_odd(product[suspect] if product.shape == total.shape else
                                  np.broadcast_to(product, total.shape)[suspect], addend).astype(np.float32)
    return result


def _to_odd(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """``a + b`` of float64, and where that is not exact the neighbour whose last bit is 1 (Knuth's TwoSum)."""
    total = a + b
    virtual = total - a
    error = (a - (total - virtual)) + (b - virtual)
    even = (total.view(np.int64) & 1) == 0
    towards = np.where(error > 0, np.inf, -np.inf)
    return np.where((error != 0) & np.isfinite(error) & even, np.nextafter(total, towards), total)


def maximum(a: Any, b: Any) -> Floats:
    """``a if a > b else b``: as ``np.maximum``, with a rule for signed zeros."""
    return np.asarray(np.where(a > b, a, b))


def minimum(a: Any, b: Any) -> Floats:
    """``a if a < b else b``."""
    return np.asarray(np.where(a < b, a, b))


def weight_scale(q: QParams | None) -> Floats:
    """Scales of int8 weights by output channel."""
    assert q is not None, "int8 weights have parameters"
    return np.asarray(q.scale, np.float32)


def clamp(x: Floats, limits: tuple[float, float] | None) -> Floats:
    """Between two limits, of which infinite ones are none."""
    return x if limits is None else np.asarray(float_math.clip(NUMPY, x, *limits))


def sums(x: Floats, axis: int = -1) -> Floats:
    """Sum along an axis, from 0 and one element after the other."""
    total = np.zeros(np.delete(np.array(x.shape), axis), np.float32)
    for part in np.moveaxis(x, axis, 0):
        total = total + part
    return total


def maxima(x: Floats) -> Floats:
    """Maximum along the last axis, one element after the other."""
    top = x[..., 0]
    for i in range(1, x.shape[-1]):
        top = maximum(top, x[..., i])
    return top


def products(x: Floats, w: Floats) -> Floats:
    """[…, M, K] by […, K, N] → […, M, N]: from 0, fused multiply-adds in the order of k."""
    total = np.zeros((*np.broadcast_shapes(x.shape[:-2], w.shape[:-2]), x.shape[-2], w.shape[-1]), np.float32)
    for k in range(x.shape[-1]):
        total = fma(x[..., :, k, None], w[..., None, k, :], total)
    return total


def softmax(x: Floats) -> Floats:
    """Along the last axis: ``e / sum e`` with ``e = exp(x - max x)``."""
    powers = np.asarray(float_math.exp(NUMPY, x - maxima(x)[..., None]))
    return np.asarray(powers / sums(powers)[..., None])


def bilinear(x: Floats, rows: Any, cols: Any, one: int) -> Floats:
    """x [N, H, W, C] mixed by rows, then columns: ``fma(high - low, share, low)``, shares being weight / ``one``."""

    def mix(v: Floats, axis: int, positions: Any) -> Floats:
        low, high, weight = positions
        share = (np.asarray(weight) / one).astype(np.float32).reshape([-1] + [1] * (3 - axis))
        start = np.take(v, low, axis)
        return fma(np.take(v, high, axis) - start, share, start)

    return mix(mix(x, 1, rows), 2, cols)


def dynamic_steps(x: Floats, levels: int) -> Floats:
    """[step, 1 / step] of a tensor whose largest magnitude is to be ``levels`` steps; [0, 0] where that is nothing."""
    peak = np.float32(np.abs(x).max(initial=0.0))
    if peak < np.float32(LEAST_PEAK):
        return np.zeros(2, np.float32)
    return np.array([peak / np.float32(levels), np.float32(levels) / peak], np.float32)


def dynamic_quantize(x: Floats, steps: Floats, zero_point: int) -> NDArray[np.int8]:
    """``x / step + zero_point`` to the nearest whole number, half to even, of an even zero point.

    No clamp: the steps are those of x, so that no value is beyond ``levels``. Adding ``WHOLE`` rounds: from there on
    float32 has whole numbers only.
    """
    start = np.array(WHOLE + zero_point, np.float32)
    return np.asarray(fma(x, steps[1], start) - np.float32(WHOLE)).astype(np.int8)


def dynamic_dequantize(acc: NDArray[Any], step: np.float32, scale: Floats, bias: Floats) -> Floats:
    """``fma(acc, step * scale, bias)`` of exact int32 sums [..., O]; scale and bias [O]."""
    return fma(acc.astype(np.float32), step * scale, bias)


class NumPy:
    """``float_math.Machine`` of arrays."""

    def const(self, like: Any, value: float) -> Floats:
        """A constant."""
        return np.float32(value)  # type: ignore[return-value]

    def add(self, a: Any, b: Any) -> Any:
        """a + b."""
        return a + b

    def sub(self, a: Any, b: Any) -> Any:
        """a - b."""
        return a - b

    def mul(self, a: Any, b: Any) -> Any:
        """a * b."""
        return a * b

    def div(self, a: Any, b: Any) -> Any:
        """a / b."""
        return a / b

    def fma(self, a: Any, b: Any, c: Any) -> Floats:
        """a * b + c."""
        return fma(a, b, c)

    def maximum(self, a: Any, b: Any) -> Floats:
        """a if a > b else b."""
        return maximum(a, b)

    def minimum(self, a: Any, b: Any) -> Floats:
        """a if a < b else b."""
        return minimum(a, b)

    def where_ge0(self, c: Any, then: Any, other: Any) -> Floats:
        """then where c >= 0, else other."""
        return np.asarray(np.where(c >= 0, then, other))

    def sqrt(self, a: Any) -> Any:
        """Square root."""
        return np.sqrt(a)

    def rint(self, a: Any) -> Any:
        """Half to even."""
        return np.rint(a)

    def floor(self, a: Any) -> Any:
        """Downwards."""
        return np.floor(a)

    def ceil(self, a: Any) -> Any:
        """Upwards."""
        return np.ceil(a)

    def magnitude(self, a: Any) -> Any:
        """Absolute value."""
        return np.abs(a)

    def power_of_two(self, n: Any) -> Floats:
        """2^n."""
        return ((np.asarray(n, np.float32).astype(np.int32) + 127) << 23).view(np.float32)

    def split(self, a: Any) -> tuple[Floats, Floats]:
        """Mantissa in [sqrt(1/2), sqrt(2)) and exponent: the bits, seen from sqrt(1/2)."""
        bits = np.asarray(a, np.float32).view(np.int32) - SQRT_HALF_BITS
        exponent = bits >> 23
        return ((bits & 0x7FFFFF) + SQRT_HALF_BITS).view(np.float32), exponent.astype(np.float32)


SQRT_HALF_BITS = 0x3F3504F3
"""float32(sqrt(1/2)) as an int32."""
NUMPY = NumPy()
