"""Convolutions for targets that get C source: images without halos, weights for tiles of channels.

A convolution copies the inputs of a few output pixels side by side (columns) and multiplies them with the weights.
Windows of several taps are read from a window of whole rows, which slides down the image and holds its padding; a
depthwise convolution copies one channel at a time into a padded plane, where vectors of channels do not pay.

Every number of a kernel that its code does not depend on is in ``NUMBERS``: layers that differ only in these share one
function, which has those that differ as parameters (``lower.share``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.errors import TargetError
from qcc.ir.graph import Node
from qcc.lower.kernel import Call, CallBuilder, LowerContext
from qcc.lower.views import Placed, pixel_step
from qcc.numerics import INT8_MIN, INT32_MAX, storage_bound

if TYPE_CHECKING:
    from qcc.lower.weighted import Epilogue, Weights, Window

TILE = 2
"""Output channels, and pixels, of a tile."""
TILE_OF_ONE = 4
"""Output channels of a tile of a single pixel."""
UNITS = {"c99": 1, "dsp": 4, "mve": 16}
"""Bytes that columns are padded to, by bytes that meet zero weights."""
SLACK = 4
"""Bytes behind a plane that words of taps may read."""
WIDE = 8
"""Channels of a vector of int16, which are widened to int32 as even and odd ones."""

EPILOGUE = ("zero", "low", "high", "residual_zero", "residual_multiplier", "fraction")
GEOMETRY = ("height", "width", "in_height", "in_width", "depth", "channels", "taps_y", "taps_x", "stride_y", "stride_x",
            "dilation_y", "dilation_x", "start_y", "start_x", "left", "first", "count", "kept", "zero_in",
            "x_image", "x_row", "x_step", "y_image", "y_row", "y_step", "r_image", "r_row", "r_step")  # fmt: skip
NUMBERS = {
    "pointwise": ("pixels", "depth", "channels", "x_step", "y_step", "r_step", *EPILOGUE),
    "conv": (*GEOMETRY, *EPILOGUE),
    "depthwise": (*GEOMETRY, "top", "first_row", "rows", *EPILOGUE),
    "depthwise_wide": (*GEOMETRY, *EPILOGUE),
}
"""By compute, the parameters that may become parameters of the function."""


def pack_natural(w: NDArray[np.int8], tile: int) -> NDArray[np.int8]:
    """[N, K] → the same with channels padded to whole tiles."""
    return np.pad(w, ((0, -len(w) % tile), (0, 0)))


def pack_pairs(w: NDArray[np.int8], tile: int) -> NDArray[np.int8]:
    """[N, K] → [N / tile, K / 4, tile / 2, 8]: a group (a, b, c, d) of K for channels 0, 1 is
    a0 a1 c0 c1 b0 b1 d0 d1.
    """
    n, k = w.shape
    w = np.pad(w, ((0, -n % tile), (0, -k % 4)))
    groups = w.reshape(len(w) // tile, tile // 2, 2, w.shape[1] // 4, 2, 2)
    return np.ascontiguousarray(groups.transpose(0, 3, 1, 5, 4, 2)).reshape(-1)


def pack_vectors(w: NDArray[np.int8], tile: int) -> NDArray[np.int8]:
    """[N, K] → [N / tile, K / 16, tile, 16]."""
    n, k = w.shape
    unit = UNITS["mve"]
    w = np.pad(w, ((0, -n % tile), (0, -k % unit)))
    return np.ascontiguousarray(w.reshape(len(w) // tile, tile, -1, unit).transpose(0, 2, 1, 3)).reshape(-1)


def columns_call(
    node: Node, ctx: LowerContext, x: Placed, y: Placed, residual: Placed | None, w: Weights, window: Window,
    epilogue: Epilogue, begin: int,
) -> Call:
    """Convolution of x [B, H, W, C] by w [N, KY, KX, C] into y [B, OH, OW, N], the channels of ``epilogue`` from
    ``begin``.
    """
    w = _bytes(w, node, ctx)
    n, ky, kx, depth = w.shape
    over = ctx.overlay(node.output)
    flat = _flat(x, y, residual) if (ky, kx) == (1, 1) and window.stride == (1, 1) else None
    total = int(np.prod(y[0].shape[:3]))
    whole = x[0].dense and x[0].shape[1:3] == (ky, kx) and (window.start, window.dilation) == ((0, 0), (1, 1))
    if flat is None and total == 1 and whole:
        # The window of a single pixel is the whole image: a row of a matrix.
        flat = [(0, 0)] * 3
        depth *= ky * kx
    family = ctx.target.family
    single = flat is not None and total == 1
    tile = TILE_OF_ONE if family == "mve" or (family == "dsp" and single) else TILE
    pack = {"dsp": pack_pairs, "mve": pack_vectors}.get(family, pack_natural)
    call = CallBuilder("conv" if flat is None else "pointwise", node.output, macs=total * w.size)
    call.params = {"pair": 1 if single or family == "mve" else 2, "tile": tile, "ragged": n % tile > 0, "over": over,
                   **_epilogue(node, ctx, epilogue, begin, n)}  # fmt: skip
    unit = UNITS[family]
    if flat is not None:
        steps = {f"{key}_step": step for key, (step, extent) in zip("xyr", flat, strict=False) if step != extent}
        call.params |= {"pixels": total, "depth": depth, "channels": n, "whole": depth % unit == 0, **steps}
        del call.params["zero_in"]
        rows = 0
    else:
        call.params |= {"depth": depth, **_geometry(x, y, residual, w.shape, window, over)}
        run = kx * depth if call.params["joined"] else depth
        call.params |= {"whole": run % unit == 0}
        rows = _window_bytes(y, w.shape, window) if call.params["windowed"] else 0
    call.params["work"] = tuple(_work(call.params, family, w[0].size, rows))
    call.read("x", x)
    call.const("w", pack(w.reshape(n, -1), tile))
    _constants(call, epilogue, begin, n, tile)
    if residual is not None:
        call.read("residual", residual)
    call.write("y", y)
    return call.call()


def plane_call(
    node: Node, ctx: LowerContext, x: Placed, y: Placed, w: Weights, window: Window, epilogue: Epilogue
) -> Call:
    """Depthwise convolution of x [B, H, W, C] by w [C, KY, KX, 1] into y [B, OH, OW, C]."""
    w = _bytes(w, node, ctx)
    n, ky, kx, _ = w.shape
    params = _epilogue(node, ctx, epilogue, 0, n)
    vectors = ctx.target.family == "mve" and epilogue.residual is None and params["wide"] and w.min() > INT8_MIN
    call = CallBuilder("depthwise_wide" if vectors else "depthwise", node.output)
    call.macs = int(np.prod(y[0].shape[:3])) * w.size
    over = ctx.overlay(node.output)
    geometry = _geometry(x, y, epilogue.residual, (n, ky, kx, n), window, over)
    call.params = {**params, **geometry}
    call.read("x", x)
    if vectors:
        rows = _window_bytes(y, (n, ky, kx, n), window) if geometry["windowed"] else 0
        call.params |= {"over": over, "work": (("window", "int8", rows),) if rows else ()}
        blocks = np.pad(w.reshape(n, ky * kx), ((0, -n % WIDE), (0, 0))).reshape(-1, WIDE, ky * kx)
        call.const("w", np.ascontiguousarray(blocks.transpose(0, 2, 1)).reshape(-1))
        for key, array in _arrays(epilogue, 0, n):
            padded = np.pad(array, (0, -n % WIDE)).reshape(-1, WIDE // 2, 2)
            call.const(key, np.ascontiguousarray(padded.transpose(0, 2, 1)).reshape(-1))
    else:
        # A plane holds the whole of a channel, not a window of rows.
        reach = _reach(y, 0, ky, window)
        top, first, rows = _inside(window.start[0], reach, x[0].shape[1])
        threes = ctx.target.family == "dsp" and (ky, kx) == (3, 3) and window.dilation[1] == 1
        plane = reach * _reach(y, 1, kx, window) + (SLACK if threes else 0)
        sums = (("sums", "int32", 4 * y[0].shape[2]),) if threes else ()
        call.params |= {"top": top, "first_row": first, "rows": rows, "threes": threes,
                        "work": (("plane", "int8", plane), *sums)}  # fmt: skip
        for key in ("joined", "padded_y", "windowed", "kept", "start_y", "start_x"):
            del call.params[key]
        call.const("w", w.reshape(-1))
        _constants(call, epilogue, 0, n, 1)
    if epilogue.residual is not None:
        call.read("residual", epilogue.residual)
    call.write("y", y)
    return call.call()


def _flat(*places: Placed | None) -> list[tuple[int, int]] | None:
    """(distance of pixels, channels) of each image as one row of pixels; None if strides do not allow that."""
    found = []
    for view, _ in filter(None, places):
        step = pixel_step(view)
        if step is None:
            return None
        found.append((step, view.shape[-1]))
    return found


def _geometry(
    x: Placed, y: Placed, residual: Placed | None, w: tuple[int, ...], window: Window, over: int
) -> dict[str, Any]:
    """Static parameters of a convolution of windows.

    ``joined``: the taps of a row lie side by side. ``windowed``: rows are copied into a window. Of its columns,
    ``left`` are padding, and ``count`` come from x, from column ``first`` on; ``kept`` of its rows serve the next row
    of outputs too. ``dense``: the distances in that image follow from its extents.
    """
    (_, ky, kx, depth), view = w, x[0]
    size, out = view.shape[1:3], y[0].shape[1:3]
    reach = [_reach(y, axis, taps, window) for axis, taps in enumerate((ky, kx))]
    outside = [b < 0 or b + r > n for b, r, n in zip(window.start, reach, size, strict=True)]
    windowed = any(outside) or over != 0
    left, first, count = _inside(window.start[1], reach[1], size[1])
    high = (ky - 1) * window.dilation[0] + 1
    found: dict[str, Any] = {
        "images": view.shape[0], "height": out[0], "width": out[1], "channels": y[0].shape[3],
        "taps_y": ky, "taps_x": kx, "stride_y": window.stride[0], "stride_x": window.stride[1],
        "dilation_y": window.dilation[0], "dilation_x": window.dilation[1], "start_y": window.start[0],
        "start_x": window.start[1], "left": left, "first": first, "count": count,
        "kept": max(0, high - window.stride[0]), "windowed": windowed, "padded_y": outside[0],
        "joined": window.dilation[1] == 1 and (windowed or kx == 1 or view.strides[2] == depth),
        **({"in_height": size[0]} if outside[0] else {}),
    }  # fmt: skip
    for key, place in (("x", x), ("y", y), ("r", residual)):
        if place is None:
            continue
        found[f"{key}_dense"] = place[0].dense
        if place[0].dense and key == "x":
            # Distances follow from these, where they do not from others.
            found |= {"in_width": size[1]} if count < size[1] else {}
            found |= {"in_height": size[0]} if view.shape[0] > 1 else {}
        elif not place[0].dense:
            found |= dict(zip((f"{key}_image", f"{key}_row", f"{key}_step"), place[0].strides[:3], strict=True))
    return found


def _reach(y: Placed, axis: int, taps: int, window: Window) -> int:
    """Rows (axis 0) or columns that the windows of all outputs reach over."""
    return (y[0].shape[1 + axis] - 1) * window.stride[axis] + (taps - 1) * window.dilation[axis] + 1


def _window_bytes(y: Placed, w: tuple[int, ...], window: Window) -> int:
    """Bytes of the window of rows that one row of outputs needs."""
    return ((w[1] - 1) * window.dilation[0] + 1) * _reach(y, 1, w[2], window) * w[3]


def _work(params: Mapping[str, Any], family: str, size: int, window: int) -> Iterator[tuple[str, str, int]]:
    """(name, dtype, bytes) of the work memory of a convolution with ``size`` products for each output.

    ``window``: rows with their padding; ``bytes``: a column that is gathered; ``columns``: two columns as int16.
    """
    unit = UNITS[family]
    padded = -(-size // unit) * unit
    if window:
        yield "window", "int8", window
    gathers = {"c99": params["over"] != 0 and "windowed" not in params, "mve": True,
               "dsp": not params["whole"] or (params["pair"] == 1 and "windowed" in params)}  # fmt: skip
    if family == "mve" and "windowed" not in params:
        gathers["mve"] = params["over"] != 0 or not params["whole"]
    if gathers[family]:
        yield "bytes", "int8", padded * (params["pair"] if family == "c99" else 1)
    if family == "dsp" and params["pair"] > 1:
        yield "columns", "int16", 4 * padded


def _inside(start: int, reach: int, size: int) -> tuple[int, int, int]:
    """(padding before, first element, elements) of the part of [start, start + reach) that is in [0, size)."""
    first = max(0, start)
    return max(0, -start), first, max(0, min(size, start + reach) - first)


def _epilogue(node: Node, ctx: LowerContext, epilogue: Epilogue, begin: int, n: int) -> dict[str, Any]:
    """Static parameters; ``shift`` is 0 with TFLite's rounding, whose shifts are an operand.

    ``doubled``: twice the accumulator has room, which makes a multiplication with shift 31 one with shift 32. ``wide``:
    vectors can finish the sums. ``clamped``: to less than int8.
    """
    zero, low, high, residual_zero, residual_multiplier = (int(v) for v in epilogue.q)
    part = slice(begin, begin + n)
    room = int(storage_bound(_bytes(epilogue.w, node, ctx), epilogue.bias)[part].max(initial=0)) <= INT32_MAX // 2
    wide = epilogue.shift in (31, 32)
    if epilogue.shifts is not None:
        wide = bool((epilogue.shifts >= 0).all())
        room = room and wide and bool((epilogue.shifts < 31).all())
    found: dict[str, Any] = {
        "zero_in": ctx.type(node.inputs["x"]).zero_point, "zero": zero, "low": low, "high": high,
        "clamped": epilogue.clamped, "shift": epilogue.shift or 0, "wide": wide,
        "doubled": room and epilogue.shift in (None, 31),
    }  # fmt: skip
    if "residual" in node.inputs:
        found |= {"residual_zero": residual_zero, "residual_multiplier": residual_multiplier,
                  "fraction": epilogue.fraction}  # fmt: skip
    return found


def _arrays(epilogue: Epilogue, begin: int, end: int) -> Iterator[tuple[str, NDArray[np.int32] | NDArray[np.int8]]]:
    """Constants by channel."""
    yield "bias", epilogue.bias[begin:end]
    yield "multiplier", epilogue.multiplier[begin:end]
    if epilogue.shifts is not None:
        yield "shift", epilogue.shifts[begin:end].astype(np.int8)


def _constants(call: CallBuilder, epilogue: Epilogue, begin: int, n: int, tile: int) -> None:
    for key, array in _arrays(epilogue, begin, begin + n):
        call.const(key, np.pad(array, (0, -n % tile)))


def _bytes(w: Weights, node: Node, ctx: LowerContext) -> NDArray[np.int8]:
    """Weights as they are; raises TargetError where a zero point took them out of int8."""
    if w.dtype != np.int8:
        raise TargetError(f"weights with a zero point do not fit the kernels of {ctx.target.name}", where=node.output,
                          hint="quantize the float model instead")
    return np.asarray(w, np.int8)
