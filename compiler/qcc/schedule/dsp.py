"""Kernels as C source for processors that multiply pairs of int16 (``smlad``): Cortex-M4, M7, M33."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qcc.lower.kernel import Kernel
from qcc.schedule import c99
from qcc.schedule.columns import Convolution, Pointwise
from qcc.schedule.planes import planes

SCHEDULES, elementwise = c99.SCHEDULES, c99.elementwise

FUNCTIONS: dict[str, Callable[[Kernel], Any]] = {
    "conv": Convolution("dsp").build,
    "pointwise": Pointwise("dsp").build,
    "depthwise": planes,
}
