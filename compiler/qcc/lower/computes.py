"""Every compute: importing the modules that define them registers them."""

from __future__ import annotations

from qcc.lower import compute_elementwise, compute_float, compute_moves, compute_reduce, compute_tflite, compute_windows
from qcc.lower.compute import COMPUTES

__all__ = ["COMPUTES", "compute_elementwise", "compute_float", "compute_moves", "compute_reduce", "compute_tflite",
           "compute_windows"]  # fmt: skip
