"""Every rule of qcc's integer arithmetic, once. The C twin is ``runtime/include/qcc/numerics.h``.

``numerics_tflite`` holds the rules of models that TFLite quantized.

``real = scale * (q - zero_point)``. Activations are int8 in [-128, 127], weights int8 in [-127, 127] with zero point 0,
accumulators int32. One rounding exists: half up, ``(v + (1 << (n - 1))) >> n`` with an arithmetic shift. It is part of
the model, not of the machine: every target computes these bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

INT8_MIN, INT8_MAX = -128, 127
INT16_MAX = 2**15 - 1
INT32_MAX = 2**31 - 1
WEIGHT_MAX = 127
DEFAULT_SHIFT = 31
"""With this shift one instruction requantizes on ARM (``sqrdmulh``), Helium and Cortex-M4 (``smmulr``)."""

SMALLEST_STEP = 2.0**-127
"""Of an activation: its reciprocal is finite in float32 (see ``quantize_input``)."""

I8 = NDArray[np.int8]
I32 = NDArray[np.int32]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class QParams:
    """``real = scale * (q - zero_point)``; ``scale`` is a tuple along ``axis`` for per-channel weights."""

    scale: float | tuple[float, ...]
    zero_point: int = 0
    axis: int | None = None

    @property
    def step(self) -> float:
        """The one scale of a per-tensor quantization (an activation)."""
        assert isinstance(self.scale, float), "a per-channel scale has no single step"
        return self.scale


def activation_qparams(low: float, high: float) -> QParams:
    """Asymmetric int8 parameters of the real range [low, high], widened to hold 0 (which must be exact: padding).

    The scale is rounded to float32, so that a manifest, a C header and an ONNX file all hold the same number.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-30:
        return QParams(1.0, 0)
    scale = float(np.float32((high - low) / (INT8_MAX - INT8_MIN)))
    zero_point = round(INT8_MIN - low / scale)
    return QParams(scale, max(INT8_MIN, min(INT8_MAX, zero_point)))


def weight_scales(weight: ArrayLike, axis: int) -> F64:
    """Symmetric scale of each channel along ``axis``: ``max |w| / 127``; 1 for a channel of zeros."""
    w = np.asarray(weight, np.float64)
    peak = np.abs(w).max(axis=tuple(i for i in range(w.ndim) if i != axis % w.ndim))
    return np.where(peak > 0, peak / WEIGHT_MAX, 1.0)


def quantize(real: ArrayLike, q: QParams) -> I8:
    """Round half to even to int8 (a compile-time operation; per-channel scales along ``q.axis``)."""
    x = np.asarray(real, np.float64)
    scale: Any = q.scale
    if q.axis is not None:
        scale = np.asarray(scale).reshape([-1 if i == q.axis % x.ndim else 1 for i in range(x.ndim)])
    low = -WEIGHT_MAX if q.axis is not None else INT8_MIN
    return np.asarray(np.clip(np.rint(x / scale) + q.zero_point, low, INT8_MAX), np.int8)


def dequantize(q_values: ArrayLike, q: QParams) -> F64:
    """The real numbers that the integers stand for."""
    v = np.asarray(q_values, np.float64) - q.zero_point
    scale: Any = q.scale
    if q.axis is not None:
        scale = np.asarray(scale).reshape([-1 if i == q.axis % v.ndim else 1 for i in range(v.ndim)])
    return np.asarray(v * scale)


def quantize_input(x: ArrayLike, q: QParams) -> I8:
    """The run-time edge: float32 in, int8 out, ``clamp(rint(x * float32(1 / scale))) + zero_point`` (half to even).

    Every operation is a single float32 one without contraction, so that compiled code can repeat it exactly.
    """
    inverse = np.float32(1.0 / q.step)
    v = np.asarray(x, np.float32) * inverse
    v = np.minimum(np.maximum(v, np.float32(INT8_MIN - q.zero_point)), np.float32(INT8_MAX - q.zero_point))
    return np.asarray(np.rint(v).astype(np.int32) + q.zero_point, np.int8)


def dequantize_output(values: ArrayLike, q: QParams) -> NDArray[np.float32]:
    """The run-time edge: int8 in, float32 out, ``float32(q - zero_point) * float32(scale)``."""
    return (np.asarray(values, np.int32) - q.zero_point).astype(np.float32) * np.float32(q.step)


def rounding_shift(v: ArrayLike, shift: int) -> NDArray[np.int64]:
    """``(v + half) >> shift`` in 64 bits, half up; ``shift`` 0 leaves v."""
    wide = np.asarray(v, np.int64)
    return (wide + (1 << (shift - 1))) >> shift if shift else wide


