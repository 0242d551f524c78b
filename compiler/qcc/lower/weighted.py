"""conv2d and dense nodes → kernel calls: which kernel, its views of memory, and its constants in the packed order.

Packing depends on the target's vectors: ``lanes`` output channels side by side, the reduction in groups of ``dot``
bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Node
from qcc.lower.columns import columns_call, plane_call
from qcc.lower.elementwise import lookup_calls
from qcc.lower.kernel import BufferArg, Call, CallBuilder, LowerContext, View
from qcc.lower.views import Placed, merge_axes, pixel_step, storage_offset
from qcc.numerics import INT8_MAX, INT8_MIN, INT16_MAX, INT32_MAX, accumulator_bound
from qcc.numerics_float import weight_scale
from qcc.ops.rounding import follows_tflite
from qcc.schedule.tiles import depthwise_packing, gemm_parts, whole_groups

Number = TypeVar("Number", bound=np.generic)
Weights = NDArray[np.int8] | NDArray[np.int16] | NDArray[np.float32] | NDArray[np.float16]
"""int8, or int16 where TFLite's weights less their zero point leave int8; floating for sums of float32."""


@dataclass(frozen=True)
class Window:
    """Geometry of a convolution: output (0, 0) begins at input ``start``, which is (0, 0) where x holds its padding."""

    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    start: tuple[int, int] = (0, 0)


def moved(place: Placed, index: tuple[int, ...], shape: tuple[int, ...]) -> Placed:
    """The part of a place that starts at ``index`` and has ``shape``."""
    view, arg = place
    offset = arg.offset + sum(i * s for i, s in zip(index, view.strides, strict=True))
    return View(shape, view.strides, view.dtype), BufferArg(arg.value, offset)


def as_image(place: Placed) -> Placed | None:
    """A place of any rank as [1, 1, pixels, channels], if strides allow."""
    view, arg = place
    step = pixel_step(view)
    if step is None:
        return None
    *outer, channels = view.shape
    pixels = int(np.prod(outer, dtype=np.int64))
    return View((1, 1, pixels, channels), (pixels * step, pixels * step, step, view.strides[-1]), view.dtype), arg


def as_images(places: Sequence[Placed]) -> Iterator[list[Placed]]:
    """Places of one shape [..., C] as [B, H, W, C] with as few axes as strides allow; in parts if those are more."""
    shape = places[0][0].shape[:-1]
    outer, steps, _ = merge_axes(shape, [view.strides[:-1] for view, _ in places])
    missing = max(0, 3 - len(outer))
    for index in np.ndindex(outer[:-3]):
        part = []
        for (view, arg), strides in zip(places, steps, strict=True):
            offset = arg.offset + sum(i * s for i, s in zip(index, strides, strict=False))
            gaps = (0,) * missing + (*strides[len(index) :], view.strides[-1])
            extents = (1,) * missing + (*outer[len(index) :], view.shape[-1])
            part.append((View(extents, gaps, view.dtype), BufferArg(arg.value, offset)))
        yield part


def pad_to(array: NDArray[Number], axis: int, multiple: int) -> NDArray[Number]:
    """Zeros appended along ``axis`` up to a multiple."""
    missing = -array.shape[axis] % multiple
    return np.pad(array, [(0, missing if i == axis else 0) for i in range(array.ndim)])


def centred_weights(node: Node, ctx: LowerContext) -> Weights:
    """Weights less their zero point, which only TFLite's first scheme has."""
    w: Weights = ctx.constant(node.inputs["w"])
    zero_point = ctx.type(node.inputs["w"]).zero_point if follows_tflite(node) else 0
    return w.astype(np.int16) - np.int16(zero_point) if zero_point else w


def byte_parts(w: Weights) -> list[NDArray[Any]]:
    """int8 arrays whose sum is ``w``; floating weights stay as they are."""
    if w.dtype.kind == "f":
        return [w]
    rest = w.astype(np.int16)
    parts: list[NDArray[np.int8]] = []
    while rest.any() or not parts:
        parts.append(np.clip(rest, INT8_MIN, INT8_MAX).astype(np.int8))
        rest = rest - parts[-1]
    return parts


