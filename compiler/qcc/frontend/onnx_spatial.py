"""Importers of operators over images: convolutions, pools, blocks. One spatial axis becomes two, the first of 1."""

from __future__ import annotations

from dataclasses import dataclass

from qcc.frontend.onnx_node import OnnxNode, importer
from qcc.frontend.refused import Refused

Pair = tuple[int, int]
MAX_EXTENT = 2**16
"""Of kernels, strides, dilations and pads."""


@dataclass(frozen=True)
class Window:
    """Geometry over (height, width); ``pad`` is (top, left, bottom, right), ``size`` that of the input."""

    size: Pair
    kernel: Pair
    stride: Pair
    dilation: Pair
    pad: tuple[int, int, int, int]

    @property
    def reach(self) -> Pair:
        """Extent of the dilated kernel."""
        return (self.kernel[0] - 1) * self.dilation[0] + 1, (self.kernel[1] - 1) * self.dilation[1] + 1


def channels_last(n: OnnxNode, x: str) -> str:
    """[N, C, L] or [N, C, H, W] to [N, H, W, C] (H = 1 for the former)."""
    shape = n.shape_of(x)
    if len(shape) == 3:
        batch, channels, length = shape
        return n.reshape(n.transpose(x, (0, 2, 1)), (batch, 1, length, channels))
    if len(shape) != 4:
        raise Refused(f"its input has shape {list(shape)}; only one or two spatial axes are possible")
    return n.transpose(x, (0, 2, 3, 1))


def channels_first(n: OnnxNode, y: str, rank: int) -> str:
    """The inverse of ``channels_last`` for a result; ``rank`` is that of the ONNX value."""
    if rank == 3:
        batch, _, length, channels = n.shape_of(y)
        return n.transpose(n.reshape(y, (batch, length, channels)), (0, 2, 1))
    return n.transpose(y, (0, 3, 1, 2))


