"""TFLite's integer arithmetic, for programs that TFLite quantized: the other half of ``numerics``.

Nodes with the attribute ``rounding="tflite"`` compute these bytes, which are those of TensorFlow Lite Micro's reference
kernels built with double rounding (the default). No other module rounds by TFLite's rules.

A real multiplier is ``multiplier * 2^-(31 + shift)``: a 32-bit fraction and a shift, positive to the right (TFLite
writes it with the other sign). Multiplying rounds twice: half up at bit 31, then half away from zero at the shift.
Scales are the float32 numbers of the file; some ratios of them TFLite computes in float32, others in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcc.numerics import (
    BILINEAR_BITS,
    F64,
    I8,
    I32,
    INT8_MAX,
    INT8_MIN,
    INT32_MAX,
    QParams,
    bilinear_sums,
    clamp,
)

I64 = NDArray[np.int64]
TFLITE = "tflite"
"""Value of the attribute ``rounding`` of nodes that follow these rules."""

ADD_LEFT_SHIFT = 20
"""An addition's operands are moved up so far before they are rescaled."""
ONE = INT32_MAX
"""1.0 as a 32-bit fraction (saturated)."""
_INT32_MIN = -(2**31)


def wrap32(v: ArrayLike) -> I64:
    """The value that is left when only the low 32 bits are kept."""
    return np.asarray(np.asarray(v, np.int64).astype(np.uint32).view(np.int32), np.int64)


def high_mul(a: ArrayLike, b: ArrayLike) -> I64:
    """``(a * b + 2^30) >> 31``: the product of two 32-bit fractions, half up (not both may be -2^31)."""
    return (np.asarray(a, np.int64) * np.asarray(b, np.int64) + (1 << 30)) >> 31


def divide_by_power(v: ArrayLike, exponent: ArrayLike) -> I64:
    """``v / 2^exponent`` rounded half away from zero; exponent 0..31."""
    wide, e = np.asarray(v, np.int64), np.asarray(exponent, np.int64)
    half = (np.int64(1) << e) >> 1
    return (wide + half - ((wide < 0) & (e > 0))) >> e


def multiply(v: ArrayLike, multiplier: ArrayLike, shift: ArrayLike) -> I64:
    """int32 ``v`` times a real multiplier; a negative shift moves v up first, modulo 2^32."""
    s = np.asarray(shift, np.int64)
    raised = wrap32(np.asarray(v, np.int64) << np.maximum(-s, 0))
    return divide_by_power(high_mul(raised, multiplier), np.maximum(s, 0))


def round_away(v: float) -> int:
    """Half away from zero."""
    return math.floor(abs(v) + 0.5) * (-1 if v < 0 else 1)


def fixed_point(real: float) -> tuple[int, int]:
    """(multiplier, shift) of a real multiplier; below about 2^-32 it is 0. Raises OverflowError from 2^31 on, which no
    shift of 32 bits can reach.
    """
    if real == 0:
        return 0, 0
    fraction, exponent = math.frexp(real)
    multiplier = round_away(fraction * 2.0**31) if math.isfinite(real) else 0
    if abs(multiplier) == 2**31:
        multiplier, exponent = multiplier // 2, exponent + 1
    if exponent > 31 or not multiplier:
        raise OverflowError(f"a ratio of {real:g} does not fit 32 bits")
    return (0, 0) if exponent < -31 else (multiplier, -exponent)


def fixed_points(reals: ArrayLike) -> tuple[I32, I32]:
    """``fixed_point`` of each: (multipliers, shifts)."""
    pairs = np.array([fixed_point(float(v)) for v in np.asarray(reals, np.float64).reshape(-1)], np.int32)
    return np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])


def mean_fixed_point(ratio: float, count: int) -> tuple[int, int]:
    """(multiplier, shift) of ``ratio / count`` as a mean of ``count`` values folds its divisor in: truncating."""
    multiplier, shift = fixed_point(ratio)
    extra = min(count.bit_length() - 1, 32, 31 - shift)
    return (multiplier << extra) // count, shift + extra


def quantized(real: float, q: QParams) -> int:
    """``zero_point + round(real / scale)`` in float32, half away from zero; not clamped."""
    return q.zero_point + round_away(float(np.float32(real) / np.float32(q.step)))


