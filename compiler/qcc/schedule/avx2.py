"""Schedules for x86 with AVX2 and without VNNI.

Register tile: ``rows`` pixels x ``cols`` vectors of 8 channels, at most 12 accumulators of the 16 registers. The pixels
of a tile are widened to int16 once, on the stack; a step of the reduction broadcasts two of their elements from there
and widens ``cols`` vectors of weights as it loads them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qcc.lower.kernel import Kernel
from qcc.schedule import avx2_intrin, products, tables
from qcc.schedule.decide import Decide
from qcc.schedule.floats import finish_layer
from qcc.schedule.gemm import gemm_loops
from qcc.schedule.tiles import divisors, gemm_chunk, nearest_divisor

ACCUMULATORS = 12
REGISTERS = 16
WIDENED_BYTES = 24 * 1024
"""Room for a tile's widened pixels: they share a level-1 cache of 32 KB with the weights that stream through it."""


def gemm_tile(pixels: int, blocks: int) -> tuple[int, int]:
    """Default (rows, cols): the fewest operand instructions per product (widening a vector of weights takes two).

    Besides the sums, registers hold ``cols`` vectors of weights, a pair of a pixel and a product.
    """
    options = [
        (rows, cols)
        for rows in divisors(pixels, ACCUMULATORS)
        for cols in divisors(blocks, ACCUMULATORS)
        if rows * cols <= ACCUMULATORS and rows * cols + cols + 2 <= REGISTERS
    ]
    return min(options, key=lambda tile: (tile[0] + 2 * tile[1]) / (tile[0] * tile[1]))


def conv_gemm(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Tiles of pixels x channels; the parallel loop runs over (chunk of tiles, block of channels)."""
    acc = sch.get_sblock("acc")
    _, _, width = kernel.param("outputs")
    blocks, _, _, groups, lanes, dot = kernel.view("w").shape
    run, step = groups * dot, kernel.param("step")
    rows_default, cols_default = gemm_tile(width, blocks)
    rows = decide("rows", divisors(width, ACCUMULATORS), rows_default)
    cols = decide("cols", divisors(blocks, ACCUMULATORS), cols_default)
    shared = step < run  # neighbouring pixels have elements in common: widen what a tile spans, else pixel by pixel
    room = WIDENED_BYTES // 2 - (rows - 1) * step if shared else WIDENED_BYTES // 2 // rows
    fitting = [d for d in divisors(groups, max(1, room // dot)) if d >= 32]
    part = decide("part", divisors(groups), fitting[-1] if fitting else groups)
    chunk = gemm_chunk(kernel, decide, rows, cols)

    wide = sch.cache_read(acc, 0, "global") if shared else sch.reindex(acc, ("read", 0))
    sch.unsafe_set_dtype(wide, 0, "int16")
    at, xi, nr, ni = gemm_loops(sch, kernel, rows, chunk, (cols, lanes))
    sch.compute_at(acc, at, preserve_unit_loops=True)
    pixel, channel, ky, kx, r = sch.get_loops(acc)[-5:]
    cr, cl = sch.split(channel, [cols, lanes])
    rp, ro, ri = sch.split(r, [None, part, dot])
    sch.reorder(ky, kx, rp, ro, pixel, cr, cl, ri)
    init = sch.decompose_reduction(acc, ky)
    sch.compute_at(wide, rp, preserve_unit_loops=True)
    ip, ic = sch.get_loops(init)[-2:]
    io, ii = sch.split(ic, [cols, lanes])
    sch.vectorize(ii)
    sch.unroll(io)
    sch.unroll(ip)
    sch.tensorize(cl, avx2_intrin.dot(kernel.view("x").dtype))
    sch.unroll(pixel)
    sch.unroll(cr)
    sch.tensorize(ni, _epilogue(kernel))
    sch.unroll(nr)
    sch.unroll(xi)


def conv_depthwise(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Rows in parallel; a tile of ``lines`` x ``pixels`` outputs of 8 channels shares its columns in registers."""
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    _, taps_x, groups, lanes, _ = kernel.view("w").shape
    _, height, width = kernel.param("outputs")
    lines = decide("lines", [1, 2], 2) if kernel.param("sliding") and height % 2 == 0 else 1
    pixels = decide("pixels", divisors(width, 16), nearest_divisor(width, 8 if lines == 1 else 7))
    b, y, x, n = sch.get_loops(out)
    yo, yi = sch.split(y, [None, lines])
    xo, xi = sch.split(x, [None, pixels])
    no, ni = sch.split(n, [None, lanes])
    sch.reorder(b, yo, xo, no, yi, xi, ni)
    sch.parallel(sch.fuse(b, yo))
    sch.compute_at(acc, no, preserve_unit_loops=True)
    line = sch.get_loops(acc)[-6]
    init = sch.decompose_reduction(acc, line)
    *_, init_line, init_pixel, init_channel = sch.get_loops(init)
    sch.vectorize(init_channel)
    sch.unroll(init_pixel)
    sch.unroll(init_line)
    stride, dilation, storage = kernel.param("stride"), kernel.param("dilation"), kernel.view("x").dtype
    shape = (lines, pixels, stride, dilation, taps_x, kernel.param("parts"), groups)
    sch.tensorize(line, avx2_intrin.depthwise(storage, *shape))
    sch.tensorize(ni, _epilogue(kernel))
    sch.unroll(xi)
    sch.unroll(yi)


def _epilogue(kernel: Kernel) -> str:
    if kernel.view("y").dtype == "float32":
        return finish_layer(kernel, avx2_intrin.LANES)
    residual = any(o.key == "residual" for o in kernel.operands)
    keys = ("shift", "raised", "channels", "clamped")
    fixed = [kernel.param(key) for key in keys]
    return avx2_intrin.requantize(kernel.view("y").dtype, *fixed, residual, kernel.param("fraction"))


SCHEDULES: dict[str, Callable[[Any, Kernel, Decide], None]] = {
    "conv_gemm": conv_gemm, "conv_depthwise": conv_depthwise, "lut": partial(tables.lut, 32),
    "matmul": partial(products.matmul, ACCUMULATORS),
}  # fmt: skip
