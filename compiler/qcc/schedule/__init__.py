"""How kernels are computed: one module for each instruction family, and the named decisions they take."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qcc.lower.kernel import Kernel
    from qcc.schedule.decide import Decide
    from qcc.target import Target


def scheduled(kernel: Kernel, target: Target, decide: Decide) -> Any:
    """The TIR function of a kernel, ready for code generation. Raises UnfitError if decisions do not fit it.

    A family writes a kernel out itself (``KERNELS``; where that gives None, not this one), or transforms the loops of
    ``lower.build.lower`` (``SCHEDULES``); for all others there is the family's ``elementwise``, or a schedule that
    every family can use.
    """
    from tvm import s_tir

    from qcc.lower.build import lower
    from qcc.schedule import floats, simple

    family = import_module(f"qcc.schedule.{target.family}")
    written = getattr(family, "KERNELS", {}).get(kernel.compute)
    function = written(kernel, decide) if written is not None else None
    if function is not None:
        return function
    sch = s_tir.Schedule(lower(kernel))
    known = {**simple.SCHEDULES, **floats.SCHEDULES, **family.SCHEDULES}
    known.get(kernel.compute, getattr(family, "elementwise", simple.elementwise))(sch, kernel, decide)
    return floats.fused(sch.mod["main"]) if kernel.compute in floats.FUSED else sch.mod["main"]
