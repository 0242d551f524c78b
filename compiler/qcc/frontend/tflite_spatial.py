"""Importers of pools, reductions and resizing."""

from __future__ import annotations

import math

import numpy as np

from qcc import numerics, numerics_tflite
from qcc.frontend.refused import MAX_TAKEN, Refused, normal_axis
from qcc.frontend.tflite_layers import padding, requantization
from qcc.frontend.tflite_node import TfliteNode, importer

Positions = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
FRACTION_BITS = 10
"""TFLite's positions of an integer bilinear resize are in units of 2^-10."""


@importer("AVERAGE_POOL_2D", "MAX_POOL_2D")
def pool(n: TfliteNode) -> str:
    """Padding never counts; TFLite keeps the parameters."""
    n.same_parameters(0)
    x = n.value(0)
    if len(n.shape(0)) != 4:
        raise Refused(f"its input has shape {list(n.shape(0))} instead of four axes")
    kernel = n.option("FilterHeight"), n.option("FilterWidth")
    stride = n.option("StrideH"), n.option("StrideW")
    window = {"kernel": kernel, "stride": stride, "pad": padding(n, n.shape(0)[1:3], kernel, stride)}
    if n.op == "MAX_POOL_2D":
        return _clipped(n, n.move("max_pool", {"x": x}, dilation=(1, 1), **window))
    if n.integer:
        return n.tflite("avg_pool", {"x": x}, count_include_pad=False, offset=n.offset, clamp=n.clamp(), **window)
    return _clipped(n, n.emit("avg_pool", {"x": x}, count_include_pad=False, **window))


def _clipped(n: TfliteNode, y: str) -> str:
    """A fused activation as a node of its own."""
    limits = n.limits()
    if limits is None:
        return y
    if not n.integer:
        return n.emit("pointwise", {"x": y}, expr=("clip", "x", *limits))
    return n.look_up(y, np.clip(np.arange(-128, 128), *n.clamp()).astype(np.int8))


@importer("MEAN", "SUM", "REDUCE_MAX")
def reduce(n: TfliteNode) -> str:
    """Over constant axes."""
    x, shape = n.value(0), n.shape(0)
    axes = tuple(sorted({normal_axis(a, len(shape)) for a in n.integers(1, "axes")}))
    if not axes:
        return n.rescaled(0) if n.integer else x
    attrs = {"axes": axes, "keepdims": bool(n.option("KeepDims"))}
    if n.op == "REDUCE_MAX":
        n.same_parameters(0)
        return n.move("reduce_max", {"x": x}, **attrs)
    op = "reduce_mean" if n.op == "MEAN" else "reduce_sum"
    if not n.integer:
        return n.emit(op, {"x": x}, **attrs)
    ratio = n.q(0).step / n.out_q().step
    count = math.prod(shape[a] for a in axes)
    number = numerics_tflite.mean_fixed_point(ratio, count) if n.op == "MEAN" else numerics_tflite.fixed_point(ratio)
    return n.tflite(op, {"x": x, **requantization(n, number)}, zero_point=n.out_q().zero_point,
                    clamp=(numerics.INT8_MIN, numerics.INT8_MAX), **attrs)


@importer("ARG_MAX")
def arg_max(n: TfliteNode) -> str:
    """Positions are int32, whatever the file says."""
    axes = n.integers(1, "axis")
    if len(axes) != 1:
        raise Refused(f"it has {len(axes)} axes instead of one")
    return n.emit("argmax", {"x": n.value(0)}, axis=normal_axis(axes[0], len(n.shape(0))), keepdims=False)


@importer("RESIZE_NEAREST_NEIGHBOR")
def resize_nearest(n: TfliteNode) -> str:
    """Positions in float32, along each axis."""
    n.same_parameters(0)
    x = n.value(0)
    for axis, (size, out) in enumerate(_sizes(n), 1):
        x = n.move("take", {"x": x}, axis=axis, indices=_nearest(n, size, out)) if size != out else x
    return x


def _sizes(n: TfliteNode) -> list[tuple[int, int]]:
    """(input, output) extents of rows and columns."""
    shape, out = n.shape(0), n.result().shape
    if len(shape) != 4 or len(out) != 4 or min(*shape, *out) < 1:
        raise Refused(f"it resizes {list(shape)} to {list(out)}; four axes are needed")
    if max(out[1:3]) > MAX_TAKEN:
        raise Refused(f"it resizes an axis to {max(out[1:3])} elements", f"at most {MAX_TAKEN} are possible")
    return list(zip(shape[1:3], out[1:3], strict=True))


def _nearest(n: TfliteNode, size: int, out: int) -> tuple[int, ...]:
    align, half = bool(n.option("AlignCorners")), bool(n.option("HalfPixelCenters"))
    f = np.float32
    scale = f(size - 1) / f(out - 1) if align and out > 1 else f(size) / f(out)
    at = (np.arange(out).astype(f) + f(0.5 if half else 0)) * scale
    whole = np.floor(at + f(0.5)) if align else np.floor(at)  # positions are not negative
    return tuple(int(v) for v in np.clip(whole, 0, size - 1))


@importer("RESIZE_BILINEAR")
def resize_bilinear(n: TfliteNode) -> str:
    """Positions in units of 2^-10, as TFLite's integer kernel has them; in float graphs of 2^-11."""
    n.same_parameters(0)
    x = n.value(0)
    align, half = bool(n.option("AlignCorners")), bool(n.option("HalfPixelCenters"))
    if align and half:
        raise Refused("align_corners and half_pixel_centers exclude each other")
    if n.result().dtype == "uint8":
        raise Refused("TFLite resizes uint8 images in float32", "convert the model with int8 quantization")
    if n.integer:
        rows, cols = (_integer_positions(size, out, align, half) for size, out in _sizes(n))
        return n.tflite("resize_bilinear", {"x": x}, rows=rows, cols=cols)
    rows, cols = (_real_positions(size, out, align, half) for size, out in _sizes(n))
    return n.emit("resize_bilinear", {"x": x}, rows=rows, cols=cols)


def _integer_positions(size: int, out: int, align: bool, half: bool) -> Positions:
    """(low, high, weight of high). In front of the first pixel both are that pixel, whatever the weight."""
    one = 1 << FRACTION_BITS
    scale = (one * size + out // 2) // out
    if align and out > 1:
        scale = (one * (size - 1) + (out - 1) // 2) // (out - 1)
    at = [i * scale + (scale // 2 - one // 2 if half else 0) for i in range(out)]
    low = [min(max(v // one, 0), size - 1) for v in at]
    high = [max(min((v + one - 1) // one, size - 1), 0) for v in at]
    # Behind the last pixel low and high are the same too.
    weight = [0 if a == b else v - one * a for v, a, b in zip(at, low, high, strict=True)]
    return tuple(low), tuple(high), tuple(w << (numerics.BILINEAR_BITS - FRACTION_BITS) for w in weight)


def _real_positions(size: int, out: int, align: bool, half: bool) -> Positions:
    scale = (size - 1) / (out - 1) if align and out > 1 else size / out
    at = (np.arange(out) + 0.5) * scale - 0.5 if half else np.arange(out) * scale
    low = np.clip(np.floor(at), 0, size - 1).astype(int)
    high = np.minimum(low + 1, size - 1)
    weight = np.rint(np.clip(at - low, 0, 1) * numerics.BILINEAR_ONE).astype(int)
    return tuple(low.tolist()), tuple(high.tolist()), tuple(weight.tolist())