def quantize_input(x: ArrayLike, q: QParams) -> I8:
    """float32 to int8: a float32 division, half away from zero, saturated (NaN counts as 0).

    Limits are applied before the conversion to integers, where TFLite's own would overflow.
    """
    v = np.nan_to_num(np.asarray(x, np.float32) / np.float32(q.step), posinf=1e9, neginf=-1e9)
    v = np.clip(v, np.float32(INT8_MIN - q.zero_point), np.float32(INT8_MAX - q.zero_point))
    whole = np.trunc(v)
    away = whole + np.where(np.abs(v - whole) >= 0.5, np.sign(v), 0)
    return clamp(away.astype(np.int32) + q.zero_point, INT8_MIN, INT8_MAX)


def add_fixed_points(
    scale_a: float, scale_b: float, scale_out: float, dtype: type[np.floating[Any]]
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Multipliers and shifts of both operands and of their sum. ADD divides in float64, SUB in float32."""
    a, b, out = (dtype(s) for s in (scale_a, scale_b, scale_out))
    twice = dtype(2) * max(a, b)
    reals = (a / twice, b / twice, twice / (dtype(1 << ADD_LEFT_SHIFT) * out))
    (ma, sa), (mb, sb), (mo, so) = (fixed_point(float(r)) for r in reals)
    return (ma, mb, mo), (sa, sb, so)


def add(a: ArrayLike, b: ArrayLike, sign: int, multipliers: tuple[int, ...], shifts: tuple[int, ...]) -> I64:
    """Centred operands to centred sum (``sign`` 1) or difference (-1) in output steps."""
    left, right = (
        multiply(np.asarray(v, np.int64) << ADD_LEFT_SHIFT, m, s)
        for v, m, s in zip((a, b), multipliers, shifts, strict=False)
    )
    return multiply(left + sign * right, multipliers[2], shifts[2])


def divide_away(total: ArrayLike, count: ArrayLike) -> I64:
    """``total / count`` rounded half away from zero (half of an odd count is cut): TFLite's average pool."""
    t, n = np.asarray(total, np.int64), np.asarray(count, np.int64)
    return np.asarray(np.sign(t) * ((np.abs(t) + n // 2) // n), np.int64)


def bilinear(q: I8, rows: tuple[Any, Any, Any], cols: tuple[Any, Any, Any]) -> I8:
    """``numerics.bilinear`` rounded half away from zero."""
    return clamp(divide_by_power(bilinear_sums(q, rows, cols), 2 * BILINEAR_BITS), INT8_MIN, INT8_MAX)


def table(function: Callable[[I64], ArrayLike], q_in: QParams, zero_point: int) -> I8:
    """256 entries indexed by ``q + 128``: ``zero_point + function(q - q_in.zero_point)``, saturated."""
    centred = np.arange(INT8_MIN, INT8_MAX + 1) - q_in.zero_point
    return clamp(np.asarray(function(centred), np.int64) + zero_point, INT8_MIN, INT8_MAX)


# Fixed-point functions. A number in Qn.(31-n) is a 32-bit integer in units of 2^(n - 31).

_EXP_STEPS = (
    (-2, 1672461947), (-1, 1302514674), (0, 790015084), (1, 290630308), (2, 39332535), (3, 720401), (4, 242),
)  # fmt: skip
"""(k, exp(-2^k) as a fraction)."""
_EXP_EIGHTH, _THIRD = 1895147668, 715827883
DIVISION_START, DIVISION_SLOPE = 1515870810, -1010580540
"""48/17 and -32/17 in Q2.29: the first guess of a reciprocal."""
_Q2_ONE = 1 << 29
_Q2_TO_Q0_BITS = 2


def saturate32(v: ArrayLike) -> I64:
    """Limited to int32."""
    return np.clip(np.asarray(v, np.int64), _INT32_MIN, INT32_MAX)


def exp_negative(x: ArrayLike, integer_bits: int) -> I64:
    """exp(x) as a fraction, for x <= 0 in Q``integer_bits``.

    x is cut into a rest in [-1/4, 0), whose exponential is a polynomial around -1/8, and powers of two.
    """
    v = np.asarray(x, np.int64)
    bits = 31 - integer_bits
    quarter = 1 << (bits - 2)
    rest = (v & (quarter - 1)) - quarter
    near = saturate32(rest << integer_bits) + (1 << 28)
    square = high_mul(near, near)
    cube, fourth = high_mul(square, near), high_mul(square, square)
    high = divide_by_power(high_mul(divide_by_power(fourth, 2) + cube, _THIRD) + square, 1)
    result = saturate32(_EXP_EIGHTH + high_mul(_EXP_EIGHTH, near + high))
    remainder = rest - v
    for power, factor in _EXP_STEPS:
        if integer_bits > power:
            result = np.where(remainder & (1 << (bits + power)), high_mul(result, factor), result)
    return np.where(v == 0, ONE, result)


def reciprocal_q2(x: ArrayLike) -> I64:
    """``2 / (1 + x)`` in Q2.29 for a fraction x in [0, 1]: three steps of Newton's division."""
    total = np.asarray(x, np.int64) + ONE
    half = (total + 1) >> 1
    guess = DIVISION_START + high_mul(half, DIVISION_SLOPE)
    for _ in range(3):
        error = _Q2_ONE - high_mul(half, guess)
        guess = guess + saturate32(high_mul(guess, error) << 2)
    return guess


def _fraction(q2: I64) -> I64:
    """Q2.29 as a fraction, saturated."""
    return saturate32(q2 << _Q2_TO_Q0_BITS)


def inverse_one_plus(x: ArrayLike) -> I64:
    """``1 / (1 + x)`` as a fraction, for a fraction x in [0, 1]."""
    return saturate32(reciprocal_q2(x) << 1)


def logistic(x: ArrayLike, integer_bits: int) -> I64:
    """1 / (1 + exp(-x)) as a fraction, for x in Q``integer_bits``."""
    v = np.asarray(x, np.int64)
    positive = inverse_one_plus(exp_negative(-np.abs(v), integer_bits))
    return np.where(v == 0, 1 << 30, np.where(v > 0, positive, ONE - positive))


def tanh(x: ArrayLike, integer_bits: int) -> I64:
    """tanh(x) as a fraction, for x in Q``integer_bits``."""
    v = np.asarray(x, np.int64)
    magnitude = _fraction(reciprocal_q2(exp_negative(-np.abs(v), integer_bits + 1)) - _Q2_ONE)
    return np.where(v == 0, 0, np.where(v > 0, magnitude, -magnitude))


def input_radius(integer_bits: int, left_shift: int) -> int:
    """The largest |q - zero point| that a left shift keeps within Q``integer_bits``."""
    return math.floor(((1 << integer_bits) - 1) * 2.0 ** (31 - integer_bits) / 2.0**left_shift)


def _saturating_table(
    function: Callable[[I64, int], I64], q_in: QParams, zero_point: int, fraction_bits: int
) -> I8:
    """Table of a function of Q4.27 numbers that is constant outside (-16, 16)."""
    multiplier, shift = fixed_point(q_in.step * 2.0**27)
    radius = input_radius(4, -shift)

    def image(centred: I64) -> I64:
        inside = np.clip(centred, 1 - radius, max(radius - 1, 1 - radius))
        value = divide_by_power(function(multiply(inside, multiplier, shift), 4), 31 - fraction_bits)
        return np.where(centred <= -radius, -512, np.where(centred >= radius, 512, value))

    return table(image, q_in, zero_point)


LOGISTIC_QPARAMS, TANH_QPARAMS = QParams(1 / 256, -128), QParams(1 / 128, 0)


def logistic_table(q_in: QParams) -> I8:
    """LOGISTIC: output in ``LOGISTIC_QPARAMS``."""
    return _saturating_table(logistic, q_in, LOGISTIC_QPARAMS.zero_point, 8)


def tanh_table(q_in: QParams) -> I8:
    """TANH: output in ``TANH_QPARAMS``."""
    return _saturating_table(tanh, q_in, TANH_QPARAMS.zero_point, 7)


def rescale_table(q_in: QParams, q_out: QParams, real: float, limits: tuple[int, int] = (INT8_MIN, INT8_MAX)) -> I8:
    """Values in other steps: ``real`` is the ratio of the steps, as the op computes it; then clamped to ``limits``."""
    multiplier, shift = fixed_point(real)
    return np.clip(table(lambda v: multiply(v, multiplier, shift), q_in, q_out.zero_point), *limits)


def leaky_table(q_in: QParams, q_out: QParams, alpha: float) -> I8:
    """LEAKY_RELU; ratios of steps are computed in float32."""
    step, out = np.float32(q_in.step), np.float32(q_out.step)
    (m, s), (ma, sa) = fixed_point(float(step / out)), fixed_point(float(step * np.float32(alpha) / out))
    sign = -1 if ma < 0 else 1
    return table(lambda v: np.where(v >= 0, multiply(v, m, s), sign * multiply(v, abs(ma), sa)), q_in, q_out.zero_point)


def _saturate16(v: ArrayLike) -> I64:
    return np.clip(np.asarray(v, np.int64), -(2**15), 2**15 - 1)


def _high_mul16(a: ArrayLike, b: ArrayLike) -> I64:
    """Product of two 16-bit fractions, half up."""
    return _saturate16((np.asarray(a, np.int64) * np.asarray(b, np.int64) + (1 << 14)) >> 15)


def _multiplier16(multiplier: int) -> int:
    return min((multiplier + (1 << 15)) >> 16, 2**15 - 1)


def hard_swish_table(q_in: QParams, q_out: QParams) -> I8:
    """HARD_SWISH: 16-bit fractions of the input in 1/128 steps, times relu6(x + 3) / 6 as a fraction in [0, 1].

    Raises OverflowError where the output's step is finer than 1/128 of the input's: TFLite has no rule for that.
    """
    fine = np.float32(1 / 128) * np.float32(q_in.step)
    out_multiplier, out_shift = fixed_point(float(fine / np.float32(q_out.step)))
    gate_multiplier, gate_shift = fixed_point(float(fine / (np.float32(3) / np.float32(32768))))
    if out_shift < 0:
        raise OverflowError("the output's scale is below 1/128 of the input's")

    def image(centred: I64) -> I64:
        raised = centred << 7
        scaled = _high_mul16(raised, _multiplier16(out_multiplier))
        gate = raised if gate_shift >= 0 else _saturate16(raised << (-gate_shift - 1))
        gate = _high_mul16(gate, _multiplier16(gate_multiplier))
        gate = divide_by_power(gate, gate_shift) if gate_shift >= 0 else _saturate16(gate << 1)
        gate = (gate + (1 << 15)) >> 1
        product = gate * scaled
        cut = np.sign(product) * (np.abs(product) >> 15)  # this one product is cut towards zero
        return divide_by_power(cut, out_shift)

    return table(image, q_in, q_out.zero_point)


SOFTMAX_INTEGER_BITS, SOFTMAX_SUM_BITS = 5, 12
SOFTMAX_LONGEST = (1 << SOFTMAX_SUM_BITS) - 1
"""Longest row whose sum of exponentials stays within int32."""


def softmax_table(scale: float, beta: float) -> I32:
    """exp(-beta * scale * d) as a fraction, for d = max - q in 0..255; 0 where d leaves Q5.26."""
    real = min(beta * scale * 2.0 ** (31 - SOFTMAX_INTEGER_BITS), INT32_MAX * 1.0)
    multiplier, shift = fixed_point(real)
    if shift > 0:
        raise OverflowError("the input's scale is too small for a softmax")
    radius = input_radius(SOFTMAX_INTEGER_BITS, -shift)
    steps = np.arange(256)
    inside = exp_negative(multiply(-np.minimum(steps, radius), multiplier, shift), SOFTMAX_INTEGER_BITS)
    return np.where(steps <= radius, inside, 0).astype(np.int32)


def softmax(q: I8, exponentials: I32) -> I8:
    """Softmax over the last axis: the sum of exponentials in Q12.19, its reciprocal by Newton's division, a product.

    Rows have at most ``SOFTMAX_LONGEST`` elements.
    """
    v = q.astype(np.int32)
    e = exponentials[v.max(axis=-1, keepdims=True) - v].astype(np.int64)
    total = divide_by_power(e, SOFTMAX_SUM_BITS).sum(axis=-1, keepdims=True)
    zeros = 31 - np.floor(np.log2(total)).astype(np.int64)  # leading zeros; the sum is at least 2^19 and below 2^31
    scale = inverse_one_plus((total << zeros) - 2**31)
    exponent = SOFTMAX_SUM_BITS - zeros + 31 - 8
    return clamp(divide_by_power(high_mul(scale, e), exponent) + INT8_MIN, INT8_MIN, INT8_MAX)


def float_product(a: float, b: ArrayLike) -> F64:
    """A product of scales rounded to float32."""
    return np.asarray(np.float32(a) * np.asarray(b, np.float32), np.float64)