def pack_gemm(w: NDArray[Number], lanes: int, dot: int, whole: int) -> NDArray[Number]:
    """[N, KY, KX, run] → [N / lanes, KY, KX, whole / dot, lanes, dot], padded with zeros."""
    w = pad_to(pad_to(w, 0, lanes), 3, whole)
    n, ky, kx, run = w.shape
    return np.ascontiguousarray(w.reshape(n // lanes, lanes, ky, kx, run // dot, dot).transpose(0, 2, 3, 4, 1, 5))


def pack_depthwise(w: NDArray[Number], lanes: int, dot: int) -> NDArray[Number]:
    """[N, KY, KX] → [N / lanes, KX, KY / dot, lanes, dot], padded with zeros."""
    w = pad_to(pad_to(w, 0, lanes), 1, dot)
    n, ky, kx = w.shape
    return np.ascontiguousarray(w.reshape(n // lanes, lanes, ky // dot, dot, kx).transpose(0, 4, 2, 1, 3))


def scaled_to(wanted: int, multiplier: NDArray[np.int32], shift: int) -> tuple[NDArray[np.int32], int]:
    """The same requantization with a larger shift where the multipliers have room: both scale by a power of two."""
    extra = wanted - shift
    if extra > 0 and int(multiplier.max(initial=0)) << extra <= INT32_MAX:
        return (multiplier << extra).astype(np.int32), wanted
    return multiplier, shift


class FloatEpilogue:
    """As ``Epilogue``, of a layer whose result is float32: after sums of float32, or of int8 with a step (``step``)."""

    suffix = "_float"

    def __init__(self, node: Node, ctx: LowerContext, w: Weights) -> None:
        """``w`` has the output channels first."""
        channels = w.shape[0]
        bias = ctx.constant(node.inputs["b"]) if "b" in node.inputs else np.zeros(channels, np.float32)
        self.vectors: dict[str, NDArray[Any]] = {"addend": bias}
        self.q = np.array(node.attrs["clamp"] or (-np.inf, np.inf), np.float32)
        self.residual = ctx.place(node.inputs["residual"]) if "residual" in node.inputs else None
        self.step: Placed | None = None
        if "step" in node.inputs:
            self.suffix = ""
            self.step = ctx.place(node.inputs["step"])
            self.vectors["scale"] = weight_scale(ctx.type(node.inputs["w"]).qparams)
            zero = ctx.type(node.inputs["x"]).zero_point + storage_offset(ctx.storage)
            self.vectors["bias"] = (-zero * w.reshape(channels, -1).sum(axis=1, dtype=np.int64)).astype(np.int32)

    def params(self, channels: int) -> dict[str, int | bool | None]:
        """Static parameters; int8 weights are never -128."""
        return {"channels": channels, "symmetric": True}

    def add_constants(self, call: CallBuilder, begin: int, end: int, lanes: int) -> None:
        """The vectors for channels [begin, end), padded; and the step."""
        for key, array in self.vectors.items():
            call.const(key, pad_to(array[begin:end], 0, lanes))
        if self.step is not None:
            call.read("step", self.step)


class Epilogue:
    """Constants and parameters of the epilogue of one node, cut to a range of channels on demand."""

    suffix = ""
    """Of the names of computes."""

    def __init__(self, node: Node, ctx: LowerContext, w: Weights) -> None:
        """``w`` has the output channels first; sums over it move the input's stored zero point into the bias."""
        a = node.attrs
        self.w = w
        self.offset = 128 if ctx.storage == "uint8" else 0
        zero = ctx.type(node.inputs["x"]).zero_point + self.offset
        sums = w.reshape(w.shape[0], -1).astype(np.int64).sum(axis=1)
        self.bias = (ctx.constant(node.inputs["b"]).astype(np.int64) - zero * sums).astype(np.int32)
        self.multiplier = ctx.constant(node.inputs["multiplier"])
        self.shift: int | None = None
        self.shifts: NDArray[np.int32] | None = None
        if follows_tflite(node):
            self.shifts = ctx.constant(node.inputs["shift"])
        else:
            self.multiplier, self.shift = scaled_to(ctx.target.requant_shift, self.multiplier, a["shift"])
        low, high = a["clamp"]
        self.clamped = (low, high) != (-128, 127)
        self.q = np.array([a["zero_point"] + self.offset, low + self.offset, high + self.offset, 0, 0], np.int32)
        self.fraction = 0
        self.residual: Placed | None = None
        if "residual" in node.inputs:
            self.residual = ctx.place(node.inputs["residual"])
            self.fraction = a["fraction"]
            self.q[3:] = ctx.type(node.inputs["residual"]).zero_point + self.offset, a["residual_multiplier"]
        self.narrow = False
        """Values fit 16 bits before they are clamped, zero point included."""
        if self.shift is not None:
            bound = accumulator_bound(w, ctx.constant(node.inputs["b"]), ctx.type(node.inputs["x"]).zero_point)
            values = bound.astype(np.float64) * self.multiplier * 2.0**-self.shift
            largest = (values.max(initial=0) + 255 * abs(int(self.q[4])) + 2) * 2.0**-self.fraction
            self.narrow = bool(largest + 256 < INT16_MAX)
        self.symmetric = bool((w > -128).all())

    def params(self, channels: int) -> dict[str, int | bool | None]:
        """Static parameters. ``shift`` is None with TFLite's rounding; ``raised``: some shifts are to the left;
        ``short``: the residual's multiplier fits 16 bits.
        """
        raised = self.shifts is not None and bool((self.shifts < 0).any())
        return {"channels": channels, "shift": self.shift, "raised": raised, "fraction": self.fraction,
                "clamped": self.clamped, "narrow": self.narrow, "symmetric": self.symmetric,
                "short": abs(int(self.q[4])) <= INT16_MAX}  # fmt: skip

    def add_constants(self, call: CallBuilder, begin: int, end: int, lanes: int) -> None:
        """Bias, multiplier and shift of channels [begin, end), padded to whole vectors."""
        for key, array in (("bias", self.bias), ("multiplier", self.multiplier), ("shift", self.shifts)):
            if array is not None:
                call.const(key, pad_to(array[begin:end], 0, lanes))


def epilogue_of(node: Node, ctx: LowerContext, w: Weights) -> Epilogue | FloatEpilogue:
    """What follows the sums of a layer with weights ``w``."""
    return (FloatEpilogue if ctx.type(node.output).dtype == "float32" else Epilogue)(node, ctx, w)


def vectors(place: Placed, channels: int) -> Placed:
    """A place whose last extent is rounded up to ``channels``; lanes beyond the end are never stored."""
    view, arg = place
    return View((*view.shape[:-1], channels), view.strides, view.dtype), arg


def gemm_calls(
    node: Node, ctx: LowerContext, x: Placed, y: Placed, residual: Placed | None, w: Weights, window: Window,
    epilogue: Epilogue | FloatEpilogue, begin: int = 0,
) -> list[Call]:
    """Convolution of padded x [B, H, W, C] by w [N, KY, KX, C] into y [B, OH, OW, N], the channels from ``begin``."""
    target = ctx.target
    if target.firmware:
        assert isinstance(epilogue, Epilogue), "C source has no float layers"
        return [columns_call(node, ctx, x, y, residual, w, window, epilogue, begin)]
    n, ky, kx, channels = w.shape
    flat = [as_image(p) for p in (x, y, residual) if p is not None]
    pointwise = (ky, kx) == (1, 1) and window.stride == (1, 1)
    if pointwise and all(p is not None for p in flat):
        x, y, *rest = (p for p in flat if p is not None)
        residual = rest[0] if rest else None
    pixel = x[0].strides[2]
    joined = kx == 1 or (pixel == channels and window.dilation[1] == 1)
    runs = [part.reshape(n, ky, 1, kx * channels) if joined else part for part in byte_parts(w)]
    # The parts of a tap are taps at the same place.
    stacked = np.stack(runs, axis=3).reshape(n, ky, -1, runs[0].shape[3])
    step, hop = window.stride[1] * pixel, window.dilation[1] * pixel
    batch, height, width, _ = y[0].shape
    calls, real = [], w.dtype.kind == "f"
    for part in gemm_parts(target, width, n, w[0].size, real):
        count, these = part.last - part.first, part.end - part.begin
        groups = -(-runs[0].shape[3] // part.dot)
        run = (groups if real else whole_groups(target, groups)) * part.dot
        packed = pack_gemm(stacked[part.begin : part.end], part.lanes, part.dot, run)
        blocks, _, taps, groups = packed.shape[:4]
        taps //= len(runs)
        extent = (count - 1) * step + (taps - 1) * hop + groups * part.dot
        call = CallBuilder(
            f"conv_gemm{epilogue.suffix}", node.output, macs=batch * height * count * these * (w.size // n),
            params={"stride": window.stride[0], "dilation": window.dilation[0], "step": step, "hop": hop,
                    "parts": len(runs), "outputs": (batch, height, count), "depth": w[0].size,
                    **epilogue.params(these)},
        )  # fmt: skip
        origin = BufferArg(x[1].value, x[1].offset + part.first * step)
        call.read("x", (View((batch, x[0].shape[1], extent), (*x[0].strides[:2], 1), x[0].dtype), origin))
        call.const("w", packed)
        epilogue.add_constants(call, begin + part.begin, begin + part.end, part.lanes)
        shape, index, wide = (batch, height, count, these), (0, 0, part.first, part.begin), blocks * part.lanes
        if residual is not None:
            call.read("residual", vectors(moved(residual, index, shape), wide))
        call.const("q", epilogue.q)
        call.write("y", vectors(moved(y, index, shape), wide))
        calls.append(call.call())
    return calls


def depthwise_call(
    node: Node, ctx: LowerContext, x: Placed, y: Placed, w: Weights, window: Window, epilogue: Epilogue | FloatEpilogue
) -> Call:
    """Depthwise convolution of padded x [B, H, W, C] by w [C, KY, KX, 1] into y [B, OH, OW, C]."""
    if ctx.target.firmware:
        assert isinstance(epilogue, Epilogue), "C source has no float layers"
        return plane_call(node, ctx, x, y, w, window, epilogue)
    sliding = window.stride[0] == window.dilation[0] == 1
    lanes, dot = depthwise_packing(ctx.target, w.shape[1], sliding, real=w.dtype.kind == "f")
    parts = byte_parts(w[..., 0])
    packed = pack_depthwise(np.stack(parts, axis=3).reshape(*w.shape[:2], -1), lanes, dot)
    (batch, height, width, _), n = y[0].shape, w.shape[0]
    wide = packed.shape[0] * lanes
    call = CallBuilder(
        f"conv_depthwise{epilogue.suffix}", node.output, macs=batch * height * width * w.size,
        params={"stride": window.stride[1], "dilation": window.dilation[1], "parts": len(parts),
                "outputs": (batch, height, width), "taps_y": w.shape[1],
                "sliding": sliding and w.shape[1] % dot > 0, **epilogue.params(n)},
    )  # fmt: skip
    image, row, pixel, _ = x[0].strides
    rows = View(
        (batch, height, packed.shape[2] * dot, x[0].shape[2], wide),
        (image, window.stride[0] * row, window.dilation[0] * row, pixel, 1),
        x[0].dtype,
    )
    call.read("x", (rows, x[1]))
    call.const("w", packed)
    epilogue.add_constants(call, 0, n, lanes)
    if epilogue.residual is not None:
        call.read("residual", vectors(epilogue.residual, wide))
    call.const("q", epilogue.q)
    call.write("y", vectors(y, wide))
    return call.call()


def convolution_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """Kernel calls of a conv2d node."""
    a = node.attrs
    w = centred_weights(node, ctx)
    x, y = ctx.window(node.inputs["x"], a["pad"]), ctx.place(node.output)
    start = (0, 0) if ctx.target.halos else (-a["pad"][0], -a["pad"][1])
    window = Window(a["stride"], a["dilation"], start)
    epilogue = epilogue_of(node, ctx, w)
    return grouped_calls(node, ctx, x, y, w, window, epilogue) + table_calls(node, ctx)


def grouped_calls(
    node: Node, ctx: LowerContext, x: Placed, y: Placed, w: Weights, window: Window, epilogue: Epilogue | FloatEpilogue
) -> list[Call]:
    """Convolution of padded x [B, H, W, C] by w [N, KY, KX, C / groups] into y [B, OH, OW, N].

    As many groups as fill a vector of output channels are one convolution whose other weights are zero.
    """
    groups, (n, _, _, depth) = node.attrs["groups"], w.shape
    if groups == 1:
        return gemm_calls(node, ctx, x, y, epilogue.residual, w, window, epilogue)
    if depth == 1 and groups == n:
        return [depthwise_call(node, ctx, x, y, w, window, epilogue)]
    calls = []
    each = n // groups
    together = max(1, ctx.target.lanes // each)
    for g in range(0, groups, together):
        first, last = g * each, min(g + together, groups) * each
        part = moved(x, (0, 0, 0, g * depth), (*x[0].shape[:3], (last - first) // each * depth))
        index, rows = (0, 0, 0, first), (*y[0].shape[:3], last - first)
        r = epilogue.residual and moved(epilogue.residual, index, rows)
        weights = block_diagonal(w[first:last], each)
        calls += gemm_calls(node, ctx, part, moved(y, index, rows), r, weights, window, epilogue, first)
    return calls


def block_diagonal(w: Weights, each: int) -> Weights:
    """[G * each, KY, KX, depth] of G groups → [G * each, KY, KX, G * depth] of one, zero across groups."""
    n, ky, kx, depth = w.shape
    wide = np.zeros((n, ky, kx, n // each, depth), w.dtype)
    for g in range(n // each):
        wide[g * each : (g + 1) * each, :, :, g] = w[g * each : (g + 1) * each]
    return wide.reshape(n, ky, kx, -1)


def table_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """The lookup that ends a node with a table, in place."""
    if "table" not in node.inputs:
        return []
    y = ctx.place(node.output)
    return lookup_calls(node, ctx, y, ctx.constant(node.inputs["table"]), y)


def dense_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """Kernel calls of a dense node: a 1x1 convolution whose pixels are the rows of x."""
    w = centred_weights(node, ctx)
    epilogue = epilogue_of(node, ctx, w)
    places = [ctx.place(node.inputs["x"]), ctx.place(node.output)]
    calls = []
    for x, y, *residual in as_images([*places, *filter(None, [epilogue.residual])]):
        calls += gemm_calls(node, ctx, x, y, residual[0] if residual else None, w[:, None, None, :], Window(), epilogue)
    return calls + table_calls(node, ctx)
