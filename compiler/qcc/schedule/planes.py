"""Depthwise convolution in C source: one channel at a time, from a padded plane of bytes (see ``lower.columns``).

A channel of x is read whole before any of that channel of y is written, so that y may lie over x.
"""

from __future__ import annotations

from typing import Any

from tvm.script.ir_builder import tirx as T

from qcc.lower.columns import SLACK
from qcc.lower.kernel import Kernel
from qcc.schedule.columns import Image
from qcc.schedule.source import array, as_byte, at, branch, call, finish, function, let, loop, quotient, remainder, run

Expr = Any


def planes(kernel: Kernel) -> Any:
    """The function of a kernel; ``threes``: rows of three taps by ``smlad``, ``paired``: two outputs at a time."""
    return function(kernel, lambda b, p: _Planes(b, p).emit())


class _Planes:
    def __init__(self, b: dict[str, Any], p: dict[str, Any]) -> None:
        self.b, self.p = b, p
        self.out = Image(p, "y")
        self.residual = Image(p, "r") if "residual" in b else None
        self.pitch = (p["width"] - 1) * p["stride_x"] + (p["taps_x"] - 1) * p["dilation_x"] + 1
        self.sums = array("sums", 2, "int32")

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
        b, p, plane, sums = self.b, self.p, self.b["plane"], self.sums
        bias, multiplier = let("sum", b["bias"][c]), let("m", b["multiplier"][c])
        by = let("by", b["shift"][c].astype("int32")) if "shift" in b else None
        base = c * (p["taps_y"] * p["taps_x"])
        rows = [let(f"taps{k}", call("qcc_load_taps", at(b["w"], base + k * 3), dtype="int64"))
                for k in range(p["taps_y"])] if p["threes"] else []  # fmt: skip

        def store(value: Expr, i: Expr, j: Expr) -> None:
            r = b["residual"][self.residual.at(image, i, j) + c] if self.residual else None
            T.buffer_store(b["y"], finish(p, value, multiplier, by, r), [self.out.at(image, i, j) + c])

        def place(i: Expr, j: Expr, k: Expr) -> Expr:
            return (i * p["stride_y"] + k * p["dilation_y"]) * self.pitch + j * p["stride_x"]

        def single(i: Expr, j: Expr) -> None:
            T.buffer_store(sums, bias, [0])
            if p["threes"]:
                for k, taps in enumerate(rows):
                    T.buffer_store(sums, call("qcc_row", at(plane, place(i, j, k)), taps, sums[0], dtype="int32"), [0])
            else:
                with loop("ky", p["taps_y"]) as k, loop("kx", p["taps_x"]) as kk:
                    v = plane[place(i, j, k) + kk * p["dilation_x"]].astype("int32")
                    w = b["w"][base + k * p["taps_x"] + kk].astype("int32")
                    T.buffer_store(sums, sums[0] + v * w, [0])
            store(sums[0], i, j)

        def pair(i: Expr, half: Expr) -> None:
            for s in range(2):
                T.buffer_store(sums, bias, [s])
            for k, taps in enumerate(rows):
                run("qcc_row_pair", at(plane, place(i, half * 2, k)), taps, at(sums))
            for s in range(2):
                store(sums[s], i, half * 2 + s)

        with loop("i", p["height"]) as i:
            if not p["paired"]:
                with loop("j", p["width"]) as j:
                    single(i, j)
                return
            with loop("half", quotient(p["width"], 2)) as half:
                pair(i, half)
            last = remainder(p["width"], 2)
            if not isinstance(last, int):
                branch(last != 0, lambda: single(i, p["width"] - 1))
            elif last:
                single(i, p["width"] - 1)
