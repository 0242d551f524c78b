"""Computes of kernels that TFLite's arithmetic makes another kernel of (see ``lower.tflite``).

The others take TFLite's rounding through ``expressions.requantize``.
"""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from qcc.lower import expressions
from qcc.lower.compute import Tensors, compute
from qcc.lower.compute_elementwise import each, wide
from qcc.lower.compute_reduce import over, powers
from qcc.lower.compute_windows import mixed_pixels, window_sums
from qcc.lower.expressions import divide_by_power, high_mul, i32, i64
from qcc.lower.kernel import Kernel
from qcc.numerics import BILINEAR_BITS, INT32_MAX
from qcc.numerics_tflite import ADD_LEFT_SHIFT, DIVISION_SLOPE, DIVISION_START, SOFTMAX_SUM_BITS


@compute
def tflite_add(kernel: Kernel, t: Tensors) -> Any:
    """``numerics_tflite.add``; q = [zero point, low, high, zero points of a and b, multipliers, shifts]."""
    q = t["q"]

    def operand(key: str, k: int, i: Any) -> Any:
        raised = (wide(t[key], i) - q[3 + k]) << i32(ADD_LEFT_SHIFT)
        return divide_by_power(high_mul(raised, q[5 + k]), q[8 + k])

    def value(i: Any) -> Any:
        total = operand("a", 0, i) + kernel.param("sign") * operand("b", 1, i)
        return expressions.clamp(divide_by_power(high_mul(total, q[7]), q[10]) + q[0], q[1], q[2])

    return each(kernel, value)


@compute
def tflite_prelu(kernel: Kernel, t: Tensors) -> Any:
    """q = [zero point, low, high, x's zero point, multiplier and shift, the same for negative values times slope]."""
    q = t["q"]

    def value(i: Any) -> Any:
        acc = wide(t["x"], i) - q[3]
        negative = expressions.multiply(acc * t["slope"][i], q[6], q[7])
        v = tirx.Select(acc >= 0, expressions.multiply(acc, q[4], q[5]), negative)
        return expressions.clamp(v + q[0], q[1], q[2])

    return each(kernel, value)


@compute
def tflite_quantize(kernel: Kernel, t: Tensors) -> Any:
    """``numerics_tflite.quantize_input``; f = [scale, low, high] relative to 0, q[0] the stored zero point."""
    x, f, q = t["x"], t["f"], t["q"]

    def value(i: Any) -> Any:
        v = expressions.clamp(x[i] / f[0], f[1], f[2])
        whole = v.astype("int32")
        rest = v - whole.astype("float32")
        up, down = ((rest >= 0.5).astype("int32"), (rest <= -0.5).astype("int32"))
        return whole + up - down + q[0]

    return each(kernel, value)


@compute
def tflite_avg_pool(kernel: Kernel, t: Tensors) -> Any:
    """``numerics_tflite.divide_away`` of window sums; q = [offset to what TFLite sees, low, high].

    ``count`` holds the taps of each output pixel, or of all.
    """
    q, count = t["q"], t["count"]
    shape = kernel.view("y").shape
    each_pixel = kernel.view("count").shape[0] > 1
    acc = window_sums(kernel, t["x"], i32(0))

    def value(i: Any) -> Any:
        n = count[i[1] * shape[2] + i[2]] if each_pixel else i32(kernel.param("count"))
        total = acc[i] + n * q[0]
        half = tirx.indexdiv(n, 2)
        mean = tirx.truncdiv(tirx.Select(total > 0, total + half, total - half), n)
        return expressions.clamp(mean - q[0], q[1], q[2])

    return each(kernel, value)


@compute
def tflite_resize_bilinear(kernel: Kernel, t: Tensors) -> Any:
    """``numerics_tflite.bilinear``; int8 values are mixed, however they are stored."""
    zero, bits = i32(expressions.STORED[kernel.view("x").dtype][0] + 128), i32(2 * BILINEAR_BITS)
    return each(kernel, lambda i: divide_by_power(mixed_pixels(t, i) - (zero << bits), bits) + zero)


@compute
def tflite_softmax(kernel: Kernel, t: Tensors) -> Any:
    """``numerics_tflite.softmax``; q[0] is the stored form of 0 / 256."""
    power, shape = powers(kernel, t), kernel.view("x").shape
    kept = len(shape) - 1
    total = over(shape, kept, te.sum, lambda i: divide_by_power(power[i], i32(SOFTMAX_SUM_BITS)), "total")
    zeros = te.compute(shape[:kept], lambda *i: _leading_zeros(total[i]), name="zeros")

    # numerics_tflite.inverse_one_plus of the sum less its highest bit; stages keep the expressions small.
    def half(*i: Any) -> Any:
        return (((total[i] << zeros[i]) & i32(INT32_MAX)) >> 1) + i32(1 << 30)

    halves = te.compute(shape[:kept], half, name="halves")
    guess = te.compute(
        shape[:kept], lambda *i: i32(DIVISION_START) + high_mul(halves[i], i32(DIVISION_SLOPE)), name="guess0"
    )
    for step in range(1, 4):
        guess = te.compute(shape[:kept], _better(halves, guess), name=f"guess{step}")

    def scale(i: Any) -> Any:
        return tirx.Select(guess[i] >= i32(1 << 30), i32(INT32_MAX), guess[i] << 1)

    def value(i: Any) -> Any:
        exponent = (i32(SOFTMAX_SUM_BITS + 31 - 8) - zeros[i[:-1]]).astype("int64")
        product = high_mul(scale(i[:-1]), power[i]).astype("int64")
        quotient = (product + ((i64(1) << exponent) >> i64(1))) >> exponent
        return tirx.Min(quotient.astype("int32"), i32(255)) + t["q"][0]

    return each(kernel, value)


def _leading_zeros(v: Any) -> Any:
    """Leading zero bits of a sum of exponentials, which is at least 1.0 and below 2^31."""
    zeros = i32(1)
    for bit in range(32 - SOFTMAX_SUM_BITS, 31):
        zeros = zeros + (v < i32(1 << bit)).astype("int32")
    return zeros


def _better(halves: Any, guess: Any) -> Any:
    """One step of Newton's division."""

    def value(*i: Any) -> Any:
        error = i32(1 << 29) - high_mul(halves[i], guess[i])
        return guess[i] + (high_mul(guess[i], error) << 2)

    return value
