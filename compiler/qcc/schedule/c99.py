"""Kernels as portable C source: no vectors, no parallel loops; weighted layers from columns and planes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qcc.lower.kernel import Kernel
from qcc.schedule.columns import Convolution, Pointwise
from qcc.schedule.decide import Decide
from qcc.schedule.planes import planes
from qcc.schedule.simple import ROW_STAGES


def elementwise(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """The loops as they are."""


def reduction(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Element by element: the taps of one sum, then what follows it."""
    acc, rank = sch.get_sblock("acc"), len(kernel.view("y").shape)
    sch.compute_at(acc, sch.get_loops(sch.get_sblock("out"))[rank - 1], preserve_unit_loops=True)
    taps = len(sch.get(acc).iter_vars) - rank
    sch.decompose_reduction(acc, sch.get_loops(acc)[-taps])


def matmul(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Element by element, operands centred on the way: copies of them would take memory."""
    for name in ("left", "right"):
        sch.compute_inline(sch.get_sblock(name))
    reduction(sch, kernel, decide)


def row_by_row(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """As ``simple.row_by_row``, without parallel loops."""
    stages = ROW_STAGES[kernel.compute]
    loops = sch.get_loops(sch.get_sblock("out"))[: len(kernel.view("x").shape) - 1]
    for name in reversed(stages if loops else ()):
        sch.compute_at(sch.get_sblock(name), loops[-1], preserve_unit_loops=True)
    for name in stages:
        if name in ("top", "total", "acc"):
            block = sch.get_sblock(name)
            sch.decompose_reduction(block, sch.get_loops(block)[-1])


SCHEDULES: dict[str, Callable[[Any, Kernel, Decide], None]] = {
    **dict.fromkeys(ROW_STAGES, row_by_row),
    **dict.fromkeys(("avg_pool", "max_pool", "reduce_max", "reduce_sum", "tflite_avg_pool"), reduction),
    "matmul": matmul,
}
"""By compute; ``elementwise`` for every other."""

FUNCTIONS: dict[str, Callable[[Kernel], Any]] = {
    "conv": Convolution("c99").build,
    "pointwise": Pointwise("c99").build,
    "depthwise": planes,
}
"""Kernels that are written as loops at once."""
