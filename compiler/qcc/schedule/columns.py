"""Convolution in C source: columns of one or two pixels times tiles of channels (see ``lower.columns``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from qcc.lower.kernel import Kernel
from qcc.schedule.source import array, at, branch, call, every, finish, function, let, loop, offset, run, within

Expr = Any


class Columns:
    """One kernel; how products are summed:

    ``scalar``: byte by byte; ``pairs``: columns are int16 pairs for ``smlad``; ``vectors``: 16 bytes of one pixel.
    """

    def __init__(self, kernel: Kernel, how: Literal["scalar", "pairs", "vectors"]) -> None:
        self.kernel, self.packed = kernel, how == "pairs"
        self.unit = {"scalar": 1, "pairs": 4, "vectors": 16}[how]
        """Bytes that columns are padded to, by bytes that meet zero weights."""
        p: dict[str, Any] = dict(kernel.params)
        self.x, self.y = kernel.view("x"), kernel.view("y")
        self.taps, self.stride, self.dilation, self.start = (p[k] for k in ("taps", "stride", "dilation", "start"))
        self.pixels, self.tile, self.zero_in = p["pixels"], p["channels"], p["zero_in"]
        self.depth = self.x.shape[3]
        self.run = self.taps[1] * self.depth
        self.size = self.taps[0] * self.run
        self.groups = -(-self.size // self.unit)
        _, self.height, self.width, self.channels = self.y.shape
        self.blocks = -(-self.channels // self.tile)
        self.low = self.start
        self.high = tuple(
            (out - 1) * s + b for out, s, b in zip(self.y.shape[1:3], self.stride, self.start, strict=True)
        )
        reach = [(t - 1) * d for t, d in zip(self.taps, self.dilation, strict=True)]
        self.padded = any(
            low < 0 or high + more >= extent
            for low, high, more, extent in zip(self.low, self.high, reach, self.x.shape[1:3], strict=True)
        )
        self.reach = reach
        self.whole = all(
            any(b + o * s >= 0 and b + o * s + more < extent for o in range(out))
            for b, s, more, extent, out in zip(
                self.start, self.stride, reach, self.x.shape[1:3], self.y.shape[1:3], strict=True
            )
        )
        """Some pixel needs no padding."""
        self.in_place = self.taps == (1, 1) and not self.padded and not (
            self.size % self.unit or (self.packed and self.pixels > 1)
        )
        """Bytes are read where they are."""
        self.staged = self.packed and not self.in_place and (self.depth % 4 > 0 or self.pixels == 1)
        """Bytes are gathered before they are widened, or because a single pixel's stay bytes."""

    def build(self) -> Any:
        """The function."""
        return function(self.kernel, self._body)

    def _body(self, buffers: dict[str, Any]) -> None:
        self.b = buffers
        if not self.in_place and (self.staged or not self.packed):
            rows = 1 if self.packed else self.pixels
            self.bytes = array("bytes", rows * self.groups * self.unit, "int8")
            if self.size % self.unit:
                run("qcc_fill", at(self.bytes, self.size), T.int8(0), -self.size % self.unit)
        if self.packed and self.pixels > 1:
            self.wide = array("columns", self.groups * 8, "int16")
        self.sums = array("sums", self.tile if self.pixels == 1 else self.tile * self.pixels, "int32")
        total = self.height * self.width
        with loop("image", self.y.shape[0]) as image, loop("tile", -(-total // self.pixels)) as tile:
            first = tile * self.pixels
            places = [self._place(image, self._last(first + j, total)) for j in range(self.pixels)]
            if not self.in_place:
                if self.pixels == 1:
                    self._column(image, first, 0)
                else:
                    with loop("j", self.pixels) as j:
                        self._column(image, self._last(first + j, total), j)
            with loop("block", self.blocks) as block:
                self._tile(block, places, first + 1 < total if total % self.pixels else None)

    def _last(self, pixel: Expr, total: int) -> Expr:
        """An odd last pixel is computed twice."""
        if total % self.pixels == 0 or not isinstance(pixel, tirx.Add):
            return pixel
        return let("pixel", call("qcc_min", pixel, total - 1, dtype="int32"))

    def _index(self, image: Expr, pixel: Expr) -> tuple[Expr, Expr, Expr]:
        if self.height == 1:
            return image, 0, pixel
        return image, tirx.truncdiv(pixel, self.width), tirx.truncmod(pixel, self.width)

    def _place(self, image: Expr, pixel: Expr) -> dict[str, Expr]:
        """Offsets of a pixel in y, in the residual, and in x where bytes are read in place."""
        index = self._index(image, pixel)
        found = {"y": offset(self.y.strides[:3], index)}
        if "residual" in self.b:
            strides = self.kernel.view("residual").strides[:3]
            found["r"] = found["y"] if strides == self.y.strides[:3] else offset(strides, index)
        if self.in_place:
            image, row, column = index
            at_x = (image, row * self.stride[0] + self.start[0], column * self.stride[1] + self.start[1])
            found["x"] = offset(self.x.strides[:3], at_x)
        return found

    def _column(self, image: Expr, pixel: Expr, j: Expr) -> None:
        """The inputs of a pixel, padding included."""
        _, out_row, out_column = self._index(image, pixel)
        row = out_row * self.stride[0] + self.start[0]
        column = out_column * self.stride[1] + self.start[1]
        _, step_y, step_x, _ = self.x.strides
        origin = offset(self.x.strides[:3], (image, row, column))
        adjacent = self.dilation[1] == 1 and (step_x == self.depth or self.taps[1] == 1)

        def whole() -> None:
            with loop("ky", self.taps[0]) as ky:
                line = origin + ky * (self.dilation[0] * step_y)
                if adjacent:
                    self._copy(j, ky * self.run, line, self.run)
                    return
                with loop("kx", self.taps[1]) as kx:
                    self._copy(j, ky * self.run + kx * self.depth, line + kx * (self.dilation[1] * step_x), self.depth)

        def partial() -> None:
            with loop("ky", self.taps[0]) as ky, loop("kx", self.taps[1]) as kx:
                y, x = row + ky * self.dilation[0], column + kx * self.dilation[1]
                to = ky * self.run + kx * self.depth
                inside = every([self._inside(0, y, self.reach[0]), self._inside(1, x, self.reach[1])])
                branch(inside, lambda: self._copy(j, to, offset(self.x.strides[:3], (image, y, x)), self.depth),
                       lambda: self._fill(j, to))

        self._by_padding(row, column, whole, partial)
        if self.staged and self.pixels > 1:
            run("qcc_widen", at(self.wide, j * 2), at(self.bytes), self.groups)

    def _by_padding(self, row: Expr, column: Expr, whole: Callable[[], None], partial: Callable[[], None]) -> None:
        """``whole`` where the window that begins at (row, column) lies inside the image, else ``partial``."""
        if not self.whole:
            partial()
        elif self.padded:
            first = [self._inside(axis, v, 0) for axis, v in enumerate((row, column))]
            last = [self._inside(axis, v + self.reach[axis], self.reach[axis]) for axis, v in enumerate((row, column))]
            branch(every([*first, *last]), whole, partial)
        else:
            whole()

    def _inside(self, axis: int, v: Expr, more: int) -> Expr | None:
        return within(v, self.low[axis], self.high[axis] + more, self.x.shape[1 + axis])

    def _copy(self, j: Expr, to: Expr, origin: Expr, count: int) -> None:
        if self.packed and not self.staged:
            run("qcc_widen", at(self.wide, to * 2 + j * 2), at(self.b["x"], origin), count // 4)
        else:
            run("qcc_copy", at(self.bytes, self._byte(j) + to), at(self.b["x"], origin), count)

    def _fill(self, j: Expr, to: Expr) -> None:
        if self.packed and not self.staged:
            run("qcc_widen_fill", at(self.wide, to * 2 + j * 2), tirx.const(self.zero_in, "int16"), self.depth // 4)
        else:
            zero = tirx.const(self.zero_in, "int8")
            run("qcc_fill", at(self.bytes, self._byte(j) + to), zero, self.depth)

    def _byte(self, j: Expr) -> Expr:
        return 0 if self.packed else j * self.size

    def _tile(self, block: Expr, places: list[dict[str, Expr]], second: Expr | None) -> None:
        """Sums of a tile of channels, and their bytes; ``second`` says whether there is a second pixel."""
        n = block * self.tile
        for c in range(self.tile):
            for j in range(self.pixels):
                T.buffer_store(self.sums, self.b["bias"][n + c], [c * self.pixels + j])
        if self.unit > 1:
            self._dot_packed(block, places)
        else:
            self._dot(n, places)
        if self.unit == 16 and self._finish_wide(n, places[0]):
            return
        for c in range(self.tile):
            left = self.channels % self.tile
            exists = n + c < self.channels if left and c >= left else None
            branch(exists, lambda c=c: self._store(n + c, c, places, second))  # type: ignore[misc]

    def _dot_packed(self, block: Expr, places: list[dict[str, Expr]]) -> None:
        w = at(self.b["w"], block * (self.groups * self.unit * self.tile))
        if self.pixels == 1:
            x = at(self.b["x"], places[0]["x"]) if self.in_place else at(self.bytes)
            run("qcc_dot_wide" if self.unit == 16 else "qcc_dot_1x4", x, w, self.groups, at(self.sums))
        else:
            run("qcc_dot_2x2", at(self.wide), w, self.groups, at(self.sums))

    def _finish_wide(self, n: Expr, place: dict[str, Expr]) -> bool:
        """The bytes of four channels at a time, where there are whole fours."""
        p: dict[str, Any] = dict(self.kernel.params)
        tflite = "shift" in self.b
        if self.channels % self.tile or not p["wide"]:
            return False
        shifts = at(self.b["shift"], n) if tflite else at(self.b["w"])
        head = [at(self.sums), at(self.b["multiplier"], n), shifts, p["shift"], p["zero"], p["low"], p["high"]]
        y = at(self.b["y"], place["y"] + n)
        if "residual" in self.b:
            r = [at(self.b["residual"], place["r"] + n), p["residual_zero"], p["residual_multiplier"], p["fraction"]]
            run("qcc_finish_wide_residual", *head, *r, y)
        else:
            run("qcc_finish_wide", *head, y)
        return True

    def _dot(self, n: Expr, places: list[dict[str, Expr]]) -> None:
        with loop("k", self.size) as k:
            w = [let(f"w{c}", self.b["w"][(n + c) * self.size + k].astype("int32")) for c in range(self.tile)]
            for j in range(self.pixels):
                v = self.b["x"][places[j]["x"] + k] if self.in_place else self.bytes[j * self.size + k]
                v = let(f"x{j}", v.astype("int32"))
                for c in range(self.tile):
                    i = c * self.pixels + j
                    T.buffer_store(self.sums, self.sums[i] + v * w[c], [i])

    def _store(self, n: Expr, c: int, places: list[dict[str, Expr]], second: Expr | None) -> None:
        multiplier = let("m", self.b["multiplier"][n])
        by = let("by", self.b["shift"][n].astype("int32")) if "shift" in self.b else None
        for j, place in enumerate(places):

            def store(j: int = j, place: dict[str, Expr] = place) -> None:
                r = self.b["residual"][place["r"] + n] if "residual" in self.b else None
                value = finish(self.kernel, self.sums[c * self.pixels + j], multiplier, by, r)
                T.buffer_store(self.b["y"], value, [place["y"] + n])

            branch(second if j else None, store)


