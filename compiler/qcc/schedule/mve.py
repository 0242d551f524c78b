"""Kernels as C source for processors with vectors of 16 bytes (Helium): Cortex-M55, M85."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm.script.ir_builder import tirx as T

from qcc.lower.kernel import Kernel
from qcc.schedule import c99
from qcc.schedule.columns import Columns
from qcc.schedule.planes import Planes
from qcc.schedule.source import array, at, branch, every, function, loop, offset, run

Expr = Any
SCHEDULES, elementwise = c99.SCHEDULES, c99.elementwise
BLOCKS = (32, 16, 8)


class Channels(Columns):
    """Depthwise convolution, 16 channels at a time; the window of a pixel at the border is copied with its padding."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel, "vectors")
        self.block = next((n for n in BLOCKS if self.depth % n == 0), self.depth)
        """Channels of a window that is copied."""

    def build(self) -> Any:
        """The function."""
        return function(self.kernel, self._body)

    def _body(self, buffers: dict[str, Any]) -> None:
        self.b = buffers
        if self.padded:
            self.bytes = array("window", self.block * self.taps[0] * self.taps[1], "int8")
        with loop("image", self.y.shape[0]) as image, loop("i", self.height) as i, loop("j", self.width) as j:
            row, column = i * self.stride[0] + self.start[0], j * self.stride[1] + self.start[1]
            strides = self.x.strides
            to = at(buffers["y"], offset(self.y.strides[:3], (image, i, j)))

            def whole() -> None:
                x = at(buffers["x"], offset(strides[:3], (image, row, column)))
                self._pixel(x, self.dilation[0] * strides[1], self.dilation[1] * strides[2], to)

            def partial() -> None:
                with loop("block", self.depth // self.block) as block:
                    first = block * self.block
                    with loop("ky", self.taps[0]) as ky, loop("kx", self.taps[1]) as kx:
                        y, x = row + ky * self.dilation[0], column + kx * self.dilation[1]
                        window = at(self.bytes, (ky * self.taps[1] + kx) * self.block)
                        source = at(buffers["x"], offset(strides[:3], (image, y, x)) + first)
                        inside = every([self._inside(0, y, self.reach[0]), self._inside(1, x, self.reach[1])])
                        branch(inside, lambda: run("qcc_copy", window, source, self.block),
                               lambda: run("qcc_fill", window, T.int8(self.zero_in), self.block))
                    y_part = at(buffers["y"], offset(self.y.strides[:3], (image, i, j)) + first)
                    self._pixel(at(self.bytes), self.taps[1] * self.block, self.block, y_part, first)

            self._by_padding(row, column, whole, partial)

    def _pixel(self, x: Expr, row: int, column: int, y: Expr, first: Expr | None = None) -> None:
        """All channels, or a block of them from ``first`` on."""
        p: dict[str, Any] = dict(self.kernel.params)
        taps = self.taps[0] * self.taps[1]
        start = 0 if first is None else first
        w = at(self.b["w"], start * taps)
        constants = [w, at(self.b["bias"], start), at(self.b["multiplier"], start),
                     at(self.b["shift"], start) if "shift" in self.b else w]  # fmt: skip
        run("qcc_depthwise_wide", x, row, column, *self.taps, *constants, p["shift"], p["zero"], p["low"], p["high"],
            self.depth if first is None else self.block, y)  # fmt: skip


def tflite_add(kernel: Kernel) -> Any:
    """TFLite's addition of rows that lie side by side; None for other operands."""
    views = [o.view for o in kernel.operands if o.key in ("a", "b", "y")]
    if len(views) < 3 or not all(v.dense for v in views):
        return None

    def body(b: dict[str, Any]) -> None:
        sign, count = kernel.param("sign"), int(np.prod(views[0].shape))
        run("qcc_tflite_add_wide", at(b["a"]), at(b["b"]), at(b["q"]), sign, count, at(b["y"]))

    return function(kernel, body)


FUNCTIONS: dict[str, Callable[[Kernel], Any]] = {
    "conv": lambda kernel: Columns(kernel, "vectors").build(),
    "depthwise": lambda kernel: Planes(kernel, packed=False).build(),
    "tflite_add": tflite_add,
    "depthwise_wide": lambda kernel: Channels(kernel).build(),
}
