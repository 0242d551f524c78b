"""Kernels with weights for NEON: convolutions written out as loops around tiles of registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcc.lower.kernel import Kernel
from qcc.schedule.decide import Decide
from qcc.schedule.neon_depthwise import conv_depthwise
from qcc.schedule.neon_instructions import NEON64, Neon
from qcc.schedule.neon_multiply import MULTIPLY, Smmla, SmmlaPanel, Tile, pack_panel, panel_bytes
from qcc.schedule.neon_tiles import neon_tile
from qcc.schedule.neon_vectors import Epilogue, function, gather_words, load, real_layer, store
from qcc.schedule.tiles import divisors, nearest_divisor

CACHED_BYTES = 128 * 1024
"""Part of the input that is read once per block of channels: it should stay in the level-2 cache."""

PANEL_BYTES = 24 * 1024
"""Pixels that are paired at a time: they should stay in the level-1 cache."""

SHARES = 4
"""Chunks that are enough for a few threads; each prepares its tables anew."""


def conv_gemm(neon: Neon, kernel: Kernel, decide: Decide) -> Any:
    """Tiles of ``rows`` pixels x one block of channels; sums stay in registers from the bias to the stored bytes."""
    batch, height, width = kernel.param("outputs")
    blocks, taps_y, taps_x, groups, lanes, dot = kernel.view("w").shape
    x, y = kernel.view("x").strides, kernel.view("y").strides
    stride, dilation, step, hop, parts = (kernel.param(k) for k in ("stride", "dilation", "step", "hop", "parts"))
    multiply, depth = MULTIPLY[dot], kernel.param("depth")
    best = neon_tile(width, lanes, blocks, depth, dot, neon.registers)
    rows, deep = decide("rows", divisors(width, 16), best.rows), decide("deep", [1, 2], best.deep)
    size = replace(best, rows=rows, deep=deep)
    tiles, every = width // rows, taps_y * taps_x * groups
    paired = multiply is Smmla and blocks > 1
    room = PANEL_BYTES // panel_bytes(rows, every) if paired else CACHED_BYTES // (rows * every * dot)
    units = height if height > 1 else tiles
    at_once = max(1, room // (tiles if height > 1 else 1))
    default = nearest_divisor(units, min(at_once, -(-units // SHARES)))
    chunk = nearest_divisor(units, decide("chunk", divisors(height if height > 1 else width), default))
    count = chunk * (tiles if height > 1 else 1)
    real, valid = kernel.view("y").dtype == "float32", min(lanes, kernel.param("channels"))
    epilogue = None if real else Epilogue.of(kernel, neon)

    with IRBuilder() as builder, function(kernel, neon, size.sums) as p:
        symmetric = kernel.param("symmetric")
        if paired:
            panel = T.sblock_alloc_buffer((count * panel_bytes(rows, every),), "int8", scope="local")
            made: Tile = SmmlaPanel(neon, p, panel, size, step, symmetric)
        else:
            made = multiply(neon, p, p["x"], size, step, symmetric)

        def position(first: Any, t: Any) -> tuple[Any, Any]:
            """(row, column) of a chunk's tile t."""
            if height > 1:
                return T.bind(first + t // tiles), T.bind(t % tiles * rows)
            return T.int32(0), T.bind((first + t) * rows)

        def source(b: Any, row: Any, column: Any) -> Any:
            return b * x[0] + row * (stride * x[1]) + column * step

        def pack(b: Any, first: Any, t: Any) -> None:
            begin = T.bind(source(b, *position(first, t)))
            with T.serial(0, taps_y) as ky, T.serial(0, taps_x) as kx:
                tap = T.bind((t * (taps_y * taps_x) + ky * taps_x + kx) * panel_bytes(rows, groups))
                pack_panel(panel, tap, p["x"], begin + (ky * (dilation * x[1]) + kx // parts * hop), rows, step, groups)

        def tile(b: Any, begins: Any, t: Any, block: Any) -> None:
            row, column = position(begins, t)
            begin = T.bind(t * panel_bytes(rows, every) if paired else source(b, row, column))
            made.start(block * (every * lanes * dot), block * lanes)
            if paired:
                _reduce(1, 1, every, made, begin, (0, 0), 1)
            else:
                _reduce(taps_y, taps_x, groups, made, begin, (dilation * x[1], hop), parts)
            at = T.bind(b * y[0] + row * y[1] + column * y[2] + block * lanes)

            def residual_at(pixel: int, channel: int) -> Any:
                r = kernel.view("residual").strides
                return b * r[0] + row * r[1] + (column + pixel) * r[2] + block * lanes + channel

            def residual(fours: Sequence[tuple[int, int]]) -> Any:
                there = [residual_at(pixel, c) for pixel, c in fours]
                side_by_side = all(four == (fours[0][0], fours[0][1] + 4 * i) for i, four in enumerate(fours))
                if side_by_side or len(fours) == 1:
                    return load(p["residual"], there[0], 8 if len(fours) < 3 else 16)
                return gather_words(p["residual"], there if len(fours) % 2 == 0 else [*there, there[-1]])

            if epilogue is None:
                total = made.totals(block * lanes)
                for pixel, first in product(range(rows), range(0, lanes, 4)):
                    r = load(p["residual"], residual_at(pixel, first), 4) if "residual" in p else None
                    v = T.bind(real_layer(total(pixel, first), p, block * lanes + first, r))
                    store(p["y"], at + (pixel * y[2] + first), v, 0, min(4, valid - first))
                return
            results = made.results(block * lanes, epilogue, residual if epilogue.residual else None)
            for pixel, channel, out, begin_at, size in results:
                store(p["y"], at + (pixel * y[2] + channel), out, begin_at, min(size, valid - channel))

        chunks = units // chunk
        if paired:
            with T.parallel(0, batch * chunks) as unit:
                b, first = T.bind(unit // chunks), T.bind(unit % chunks * chunk)
                with T.serial(0, count) as t:
                    pack(b, first, t)
                with T.serial(0, blocks) as block:
                    made.prepare(block * lanes)
                    with T.serial(0, count) as t:
                        tile(b, first, t, block)
        else:
            with T.parallel(0, batch * chunks * blocks) as unit:
                block, outer = T.bind(unit % blocks), T.bind(unit // blocks)
                b, first = T.bind(outer // chunks), T.bind(outer % chunks * chunk)
                made.prepare(block * lanes)
                with T.serial(0, count) as t:
                    tile(b, first, t, block)
    return builder.get()


def _reduce(
    taps_y: int, taps_x: int, groups: int, made: Tile, begin: Any, hops: tuple[int, int], parts: int
) -> None:
    """The steps of a reduction: all taps, ``groups`` each; the pixels of a tap begin ``hops`` further on.

    ``parts`` neighbouring taps of a row are at the same place.
    """
    whole, rest = divmod(groups, made.per_step)
    steps = [made.per_step] * whole + [rest] * (rest > 0)
    hop, together = made.per_step * made.dot, max(1, made.unrolled // made.cost)

    def tap(ky: Any, kx: Any) -> Any:
        return ky * hops[0] + kx // parts * hops[1]

    if taps_y * taps_x * len(steps) * made.cost <= made.unrolled:
        made.go(begin)
        every = [(tap(ky, kx) + s * hop, count)
                 for ky in range(taps_y) for kx in range(taps_x) for s, count in enumerate(steps)]  # fmt: skip
        for number, (at, count) in enumerate(every):
            if number:
                made.part()
            made.step(at, count, number == 0)
        return

    def some(x: Any, counts: Sequence[int], first: bool = False) -> None:
        if not made.taken:
            made.go(x)
        for number, count in enumerate(counts):
            if number:
                made.part()
            made.step(number * hop, count, first and number == 0)

    def rolled(ky: Any, kx: Any, done: int) -> None:
        x = T.bind(begin + tap(ky, kx))
        if done:
            some(x, steps[:1], True)
        turns = (whole - done) // together
        if turns > 0:
            with T.serial(0, turns) as s:
                some(x + (done * hop + s * (together * hop)), [made.per_step] * together)
            done += turns * together
        if done < len(steps):
            some(x + done * hop, steps[done:])

    if made.taken:
        made.go(begin)
    if not made.peels:
        with T.serial(0, taps_y) as ky, T.serial(0, taps_x) as kx:
            rolled(ky, kx, 0)
        return
    rolled(0, 0, 1)
    if taps_x > 1:
        with T.serial(1, taps_x) as kx:
            rolled(0, kx, 0)
    if taps_y > 1:
        with T.serial(1, taps_y) as ky, T.serial(0, taps_x) as kx:
            rolled(ky, kx, 0)


def kernels(neon: Neon) -> dict[str, Callable[[Kernel, Decide], Any]]:
    """By compute."""
    return {"conv_gemm": partial(conv_gemm, neon), "conv_depthwise": partial(conv_depthwise, neon)}


KERNELS = kernels(NEON64)
SCHEDULES: dict[str, Callable[[Any, Kernel, Decide], None]] = {}
