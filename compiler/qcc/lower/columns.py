"""Convolutions for targets that get C source: images without halos, weights for tiles of channels.

A convolution copies the inputs of a few output pixels side by side (columns: padding is made here) and multiplies
them with the weights. A depthwise convolution copies one channel at a time into a padded plane. All numbers but
pointers are static parameters of the kernel, so that C compilers see constants.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcc.errors import TargetError
from qcc.ir.graph import Node
from qcc.lower.kernel import Call, CallBuilder, LowerContext
from qcc.lower.views import Placed
from qcc.numerics import INT8_MIN, INT32_MAX, storage_bound

if TYPE_CHECKING:
    from qcc.lower.weighted import Epilogue, Weights, Window

TILE = 2
"""Output channels, and pixels, of a tile."""
TILE_OF_ONE = 4
"""Output channels of a tile of a single pixel."""
VECTOR = 16
WIDE = 8
"""Channels of a vector of int16, which are widened to int32 as even and odd ones."""


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
    w = np.pad(w, ((0, -n % tile), (0, -k % VECTOR)))
    return np.ascontiguousarray(w.reshape(len(w) // tile, tile, -1, VECTOR).transpose(0, 2, 1, 3)).reshape(-1)


def columns_call(
    node: Node, ctx: LowerContext, x: Placed, y: Placed, residual: Placed | None, w: Weights, window: Window,
    epilogue: Epilogue, begin: int,
) -> Call:
    """Convolution of x [B, H, W, C] by w [N, KY, KX, C] into y [B, OH, OW, N], the channels of ``epilogue`` from
    ``begin``.
    """
    w = _bytes(w, node, ctx)
    n, ky, kx, _ = w.shape
    pixels = int(np.prod(y[0].shape[:3]))
    family = ctx.target.family
    tile = TILE_OF_ONE if family == "mve" or (family == "dsp" and pixels == 1) else TILE
    pack = {"dsp": pack_pairs, "mve": pack_vectors}.get(family, pack_natural)
    call = CallBuilder("conv", node.output, macs=pixels * w.size)
    call.params = {"taps": (ky, kx), "stride": window.stride, "dilation": window.dilation, "start": window.start,
                   "pixels": 1 if pixels == 1 or family == "mve" else 2, "channels": tile,
                   **_epilogue(node, ctx, epilogue, begin, n)}  # fmt: skip
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
    call.params = {"taps": (ky, kx), "stride": window.stride, "dilation": window.dilation, "start": window.start,
                   **params}  # fmt: skip
    call.read("x", x)
    if vectors:
        blocks = np.pad(w.reshape(n, ky * kx), ((0, -n % WIDE), (0, 0))).reshape(-1, WIDE, ky * kx)
        call.const("w", np.ascontiguousarray(blocks.transpose(0, 2, 1)).reshape(-1))
        for key, array in _arrays(epilogue, 0, n):
            padded = np.pad(array, (0, -n % WIDE)).reshape(-1, WIDE // 2, 2)
            call.const(key, np.ascontiguousarray(padded.transpose(0, 2, 1)).reshape(-1))
        call.params |= {"pixels": 1, "channels": 1}
    else:
        call.const("w", np.append(w.reshape(-1), np.zeros(4, np.int8)))
        _constants(call, epilogue, 0, n, 1)
    if epilogue.residual is not None:
        call.read("residual", epilogue.residual)
    call.write("y", y)
    return call.call()


def _epilogue(node: Node, ctx: LowerContext, epilogue: Epilogue, begin: int, n: int) -> dict[str, int]:
    """Static parameters; ``shift`` is 0 with TFLite's rounding, whose shifts are an operand.

    ``doubled``: twice the accumulator has room, which makes a multiplication with shift 31 one with shift 32. ``wide``:
    vectors can finish the sums.
    """
    zero, low, high, residual_zero, residual_multiplier = (int(v) for v in epilogue.q)
    part = slice(begin, begin + n)
    room = int(storage_bound(_bytes(epilogue.w, node, ctx), epilogue.bias)[part].max(initial=0)) <= INT32_MAX // 2
    wide = epilogue.shift in (31, 32)
    if epilogue.shifts is not None:
        wide = bool((epilogue.shifts >= 0).all())
        room = room and wide and bool((epilogue.shifts < 31).all())
    return {"zero_in": ctx.type(node.inputs["x"]).zero_point, "zero": zero, "low": low, "high": high,
            "residual_zero": residual_zero, "residual_multiplier": residual_multiplier, "fraction": epilogue.fraction,
            "shift": epilogue.shift or 0, "doubled": int(room and epilogue.shift in (None, 31)),
            "wide": int(wide)}


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
