"""Importers of operators with weights, and of the product of two activations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics, numerics_tflite
from qcc.frontend.refused import Refused
from qcc.frontend.tflite_node import QUANTIZED, TfliteNode, importer, recentred
from qcc.numerics import QParams

Pad = tuple[int, int, int, int]
MAX_EXTENT = 2**16
"""Of kernels, strides and dilations."""


def padding(n: TfliteNode, size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...],
            dilation: tuple[int, ...] = (1, 1)) -> Pad:
    """(top, left, bottom, right): SAME gives ceil(size / stride) outputs, the odd element of padding behind."""
    if min(*kernel, *stride, *dilation) < 1 or max(*kernel, *stride, *dilation) > MAX_EXTENT:
        raise Refused(f"kernel {kernel}, stride {stride} and dilation {dilation} are not possible")
    kind = n.option("Padding")
    if kind not in (0, 1):
        raise Refused(f"padding {kind} is not known")
    if kind == 1:
        return 0, 0, 0, 0
    totals = [max((-(-s // d) - 1) * d + (k - 1) * r + 1 - s, 0)
              for s, k, d, r in zip(size, kernel, stride, dilation, strict=True)]
    (top, left), (bottom, right) = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return top, left, bottom, right


def layer(n: TfliteNode, op: str, x: str, w: NDArray[Any], channel_axis: int, perm: tuple[int, ...], bias: int | None,
          **attrs: Any) -> str:
    """Emit a layer with the constant operand 1 as weights, transposed by ``perm`` so that output channels come first.

    ``channel_axis`` is theirs in the file, ``bias`` the operand of the bias.
    """
    data = 2 if n.op == "TRANSPOSE_CONV" else 0
    inputs = {"x": x}
    if not n.integer:
        inputs["w"] = n.constant(n.tensor(1).name, np.ascontiguousarray(n.reals(1, "weights").transpose(perm)))
        if bias is not None:
            inputs["b"] = n.constant(n.tensor(bias).name, _bias(n, bias, w.shape[channel_axis], "float32"))
        return n.emit(op, inputs, clamp=n.limits(), **attrs)
    weights, q = _weights(n, data, w, channel_axis, perm)
    channels = weights.shape[0]
    b = np.zeros(channels, np.int32) if bias is None else _bias(n, bias, channels, "int32")
    step, scales = n.q(data).step, np.asarray(q.scale)
    product = numerics_tflite.float_product(step, scales) if _multiplies_in_float32(n, data) else step * scales
    multiplier, shift = numerics_tflite.fixed_points(product / n.out_q().step)
    inputs |= {
        "w": n.constant(n.tensor(1).name, weights, q),
        "b": n.constant(n.name + ".bias", b),
        "multiplier": n.constant(n.name + ".multiplier", multiplier),
        "shift": n.constant(n.name + ".shift", shift),
    }
    return n.tflite(op, inputs, zero_point=n.out_q().zero_point, clamp=n.clamp(), **attrs)


def _multiplies_in_float32(n: TfliteNode, data: int) -> bool:
    """Whether TFLite multiplies the scales of input and weights in float32 (else in float64)."""
    q = n.tensor(1).quantization
    return q is not None and len(q.scales) == 1 and (n.op == "FULLY_CONNECTED" or n.tensor(data).dtype == "uint8")


def _weights(
    n: TfliteNode, data: int, w: NDArray[Any], axis: int, perm: tuple[int, ...]
) -> tuple[NDArray[np.int8], QParams]:
    """int8 weights, output channels first, and their parameters along axis 0."""
    tensor, q = n.tensor(1), n.tensor(1).quantization
    if q is None or w.dtype.name not in QUANTIZED or n.tensor(data).dtype not in QUANTIZED:
        raise Refused(f"its operands are {n.tensor(data).dtype} and {tensor.dtype}, its result is quantized",
                      "convert the model with full integer quantization")
    if len(q.scales) > 1 and q.axis != axis:
        raise Refused(f"its weights have scales along axis {q.axis}, the output channels are axis {axis}",
                      "convert the model again with a current converter")
    if len(q.scales) > 1 and any(q.zero_points):
        raise Refused("its weights have scales and zero points for each channel", "use symmetric weights")
    zero_point = q.zero_points[0] - (128 if w.dtype == np.uint8 else 0)
    if not numerics.INT8_MIN <= zero_point <= numerics.INT8_MAX:
        raise Refused(f"its weights have the zero point {q.zero_points[0]}, which leaves {tensor.dtype}")
    scales = q.scales * (w.shape[axis] if len(q.scales) == 1 else 1)
    return np.ascontiguousarray(recentred(w).transpose(perm)), QParams(scales, zero_point, 0)


def _bias(n: TfliteNode, index: int, channels: int, dtype: str) -> NDArray[Any]:
    array = n.reals(index, "bias") if dtype == "float32" else n.array(index, "bias")
    if array.size != channels or str(array.dtype) != dtype:
        raise Refused(f"its bias is {array.dtype}{list(array.shape)} instead of {dtype}[{channels}]")
    return np.ascontiguousarray(array.reshape(channels))


def _optional_bias(n: TfliteNode, index: int) -> int | None:
    return index if n.has(index) else None


def _window(n: TfliteNode) -> tuple[tuple[int, int], tuple[int, int]]:
    """Stride and dilation."""
    stride = n.option("StrideH"), n.option("StrideW")
    return stride, (n.option("DilationHFactor"), n.option("DilationWFactor"))


def _rank_4(n: TfliteNode, w: NDArray[Any]) -> None:
    if w.ndim != 4 or len(n.shape(0)) != 4:
        raise Refused(f"its input has shape {list(n.shape(0))}, its weights {list(w.shape)}; four axes are needed")


@importer("CONV_2D")
def conv_2d(n: TfliteNode) -> str:
    """Weights [O, KH, KW, C / groups], as in the graph."""
    x, w = n.value(0), n.array(1, "weights")
    _rank_4(n, w)
    stride, dilation = _window(n)
    depth = w.shape[3]
    groups = n.shape(0)[3] // depth if depth else 0
    return layer(n, "conv2d", x, w, 0, (0, 1, 2, 3), _optional_bias(n, 2), stride=stride,
                 pad=padding(n, n.shape(0)[1:3], w.shape[1:3], stride, dilation), dilation=dilation, groups=groups)


@importer("DEPTHWISE_CONV_2D")
def depthwise_conv_2d(n: TfliteNode) -> str:
    """Weights [1, KH, KW, O] become [O, KH, KW, 1]."""
    x, w = n.value(0), n.array(1, "weights")
    _rank_4(n, w)
    if w.shape[0] != 1:
        raise Refused(f"its weights have shape {list(w.shape)}; the first extent must be 1")
    stride, dilation = _window(n)
    return layer(n, "conv2d", x, w, 3, (3, 1, 2, 0), _optional_bias(n, 2), stride=stride,
                 pad=padding(n, n.shape(0)[1:3], w.shape[1:3], stride, dilation), dilation=dilation,
                 groups=n.shape(0)[3])


@importer("TRANSPOSE_CONV")
def transpose_conv(n: TfliteNode) -> str:
    """Operands: output shape, weights [O, KH, KW, C], x, bias. The result's extent decides how much is cut off."""
    x, w = n.value(2), n.array(1, "weights")
    if w.ndim != 4 or len(n.shape(2)) != 4 or len(n.result().shape) != 4:
        raise Refused(f"its input has shape {list(n.shape(2))}, its weights {list(w.shape)}; four axes are needed")
    stride = n.option("StrideH"), n.option("StrideW")
    size, out = n.shape(2)[1:3], n.result().shape[1:3]
    top, left, _, _ = padding(n, out, w.shape[1:3], stride)
    pad, extra = [top, left, 0, 0], [0, 0]
    for axis in range(2):
        rest = (size[axis] - 1) * stride[axis] + w.shape[1 + axis] - pad[axis] - out[axis]
        pad[2 + axis], extra[axis] = max(rest, 0), max(-rest, 0)
    attrs = {"stride": stride, "pad": tuple(pad), "dilation": (1, 1), "groups": 1, "output_pad": tuple(extra)}
    return layer(n, "conv_transpose2d", x, w, 0, (0, 1, 2, 3), _optional_bias(n, 3), **attrs)


