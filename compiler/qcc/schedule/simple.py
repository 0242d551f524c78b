"""Schedules of every kernel without weights, for any family with vectors that LLVM knows.

Each marks one loop parallel: the outermost ones, fused until there is enough to share. Inner loops are vectors where
the extent is a multiple of one; the rest is left to LLVM, which never writes beyond a view.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from qcc.lower.kernel import Kernel
from qcc.schedule.decide import Decide
from qcc.schedule.tiles import divisors

UNITS = 16
"""Iterations of the parallel loop that are enough."""

SHORT = 16
"""Shorter loops are unrolled."""

INTERLEAVED = 4
"""Axes of an input that LLVM may interleave."""

CHUNK = 8192
"""Elements of one iteration at most, where a kernel is a single loop."""

ROW_STAGES = {
    "argmax": ("top", "acc"),
    "softmax": ("top", "power", "total", "inverse"),
    "tflite_softmax": ("top", "power", "total", "zeros", "halves", "guess0", "guess1", "guess2", "guess3"),
}
"""Stages that are computed for each row, by compute: a softmax's maximum, powers, their sum and its inverse."""


def share(sch: Any, loops: Sequence[Any]) -> None:
    """Mark one loop parallel: the outermost, fused with its inner neighbours until it has ``UNITS`` iterations."""
    outermost = loops[0]
    for loop in loops[1:]:
        if int(sch.get(outermost).extent) >= UNITS:
            break
        outermost = sch.fuse(outermost, loop)
    sch.parallel(outermost)


def vector_tile(extent: int) -> int:
    """The largest divisor of ``extent`` that is a multiple of 16 and at most 64; else of any kind below 256."""
    whole = [d for d in divisors(extent, 64) if d % 16 == 0]
    return whole[-1] if whole else divisors(extent, 256)[-1]


def chunk(extent: int) -> int:
    """Elements of one iteration of a single loop: few enough to share, and whole vectors if possible."""
    fitting = divisors(extent, CHUNK)
    whole = [d for d in fitting if d % 64 == 0] or [d for d in fitting if d >= CHUNK // 8]
    return whole[-1] if whole else extent


def spread(sch: Any) -> Any:
    """Share the outer axes of block ``out``; returns the inner loop."""
    *outer, inner = sch.get_loops(sch.get_sblock("out"))
    if not outer:
        first, inner = sch.split(inner, [None, chunk(int(sch.get(inner).extent))])
        outer = [first]
    share(sch, outer)
    return inner


def elementwise(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Outer axes in parallel; LLVM vectorizes the innermost.

    Where the axis that lies side by side in the input is an outer one, LLVM would unroll all axes inside it and
    interleave them: good for three channels, but dozens take it seconds and thousands of shuffles.

    Loops shorter than a vector it gives a masked tail, and LLVM 22 makes a masked, truncating store of one lane a store
    of 4 bytes: over the next row, which has not been read yet where the kernel works in place. They are unrolled.
    """
    shape, strides = kernel.view("y").shape, kernel.operands[0].view.strides
    side_by_side = [i for i, stride in enumerate(strides) if stride == 1 and i < len(shape) - 1]
    inner = spread(sch)
    if side_by_side and math.prod(shape[side_by_side[-1] + 1 :]) > INTERLEAVED:
        sch.vectorize(sch.split(inner, [None, divisors(int(sch.get(inner).extent), 16)[-1]])[1])
    elif int(sch.get(inner).extent) < SHORT:
        sch.unroll(inner)


def reduction(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """``acc`` and what follows it in tiles of the last axis, if that lies side by side in memory; else one by one."""
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    x, rank = kernel.view("x"), len(kernel.view("y").shape)
    *outer, last = sch.get_loops(out)
    side_by_side = x.strides[rank - 1] == 1
    tile = vector_tile(x.shape[rank - 1]) if side_by_side else 1
    first, inner = sch.split(last, [None, tile])
    sch.compute_at(acc, first, preserve_unit_loops=True)
    share(sch, [*outer, first])
    loops = sch.get_loops(acc)[-len(sch.get(acc).iter_vars) :]
    lane, taps = loops[rank - 1], loops[rank:]
    sch.reorder(*taps, lane)
    if tile % 16 == 0:
        sch.vectorize(lane)
        sch.vectorize(inner)
    init = sch.decompose_reduction(acc, taps[0])
    if tile % 16 == 0:
        sch.vectorize(sch.get_loops(init)[-1])


def row_by_row(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """The stages of ``ROW_STAGES`` for one row after another."""
    rows(sch, kernel, ROW_STAGES[kernel.compute])


def rows(sch: Any, kernel: Kernel, stages: Sequence[str]) -> None:
    """Compute ``stages`` for each row of x, which ends in the axis that they reduce."""
    out = sch.get_sblock("out")
    loops = sch.get_loops(out)[: len(kernel.view("x").shape) - 1]
    for name in reversed(stages):
        sch.compute_at(sch.get_sblock(name), loops[-1])
    share(sch, loops)


SCHEDULES: dict[str, Callable[[Any, Kernel, Decide], None]] = {
    **dict.fromkeys(ROW_STAGES, row_by_row),
    **dict.fromkeys(("avg_pool", "max_pool", "reduce_max", "reduce_sum", "tflite_avg_pool"), reduction),
}
"""By compute; ``elementwise`` for every other."""
