"""Loop orders of convolutions on x86's vectors: tiles of sums in registers, then the epilogue of the tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qcc.lower.kernel import Kernel
from qcc.schedule.decide import Decide
from qcc.schedule.tiles import divisors, gemm_chunk, nearest_divisor


def gemm_loops(sch: Any, kernel: Kernel, rows: int, chunk: int, channels: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Block ``out`` in tiles of ``rows`` pixels x ``channels`` (groups, channels of a group), the parallel loop over
    (chunk of tiles, block of channels): the loops (tiles of a chunk, pixels, groups, channels).
    """
    b, y, x, n = sch.get_loops(sch.get_sblock("out"))
    xo, xi = sch.split(x, [None, rows])
    no, nr, ni = sch.split(n, [None, *channels])
    if kernel.param("outputs")[1] > 1:
        outer, inner = sch.split(y, [None, chunk])
        sch.reorder(b, outer, no, inner, xo, xi, nr, ni)
        sch.parallel(sch.fuse(b, outer, no))
        return xo, xi, nr, ni
    outer, at = sch.split(xo, [None, chunk])
    sch.reorder(b, y, outer, no, at, xi, nr, ni)
    sch.parallel(sch.fuse(b, y, outer, no))
    return at, xi, nr, ni


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
    acc = sch.get_sblock("acc")
    chunk = gemm_chunk(kernel, decide, tile.rows, tile.cols)
    channels = (tile.cols // vectors, vectors * tile.lanes)
    at, xi, nr, ni = gemm_loops(sch, kernel, tile.rows, chunk, channels)
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


def depthwise_tile(
    kernel: Kernel, decide: Decide, sharing: bool, most: int, usual: tuple[int, int]
) -> tuple[int, int]:
    """(lines, pixels) of a tile; ``sharing`` says that two lines of outputs can have their columns in common, ``most``
    is the largest number of pixels, ``usual`` the best one of a line and of two lines."""
    _, height, width = kernel.param("outputs")
    lines = decide("lines", [1, 2], 2) if sharing and height % 2 == 0 else 1
    return lines, decide("pixels", divisors(width, most), nearest_divisor(width, usual[lines - 1]))


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