def window(n: OnnxNode, kernel: tuple[int, ...]) -> Window:
    """Window attributes of a node over input 0, with automatic padding resolved (for a convolution or pool)."""
    size = n.shape(0)[2:]
    rank = len(size)
    stride, dilation = n.ints("strides", (1,) * rank, rank), n.ints("dilations", (1,) * rank, rank)
    pads = n.ints("pads", (0,) * (2 * rank), 2 * rank)
    if len(kernel) != rank or min(*kernel, *stride, *dilation) < 1 or min(pads) < 0 or max(
            *kernel, *stride, *dilation, *pads) > MAX_EXTENT:
        raise Refused(f"kernel {kernel}, strides {stride}, dilations {dilation} or pads {pads} are not possible")
    auto = n.attrs.get("auto_pad", "NOTSET")
    before, after = list(pads[:rank]), list(pads[rank:])
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        for i in range(rank):
            covered = (-(-size[i] // stride[i]) - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1
            total = max(covered - size[i], 0)
            before[i] = total // 2 if auto == "SAME_UPPER" else total - total // 2
            after[i] = total - before[i]
    elif auto == "VALID":
        before, after = [0] * rank, [0] * rank
    elif auto != "NOTSET":
        raise Refused(f"auto_pad '{auto}' is not known")
    one, zero = [1] * (2 - rank), [0] * (2 - rank)
    (top, left), (bottom, right) = zero + before, zero + after
    return Window(_pair([*one, *size]), _pair([*one, *kernel]), _pair([*one, *stride]), _pair([*one, *dilation]),
                  (top, left, bottom, right))


def _pair(values: list[int]) -> Pair:
    first, second = values
    return first, second


@importer("Conv")
def conv(n: OnnxNode) -> str:
    """W [O, C/g, kernel] becomes [O, KH, KW, C/g]."""
    x, rank = channels_last(n, n.value(0)), len(n.shape(0))
    w = n.floats(1, "weights")
    if w.ndim != rank:
        raise Refused(f"its weights have shape {list(w.shape)}, its input {list(n.shape(0))}")
    _check_kernel(n, w.shape[2:])
    geometry = window(n, w.shape[2:])
    images = w.reshape(*w.shape[:2], *geometry.kernel)
    inputs = {"x": x, "w": n.constant(n.inputs[1], images.transpose(0, 2, 3, 1), n.weight_grid(1, 0))}
    if n.has(2):
        inputs["b"] = _bias(n, w.shape[0])
    y = n.emit("conv2d", inputs, stride=geometry.stride, pad=geometry.pad, dilation=geometry.dilation,
               groups=int(n.attrs.get("group", 1)), clamp=None)
    return channels_first(n, y, rank)


def _check_kernel(n: OnnxNode, kernel: tuple[int, ...]) -> None:
    declared = n.ints("kernel_shape", kernel)
    if declared != kernel:
        raise Refused(f"kernel_shape {declared} does not fit its weights, kernel {kernel}")


def _bias(n: OnnxNode, channels: int) -> str:
    bias = n.array(2, "bias")
    if bias.shape != (channels,):
        raise Refused(f"its bias has shape {list(bias.shape)} instead of [{channels}]")
    return n.value(2)


@importer("ConvTranspose")
def conv_transpose(n: OnnxNode) -> str:
    """W [C, O/g, kernel] becomes [O, KH, KW, C/g]; automatic padding and output_shape become pad and output_pad."""
    x, rank = channels_last(n, n.value(0)), len(n.shape(0))
    w, groups = n.floats(1, "weights"), int(n.attrs.get("group", 1))
    channels = n.shape(0)[1]
    if w.ndim != rank or groups < 1 or w.shape[0] != channels or channels % groups:
        raise Refused(f"its weights have shape {list(w.shape)}, its input {list(n.shape(0))}, with {groups} groups")
    _check_kernel(n, w.shape[2:])
    pad, output_pad = _transposed_padding(n, w.shape[2:])
    geometry = window(n, w.shape[2:])
    kh, kw = geometry.kernel
    split = w.reshape(groups, channels // groups, w.shape[1], kh, kw).transpose(0, 2, 3, 4, 1)
    outputs = groups * w.shape[1]
    taps = split.reshape(outputs, kh, kw, channels // groups)
    inputs = {"x": x, "w": n.constant(n.inputs[1], taps, n.weight_grid(1, 1, groups))}
    if n.has(2):
        inputs["b"] = _bias(n, outputs)
    y = n.emit("conv_transpose2d", inputs, stride=geometry.stride, pad=pad, dilation=geometry.dilation, groups=groups,
               output_pad=output_pad, clamp=None)
    return channels_first(n, y, rank)


def _transposed_padding(n: OnnxNode, kernel: tuple[int, ...]) -> tuple[tuple[int, int, int, int], Pair]:
    """``pad`` and ``output_pad``; the size along an axis is (in - 1) * stride + reach + output_pad - pads."""
    geometry = window(n, kernel)
    rank = len(kernel)
    zeros = [0] * (2 - rank)
    output_pad = [*zeros, *n.ints("output_padding", (0,) * rank, rank)]
    auto = n.attrs.get("auto_pad", "NOTSET")
    given = n.ints("output_shape", ())
    if given:
        wanted = [*([1] * (2 - rank)), *given[-rank:]]
    elif auto.startswith("SAME"):
        wanted = [size * stride for size, stride in zip(geometry.size, geometry.stride, strict=True)]
    else:
        return geometry.pad, _pair(output_pad)
    if len(wanted) != 2:
        raise Refused(f"output_shape {given} does not fit its input")
    before, after = [0, 0], [0, 0]
    for i in range(2):
        whole = (geometry.size[i] - 1) * geometry.stride[i] + geometry.reach[i] + output_pad[i]
        total = whole - wanted[i]
        if total < 0:
            output_pad[i], total = output_pad[i] - total, 0
        before[i] = total // 2 if auto == "SAME_UPPER" else total - total // 2
        after[i] = total - before[i]
    return (before[0], before[1], after[0], after[1]), _pair(output_pad)


def _pool_window(n: OnnxNode) -> tuple[Window, tuple[int, int, int, int]]:
    """Window of a pool, and the padding that ceil_mode adds: its windows start inside the input or the leading pad."""
    if "kernel_shape" not in n.attrs:
        raise Refused("attribute kernel_shape is missing")
    geometry = window(n, n.ints("kernel_shape", ()))
    top, left, bottom, right = geometry.pad
    if any(p >= r for p, r in zip(geometry.pad, geometry.reach * 2, strict=True)):
        raise Refused(f"pads {geometry.pad} are not smaller than the kernel {geometry.kernel}")
    padded = (geometry.size[0] + top + bottom, geometry.size[1] + left + right)
    if any(r > p for r, p in zip(geometry.reach, padded, strict=True)):
        raise Refused(f"kernel {geometry.kernel} is larger than the padded input {padded}", "check its kernel and pads")
    extra = [0, 0]
    if n.attrs.get("ceil_mode", 0):
        for i, before in enumerate((top, left)):
            stride, room = geometry.stride[i], padded[i] - geometry.reach[i]
            last = -(-room // stride) * stride
            if last >= geometry.size[i] + before:
                last -= stride
            extra[i] = max(last - room, 0)
    return geometry, (0, 0, extra[0], extra[1])


def _sum_pads(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(p + q for p, q in zip(a, b, strict=True))


@importer("MaxPool")
def max_pool(n: OnnxNode) -> str:
    """Padding never wins, so that the padding of ceil_mode is like any other."""
    x = channels_last(n, n.value(0))
    geometry, extra = _pool_window(n)
    y = n.emit("max_pool", {"x": x}, kernel=geometry.kernel, stride=geometry.stride, pad=_sum_pads(geometry.pad, extra),
               dilation=geometry.dilation)
    return channels_first(n, y, len(n.shape(0)))


@importer("AveragePool")
def average_pool(n: OnnxNode) -> str:
    """The padding of ceil_mode is never counted; with count_include_pad the node's own is, as an explicit ``pad``."""
    x = channels_last(n, n.value(0))
    geometry, extra = _pool_window(n)
    if geometry.dilation != (1, 1):
        raise Refused("dilation is not supported", "use a depthwise Conv with equal weights")
    pad, counted = geometry.pad, bool(n.attrs.get("count_include_pad", 0))
    if counted and any(extra) and any(pad):
        top, left, bottom, right = pad
        x = n.emit("pad", {"x": x}, pads=((0, 0), (top, bottom), (left, right), (0, 0)), mode="constant", value=0.0)
        pad, counted = (0, 0, 0, 0), False
    y = n.emit("avg_pool", {"x": x}, kernel=geometry.kernel, stride=geometry.stride, pad=_sum_pads(pad, extra),
               count_include_pad=counted and any(pad))
    return channels_first(n, y, len(n.shape(0)))


@importer("GlobalAveragePool", "GlobalMaxPool")
def global_pool(n: OnnxNode) -> str:
    """A reduction over the spatial axes, of which ones remain."""
    x = channels_last(n, n.value(0))
    op = "reduce_mean" if n.op == "GlobalAveragePool" else "reduce_max"
    return channels_first(n, n.emit(op, {"x": x}, axes=(1, 2), keepdims=True), len(n.shape(0)))


@importer("DepthToSpace", "SpaceToDepth")
def depth_space(n: OnnxNode) -> str:
    """Reshape, transpose, reshape. Deep channels are (row, column, C) of a block, in mode CRD (C, row, column)."""
    if len(n.shape(0)) != 4:
        raise Refused(f"its input has shape {list(n.shape(0))} instead of four axes")
    x = channels_last(n, n.value(0))
    batch, height, width, channels = n.shape_of(x)
    block = int(n.attrs["blocksize"])
    mode = n.attrs.get("mode", "DCR")
    to_space = n.op == "DepthToSpace"
    if mode not in ("DCR", "CRD") or block < 1 or any(
            s % d for s, d in ([(channels, block * block)] if to_space else [(height, block), (width, block)])):
        raise Refused(f"blocksize {block}, mode '{mode}' does not fit shape {list(n.shape(0))}")
    if to_space:
        depth = channels // (block * block)
        dcr = mode == "DCR"
        x = n.reshape(x, (batch, height, width, *((block, block, depth) if dcr else (depth, block, block))))
        x = n.transpose(x, (0, 1, 3, 2, 4, 5) if dcr else (0, 1, 4, 2, 5, 3))
        x = n.reshape(x, (batch, height * block, width * block, depth))
    else:
        x = n.reshape(x, (batch, height // block, block, width // block, block, channels))
        x = n.transpose(x, (0, 1, 3, 2, 4, 5))
        x = n.reshape(x, (batch, height // block, width // block, block * block * channels))
    return channels_first(n, x, 4)
