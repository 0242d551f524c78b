"""Depthwise convolutions on aarch64: vectors over channels, sums and taps in registers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcc.lower.kernel import Kernel
from qcc.schedule.decide import Decide
from qcc.schedule.intrinsic import modular_sum
from qcc.schedule.neon_instructions import Neon, Vector, sdot
from qcc.schedule.neon_vectors import Epilogue, function, join, load, load_fours, real_layer, store
from qcc.schedule.tiles import divisors, nearest_divisor

Place = tuple[int, int]
"""(line, pixel) of a tile."""


def conv_depthwise(neon: Neon, kernel: Kernel, decide: Decide) -> Any:
    """Tiles of ``lines`` x ``pixels`` outputs of one block of channels; lines are shared among threads."""
    batch, height, width = kernel.param("outputs")
    lanes, dot = kernel.view("w").shape[-2:]
    channels = kernel.param("channels")
    x, y = kernel.view("x").strides, kernel.view("y").strides
    lines = decide("lines", [1, 2], 2) if lanes == 8 and dot == 4 and height % 2 == 0 else 1
    pixels = decide("pixels", divisors(width, 16), tile_width(width, lanes, dot))
    epilogue = None if kernel.view("y").dtype == "float32" else Epilogue.of(kernel, neon)
    sums = columns_by_sdot if dot == 4 else pixels_by_smlal
    with IRBuilder() as builder, function(kernel, neon, 0) as p:

        def tile(b: Any, row: Any, column: Any, block: Any, valid: int) -> None:
            begin = T.bind(b * x[0] + row * x[1] + column * (kernel.param("stride") * x[3]) + block * lanes)
            at = T.bind(b * y[0] + row * y[1] + column * y[2] + block * lanes)
            keys = () if epilogue is None else epilogue.tables
            bias, *tables = (load_fours(p[key], block * lanes, lanes) for key in ("bias", *keys))
            for places, values in sums(kernel, neon, p["x"], begin, p["w"], block, bias, lines, pixels):
                if epilogue is None:
                    for i, v in enumerate(values):
                        (line, pixel), first = places[4 * i // lanes], 4 * i % lanes
                        r = None
                        if "residual" in p:
                            s = kernel.view("residual").strides
                            there = b * s[0] + (row + line) * s[1] + (column + pixel) * s[2] + block * lanes + first
                            r = load(p["residual"], there, 4)
                        v = T.bind(real_layer(v, p, block * lanes + first, r))
                        store(p["y"], at + (line * y[1] + pixel * y[2] + first), v, 0, min(4, valid - first))
                    continue
                residual = None
                if epilogue.residual:
                    r = kernel.view("residual").strides
                    there = T.bind(b * r[0] + row * r[1] + column * r[2] + block * lanes)
                    parts = [load(p["residual"], there + (line * r[1] + pixel * r[2]), lanes) for line, pixel in places]
                    residual = parts[0] if len(parts) == 1 else join(*parts)
                requantized = [
                    epilogue.requantize(v, *(table[i % (lanes // 4)] for table in tables))
                    for i, v in enumerate(values)
                ]
                out = T.bind(epilogue.finish(requantized, residual, p["q"]))
                for i, (line, pixel) in enumerate(places):
                    store(p["y"], at + (line * y[1] + pixel * y[2]), out, i * lanes, valid)

        with T.parallel(0, batch * height // lines) as unit:
            b, row = T.bind(unit // (height // lines)), T.bind(unit % (height // lines) * lines)
            if channels >= lanes:
                with T.serial(0, channels // lanes) as block, T.serial(0, width // pixels) as column:
                    tile(b, row, column * pixels, block, lanes)
            if channels % lanes:
                with T.serial(0, width // pixels) as column:
                    tile(b, row, column * pixels, T.int32(channels // lanes), channels % lanes)
    return builder.get()


def tile_width(width: int, lanes: int, dot: int) -> int:
    """Default pixels of a tile: wide ones share columns, until LLVM spills registers."""
    if dot == 4:
        return nearest_divisor(width, 8 if lanes == 8 else 4)
    return 4 if width % 4 == 0 else nearest_divisor(width, 8)


Sums = Iterator[tuple[list[Place], list[Vector]]]
"""Places whose sums are complete, and their int32x4 one after the other."""


def columns_by_sdot(
    kernel: Kernel, neon: Neon, x: Any, begin: Any, w: Any, block: Any, bias: list[Vector], lines: int, pixels: int
) -> Sums:
    """Four rows of a column are interleaved once for every output that the column touches: ``sdot`` adds four taps.

    A second line reads the same rows with its weights one byte further on; that wants row stride 1 and no weight in the
    last row.
    """
    _, taps_x, groups, lanes, _ = kernel.view("w").shape
    stride, dilation, parts = (kernel.param(k) for k in ("stride", "dilation", "parts"))
    _, _, row, column, _ = kernel.view("x").strides
    quarters = lanes // 4
    last_row = kernel.param("taps_y") - 1 if lines == 1 else 3

    def taps(line: int, kx: int, g: int, n: int) -> Vector:
        offset = block * (taps_x * groups * lanes * 4) + ((kx * groups + g) * lanes + 4 * n) * 4
        four = load(w, offset)
        if line == 0:
            return four
        moved = T.shift_left(T.reinterpret(four, dtype="int32x4"), T.broadcast(T.int32(8), 4))
        return T.reinterpret(moved, dtype="int8x16")

    def interleaved(j: int, g: int) -> list[Vector]:
        rows = [load(x, begin + min(4 * g + k, last_row) * row + j * column, lanes) for k in range(4)]
        alternating = [lanes * k + n for n in range(lanes) for k in (0, 1)]
        pairs = [T.bind(tirx.Shuffle(rows[i : i + 2], alternating)) for i in (0, 2)]
        units = [T.reinterpret(v, dtype=f"int16x{lanes}") for v in pairs]
        fours = []
        for n in range(quarters):
            mixed = tirx.Shuffle(units, [lanes * k + 4 * n + i for i in range(4) for k in (0, 1)])
            fours.append(T.bind(T.reinterpret(mixed, dtype="int8x16")))
        return fours

    weights = {
        (line, kx, g, n): T.bind(taps(line, kx, g, n))
        for line in range(lines) for kx in range(taps_x) for g in range(groups) for n in range(quarters)
    }  # fmt: skip
    totals: dict[Place, list[Vector]] = {}
    for j in sorted({p * stride + kx // parts * dilation for p in range(pixels) for kx in range(taps_x)}):
        data = [interleaved(j, g) for g in range(groups)]
        done = []
        for kx in range(taps_x):
            pixel, rest = divmod(j - kx // parts * dilation, stride)
            if rest or not 0 <= pixel < pixels:
                continue
            for line in range(lines):
                total = totals.get((line, pixel), bias)
                for g in range(groups):
                    total = [T.bind(sdot(total[n], data[g][n], weights[line, kx, g, n])) for n in range(quarters)]
                totals[line, pixel] = total
                if kx == taps_x - 1:
                    done.append((line, pixel))
        if done:
            yield done, [v for place in done for v in totals.pop(place)]


def pixels_by_smlal(
    kernel: Kernel, neon: Neon, x: Any, begin: Any, w: Any, block: Any, bias: list[Vector], lines: int, pixels: int
) -> Sums:
    """``smull``, ``smlal``, then two ``saddw``: two products fit int16, unless weights may be -128."""
    _, taps_x, taps_y, lanes, _ = kernel.view("w").shape
    stride, dilation, parts = (kernel.param(k) for k in ("stride", "dilation", "parts"))
    _, _, row, column, _ = kernel.view("x").strides
    taps = [(ky, kx) for kx in range(taps_x) for ky in range(taps_y)]
    together = 2 if kernel.param("symmetric") else 1
    weights = [T.bind(load(w, block * (len(taps) * lanes) + i * lanes, 8)) for i in range(len(taps))]

    def product(i: int, pixel: int) -> Vector:
        ky, kx = taps[i]
        source = load(x, begin + (ky * row + (pixel * stride + kx // parts * dilation) * column), 8)
        return neon.product(source, weights[i])

    for first in range(0, pixels, 2):
        places = [(0, p) for p in range(first, min(first + 2, pixels))]
        values = []
        for _, pixel in places:
            low, high = bias
            for i in range(0, len(taps), together):
                both = product(i, pixel)
                if i + 1 < min(len(taps), i + together):
                    both = both + product(i + 1, pixel)
                both = T.bind(both)
                low = T.bind(modular_sum(low, T.Cast("int32x4", tirx.Shuffle([both], [0, 1, 2, 3])), 4))
                high = T.bind(modular_sum(high, T.Cast("int32x4", tirx.Shuffle([both], [4, 5, 6, 7])), 4))
            values += [low, high]
        yield places, values
