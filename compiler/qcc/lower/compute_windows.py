"""Computes of pools and resizing; x and y are NHWC (see ``lower.pools``)."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from qcc.lower import expressions
from qcc.lower.compute import Tensors, compute
from qcc.lower.compute_elementwise import each, finish, wide
from qcc.lower.kernel import Kernel
from qcc.numerics import BILINEAR_BITS, BILINEAR_ONE


def _taps(kernel: Kernel) -> tuple[Any, Any]:
    taps_y, taps_x = kernel.param("kernel")
    return te.reduce_axis((0, taps_y), "ky"), te.reduce_axis((0, taps_x), "kx")


@compute
def max_pool(kernel: Kernel, t: Tensors) -> Any:
    """Maximum of a window that starts ``start`` before the image; taps beyond the image move to the nearest inside."""
    strides, dilations, start = (kernel.param(k) for k in ("stride", "dilation", "start"))
    image = kernel.view("x").shape[1:3]
    ky, kx = _taps(kernel)

    def inside(axis: int, i: Any, k: Any) -> Any:
        stride, dilation, taps = strides[axis], dilations[axis], kernel.param("kernel")[axis]
        first, extent = i * stride - start[axis], kernel.view("y").shape[axis + 1]
        reach = (extent - 1) * stride - start[axis] + (taps - 1) * dilation
        if start[axis] > 0:
            k = tirx.Max(k, tirx.indexdiv(start[axis] - i * stride + dilation - 1, dilation))
        if reach >= image[axis]:
            k = tirx.Min(k, tirx.indexdiv(image[axis] - 1 - first, dilation))
        return first + k * dilation

    acc = te.compute(
        kernel.view("y").shape,
        lambda b, i, j, c: te.max(t["x"][b, inside(0, i, ky), inside(1, j, kx), c], axis=[ky, kx]),
        name="acc",
    )
    return each(kernel, lambda i: acc[i])


@compute
def avg_pool(kernel: Kernel, t: Tensors) -> Any:
    """Sum of a window that starts ``start`` before the image, less q[4], requantized; q[3] stands beyond the image.

    q[:3] are zero point and limits; multiplier has one entry, or one for each output pixel.
    """
    q, shape = t["q"], kernel.view("y").shape
    each_pixel = kernel.view("multiplier").shape[0] > 1
    acc, multiplier = window_sums(kernel, t["x"], q[3]), t["multiplier"]
    return each(
        kernel,
        lambda i: finish(kernel, t, acc[i] - q[4], multiplier[i[1] * shape[2] + i[2]] if each_pixel else multiplier[0]),
    )


def window_sums(kernel: Kernel, x: Any, outside: Any) -> Any:
    """Block ``acc``: sums of windows that start ``start`` before the image; ``outside`` stands beyond it."""
    (stride_y, stride_x), (top, left) = kernel.param("stride"), kernel.param("start")
    height, width = kernel.view("x").shape[1:3]
    ky, kx = _taps(kernel)

    def value(i: Any) -> Any:
        return x[i] if kernel.view("x").dtype == "float32" else wide(x, i)

    def tap(b: Any, i: Any, j: Any, c: Any) -> Any:
        row, column = i * stride_y + ky - top, j * stride_x + kx - left
        if not kernel.param("bounded"):
            return value((b, row, column, c))
        hit = tirx.all(row >= 0, row < height, column >= 0, column < width)
        row, column = expressions.clamp(row, 0, height - 1), expressions.clamp(column, 0, width - 1)
        return tirx.Select(hit, value((b, row, column, c)), outside)

    shape = kernel.view("y").shape
    return te.compute(shape, lambda b, i, j, c: te.sum(tap(b, i, j, c), axis=[ky, kx]), name="acc")


@compute
def resize_bilinear(kernel: Kernel, t: Tensors) -> Any:
    """``numerics.bilinear``: weights sum to one, so values may be mixed as they are stored."""
    return each(kernel, lambda i: expressions.rounding_shift(mixed_pixels(t, i), 2 * BILINEAR_BITS))


def mixed_pixels(t: Tensors, i: Any) -> Any:
    """``numerics.bilinear_sums`` of stored values at an index."""
    x, rows, cols = t["x"], t["rows"], t["cols"]
    b, y, x_, c = i

    def mixed(column: Any) -> Any:
        low, high = wide(x, (b, rows[0, y], column, c)), wide(x, (b, rows[1, y], column, c))
        return low * (BILINEAR_ONE - rows[2, y]) + high * rows[2, y]

    return mixed(cols[0, x_]) * (BILINEAR_ONE - cols[2, x_]) + mixed(cols[1, x_]) * cols[2, x_]
