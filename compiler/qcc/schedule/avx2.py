"""Schedules for x86 with AVX2 and without VNNI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qcc.lower.kernel import Kernel
from qcc.schedule import avx2_intrin
from qcc.schedule.decide import Decide
from qcc.schedule.tiles import divisors, nearest_divisor, register_tile

ACCUMULATORS = 12


def conv_gemm(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Tiles of pixels x channels; the parallel loop runs over (chunk of tiles, block of channels)."""
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    batch, height, width = kernel.param("outputs")
    blocks, taps_y, taps_x, groups, lanes, dot = kernel.view("w").shape
    rows_default, cols_default = register_tile(width, blocks, ACCUMULATORS)
    rows = decide("rows", divisors(width, ACCUMULATORS), rows_default)
    cols = decide("cols", divisors(blocks, 8), cols_default)
    units = height if height > 1 else width // rows
    unit_bytes = (width if height > 1 else rows) * taps_y * taps_x * groups * dot
    chunk_default = nearest_divisor(units, max(1, min(256 * 1024 // unit_bytes, -(-units // 4))))
    chunk = decide("chunk", divisors(units), chunk_default)

    run, step = groups * dot, kernel.param("step")
    wide = sch.cache_read(acc, 0, "global") if step < run else sch.reindex(acc, ("read", 0))
    sch.unsafe_set_dtype(wide, 0, "int16")
    b, y, x, n = sch.get_loops(out)
    xo, xi = sch.split(x, [None, rows])
    no, nr, ni = sch.split(n, [None, cols, lanes])
    if height > 1:
        outer, inner = sch.split(y, [None, chunk])
        sch.reorder(b, outer, no, inner, xo, xi, nr, ni)
        at = xo
    else:
        outer, at = sch.split(xo, [None, chunk])
        sch.reorder(b, y, outer, no, at, xi, nr, ni)
    sch.parallel(sch.fuse(b, outer, no) if height > 1 else sch.fuse(b, y, outer, no))
    sch.compute_at(acc, at, preserve_unit_loops=True)
    pixel, channel, ky, kx, r = sch.get_loops(acc)[-5:]
    cr, cl = sch.split(channel, [cols, lanes])
    ro, ri = sch.split(r, [None, dot])
    sch.reorder(ky, kx, ro, pixel, cr, cl, ri)
    init = sch.decompose_reduction(acc, ky)
    sch.compute_at(wide, kx, preserve_unit_loops=True)
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


def _epilogue(kernel: Kernel) -> str:
    residual = any(o.key == "residual" for o in kernel.operands)
    shift, channels, clamped, fraction = (kernel.param(k) for k in ("shift", "channels", "clamped", "fraction"))
    return avx2_intrin.requantize(kernel.view("y").dtype, shift, channels, clamped, residual, fraction)


def default(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Simple loops: the outermost in parallel, LLVM vectorizes the innermost."""
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        loops = sch.get_loops(block)
        if block == sch.get_child_blocks(sch.get_sblock("root"))[-1] and loops:
            sch.parallel(loops[0])


SCHEDULES: dict[str, Callable[[Any, Kernel, Decide], None]] = {"conv_gemm": conv_gemm}
