"""Single-operator TFLite models with random shapes, scales and contents, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tflite_writer import Writer

Rng = np.random.Generator
Case = Callable[[Rng, str], bytes]
CASES: dict[str, Case] = {}
UINT8: set[str] = set()
"""Cases that make sense in the first scheme too."""
NONE, RELU, RELU_N1, RELU6 = 0, 1, 2, 3
SAME, VALID = 0, 1


def case(uint8: bool = False) -> Callable[[Case], Case]:
    def register(function: Case) -> Case:
        CASES[function.__name__] = function
        if uint8:
            UINT8.add(function.__name__)
        return function

    return register


def scale(rng: Rng, low: float = 0.005, high: float = 0.2) -> float:
    return float(np.float32(np.exp(rng.uniform(np.log(low), np.log(high)))))


def zero(rng: Rng, dtype: str) -> int:
    return int(rng.integers(-128, 128)) + (128 if dtype == "uint8" else 0)


def draw(rng: Rng, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    low, high = (0, 256) if dtype == "uint8" else (-127, 128)
    return rng.integers(low, high, shape).astype(dtype)


def activation(w: Writer, rng: Rng, name: str, shape: tuple[int, ...], dtype: str, **given: Any) -> int:
    return w.tensor(name, shape, dtype, given.get("scale", scale(rng)), given.get("zero", zero(rng, dtype)))


def choose(rng: Rng, *options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def extent(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    return -(-size // stride) if padding == SAME else (size - (kernel - 1) * dilation - 1) // stride + 1


def weighted(w: Writer, rng: Rng, shape: tuple[int, ...], axis: int, s_x: float, dtype: str, per_channel: bool,
             fan: int) -> tuple[int, int, float]:
    """(weights, bias, a scale of the result that its values fill)."""
    channels = shape[axis]
    if dtype == "uint8":
        s_w, z_w = scale(rng, 0.005, 0.02), int(rng.integers(100, 156))
        weights = w.constant("w", draw(rng, shape, dtype), s_w, z_w)
    else:
        count = channels if per_channel else 1
        s_w = np.array([scale(rng, 0.002, 0.02) for _ in range(count)], np.float32)
        weights = w.constant("w", draw(rng, shape, dtype), s_w, [0] * count, axis)
    widest = float(np.max(s_w))
    bias_scale = s_x * (np.asarray(s_w, np.float64) if per_channel and dtype == "int8" else widest)
    # Unused channels of real models have biases near 2^31.
    reach = choose(rng, 5000, 5000, 2**31 - 2**26)
    biases = rng.integers(-reach, reach, channels).astype(np.int32)
    bias = w.constant("b", biases, bias_scale, [0] * np.size(bias_scale))
    return weights, bias, float(np.float32(s_x * widest * 60 * np.sqrt(fan)))


@case(uint8=True)
def conv_2d(rng: Rng, dtype: str) -> bytes:
    w = Writer()
    h, width, c, o, kh, kw = (int(rng.integers(*r)) for r in ((4, 10), (4, 10), (1, 9), (1, 20), (1, 4), (1, 4)))
    stride, padding = int(rng.integers(1, 3)), choose(rng, SAME, VALID)
    dilation = choose(rng, 1, 2) if stride == 1 and padding == SAME else 1
    s_x = scale(rng)
    x = activation(w, rng, "x", (1, h, width, c), dtype, scale=s_x)
    weights, bias, s_y = weighted(w, rng, (o, kh, kw, c), 0, s_x, dtype, choose(rng, True, False), kh * kw * c)
    out = (1, extent(h, kh, stride, padding, dilation), extent(width, kw, stride, padding, dilation), o)
    y = activation(w, rng, "y", out, dtype, scale=s_y * choose(rng, 1.0, 0.05))
    w.op("CONV_2D", [x, weights, bias], [y], "Conv2DOptions", Padding=padding, StrideW=stride, StrideH=stride,
         DilationWFactor=dilation, DilationHFactor=dilation, FusedActivationFunction=choose(rng, NONE, RELU, RELU6))
    return w.finish([x], [y])


@case(uint8=True)
def depthwise_conv_2d(rng: Rng, dtype: str) -> bytes:
    w = Writer()
    h, width, c = (int(v) for v in (rng.integers(4, 10), rng.integers(4, 10), rng.integers(1, 20)))
    many, kh, kw = choose(rng, 1, 1, 2), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    stride, padding = int(rng.integers(1, 3)), choose(rng, SAME, VALID)
    s_x = scale(rng)
    x = activation(w, rng, "x", (1, h, width, c), dtype, scale=s_x)
    weights, bias, s_y = weighted(w, rng, (1, kh, kw, c * many), 3, s_x, dtype, choose(rng, True, False), kh * kw)
    out = (1, extent(h, kh, stride, padding), extent(width, kw, stride, padding), c * many)
    y = activation(w, rng, "y", out, dtype, scale=s_y)
    w.op("DEPTHWISE_CONV_2D", [x, weights, bias], [y], "DepthwiseConv2DOptions", Padding=padding, StrideW=stride,
         StrideH=stride, DepthMultiplier=many, DilationWFactor=1, DilationHFactor=1,
         FusedActivationFunction=choose(rng, NONE, RELU, RELU6))
    return w.finish([x], [y])


@case(uint8=True)
def fully_connected(rng: Rng, dtype: str) -> bytes:
    w = Writer()
    rows, k, o = (int(v) for v in (rng.integers(1, 4), rng.integers(1, 60), rng.integers(1, 20)))
    s_x = scale(rng)
    x = activation(w, rng, "x", (rows, k), dtype, scale=s_x)
    weights, bias, s_y = weighted(w, rng, (o, k), 0, s_x, dtype, False, k)
    y = activation(w, rng, "y", (rows, o), dtype, scale=s_y)
    w.op("FULLY_CONNECTED", [x, weights, bias], [y], "FullyConnectedOptions",
         FusedActivationFunction=choose(rng, NONE, RELU))
    return w.finish([x], [y])


@case()
def transpose_conv(rng: Rng, dtype: str) -> bytes:
    w = Writer()
    h, width, c, o = (int(v) for v in (rng.integers(2, 6), rng.integers(2, 6), rng.integers(1, 6), rng.integers(1, 9)))
    k, stride, padding = int(rng.integers(1, 4)), int(rng.integers(1, 3)), choose(rng, SAME, VALID)
    s_x = scale(rng)
    x = activation(w, rng, "x", (1, h, width, c), dtype, scale=s_x)
    weights, bias, s_y = weighted(w, rng, (o, k, k, c), 0, s_x, dtype, True, k * k * c)
    grown = [v * stride if padding == SAME else (v - 1) * stride + k for v in (h, width)]
    shape = w.constant("shape", np.array([1, *grown, o], np.int32))
    y = activation(w, rng, "y", (1, *grown, o), dtype, scale=s_y)
    w.op("TRANSPOSE_CONV", [shape, weights, x, bias], [y], "TransposeConvOptions", Padding=padding, StrideW=stride,
         StrideH=stride)
    return w.finish([x], [y])


def _binary(rng: Rng, dtype: str, op: str, kind: str, functions: tuple[int, ...]) -> bytes:
    w = Writer()
    shape = (1, int(rng.integers(1, 6)), int(rng.integers(1, 6)), int(rng.integers(1, 20)))
    a = activation(w, rng, "a", shape, dtype)
    b = activation(w, rng, "b", choose(rng, shape, shape, (1, 1, 1, shape[3])), dtype)
    s_a, s_b = w.tensors[a].scale[0], w.tensors[b].scale[0]
    s_y = 128 * s_a * s_b if op == "MUL" else max(s_a, s_b) * rng.uniform(0.5, 3)
    y = activation(w, rng, "y", shape, dtype, scale=float(np.float32(s_y)))
    w.op(op, [a, b], [y], kind, FusedActivationFunction=choose(rng, *functions))
    return w.finish([a, b], [y])


@case(uint8=True)
def add(rng: Rng, dtype: str) -> bytes:
    return _binary(rng, dtype, "ADD", "AddOptions", (NONE, RELU, RELU6))


@case(uint8=True)
def sub(rng: Rng, dtype: str) -> bytes:
    return _binary(rng, dtype, "SUB", "SubOptions", (NONE, RELU))


@case(uint8=True)
def mul(rng: Rng, dtype: str) -> bytes:
    return _binary(rng, dtype, "MUL", "MulOptions", (NONE, RELU))


def _same_scale(rng: Rng, dtype: str, shape: tuple[int, ...]) -> tuple[Writer, int, dict[str, Any]]:
    w, given = Writer(), {"scale": scale(rng), "zero": zero(rng, dtype)}
    return w, activation(w, rng, "x", shape, dtype, **given), given


@case(uint8=True)
def average_pool(rng: Rng, dtype: str) -> bytes:
    return _pool(rng, dtype, "AVERAGE_POOL_2D")


@case(uint8=True)
def max_pool(rng: Rng, dtype: str) -> bytes:
    return _pool(rng, dtype, "MAX_POOL_2D")


def _pool(rng: Rng, dtype: str, op: str) -> bytes:
    h, width, c = (int(v) for v in (rng.integers(4, 9), rng.integers(4, 9), rng.integers(1, 20)))
    w, x, given = _same_scale(rng, dtype, (1, h, width, c))
    k, stride, padding = int(rng.integers(1, 5)), int(rng.integers(1, 4)), choose(rng, SAME, VALID)
    out = (1, extent(h, k, stride, padding), extent(width, k, stride, padding), c)
    y = activation(w, rng, "y", out, dtype, **given)
    w.op(op, [x], [y], "Pool2DOptions", Padding=padding, StrideW=stride, StrideH=stride, FilterWidth=k,
         FilterHeight=k, FusedActivationFunction=choose(rng, NONE, RELU))
    return w.finish([x], [y])


@case()
def mean(rng: Rng, dtype: str) -> bytes:
    return _reduce(rng, dtype, "MEAN")


@case()
def sum_(rng: Rng, dtype: str) -> bytes:
    return _reduce(rng, dtype, "SUM")


def _reduce(rng: Rng, dtype: str, op: str) -> bytes:
    w, shape = Writer(), (1, int(rng.integers(2, 8)), int(rng.integers(2, 8)), int(rng.integers(1, 20)))
    s_x, axes = scale(rng), choose(rng, (1, 2), (2, 1), (3,), (1,), (-1,))
    x = activation(w, rng, "x", shape, dtype, scale=s_x)
    keep, dropped = choose(rng, True, False), {a % 4 for a in axes}
    out = tuple(1 if i in dropped else d for i, d in enumerate(shape) if keep or i not in dropped)
    y = activation(w, rng, "y", out, dtype, scale=float(np.float32(s_x * rng.uniform(0.3, 4))))
    axis = w.constant("axes", np.array(axes, np.int32))
    w.op(op, [x, axis], [y], "ReducerOptions", KeepDims=keep)
    return w.finish([x], [y])


@case(uint8=True)
def softmax(rng: Rng, dtype: str) -> bytes:
    w = Writer()
    shape = (int(rng.integers(1, 4)), int(rng.integers(2, 40)))
    x = activation(w, rng, "x", shape, dtype, scale=scale(rng, 0.001, 1.0))
    y = activation(w, rng, "y", shape, dtype, scale=1 / 256, zero=0 if dtype == "uint8" else -128)
    w.op("SOFTMAX", [x], [y], "SoftmaxOptions", Beta=choose(rng, 1.0, 0.5, 2.0))
    return w.finish([x], [y])


def _unary(rng: Rng, dtype: str, op: str, kind: str = "", s_y: float = 0.0, z_y: int | None = None,
           **options: Any) -> bytes:
    """All 256 values through one function."""
    w = Writer()
    x = activation(w, rng, "x", (1, 8, 8, 4), dtype)
    s_x = w.tensors[x].scale[0]
    given = {"scale": s_y or float(np.float32(s_x * rng.uniform(0.5, 2)))}
    y = activation(w, rng, "y", (1, 8, 8, 4), dtype, **given, **({} if z_y is None else {"zero": z_y}))
    w.op(op, [x], [y], kind, **options)
    return w.finish([x], [y])


@case()
def logistic(rng: Rng, dtype: str) -> bytes:
    return _unary(rng, dtype, "LOGISTIC", s_y=1 / 256, z_y=0 if dtype == "uint8" else -128)


@case()
def tanh(rng: Rng, dtype: str) -> bytes:
    return _unary(rng, dtype, "TANH", s_y=1 / 128, z_y=128 if dtype == "uint8" else 0)


@case()
def hard_swish(rng: Rng, dtype: str) -> bytes:
    return _unary(rng, dtype, "HARD_SWISH", "HardSwishOptions")


@case()
def leaky_relu(rng: Rng, dtype: str) -> bytes:
    return _unary(rng, dtype, "LEAKY_RELU", "LeakyReluOptions", Alpha=float(rng.uniform(0.01, 1.5)))


@case()
def relu(rng: Rng, dtype: str) -> bytes:
    return _unary(rng, dtype, "RELU")


@case()
def quantize(rng: Rng, dtype: str) -> bytes:
    return _unary(rng, dtype, "QUANTIZE", "QuantizeOptions")


@case()
def prelu(rng: Rng, dtype: str) -> bytes:
    w, shape = Writer(), (1, 5, 4, int(rng.integers(1, 20)))
    x = activation(w, rng, "x", shape, dtype)
    alpha = w.constant("alpha", draw(rng, (1, 1, shape[3]), dtype), scale(rng, 0.001, 0.02), zero(rng, dtype))
    y = activation(w, rng, "y", shape, dtype, scale=float(np.float32(w.tensors[x].scale[0] * rng.uniform(0.5, 2))))
    w.op("PRELU", [x, alpha], [y])
    return w.finish([x], [y])


@case(uint8=True)
def resize_bilinear(rng: Rng, dtype: str) -> bytes:
    return _resize(rng, dtype, "RESIZE_BILINEAR")


@case(uint8=True)
def resize_nearest(rng: Rng, dtype: str) -> bytes:
    return _resize(rng, dtype, "RESIZE_NEAREST_NEIGHBOR")


def _resize(rng: Rng, dtype: str, op: str) -> bytes:
    h, width, c = (int(v) for v in (rng.integers(1, 8), rng.integers(1, 8), rng.integers(1, 9)))
    w, x, given = _same_scale(rng, dtype, (1, h, width, c))
    out = [int(v) for v in rng.integers(1, 16, 2)]
    size = w.constant("size", np.array(out, np.int32))
    y = activation(w, rng, "y", (1, *out, c), dtype, **given)
    align, half = choose(rng, (False, False), (True, False), (False, True))
    kind = "ResizeBilinearOptions" if op == "RESIZE_BILINEAR" else "ResizeNearestNeighborOptions"
    w.op(op, [x, size], [y], kind, AlignCorners=align, HalfPixelCenters=half)
    return w.finish([x], [y])


@case(uint8=True)
def concatenation(rng: Rng, dtype: str) -> bytes:
    c = [int(v) for v in rng.integers(1, 9, 2)]
    w, x, given = _same_scale(rng, dtype, (1, 3, 4, c[0]))
    other = activation(w, rng, "z", (1, 3, 4, c[1]), dtype, **given)
    y = activation(w, rng, "y", (1, 3, 4, sum(c)), dtype, **given)
    w.op("CONCATENATION", [x, other], [y], "ConcatenationOptions", Axis=choose(rng, 3, -1))
    return w.finish([x, other], [y])


@case()
def pad(rng: Rng, dtype: str) -> bytes:
    w, x, given = _same_scale(rng, dtype, (1, 3, 4, 5))
    pads = rng.integers(0, 3, (4, 2)).astype(np.int32)
    y = activation(w, rng, "y", tuple(int(v) for v in np.array((1, 3, 4, 5)) + pads.sum(1)), dtype, **given)
    w.op("PAD", [x, w.constant("pads", pads)], [y], "PadOptions")
    return w.finish([x], [y])


@case()
def strided_slice(rng: Rng, dtype: str) -> bytes:
    w, x, given = _same_scale(rng, dtype, (1, 6, 7, 5))
    begin, end, stride = np.array([[0, 1, -1, 0], [1, 6, 0, 3], [1, 2, -2, 1]], np.int32)
    y = activation(w, rng, "y", (1, 3, 3, 3), dtype, **given)
    names = zip(("begin", "end", "strides"), (begin, end, stride), strict=True)
    w.op("STRIDED_SLICE", [x, *(w.constant(n, v) for n, v in names)], [y], "StridedSliceOptions")
    return w.finish([x], [y])


@case()
def split(rng: Rng, dtype: str) -> bytes:
    w, x, given = _same_scale(rng, dtype, (1, 4, 3, 6))
    axis = w.constant("axis", np.array(3, np.int32))
    outs = [activation(w, rng, f"y{i}", (1, 4, 3, 2), dtype, **given) for i in range(3)]
    w.op("SPLIT", [axis, x], outs, "SplitOptions", NumSplits=3)
    return w.finish([x], outs)


@case()
def pack(rng: Rng, dtype: str) -> bytes:
    w, x, given = _same_scale(rng, dtype, (3, 4))
    other = activation(w, rng, "z", (3, 4), dtype, **given)
    y = activation(w, rng, "y", (3, 2, 4), dtype, **given)
    w.op("PACK", [x, other], [y], "PackOptions", ValuesCount=2, Axis=1)
    return w.finish([x, other], [y])


@case()
def unpack(rng: Rng, dtype: str) -> bytes:
    w, x, given = _same_scale(rng, dtype, (3, 2, 4))
    outs = [activation(w, rng, f"y{i}", (3, 4), dtype, **given) for i in range(2)]
    w.op("UNPACK", [x], outs, "UnpackOptions", Num=2, Axis=1)
    return w.finish([x], outs)


@case()
def transpose(rng: Rng, dtype: str) -> bytes:
    w, x, given = _same_scale(rng, dtype, (1, 3, 4, 5))
    perm = rng.permutation(4).astype(np.int32)
    y = activation(w, rng, "y", tuple((1, 3, 4, 5)[p] for p in perm), dtype, **given)
    w.op("TRANSPOSE", [x, w.constant("perm", perm)], [y], "TransposeOptions")
    return w.finish([x], [y])


@case()
def maximum(rng: Rng, dtype: str) -> bytes:
    w, x, given = _same_scale(rng, dtype, (1, 3, 4, 5))
    other = activation(w, rng, "z", (1, 3, 4, 5), dtype, **given)
    y = activation(w, rng, "y", (1, 3, 4, 5), dtype, **given)
    w.op(choose(rng, "MAXIMUM", "MINIMUM"), [x, other], [y], "MaximumMinimumOptions")
    return w.finish([x, other], [y])


@case()
def arg_max(rng: Rng, dtype: str) -> bytes:
    w, x, _ = _same_scale(rng, dtype, (3, 7))
    y = w.tensor("y", (3,), "int32")
    w.op("ARG_MAX", [x, w.constant("axis", np.array([1], np.int32))], [y], "ArgMaxOptions", OutputType=2)
    return w.finish([x], [y])


@case()
def reduce_max(rng: Rng, dtype: str) -> bytes:
    w, x, given = _same_scale(rng, dtype, (1, 3, 4, 5))
    y = activation(w, rng, "y", (1, 5), dtype, **given)
    w.op("REDUCE_MAX", [x, w.constant("axes", np.array([1, 2], np.int32))], [y], "ReducerOptions")
    return w.finish([x], [y])


@case()
def batch_matmul(rng: Rng, dtype: str) -> bytes:
    w, adjoint = Writer(), choose(rng, True, False)
    a = activation(w, rng, "a", (2, 3, 7), dtype)
    b = activation(w, rng, "b", (2, 5, 7) if adjoint else (2, 7, 5), dtype)
    s_y = float(np.float32(w.tensors[a].scale[0] * w.tensors[b].scale[0] * 200))
    y = activation(w, rng, "y", (2, 3, 5), dtype, scale=s_y)
    w.op("BATCH_MATMUL", [a, b], [y], "BatchMatMulOptions", AdjY=adjoint)
    return w.finish([a, b], [y])


@case()
def quantize_float(rng: Rng, dtype: str) -> bytes:
    """float32 to integers and back."""
    w, given = Writer(), {"scale": scale(rng), "zero": zero(rng, dtype)}
    x, y = w.tensor("x", (1, 64), "float32"), w.tensor("y", (1, 64), "float32")
    middle = activation(w, rng, "q", (1, 64), dtype, **given)
    w.op("QUANTIZE", [x], [middle], "QuantizeOptions")
    w.op("DEQUANTIZE", [middle], [y], "DequantizeOptions")
    return w.finish([x], [y])


def inputs_of(types: list[Any], rng: Rng) -> list[NDArray[Any]]:
    """Random inputs of these types; float ones hold halves of steps too."""
    arrays = []
    for t in types:
        if t.dtype == "float32":
            arrays.append((rng.integers(-300, 300, t.shape) / 2 * np.float32(0.05)).astype(np.float32))
        else:
            low, high = (0, 256) if t.dtype == "uint8" else (-128, 128)
            arrays.append(rng.integers(low, high, t.shape).astype(t.dtype))
    return arrays