def requantize(acc: ArrayLike, multiplier: ArrayLike, shift: int) -> NDArray[np.int64]:
    """``(acc * multiplier + (1 << (shift - 1))) >> shift``: int32 accumulator, int32 multiplier, 64-bit product."""
    return rounding_shift(np.asarray(acc, np.int64) * np.asarray(multiplier, np.int64), shift)


def clamp(v: ArrayLike, low: int, high: int) -> I8:
    """Saturate to [low, high] (within int8)."""
    return np.clip(v, low, high).astype(np.int8)


def requant_multipliers(real: ArrayLike, bound: ArrayLike = np.inf) -> tuple[I32, int]:
    """Fixed-point ``(multiplier, shift)`` of real multipliers m, one shift for all channels.

    Rounding a multiplier moves a result by at most 2^-(shift + 1) * |acc|, and what is not clamped anyway has
    |acc| <= min(``bound``, 256 / m). The shift is 31 unless that leaves more than 2^-8 of a step (only possible for m
    below 2^-16; then it is larger, as far as the largest multiplier allows) or a multiplier is 1 or more (then it is
    smaller).
    """
    m = np.atleast_1d(np.asarray(real, np.float64))
    if not np.all(np.isfinite(m)) or np.any(m < 0):
        raise ValueError("real multipliers must be finite and not negative")
    largest = float(m.max(initial=0.0))
    room = 31 if largest == 0 else 30 - math.floor(math.log2(largest))  # the largest shift with m * 2^shift < 2^31
    if largest > 0 and round(largest * 2.0**room) > INT32_MAX:
        room -= 1
    reach = np.minimum(bound, 256 / np.maximum(m, 2.0**-60))
    wanted = max(DEFAULT_SHIFT, math.ceil(math.log2(float(np.max(reach, initial=1.0)))) + 7)
    shift = max(1, min(wanted, room, 62))
    return np.minimum(np.rint(m * 2.0**shift), INT32_MAX).astype(np.int32), shift


def accumulator_bound(weight: NDArray[Any], bias: ArrayLike, input_zero_point: int) -> NDArray[np.int64]:
    """Largest |accumulator| of each output channel (axis 0 of ``weight``): sum |w| * widest |q - zero point| + |bias|.

    Partial sums in any order, and sums over ``q + 128`` or ``q`` with the zero point folded into the bias, are covered
    by ``storage_bound``.
    """
    widest = max(input_zero_point - INT8_MIN, INT8_MAX - input_zero_point)
    total = np.abs(weight.astype(np.int64)).reshape(weight.shape[0], -1).sum(axis=1)
    return np.asarray(total * widest + np.abs(np.asarray(bias, np.int64)))


def storage_bound(weight: I8, bias: ArrayLike) -> NDArray[np.int64]:
    """As ``accumulator_bound``, for any zero point and any storage of the input (int8, or uint8 as q + 128).

    A kernel sums ``stored * w`` from ``bias - stored_zero_point * sum(w)``; both terms are at most 255 * sum |w|.
    """
    total = np.abs(weight.astype(np.int64)).reshape(weight.shape[0], -1).sum(axis=1)
    return np.asarray(total * 510 + np.abs(np.asarray(bias, np.int64)))


