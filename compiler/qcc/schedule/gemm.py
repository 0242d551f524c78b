"""Loops that the schedules of a GEMM have in common."""

from __future__ import annotations

from typing import Any

from qcc.lower.kernel import Kernel


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
