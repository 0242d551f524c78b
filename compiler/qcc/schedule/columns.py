"""Convolution in C source: columns of one or two pixels times tiles of channels (see ``lower.columns``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from qcc.lower.columns import UNITS
from qcc.lower.kernel import Kernel
from qcc.plan.overlay import BACKWARD
from qcc.schedule.source import (
    array,
    as_byte,
    at,
    branch,
    call,
    finish,
    function,
    let,
    loop,
    quotient,
    run,
)

Expr = Any
Family = Literal["c99", "dsp", "mve"]


class Tiles:
    """Sums of a tile of channels for one or two pixels, and what follows them; ``p`` are the kernel's parameters."""

    def __init__(self, family: Family, b: dict[str, Any], p: dict[str, Any]) -> None:
        self.family, self.unit, self.b, self.p = family, UNITS[family], b, p
        self.tile, self.pair = p["tile"], p["pair"]
        self.sums = array("sums", self.tile * self.pair, "int32")

    def places(self, tile: Expr, count: Expr) -> list[Expr]:
        """The pixels of a tile of ``count`` in a row: the second may be the first one again."""
        first = tile * self.pair
        if self.pair == 1:
            return [first]
        return [first, let("second", call("qcc_min", first + 1, count - 1, dtype="int32"))]

    def all(self, size: Expr, y: Sequence[Expr], residual: Sequence[Expr], dot: Callable[[Expr], None]) -> None:
        """Every channel of the pixels at offsets ``y``; ``dot(w)`` adds ``size`` products to each sum, whose weights
        begin at ``w``.
        """
        channels = self.p["channels"]
        with loop("block", quotient(channels + self.tile - 1, self.tile)) as block:
            n = block * self.tile
            for c in range(self.tile):
                for j in range(self.pair):
                    T.buffer_store(self.sums, self.b["bias"][n + c], [c * self.pair + j])
            dot(n * size)
            if self.family == "mve" and self.p["wide"] and not self.p["ragged"]:
                self._finish_wide(n, y[0], residual)
                return
            for c in range(self.tile):
                exists = n + c < channels if c and self.p["ragged"] else None
                branch(exists, lambda c=c: self._store(n + c, c, y, residual))  # type: ignore[misc]

    def multiply(self, column: Expr, w: Expr, groups: Expr) -> None:
        """Add the products of ``groups`` of inputs, gathered at ``column``, and weights, which begin at ``w``."""
        name = "qcc_dot_wide"
        if self.family == "dsp":
            name = "qcc_dot_2x2" if self.pair > 1 else "qcc_dot_1x4"
            if str(self.b["w"].dtype) == "int16":  # by ``lower.repack``
                name += "_words"
        run(name, column, at(self.b["w"], w), groups, at(self.sums))

    def _finish_wide(self, n: Expr, y: Expr, residual: Sequence[Expr]) -> None:
        """The bytes of four channels at a time."""
        p = self.p
        shifts = at(self.b["shift"], n) if "shift" in self.b else at(self.b["w"])
        head = [at(self.sums), at(self.b["multiplier"], n), shifts, p["shift"], p["zero"], p["low"], p["high"]]
        if "residual" in self.b:
            r = [at(self.b["residual"], residual[0] + n), p["residual_zero"], p["residual_multiplier"], p["fraction"]]
            run("qcc_finish_wide_residual", *head, *r, at(self.b["y"], y + n))
        else:
            run("qcc_finish_wide", *head, at(self.b["y"], y + n))

    def _store(self, n: Expr, c: int, y: Sequence[Expr], residual: Sequence[Expr]) -> None:
        multiplier = let("m", self.b["multiplier"][n])
        by = let("by", self.b["shift"][n].astype("int32")) if "shift" in self.b else None
        # The second pixel may be the first one again, and the residual may lie where y does: read before writing.
        values = []
        for j in range(self.pair):
            r = self.b["residual"][residual[j] + n] if "residual" in self.b else None
            value = finish(self.p, self.sums[c * self.pair + j], multiplier, by, r)
            values.append(let(f"v{j}", value) if self.pair > 1 and r is not None else value)
        for j, value in enumerate(values):
            T.buffer_store(self.b["y"], value, [y[j] + n])


def dot_bytes(b: dict[str, Any], tiles: Tiles, w: Expr, size: Expr, x: Sequence[tuple[Any, Expr]], count: Expr) -> None:
    """Adds ``count`` products byte by byte: x are (buffer, offset) of each pixel, w that of the first channel, whose
    others follow ``size`` bytes apart.
    """
    with loop("k", count) as k:
        weights = [let(f"w{c}", b["w"][w + c * size + k].astype("int32")) for c in range(tiles.tile)]
        for j, (buffer, offset) in enumerate(x):
            v = let(f"x{j}", buffer[offset + k].astype("int32"))
            for c in range(tiles.tile):
                i = c * tiles.pair + j
                T.buffer_store(tiles.sums, tiles.sums[i] + v * weights[c], [i])