def exact_operands(
    x: I8, zero_point: int, weight: I8, weight_zero_point: int = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both operands less their zero points, in the narrowest float dtype in which all sums of products are exact.

    Integers up to 2^24 are exact in float32 and up to 2^53 in float64, so that BLAS may sum in any order. Output
    channels are axis 0 of ``weight``.
    """
    centred = weight.astype(np.int16) - np.int16(weight_zero_point)
    bound = int(accumulator_bound(centred, 0, zero_point).max(initial=0))
    dtype = "float32" if bound <= 2**24 else "float64"
    return np.subtract(x, zero_point, dtype=dtype), centred.astype(dtype)


@dataclass(frozen=True)
class AddMultipliers:
    """``q = zero_point + rounding_shift((q_a - z_a) * a + (q_b - z_b) * b, shift)``, all in int32."""

    a: int
    b: int
    shift: int


def add_multipliers(scale_a: float, scale_b: float, scale_out: float, sign_b: int = 1) -> AddMultipliers:
    """Multipliers of an addition (``sign_b`` -1: subtraction) that keep every intermediate within int32.

    The sum of both products is below 255 * (|a| + |b|) + half, so |a|, |b| <= 2^21 is enough. Steps that are 2^21 times
    coarser than the output's saturate it anyway.
    """
    ratio_a, ratio_b = scale_a / scale_out, scale_b / scale_out
    shift = 20 - math.floor(math.log2(max(ratio_a, ratio_b)))
    shift = max(0, min(shift, 30))
    a, b = (min(round(ratio * 2.0**shift), 2**21) for ratio in (ratio_a, ratio_b))
    return AddMultipliers(a, sign_b * b, shift)


def residual_fraction(real: ArrayLike, bound: ArrayLike, ratio: float) -> int:
    """Fraction bits F for a residual that is added after requantization, chosen so that every step stays within int32.

    ``y = zero_point + rounding_shift(requantize(acc, m * 2^F) + (r - z_r) * round(ratio * 2^F), F)``, where ``real``
    holds the real multipliers m of each channel, ``bound`` its accumulator bound and ``ratio`` is residual scale /
    output scale. The shift stays at 31 (m * 2^F < 1) unless that leaves fewer than 4 fraction bits. Raises
    OverflowError.
    """
    m, limit = np.asarray(real, np.float64), np.asarray(bound, np.float64)
    widest = float((limit * m).max() + 255 * ratio + 2)
    room = min(14, math.floor(math.log2(INT32_MAX / widest)))
    if room < 0:
        raise OverflowError("a residual addition does not fit 32 bits")
    normal = min(room, math.ceil(-math.log2(max(float(m.max()), 2.0**-30))) - 1)
    return normal if normal >= 4 else room


def lookup_table(function: Any, q_in: QParams, q_out: QParams) -> I8:
    """256 entries, indexed by ``q + 128``: the int8 image of a real function of one real variable."""
    x = dequantize(np.arange(INT8_MIN, INT8_MAX + 1), q_in)
    with np.errstate(all="ignore"):
        y = np.asarray(function(x), np.float64)
    y = np.nan_to_num(y, nan=0.0, posinf=1e30, neginf=-1e30)
    return np.asarray(np.clip(np.rint(y / q_out.step) + q_out.zero_point, INT8_MIN, INT8_MAX), np.int8)


SOFTMAX_QPARAMS = QParams(1 / 256, -128)


def softmax_table(scale: float, count: int) -> I32:
    """``round(exp(-scale * d) * 2^K)`` for d = max - q in 0..255; K leaves room for a sum of ``count`` in 30 bits."""
    bits = min(20, 30 - max(1, math.ceil(math.log2(max(count, 2)))))
    return np.asarray(np.rint(np.exp(-scale * np.arange(256)) * 2.0**bits), np.int32)


def softmax(q: I8, table: I32) -> I8:
    """Integer softmax over the last axis: ``min(((e << 9) + sum) / (2 * sum), 255) - 128``, e = table[max - q].

    Non-negative 32-bit integers throughout; the division truncates, so the quotient is rounded half up.
    """
    v = q.astype(np.int32)
    e = table[v.max(axis=-1, keepdims=True) - v].astype(np.int64)
    total = e.sum(axis=-1, keepdims=True)
    return np.asarray(np.minimum(((e << 9) + total) // (2 * total), 255) - 128, np.int8)


BILINEAR_BITS = 11
BILINEAR_ONE = 1 << BILINEAR_BITS
"""A weight of bilinear interpolation is a share of this."""


def bilinear(q: I8, rows: tuple[Any, Any, Any], cols: tuple[Any, Any, Any]) -> I8:
    """Bilinear interpolation of q [N,H,W,C] at (low, high, weight of high) positions of rows and columns.

    The sum is rounded once. The zero point drops out, because the weights sum to one.
    """
    return rounding_shift(bilinear_sums(q, rows, cols), 2 * BILINEAR_BITS).astype(np.int8)


def bilinear_sums(q: NDArray[Any], rows: tuple[Any, Any, Any], cols: tuple[Any, Any, Any]) -> NDArray[np.int64]:
    """Weighted sums of four values, whose weights sum to 2^22; below 2^30 for int8."""

    def mix(v: NDArray[np.int64], axis: int, low: Any, high: Any, weight: Any) -> NDArray[np.int64]:
        w = np.asarray(weight, np.int64).reshape([-1] + [1] * (3 - axis))
        return np.asarray(np.take(v, low, axis) * (BILINEAR_ONE - w) + np.take(v, high, axis) * w)

    return mix(mix(q.astype(np.int64), 1, *rows), 2, *cols)
