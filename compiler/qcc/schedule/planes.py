"""Depthwise convolution in C source: one channel at a time, from a padded plane of bytes (see ``lower.columns``).

A channel of x is read whole before any of that channel of y is written, so that y may lie over x.
"""

from __future__ import annotations

from typing import Any

from tvm.script.ir_builder import tirx as T

from qcc.lower.kernel import Kernel
from qcc.schedule.source import array, at, call, finish, function, let, loop, offset, run

Expr = Any


class Planes:
    """One kernel; ``packed``: rows of three taps by ``smlad``."""

    def __init__(self, kernel: Kernel, packed: bool) -> None:
        self.kernel = kernel
        p: dict[str, Any] = dict(kernel.params)
        self.taps, self.stride, self.dilation, self.start = (p[k] for k in ("taps", "stride", "dilation", "start"))
        self.zero_in = p["zero_in"]
        self.x, self.y = kernel.view("x"), kernel.view("y")
        out, size = self.y.shape[1:3], self.x.shape[1:3]
        self.threes = packed and self.taps[1] == 3 and self.dilation[1] == 1
        self.extent = [(o - 1) * s + (t - 1) * d + 1
                       for o, s, t, d in zip(out, self.stride, self.taps, self.dilation, strict=True)]  # fmt: skip
        # The rows and columns of x that the plane holds, and where they begin there.
        self.first = [max(0, b) for b in self.start]
        self.margin = [max(0, -b) for b in self.start]
        self.count = [max(0, min(n, b + e) - f)
                      for n, b, e, f in zip(size, self.start, self.extent, self.first, strict=True)]  # fmt: skip
        self.pitch = self.extent[1]
        self.pairs = self.threes and self.stride[1] == 1

    def build(self) -> Any:
        """The function."""
        return function(self.kernel, self._body)

    def _body(self, b: dict[str, Any]) -> None:
        batch, height, width, channels = self.y.shape
        slack = 4 if self.threes else 0
        plane = array("plane", self.extent[0] * self.pitch + slack, "int8")
        sums = array("sums", 2, "int32")
        if self.count != self.extent:
            run("qcc_fill", at(plane), _int8(self.zero_in), self.extent[0] * self.pitch)
        inside = (self.margin[0] * self.pitch) + self.margin[1]
        with loop("image", batch) as image, loop("c", channels) as c:
            origin = offset(self.x.strides[:3], (image, self.first[0], self.first[1])) + c
            with loop("row", self.count[0]) as row:
                line = origin + row * self.x.strides[1]
                to = inside + row * self.pitch
                run("qcc_gather", at(plane, to), at(b["x"], line), self.x.strides[2], self.count[1])
            bias, multiplier = let("bias", b["bias"][c]), let("m", b["multiplier"][c])
            by = let("by", b["shift"][c].astype("int32")) if "shift" in b else None
            ky, kx = self.taps
            base = c * (ky * kx)
            rows = [let(f"taps{k}", call("qcc_load_taps", at(b["w"], base + k * kx), dtype="int64"))
                    for k in range(ky)] if self.threes else []  # fmt: skip

            def store(value: Expr, i: Expr, j: Expr) -> None:
                index = (image, i, j)
                r = None
                if "residual" in b:
                    r = b["residual"][offset(self.kernel.view("residual").strides[:3], index) + c]
                result = finish(self.kernel, value, multiplier, by, r)
                T.buffer_store(b["y"], result, [offset(self.y.strides[:3], index) + c])

            def place(i: Expr, j: Expr, k: Expr) -> Expr:
                return (i * self.stride[0] + k * self.dilation[0]) * self.pitch + j * self.stride[1]

            def single(i: Expr, j: Expr) -> None:
                T.buffer_store(sums, bias, [0])
                if self.threes:
                    for k, taps in enumerate(rows):
                        value = call("qcc_row", at(plane, place(i, j, k)), taps, sums[0], dtype="int32")
                        T.buffer_store(sums, value, [0])
                else:
                    with loop("ky", ky) as k, loop("kx", kx) as kk:
                        v = plane[place(i, j, k) + kk * self.dilation[1]].astype("int32")
                        T.buffer_store(sums, sums[0] + v * b["w"][base + k * kx + kk].astype("int32"), [0])
                store(sums[0], i, j)

            with loop("i", height) as i:
                if not self.pairs:
                    with loop("j", width) as j:
                        single(i, j)
                else:
                    if width > 1:
                        with loop("j", width // 2) as half:
                            for s in range(2):
                                T.buffer_store(sums, bias, [s])
                            for k, taps in enumerate(rows):
                                run("qcc_row_pair", at(plane, place(i, half * 2, k)), taps, at(sums))
                            for s in range(2):
                                store(sums[s], i, half * 2 + s)
                    if width % 2:
                        single(i, width - 1)


def _int8(value: int) -> Expr:
    return T.int8(value)
