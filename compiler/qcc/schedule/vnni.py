"""Schedules for x86 with AVX-512 VNNI.

Register tile: ``rows`` pixels x ``cols`` vectors of 16 channels, at most 28 accumulators of the 32 registers. A step of
the reduction broadcasts four bytes of each pixel and loads ``cols`` vectors of weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qcc.lower.kernel import Kernel
from qcc.schedule import avx512, products, tables
from qcc.schedule.decide import Decide
from qcc.schedule.floats import finish_layer
from qcc.schedule.gemm import gemm_loops
from qcc.schedule.tiles import divisors, gemm_chunk, nearest_divisor, register_tile

ACCUMULATORS = 28


def conv_gemm(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Tiles of pixels x channels; the parallel loop runs over (chunk of tiles, block of channels)."""
    acc = sch.get_sblock("acc")
    _, _, width = kernel.param("outputs")
    blocks = kernel.view("w").shape[0]
    rows_default, cols_default = register_tile(width, blocks, ACCUMULATORS)
    rows = decide("rows", divisors(width, ACCUMULATORS), rows_default)
    cols = decide("cols", divisors(blocks, 8), cols_default)
    chunk = gemm_chunk(kernel, decide, rows, cols)

    vectors = 2 if cols % 2 == 0 else 1
    at, xi, nr, ni = gemm_loops(sch, kernel, rows, chunk, (cols // vectors, vectors * avx512.LANES))
    sch.compute_at(acc, at, preserve_unit_loops=True)
    pixel, channel, ky, kx, r = sch.get_loops(acc)[-5:]
    cr, cl = sch.split(channel, [cols, avx512.LANES])
    ro, ri = sch.split(r, [None, 4])
    sch.reorder(ky, kx, ro, pixel, cr, cl, ri)
    init = sch.decompose_reduction(acc, ky)
    ip, ic = sch.get_loops(init)[-2:]
    io, ii = sch.split(ic, [cols, avx512.LANES])
    sch.vectorize(ii)
    sch.unroll(io)
    sch.unroll(ip)
    sch.tensorize(cl, avx512.dot())
    sch.unroll(pixel)
    sch.unroll(cr)
    sch.tensorize(ni, _epilogue(kernel, vectors))
    sch.unroll(nr)
    sch.unroll(xi)


def conv_depthwise(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Rows in parallel; a tile of ``lines`` x ``pixels`` outputs of 16 channels shares its columns in registers."""
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    _, taps_x, groups, _, _ = kernel.view("w").shape
    _, height, width = kernel.param("outputs")
    lines = decide("lines", [1, 2], 2) if kernel.param("sliding") and groups == 1 and height % 2 == 0 else 1
    pixels = decide("pixels", divisors(width, ACCUMULATORS), nearest_divisor(width, 8 if lines == 1 else 7))
    b, y, x, n = sch.get_loops(out)
    yo, yi = sch.split(y, [None, lines])
    xo, xi = sch.split(x, [None, pixels])
    no, ni = sch.split(n, [None, avx512.LANES])
    sch.reorder(b, yo, xo, no, yi, xi, ni)
    sch.parallel(sch.fuse(b, yo))
    sch.compute_at(acc, no, preserve_unit_loops=True)
    line = sch.get_loops(acc)[-6]
    init = sch.decompose_reduction(acc, line)
    *_, init_line, init_pixel, init_channel = sch.get_loops(init)
    sch.vectorize(init_channel)
    sch.unroll(init_pixel)
    sch.unroll(init_line)
    stride, dilation = kernel.param("stride"), kernel.param("dilation")
    sch.tensorize(line, avx512.depthwise(lines, pixels, stride, dilation, taps_x, kernel.param("parts"), groups))
    sch.tensorize(ni, _epilogue(kernel, 1))
    sch.unroll(xi)
    sch.unroll(yi)


def _epilogue(kernel: Kernel, vectors: int) -> str:
    if kernel.view("y").dtype == "float32":
        return finish_layer(kernel, avx512.LANES * vectors)
    residual = any(o.key == "residual" for o in kernel.operands)
    keys = ("shift", "raised", "channels", "clamped")
    fixed = [kernel.param(key) for key in keys]
    return avx512.requantize(vectors, *fixed, residual, kernel.param("fraction"))


SCHEDULES: dict[str, Callable[[Any, Kernel, Decide], None]] = {
    "conv_gemm": conv_gemm, "conv_depthwise": conv_depthwise, "lut": partial(tables.lut, 64),
    "matmul": partial(products.matmul, ACCUMULATORS),
}  # fmt: skip
