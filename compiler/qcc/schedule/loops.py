"""Loop orders of convolutions on x86's vectors: tiles of sums in registers, then the epilogue of the tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qcc.lower.kernel import Kernel
from qcc.schedule.decide import Decide
from qcc.schedule.tiles import divisors, gemm_chunks, nearest_divisor


@dataclass(frozen=True)
class GemmTile:
    """``rows`` pixels x ``cols`` blocks of ``lanes`` channels; the run in ``parts`` of so many groups of ``dot``."""

    rows: int
    cols: int
    part: int
    lanes: int
    dot: int


def gemm(
    sch: Any, kernel: Kernel, decide: Decide, tile: GemmTile, product: str, epilogue: str, vectors: int,
    widened: Any = None,
) -> None:
    """Tiles of pixels x channels; the parallel loop runs over (chunk of tiles, block of channels).

    ``product`` and ``epilogue`` are tensor intrinsics; an epilogue finishes ``vectors`` blocks. The stage ``widened``
    is computed for each part of a run.
    """
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    _, height, _ = kernel.param("outputs")
    chunk = decide("chunk", *gemm_chunks(kernel, tile.rows, tile.cols))
    b, y, x, n = sch.get_loops(out)
    xo, xi = sch.split(x, [None, tile.rows])
    no, nr, ni = sch.split(n, [None, tile.cols // vectors, vectors * tile.lanes])
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
    cr, cl = sch.split(channel, [tile.cols, tile.lanes])
    rp, ro, ri = sch.split(r, [None, tile.part, tile.dot])
    sch.reorder(ky, kx, rp, ro, pixel, cr, cl, ri)
    init = sch.decompose_reduction(acc, ky)
    if widened is not None:
        sch.compute_at(widened, rp, preserve_unit_loops=True)
    ip, ic = sch.get_loops(init)[-2:]
    io, ii = sch.split(ic, [tile.cols, tile.lanes])
    sch.vectorize(ii)
    sch.tensorize(cl, product)
    sch.tensorize(ni, epilogue)
    for loop in (io, ip, pixel, cr, nr, xi):
        sch.unroll(loop)


def depthwise_tile(kernel: Kernel, decide: Decide, sharing: bool) -> tuple[int, int]:
    """(lines, pixels) of a tile; ``sharing`` says that two lines of outputs can have their columns in common."""
    _, height, width = kernel.param("outputs")
    lines = decide("lines", [1, 2], 2) if sharing and height % 2 == 0 else 1
    return lines, decide("pixels", divisors(width, 16), nearest_divisor(width, 8 if lines == 1 else 7))


def depthwise(
    sch: Any, tile: tuple[int, int], lanes: int, product: str, epilogue: str, together: tuple[int, int]
) -> None:
    """Rows in parallel; a tile of (lines, pixels) outputs of a block of channels shares its columns in registers. The
    epilogue finishes (lines, pixels) ``together``: one output, two neighbours of a line, or two lines.
    """
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    b, y, x, n = sch.get_loops(out)
    yo, yi = sch.split(y, [None, tile[0]])
    xo, xi = sch.split(x, [None, tile[1]])
    no, ni = sch.split(n, [None, lanes])
    sch.reorder(b, yo, xo, no, yi, xi, ni)
    sch.parallel(sch.fuse(b, yo))
    sch.compute_at(acc, no, preserve_unit_loops=True)
    line = sch.get_loops(acc)[-6]
    init = sch.decompose_reduction(acc, line)
    *_, init_line, init_pixel, init_channel = sch.get_loops(init)
    sch.vectorize(init_channel)
    sch.tensorize(line, product)
    if together[0] > 1:
        sch.reorder(xi, yi)
        sch.tensorize(yi, epilogue)
        inner = [xi]
    elif together[1] > 1:
        xi, pair = sch.split(xi, [None, together[1]])
        sch.tensorize(pair, epilogue)
        inner = [xi, yi]
    else:
        sch.tensorize(ni, epilogue)
        inner = [xi, yi]
    for loop in (init_pixel, init_line, *inner):
        sch.unroll(loop)
