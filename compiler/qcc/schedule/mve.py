"""Kernels as C source for processors with vectors of 16 bytes (Helium): Cortex-M55, M85."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qcc.lower.kernel import Kernel
from qcc.schedule import c99
from qcc.schedule.columns import Convolution, Image, Pointwise, Rows
from qcc.schedule.planes import planes
from qcc.schedule.source import at, function, loop, run

Expr = Any
SCHEDULES, elementwise = c99.SCHEDULES, c99.elementwise


def channels(kernel: Kernel) -> Any:
    """Depthwise convolution of one pixel after another, 8 channels at a time."""

    def body(b: dict[str, Any], p: dict[str, Any]) -> None:
        rows, out = Rows(b, p), Image(p, "y")
        constants = [at(b["w"]), at(b["bias"]), at(b["multiplier"]), at(b["shift"]) if "shift" in b else at(b["w"])]
        steps = [rows.pitch * p["dilation_y"], rows.step * p["dilation_x"], p["taps_y"], p["taps_x"]]
        ends = [p[key] for key in ("shift", "zero", "low", "high", "channels")]

        def row_of_outputs(i: Expr, origin: Expr) -> None:
            with loop("j", p["width"]) as j:
                x = at(rows.source, origin + j * p["stride_x"] * rows.step)
                run("qcc_depthwise_wide", x, *steps, *constants, *ends, at(b["y"], out.at(image, i, j)))

        with loop("image", p["images"]) as image:
            rows.each(image, row_of_outputs)

    return function(kernel, body)


def tflite_add(kernel: Kernel) -> Any:
    """TFLite's addition of rows that lie side by side; None for other operands."""
    views = [o.view for o in kernel.operands if o.key in ("a", "b", "y")]
    if len(views) < 3 or not all(v.dense for v in views):
        return None

    def body(b: dict[str, Any], p: dict[str, Any]) -> None:
        sign, count = kernel.param("sign"), int(np.prod(views[0].shape))
        run("qcc_tflite_add_wide", at(b["a"]), at(b["b"]), at(b["q"]), sign, count, at(b["y"]))

    return function(kernel, body)


FUNCTIONS: dict[str, Callable[[Kernel], Any]] = {
    "conv": Convolution("mve").build,
    "pointwise": Pointwise("mve").build,
    "depthwise": planes,
    "depthwise_wide": channels,
    "tflite_add": tflite_add,
}