@importer("FULLY_CONNECTED")
def fully_connected(n: TfliteNode) -> str:
    """Weights [O, K]; x is read as rows of K. Weights that are not constant make it a product of two activations."""
    if n.option("WeightsFormat") != 0:
        raise Refused("its weights are shuffled", "convert the model without shuffled weights")
    if not n.is_known(1):
        return _product(n, transpose_b=True, ratio_in_float32=True)
    w = n.array(1, "weights")
    if w.ndim != 2 or w.shape[1] == 0:
        raise Refused(f"its weights have shape {list(w.shape)}; two axes are needed")
    x, shape = n.value(0), n.shape(0)
    size = int(np.prod(shape))
    if size % w.shape[1]:
        raise Refused(f"its input of shape {list(shape)} does not fit weights {list(w.shape)}")
    keep = n.option("KeepNumDims") and shape[-1:] == w.shape[1:]
    rows = n.reshape(x, shape if keep else (size // w.shape[1], w.shape[1]))
    return n.reshape(layer(n, "dense", rows, w, 0, (0, 1), _optional_bias(n, 2)), n.result().shape)


@importer("BATCH_MATMUL")
def batch_matmul(n: TfliteNode) -> str:
    """Either operand may be transposed."""
    return _product(n, bool(n.option("AdjY")), ratio_in_float32=False)


def _product(n: TfliteNode, transpose_b: bool, ratio_in_float32: bool) -> str:
    a, b = n.value(0), n.value(1)
    if n.op == "BATCH_MATMUL" and n.option("AdjX"):
        rank = len(n.shape(0))
        a = n.transpose(a, (*range(rank - 2), rank - 1, rank - 2))
    if n.has(2):
        raise Refused("it adds a bias to the product of two activations", "use a separate addition")
    if not n.integer:
        if n.op == "FULLY_CONNECTED" and n.limits() is not None:
            raise Refused("it clips the product of two activations", "use a separate activation")
        return n.emit("matmul", {"a": a, "b": b}, transpose_b=transpose_b)
    steps = n.q(0).step, n.q(1).step
    product = float(numerics_tflite.float_product(*steps)) if ratio_in_float32 else steps[0] * steps[1]
    ratio = numerics_tflite.fixed_point(product / n.out_q().step)
    return n.tflite("matmul", {"a": a, "b": b, **requantization(n, ratio)}, transpose_b=transpose_b,
                    zero_point=n.out_q().zero_point,
                    clamp=n.clamp() if n.op == "FULLY_CONNECTED" else (numerics.INT8_MIN, numerics.INT8_MAX))


def requantization(n: TfliteNode, number: tuple[int, int]) -> dict[str, str]:
    """The constant operands multiplier and shift, of one element each."""
    return {key: n.constant(f"{n.name}.{key}", np.array([value], np.int32))
            for key, value in zip(("multiplier", "shift"), number, strict=True)}
