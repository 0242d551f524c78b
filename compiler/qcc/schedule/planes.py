"""Depthwise convolution in C source: one channel at a time, from a padded plane of bytes (see ``lower.columns``).

A channel of x is read whole before any of that channel of y is written, so that y may lie over x.
"""

from __future__ import annotations

from typing import Any

from tvm.script.ir_builder import tirx as T

from qcc.lower.columns import SLACK
from qcc.lower.kernel import Kernel
from qcc.schedule.columns import Image
from qcc.schedule.source import array, as_byte, at, finish, function, let, loop, run

Expr = Any


def planes(kernel: Kernel) -> Any:
    """The function of a kernel; ``threes``: 3x3 windows by ``smlad``, a row of outputs at a time."""
    return function(kernel, lambda b, p: _Planes(b, p).emit())


class _Planes:
    def __init__(self, b: dict[str, Any], p: dict[str, Any]) -> None:
        self.b, self.p = b, p
        self.out = Image(p, "y")
        self.residual = Image(p, "r") if "residual" in b else None
        self.pitch = (p["width"] - 1) * p["stride_x"] + (p["taps_x"] - 1) * p["dilation_x"] + 1
        self.total: Any = None if p["threes"] else array("total", 1, "int32")

    def emit(self) -> None:
        """The body of the function."""
        p = self.p
        high = (p["height"] - 1) * p["stride_y"] + (p["taps_y"] - 1) * p["dilation_y"] + 1
        slack = SLACK if p["threes"] else 0
        run("qcc_fill", at(self.b["plane"]), as_byte(p["zero_in"]), high * self.pitch + slack)
        with loop("image", p["images"]) as image, loop("c", p["channels"]) as c:
            self._gather(image, c)
            self._channel(image, c)

    def _gather(self, image: Expr, c: Expr) -> None:
        p, source = self.p, Image(self.p, "x")
        with loop("row", p["rows"]) as row:
            line = source.at(image, row + p["first_row"], p["first"]) + c
            to = (row + p["top"]) * self.pitch + p["left"]
            run("qcc_gather", at(self.b["plane"], to), at(self.b["x"], line), source.step, p["count"])

    def _channel(self, image: Expr, c: Expr) -> None:
        b, p = self.b, self.p
        bias, multiplier = let("sum", b["bias"][c]), let("m", b["multiplier"][c])
        by = let("by", b["shift"][c].astype("int32")) if "shift" in b else None
        taps = c * (p["taps_y"] * p["taps_x"])

        def store(value: Expr, i: Expr, j: Expr) -> None:
            r = b["residual"][self.residual.at(image, i, j) + c] if self.residual else None
            T.buffer_store(b["y"], finish(p, value, multiplier, by, r), [self.out.at(image, i, j) + c])

        with loop("i", p["height"]) as i:
            top = i * p["stride_y"] * self.pitch
            if p["threes"]:
                run("qcc_depthwise_3x3", at(b["plane"], top), p["dilation_y"] * self.pitch, p["stride_x"],
                    at(b["w"], taps), bias, p["width"], at(b["sums"]))  # fmt: skip
            with loop("j", p["width"]) as j:
                if not p["threes"]:
                    self._sum(bias, taps, top + j * p["stride_x"])
                store(b["sums"][j] if p["threes"] else self.total[0], i, j)

    def _sum(self, bias: Expr, taps: Expr, place: Expr) -> None:
        """The sum of a window that begins at ``place``."""
        b, p, total = self.b, self.p, self.total
        T.buffer_store(total, bias, [0])
        with loop("ky", p["taps_y"]) as ky, loop("kx", p["taps_x"]) as kx:
            v = b["plane"][place + ky * p["dilation_y"] * self.pitch + kx * p["dilation_x"]].astype("int32")
            w = b["w"][taps + ky * p["taps_x"] + kx].astype("int32")
            T.buffer_store(total, total[0] + v * w, [0])
