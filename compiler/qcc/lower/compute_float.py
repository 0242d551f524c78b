"""Computes of float32 (see ``lower.floats``); what they mean to the bit says ``numerics_float``."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from qcc import float_math
from qcc.lower.compute import Tensors, compute
from qcc.lower.compute_elementwise import each
from qcc.lower.compute_reduce import over
from qcc.lower.compute_windows import window_sums
from qcc.lower.float_expressions import TIR, steps
from qcc.lower.kernel import Kernel
from qcc.schedule.tiles import divisors

PEAK_LANES = 64
"""Maxima that are kept apart, so that they are vectors, and enough to hide their latency."""


def _limited(kernel: Kernel, value: Any) -> Any:
    limits = kernel.param("limits")
    return value if limits is None else float_math.clip(TIR, value, *limits)


@compute
def float_add(kernel: Kernel, t: Tensors) -> Any:
    """``a + b`` between the limits."""
    return each(kernel, lambda i: _limited(kernel, t["a"][i] + t["b"][i]))


@compute
def float_sub(kernel: Kernel, t: Tensors) -> Any:
    """``a - b`` between the limits."""
    return each(kernel, lambda i: _limited(kernel, t["a"][i] - t["b"][i]))


@compute
def float_mul(kernel: Kernel, t: Tensors) -> Any:
    """``a * b`` between the limits."""
    return each(kernel, lambda i: _limited(kernel, t["a"][i] * t["b"][i]))


@compute
def float_pointwise(kernel: Kernel, t: Tensors) -> Any:
    """The expression ``expr``."""
    expr = kernel.param("expr")
    return each(kernel, lambda i: float_math.evaluate(TIR, expr, t["x"][i]))


@compute
def float_prelu(kernel: Kernel, t: Tensors) -> Any:
    """x where x >= 0, else slope * x."""
    return each(kernel, lambda i: TIR.where_ge0(t["x"][i], t["x"][i], t["x"][i] * t["slope"][i]))


@compute
def float_reduce_sum(kernel: Kernel, t: Tensors) -> Any:
    """Sum over count."""
    acc = over(kernel.view("x").shape, len(kernel.view("y").shape), te.sum, lambda i: t["x"][i], "acc")
    return each(kernel, lambda i: acc[i] / t["count"][0])


@compute
def float_avg_pool(kernel: Kernel, t: Tensors) -> Any:
    """Sum of a window over its count: one for all, or one for each output pixel."""
    acc = window_sums(kernel, t["x"], tirx.const(0.0, "float32"))
    width, alike = kernel.view("y").shape[2], kernel.view("count").shape[0] == 1
    return each(kernel, lambda i: acc[i] / t["count"][0 if alike else i[1] * width + i[2]])


@compute
def float_softmax(kernel: Kernel, t: Tensors) -> Any:
    """``numerics_float.softmax``."""
    x, shape = t["x"], kernel.view("x").shape
    kept = len(shape) - 1
    top = over(shape, kept, te.max, lambda i: x[i], "top")
    power = te.compute(shape, lambda *i: float_math.exp(TIR, x[i] - top[i[:-1]]), name="power")
    total = over(shape, kept, te.sum, lambda i: power[i], "total")
    return each(kernel, lambda i: power[i] / total[i[:-1]])


@compute
def float_matmul(kernel: Kernel, t: Tensors) -> Any:
    """``sum_k a * b``, fused multiply-adds in the order of k; y [batch…, M, N]."""
    a, b = t["a"], t["b"]
    k = te.reduce_axis((0, kernel.view("a").shape[-1]), "k")

    def product(*i: Any) -> Any:
        *outer, m, n = i
        return te.sum(a[(*outer, m, k)] * b[(*outer, k, n)], axis=k)

    acc = te.compute(kernel.view("y").shape, product, name="acc")
    return each(kernel, lambda i: acc[i])


@compute
def float_resize_bilinear(kernel: Kernel, t: Tensors) -> Any:
    """``numerics_float.bilinear``."""
    x, rows, cols = t["x"], t["rows"], t["cols"]

    def value(i: Any) -> Any:
        b, y, x_, c = i

        def mixed(column: Any) -> Any:
            low, high = x[b, rows[0, y], column, c], x[b, rows[1, y], column, c]
            return TIR.fma(high - low, t["rows_share"][y], low)

        low = mixed(cols[0, x_])
        return TIR.fma(mixed(cols[1, x_]) - low, t["cols_share"][x_], low)

    return each(kernel, value)


@compute
def dynamic_steps(kernel: Kernel, t: Tensors) -> Any:
    """``numerics_float.dynamic_steps``; the maximum by parts: every ``lanes``-th element of the last axis."""
    x, (*outer, last) = t["x"], kernel.view("x").shape
    lanes = divisors(last, PEAK_LANES)[-1]
    taps = [te.reduce_axis((0, extent), f"r{i}") for i, extent in enumerate((*outer, last // lanes))]

    def largest(lane: Any) -> Any:
        *index, group = taps
        return te.max(TIR.magnitude(x[(*index, group * lanes + lane)]), axis=taps)

    part = te.compute((lanes,), largest, name="part")
    lane = te.reduce_axis((0, lanes), "lane")
    peak = te.compute((1,), lambda _: te.max(part[lane], axis=lane), name="peak")

    def value(i: Any) -> Any:
        step, inverse = steps(peak[0], kernel.param("levels"))
        return tirx.Select(i[0] == 0, step, inverse)

    return each(kernel, value)


@compute
def dynamic_quantize(kernel: Kernel, t: Tensors) -> Any:
    """The last byte of ``fma(x, step, f[0])``."""
    return each(kernel, lambda i: tirx.reinterpret("int32", TIR.fma(t["x"][i], t["step"][i], t["f"][0])))
