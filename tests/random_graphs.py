"""Seeded small CNNs as ONNX models: every family of layers, and extents that are no multiple of any vector.

``random_model(seed)`` is a network of a few random blocks, of which the first is ``FAMILIES[seed % len(FAMILIES)]``, so
that any ``len(FAMILIES)`` seeds in a row hold every family.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from onnx_net import Array, Net, integers, scalar

CHANNELS = (1, 3, 5, 7, 16, 17, 24, 31, 33, 48)
LARGE = 12_000
"""Elements of a value beyond which the next block makes it smaller."""


# ---- layers -----------------------------------------------------------------------------------------------------


def channels(net: Net) -> int:
    return int(net.pick(*CHANNELS))


def activation(net: Net, x: str) -> str:
    """A random function of one tensor, or none."""
    channels, rank = net.shapes[x][1], len(net.shapes[x])
    match int(net.rng.integers(16)):
        case 0 | 1:
            return net("Relu", x)
        case 2:
            return net("Clip", x, scalar(0), scalar(6))
        case 3:
            return net("HardSwish", x)
        case 4:
            return net("Mul", x, net("Sigmoid", x))
        case 5:
            return net("LeakyRelu", x, alpha=float(net.pick(0.01, 0.1, 0.3)))
        case 6:
            return net("PRelu", x, np.abs(net.normal(channels, *[1] * (rank - 2), scale=0.3)))
        case 7:
            return net(net.pick("Sigmoid", "Tanh", "HardSigmoid", "Elu", "Softsign", "Softplus", "Mish"), x)
        case 8:
            return net("Gelu", x, approximate=net.pick("none", "tanh"))
        case 9:
            erf = net("Erf", net("Div", x, scalar(math.sqrt(2))))
            half = net("Mul", x, net("Add", erf, scalar(1)))
            return net("Mul", half, scalar(0.5))
        case _:
            return x


def normalized(net: Net, x: str) -> str:
    """Batch normalization."""
    c = net.shapes[x][1]
    variance = np.abs(net.normal(c)) + np.float32(0.3)
    return net("BatchNormalization", x, net.normal(c) + np.float32(1), net.normal(c, scale=0.3),
               net.normal(c, scale=0.3), variance.astype(np.float32))


def conv(net: Net, x: str, out: int | None = None, kernel: Sequence[int] | None = None, groups: int = 1,
         same: bool = False, **geometry: Any) -> str:
    """A convolution over one or two axes; ``same`` keeps the extents, else pads are random and asymmetric."""
    _, c, *size = net.shapes[x]
    kernel = kernel or net.pick((1, 1), (3, 3), (3, 3), (5, 5), (7, 7), (1, 3), (5, 1), (2, 2), (4, 3))[-len(size):]
    dilation = geometry.pop("dilations", [1] * len(size))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if same:
        before, after = [(r - 1) // 2 for r in reach], [r // 2 for r in reach]
    else:
        before, after = [int(net.rng.integers(r)) for r in reach], [int(net.rng.integers(r)) for r in reach]
        after = [max(a, r - s - b) for a, r, s, b in zip(after, reach, size, before, strict=True)]
    out = out or channels(net)
    bias = net.normal(out, scale=0.5) if net.chance(0.8) else None
    y = net("Conv", x, net.weights(out, c // groups, *kernel), bias, kernel_shape=list(kernel), group=groups,
            pads=[*before, *after], dilations=list(dilation), **geometry)
    return normalized(net, y) if net.chance(0.25) else y


FAMILIES: list[Callable[[Net, str], str]] = []
"""Blocks: from an image [N, C, H, W] to another one."""


def family(block: Callable[[Net, str], str]) -> Callable[[Net, str], str]:
    FAMILIES.append(block)
    return block


@family
def plain(net: Net, x: str) -> str:
    return activation(net, conv(net, x))


@family
def strided(net: Net, x: str) -> str:
    return activation(net, conv(net, x, strides=net.pick([2, 2], [2, 1], [1, 3], [3, 2])))


@family
def automatic(net: Net, x: str) -> str:
    """auto_pad instead of pads."""
    c = net.shapes[x][1]
    k, s, out = net.pick(1, 2, 3), net.pick(1, 2), channels(net)
    mode = net.pick("SAME_UPPER", "SAME_LOWER") if min(net.shapes[x][2:]) < 3 or net.chance(0.7) else "VALID"
    y = net("Conv", x, net.weights(out, c, k, k), net.normal(out), auto_pad=mode, strides=[s, s])
    return activation(net, y)


@family
def dilated(net: Net, x: str) -> str:
    return activation(net, conv(net, x, kernel=(3, 3), dilations=net.pick([2, 2], [1, 3], [2, 1])))


@family
def grouped(net: Net, x: str) -> str:
    """Groups of a few channels."""
    groups = net.pick(2, 3, 4)
    x = conv(net, x, groups * net.pick(1, 3, 8, 11), kernel=(1, 1))
    return activation(net, conv(net, x, groups * net.pick(1, 2, 5, 16), groups=groups))


@family
def depthwise(net: Net, x: str) -> str:
    c = net.shapes[x][1]
    kernel = net.pick((3, 3), (3, 3), (5, 5), (7, 7), (1, 3), (4, 2))
    geometry = net.pick({}, {"strides": [2, 2]}, {"strides": [1, 2]}, {"dilations": [2, 2]})
    return activation(net, conv(net, x, c, kernel, c, **geometry))


@family
def multiplied(net: Net, x: str) -> str:
    """A depthwise convolution with several outputs per channel."""
    c = net.shapes[x][1]
    if c > 24:
        x, c = conv(net, x, 7, kernel=(1, 1)), 7
    return activation(net, conv(net, x, c * net.pick(2, 3), (3, 3), c, strides=net.pick([1, 1], [2, 2])))


@family
def residual(net: Net, x: str) -> str:
    c = net.shapes[x][1]
    y = activation(net, conv(net, x, same=True))
    y = conv(net, y, c, same=True)
    return activation(net, net(net.pick("Add", "Add", "Add", "Sub"), *(net.pick((x, y), (y, x)))))


@family
def inverted_residual(net: Net, x: str) -> str:
    c = net.shapes[x][1]
    wide = c * net.pick(2, 3) if c < 24 else c
    y = net("Clip", conv(net, x, wide, (1, 1), same=True), scalar(0), scalar(6))
    y = conv(net, activation(net, conv(net, y, wide, (3, 3), wide, same=True)), c, (1, 1), same=True)
    return net("Add", x, y)


@family
def squeeze_excite(net: Net, x: str) -> str:
    c = net.shapes[x][1]
    y = net("GlobalAveragePool", x) if net.chance(0.5) else net("ReduceMean", x, integers(2, 3), keepdims=1)
    y = activation(net, conv(net, y, net.pick(1, 3, 8), (1, 1), same=True))
    y = net(net.pick("Sigmoid", "HardSigmoid"), conv(net, y, c, (1, 1), same=True))
    return net("Mul", *net.pick((x, y), (y, x)))


@family
def inception(net: Net, x: str) -> str:
    pooled = net("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    branches = [conv(net, x, same=True), activation(net, conv(net, pooled, same=True)), x, pooled]
    count = int(net.rng.integers(2, 5))
    return net("Concat", *(branches[i] for i in net.rng.permutation(4)[:count]), axis=1)


@family
def divided(net: Net, x: str) -> str:
    """Split, a layer on one part, and together again, along any axis."""
    shape = net.shapes[x]
    axis = net.pick(*[i for i in (1, 2, 3) if shape[i] > 1] or [0])
    if shape[axis] == 1:
        return activation(net, x)
    first = int(net.rng.integers(1, shape[axis]))
    a, b = net("Split", x, integers(first, shape[axis] - first), outputs=2, axis=axis)
    c = net.shapes[a][1]
    a = activation(net, conv(net, a, c, same=True)) if net.chance(0.7) else net("Relu", a)
    return net("Concat", *net.pick((a, b), (b, a)), axis=axis)


@family
def sliced(net: Net, x: str) -> str:
    shape = net.shapes[x]
    begin = [int(net.rng.integers(max(1, d // 2))) for d in shape[1:]]
    end = [int(net.rng.integers(max(b + 1, d // 2), d + 1)) for b, d in zip(begin, shape[1:], strict=True)]
    step = net.pick([1, 1, 1], [1, 2, 2], [2, 1, 1], [1, 1, 2])
    if net.chance(0.2):
        return net("Slice", x, integers(-1), integers(-(2**31)), integers(3), integers(-1))
    return net("Slice", x, integers(*begin), integers(*end), integers(1, 2, 3), integers(*step))


@family
def shuffled(net: Net, x: str) -> str:
    """Channel shuffle."""
    n, _, h, w = net.shapes[x]
    groups, each = net.pick(2, 3), net.pick(2, 5, 16)
    x = conv(net, x, groups * each, (1, 1), same=True)
    y = net("Transpose", net("Reshape", x, integers(n, groups, each, h, w)), perm=[0, 2, 1, 3, 4])
    return net("Reshape", y, integers(n, groups * each, h, w))


@family
def depth_and_space(net: Net, x: str) -> str:
    h, w = net.shapes[x][2:]
    if h % 2 == w % 2 == 0 and net.chance(0.5):
        return net("SpaceToDepth", x, blocksize=2)
    return net("DepthToSpace", conv(net, x, 4 * net.pick(1, 3, 8), (1, 1)), blocksize=2, mode=net.pick("DCR", "CRD"))


@family
def padded(net: Net, x: str) -> str:
    h, w = net.shapes[x][2:]
    mode = net.pick("constant", "edge", "reflect")
    top, left, bottom, right = (int(net.rng.integers(min(3, d))) for d in (h, w, h, w))
    value = scalar(net.pick(0, 0, 0.5, -1))
    y = net("Pad", x, integers(0, 0, top, left, 0, 0, bottom, right), value if mode == "constant" else None, mode=mode)
    return conv(net, y) if net.chance(0.7) else y


def pool_geometry(net: Net, x: str) -> dict[str, Any]:
    """Kernel, strides and pads that fit; all else is default."""
    size = net.shapes[x][2:]
    kernel = [min(k, d) for k, d in zip(net.pick((2, 2), (3, 3), (3, 3), (2, 3), (5, 5), (4, 1)), size, strict=True)]
    strides = net.pick([1, 1], [2, 2], [2, 2], [3, 2])
    pads = [int(net.rng.integers(k)) if net.chance(0.5) else 0 for k in kernel * 2]
    # Whether a last window that starts behind the input counts is not agreed on (ONNX's shape inference, its runtime).
    starts = [-(-(d + a + b - k) // s) * s - a
              for d, a, b, k, s in zip(size, pads, pads[2:], kernel, strides, strict=False)]
    agreed = all(start < d for start, d in zip(starts, size, strict=True))
    return {"kernel_shape": kernel, "strides": strides, "pads": pads, "ceil_mode": net.pick(0, 1) if agreed else 0}


@family
def max_pool(net: Net, x: str) -> str:
    geometry = pool_geometry(net, x)
    if net.chance(0.2) and min(net.shapes[x][2:]) >= 5:
        geometry |= {"dilations": [2, 2], "kernel_shape": [3, 3]}
    return net("MaxPool", x, **geometry)


@family
def average_pool(net: Net, x: str) -> str:
    return net("AveragePool", x, **pool_geometry(net, x), count_include_pad=net.pick(0, 1))


@family
def resized(net: Net, x: str) -> str:
    n, c, h, w = net.shapes[x]
    mode = net.pick("nearest", "linear")
    coordinates = net.pick("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    how: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        how["nearest_mode"] = net.pick("floor", "round_prefer_floor", "ceil")
    if net.chance(0.5):
        scales = [1, 1, *(net.pick(2, 3, 0.5, 0.7) if d > 1 else 3 for d in (h, w))]
        return net("Resize", x, None, np.array(scales, np.float32), **how)
    return net("Resize", x, None, None, integers(n, c, *map(int, net.rng.integers(1, 14, 2))), **how)


@family
def transposed_conv(net: Net, x: str) -> str:
    c, h, w = net.shapes[x][1:]
    groups = net.pick(*(g for g in (1, 1, 3, c) if c % g == 0))
    kernel, stride = net.pick(2, 3, 4), net.pick([1, 1], [2, 2], [2, 1], [3, 2])
    pads = [int(net.rng.integers(2)) if (h - 1) * min(stride) + kernel > 3 else 0 for _ in range(4)]
    out = net.pick(1, 5, 16)
    if min(h, w) == 1:
        pads = [0] * 4
    y = net("ConvTranspose", x, net.weights(c, out if groups < c else 1, kernel, kernel), None, group=groups,
            strides=stride, pads=pads, output_padding=[int(net.rng.integers(s)) for s in stride],
            dilations=net.pick([1, 1], [1, 1], [2, 2]))
    return activation(net, y)


@family
def functions(net: Net, x: str) -> str:
    """Functions one after the other, and of a value that other nodes read too."""
    y = activation(net, activation(net, x))
    return net(net.pick("Add", "Max", "Min", "Mul"), x, y)


@family
def broadcast(net: Net, x: str) -> str:
    """Arithmetic with constants of any broadcastable shape, and with reductions of the value itself."""
    n, c, h, w = net.shapes[x]
    other: str | Array
    if net.chance(0.3):
        other = net(net.pick("ReduceMean", "ReduceMax"), x, integers(net.pick(1, 2, 3)), keepdims=1)
    else:
        other = net.normal(*net.pick((1, c, 1, 1), (c, 1, 1), (h, w), (n, c, h, w), (1,)))
    op = net.pick("Add", "Sub", "Mul", "Max", "Min")
    return activation(net, net(op, *net.pick((x, other), (other, x))))


@family
def divided_by_constant(net: Net, x: str) -> str:
    c = net.shapes[x][1]
    return net("Div", x, net.pick(scalar(3), np.abs(net.normal(c, 1, 1)) + np.float32(0.5)))


@family
def standalone_normalization(net: Net, x: str) -> str:
    return activation(net, normalized(net, net("Relu", x)))


@family
def gathered(net: Net, x: str) -> str:
    axis = net.pick(1, 2, 3)
    size = net.shapes[x][axis]
    return net("Gather", x, net.rng.integers(-size, size, int(net.rng.integers(1, 9))).astype(np.int64), axis=axis)


@family
def expanded(net: Net, x: str) -> str:
    n, c, h, w = net.shapes[x]
    y = net("Expand", net(net.pick("GlobalAveragePool", "GlobalMaxPool"), x), integers(n, c, h, w))
    return net("Concat", x, y, axis=1) if net.chance(0.5) else net("Add", x, y)


@family
def spatial_softmax(net: Net, x: str) -> str:
    return net("Mul", x, net("Softmax", net("Mul", x, scalar(2)), axis=net.pick(1, 2, 3)))


@family
def attention(net: Net, x: str) -> str:
    """Products of activations."""
    n, _, h, w = net.shapes[x]
    depth, values = net.pick(3, 8, 17), net.pick(4, 7)
    if h * w > 100:
        x = net("AveragePool", x, kernel_shape=[3, 3], strides=[3, 3], ceil_mode=1)
        n, _, h, w = net.shapes[x]
    q, k = (net("Reshape", conv(net, x, depth, (1, 1), same=True), integers(n, depth, h * w)) for _ in range(2))
    v = net("Reshape", conv(net, x, values, (1, 1), same=True), integers(n, values, h * w))
    scores = net("MatMul", net("Transpose", q, perm=[0, 2, 1]), k)
    scores = net("Softmax", net("Mul", scores, scalar(depth**-0.5)), axis=-1)
    return net("Reshape", net("MatMul", v, net("Transpose", scores, perm=[0, 2, 1])), integers(n, values, h, w))


@family
def sequence(net: Net, x: str) -> str:
    """Layers over one axis."""
    n, c, h, w = net.shapes[x]
    y = net("Reshape", x, integers(n, c, h * w))
    y = activation(net, conv(net, y, strides=[net.pick(1, 2)]))
    if net.shapes[y][2] > 2:
        y = net(net.pick("MaxPool", "AveragePool"), y, kernel_shape=[2], strides=[2])
    return net("Unsqueeze", conv(net, y, kernel=(3,), dilations=[2]), integers(net.pick(2, 3)))


@family
def channels_last_dense(net: Net, x: str) -> str:
    """A dense layer over the channels of every pixel."""
    c, out = net.shapes[x][1], channels(net)
    y = net("MatMul", net("Transpose", x, perm=[0, 2, 3, 1]), net.weights(out, c).T.copy())
    return net("Transpose", activation(net, net("Add", y, net.normal(out))), perm=[0, 3, 1, 2])


@family
def turned(net: Net, x: str) -> str:
    return net("Transpose", x, perm=[0, *map(int, 1 + net.rng.permutation(3))])


def smaller(net: Net, x: str) -> str:
    """Fewer pixels and channels."""
    x = conv(net, x, net.pick(3, 5, 8), (1, 1), same=True) if net.shapes[x][1] > 64 else x
    return net("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1) if max(net.shapes[x][2:]) > 8 else x


# ---- networks ---------------------------------------------------------------------------------------------------


def head(net: Net, x: str) -> str:
    """What a network ends in."""
    n, *image = net.shapes[x]
    if math.prod(image) > 3000 or net.chance(0.6):
        op = net.pick("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum")
        flat = net("Flatten", net(op, x) if op.startswith("Global") else net(op, x, integers(2, 3)))
    else:
        flat = net("Reshape", x, integers(n, -1))
    width, classes = net.shapes[flat][1], net.pick(1, 2, 10, 33)
    match int(net.rng.integers(7)):
        case 0:
            return flat
        case 1:
            return net("ArgMax", x, axis=1, keepdims=net.pick(0, 1))
        case 2:
            return x
        case 3:
            return net("MatMul", flat, net.weights(classes, width).T.copy())
        case 4:
            hidden = net("Relu", net("Gemm", flat, net.weights(17, width), net.normal(17), transB=1))
            return net("Gemm", hidden, net.weights(17, classes), net.normal(classes), alpha=0.5)
        case _:
            y = net("Gemm", flat, net.weights(classes, width), net.normal(classes), transB=1)
            return net("ArgMax", y, axis=-1, keepdims=0) if net.chance(0.2) else net("Softmax", y, axis=-1)


def random_model(seed: int) -> onnx.ModelProto:
    """The network of a seed: one or two inputs, a few blocks, one to three outputs."""
    net = Net(seed)
    batch = net.pick(1, 1, 1, 2, 3)
    size = [int(d) for d in net.rng.integers(3, 15, 2)]
    x = net.input(batch, channels(net), *size)
    if net.chance(0.15):
        c = net.shapes[x][1]
        other = net.input(*net.pick((batch, c, *size), (batch, c, 1, 1)))
        x = net(net.pick("Add", "Mul", "Sub"), x, other)
    blocks = [FAMILIES[seed % len(FAMILIES)]]
    blocks += [net.pick(*FAMILIES) for _ in range(int(net.rng.integers(1, 4)))]
    values = []
    for block in blocks:
        if math.prod(net.shapes[x]) > LARGE:
            x = smaller(net, x)
        x = block(net, x)
        values.append(x)
    outputs = [head(net, x)]
    if net.chance(0.2):
        outputs.append(head(net, net.pick(*values)))
    if net.chance(0.1):
        outputs.append(net.pick(*values))
    return net.model(*(v for v in dict.fromkeys(outputs) if v not in net.inputs))


def random_samples(model: onnx.ModelProto, count: int, seed: int) -> list[dict[str, Array]]:
    """Standard normal inputs by name."""
    rng = np.random.default_rng(seed)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    return [{name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()} for _ in range(count)]
