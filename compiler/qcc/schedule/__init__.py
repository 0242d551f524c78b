"""How kernels are computed: one module of schedules per instruction family, and the named decisions they take."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qcc.lower.kernel import Kernel
    from qcc.target import Target


def schedule(sch: Any, kernel: Kernel, target: Target) -> None:
    """Apply the target family's schedule for ``kernel.compute`` to ``sch``, or the one that every family can use."""
    from qcc.schedule import simple
    from qcc.schedule.decide import Decide

    family = import_module(f"qcc.schedule.{target.family}")
    known = {**simple.SCHEDULES, **family.SCHEDULES}
    known.get(kernel.compute, simple.elementwise)(sch, kernel, Decide())