def pad_column(b: dict[str, Any], p: dict[str, Any], size: Expr, padded: Expr) -> None:
    """Zeros behind a gathered column, once: what they are multiplied with is zero too."""
    if "bytes" in b and not p["whole"]:
        run("qcc_fill", at(b["bytes"], size), T.int8(0), padded - size)


class Pointwise:
    """Pixels that lie at one distance, times a matrix."""

    def __init__(self, family: Family) -> None:
        self.family, self.unit = family, UNITS[family]

    def build(self, kernel: Kernel) -> Any:
        """The function."""
        return function(kernel, self._body)

    def _body(self, b: dict[str, Any], p: dict[str, Any]) -> None:
        tiles = Tiles(self.family, b, p)
        depth, pixels, pair = p["depth"], p["pixels"], p["pair"]
        groups = quotient(depth + self.unit - 1, self.unit)
        padded = groups * self.unit
        pad_column(b, p, depth, padded)
        count = quotient(pixels + pair - 1, pair)
        with loop("tile", count) as step:
            tile = count - 1 - step if p["over"] == BACKWARD else step
            places = tiles.places(tile, pixels)
            x = [place * p.get("x_step", depth) for place in places]
            y = [place * p.get("y_step", p["channels"]) for place in places]
            r = [place * p.get("r_step", p["channels"]) for place in places] if "residual" in b else []
            self._columns(b, x, depth, groups)
            source = [(b["bytes"], j * padded) if "bytes" in b else (b["x"], x[j]) for j in range(pair)]

            def dot(w: Expr) -> None:
                if self.unit == 1:
                    dot_bytes(b, tiles, w, depth, source, depth)
                else:
                    tiles.multiply(at(b["columns"]) if "columns" in b else at(*source[0]), w, groups)

            tiles.all(padded, y, r, dot)

    def _columns(self, b: dict[str, Any], x: list[Expr], depth: Expr, groups: Expr) -> None:
        for j, offset in enumerate(x):
            source = at(b["x"], offset)
            if "bytes" in b:
                to = at(b["bytes"], 0 if "columns" in b else j * groups * self.unit)
                run("qcc_copy", to, source, depth)
                source = to
            if "columns" in b:
                run("qcc_widen", at(b["columns"], 2 * j), source, groups)


class Image:
    """The distances in an image, ``x``, ``y`` or ``r``: given, or those of an image that is dense."""

    def __init__(self, p: dict[str, Any], key: str) -> None:
        if p[f"{key}_dense"]:
            inside = key == "x"
            self.step = p.get("depth", p["channels"]) if inside else p["channels"]
            self.row = p.get("in_width", p["count"]) * self.step if inside else p["width"] * self.step
            self.image = p["in_height" if inside else "height"] * self.row if p["images"] > 1 else 0
        else:
            self.image, self.row, self.step = (p[f"{key}_{name}"] for name in ("image", "row", "step"))

    def at(self, image: Expr, row: Expr, column: Expr) -> Expr:
        """Offset of a pixel."""
        return image * self.image + row * self.row + column * self.step


