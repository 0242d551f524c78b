"""Kernels with weights for 32-bit ARM: those of ``schedule.neon``, with half the registers."""

from __future__ import annotations

from qcc.schedule.neon import SCHEDULES, kernels
from qcc.schedule.neon_instructions import NEON32

__all__ = ["KERNELS", "SCHEDULES"]

KERNELS = kernels(NEON32)