class Rows:
    """Where a row of outputs finds its inputs: in x, or in a window of rows with their padding that slides down x."""

    def __init__(self, b: dict[str, Any], p: dict[str, Any]) -> None:
        self.b, self.p = b, p
        self.x = Image(p, "x")
        self.backward = p.get("over") == BACKWARD
        self.high = (p["taps_y"] - 1) * p["dilation_y"] + 1
        self.depth = p.get("depth", p["channels"])
        self.step = self.depth if p["windowed"] else self.x.step
        """Bytes from a column to the next one."""
        self.pitch = self.x.row
        """Bytes from a row to the next one below it; in a window that is filled backwards they lie upside down."""
        self.origin: Expr = 0
        if p["windowed"]:
            wide = (p["width"] - 1) * p["stride_x"] + (p["taps_x"] - 1) * p["dilation_x"] + 1
            self.bytes = wide * self.depth
            self.pitch = 0 - self.bytes if self.backward else self.bytes
            self.origin = (self.high - 1) * self.bytes if self.backward else 0
        self.source = b["window"] if p["windowed"] else b["x"]

    def each(self, image: Expr, row_of_outputs: Callable[[Expr, Expr], None]) -> None:
        """``row_of_outputs(row, origin)`` for every row; its first input is at ``origin`` of ``source``."""
        p = self.p
        if p["windowed"]:
            run("qcc_fill", at(self.b["window"]), as_byte(self.p["zero_in"]), self.high * self.bytes)
        with loop("i", p["height"]) as step:
            i = p["height"] - 1 - step if self.backward else step
            top = i * p["stride_y"] + p["start_y"]
            if p["windowed"]:
                self._slide(image, step, top)
                row_of_outputs(i, self.origin)
            else:
                row_of_outputs(i, self.x.at(image, top, p["start_x"]))

    def _slide(self, image: Expr, step: Expr, top: Expr) -> None:
        """Move the rows that are needed again, and fetch the others."""
        p, window = self.p, self.b["window"]
        begin: Expr = 0
        kept = p["kept"]
        if not isinstance(kept, int) or kept:

            def move() -> None:
                with loop("row", kept) as row:
                    source = at(window, (row + p["stride_y"]) * self.bytes)
                    run("qcc_copy", at(window, row * self.bytes), source, self.bytes)

            branch(step > 0, move)
            begin = tirx.Select(step > 0, tirx.convert(kept), T.int32(0))
        inside = p["left"] * self.depth
        with loop("slot", self.high, begin) as slot:
            row = top + (self.high - 1 - slot if self.backward else slot)
            to = at(window, slot * self.bytes + inside)
            count = p["count"] * self.depth

            def fetch() -> None:
                if p["x_dense"]:
                    run("qcc_copy", to, at(self.b["x"], self.x.at(image, row, p["first"])), count)
                    return
                with loop("column", p["count"]) as column:
                    source = at(self.b["x"], self.x.at(image, row, p["first"] + column))
                    run("qcc_copy", at(window, slot * self.bytes + inside + column * self.depth), source, self.depth)

            exists = tirx.all(row >= 0, row < p["in_height"]) if p["padded_y"] else None
            branch(exists, fetch, lambda: run("qcc_fill", to, as_byte(self.p["zero_in"]), count))


class Convolution:
    """Windows of several taps, or of one with strides."""

    def __init__(self, family: Family) -> None:
        self.family, self.unit = family, UNITS[family]

    def build(self, kernel: Kernel) -> Any:
        """The function."""
        return function(kernel, self._body)

    def _body(self, b: dict[str, Any], p: dict[str, Any]) -> None:
        rows, tiles = Rows(b, p), Tiles(self.family, b, p)
        out, residual = Image(p, "y"), Image(p, "r") if "residual" in b else None
        run_bytes = p["taps_x"] * p["depth"] if p["joined"] else p["depth"]
        size = p["taps_y"] * p["taps_x"] * p["depth"]
        groups = quotient(size + self.unit - 1, self.unit)
        padded, pair = groups * self.unit, p["pair"]
        pad_column(b, p, size, padded)

        def taps(each: Callable[[Expr, Expr], None]) -> None:
            """``each(offset of the input from that of the window, number of the byte)`` for runs of bytes."""
            with loop("ky", p["taps_y"]) as ky:
                line = ky * p["dilation_y"] * rows.pitch
                if p["joined"]:
                    each(line, ky * run_bytes)
                    return
                with loop("kx", p["taps_x"]) as kx:
                    each(line + kx * p["dilation_x"] * rows.step, (ky * p["taps_x"] + kx) * run_bytes)

        def row_of_outputs(i: Expr, origin: Expr) -> None:
            count = quotient(p["width"] + pair - 1, pair)
            with loop("tile", count) as tile:
                places = tiles.places(tile, p["width"])
                x = [origin + place * p["stride_x"] * rows.step for place in places]
                y = [out.at(image, i, place) for place in places]
                r = [residual.at(image, i, place) for place in places] if residual else []
                if self.unit > 1:
                    for j in range(pair):
                        self._column(b, rows.source, x[j], j, taps, run_bytes, groups)

                def dot(w: Expr) -> None:
                    if self.unit == 1:
                        taps(lambda at_x, k: dot_bytes(b, tiles, w + k, size,
                                                       [(rows.source, v + at_x) for v in x], run_bytes))  # fmt: skip
                    else:
                        tiles.multiply(at(b["columns" if "columns" in b else "bytes"]), w, groups)

                tiles.all(padded, y, r, dot)

        with loop("image", p["images"]) as image:
            rows.each(image, row_of_outputs)

    def _column(
        self, b: dict[str, Any], source: Any, x: Expr, j: int, taps: Callable[..., None], run_bytes: Expr, groups: Expr
    ) -> None:
        """The inputs of a pixel side by side."""
        if "bytes" in b:
            taps(lambda at_x, k: run("qcc_copy", at(b["bytes"], k), at(source, x + at_x), run_bytes))
            if "columns" in b:
                run("qcc_widen", at(b["columns"], 2 * j), at(b["bytes"]), groups)
            return
        each = quotient(run_bytes, 4)
        taps(lambda at_x, k: run("qcc_widen", at(b["columns"], 2 * k + 2 * j), at(source, x + at_x), each))
