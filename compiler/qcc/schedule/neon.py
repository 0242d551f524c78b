"""Kernels with weights for aarch64: convolutions written out as loops around tiles of registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcc.lower.kernel import Kernel
from qcc.schedule.decide import Decide
from qcc.schedule.neon_depthwise import conv_depthwise
from qcc.schedule.neon_multiply import MULTIPLY, Smmla, SmmlaPanel, Tile, pack_panel, panel_bytes
from qcc.schedule.neon_tiles import neon_rows
from qcc.schedule.neon_vectors import Epilogue, function, gather_words, load, real_layer, store
from qcc.schedule.tiles import divisors, nearest_divisor

CACHED_BYTES = 128 * 1024
"""Part of the input that is read once per block of channels: it should stay in the level-2 cache."""

PANEL_BYTES = 24 * 1024
"""Pixels that are paired at a time: they should stay in the level-1 cache."""

SHARES = 8
"""Chunks that are enough for a few threads."""


def conv_gemm(kernel: Kernel, decide: Decide) -> Any:
    """Tiles of ``rows`` pixels x one block of channels; sums stay in registers from the bias to the stored bytes."""
    batch, height, width = kernel.param("outputs")
    blocks, taps_y, taps_x, groups, lanes, dot = kernel.view("w").shape
    x, y = kernel.view("x").strides, kernel.view("y").strides
    stride, dilation, step, hop, parts = (kernel.param(k) for k in ("stride", "dilation", "step", "hop", "parts"))
    multiply, depth = MULTIPLY[dot], kernel.param("depth")
    rows = decide("rows", divisors(width, 16), neon_rows(width, lanes, blocks, depth, dot))
    tiles, every = width // rows, taps_y * taps_x * groups
    paired = multiply is Smmla and blocks > 1
    room = PANEL_BYTES // panel_bytes(rows, every) if paired else CACHED_BYTES // (rows * every * dot)
    units = height if height > 1 else tiles
    at_once = max(1, room // (tiles if height > 1 else 1))
    chunk = decide("chunk", divisors(units), nearest_divisor(units, min(at_once, -(-units // SHARES))))
    count = chunk * (tiles if height > 1 else 1)
    real = kernel.view("y").dtype == "float32"
    epilogue, valid = None if real else Epilogue.of(kernel), min(lanes, kernel.param("channels"))

    with IRBuilder() as builder, function(kernel) as p:
        bias = p["centre" if real else "bias"]
        acc = T.sblock_alloc_buffer((multiply.registers(rows, lanes) * 4,), "int32", scope="local")
        if paired:
            panel = T.sblock_alloc_buffer((count * panel_bytes(rows, every),), "int8", scope="local")

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

        def tile(b: Any, first: Any, t: Any, block: Any) -> None:
            row, column = position(first, t)
            weights = T.bind(block * (every * lanes * dot))
            if paired:
                made: Tile = SmmlaPanel(acc, rows, lanes, panel, p["w"], step, True)
                made.start(bias, block * lanes)
                _reduce(1, 1, every, made, T.bind(t * panel_bytes(rows, every)), weights, (0, 0), 1)
            else:
                made = multiply(acc, rows, lanes, p["x"], p["w"], step, kernel.param("symmetric"))
                made.start(bias, block * lanes)
                begin = T.bind(source(b, row, column))
                _reduce(taps_y, taps_x, groups, made, begin, weights, (dilation * x[1], hop), parts)
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
                for pixel, first in product(range(rows), range(0, lanes, 4)):
                    r = load(p["residual"], residual_at(pixel, first), 4) if "residual" in p else None
                    v = made.sums(pixel, first, bias, block * lanes)
                    v = T.bind(real_layer(v, p, block * lanes + first, r))
                    store(p["y"], at + (pixel * y[2] + first), v, 0, min(4, valid - first))
                return
            results = made.results(p, block * lanes, epilogue, residual if epilogue.residual else None)
            for pixel, channel, out, begin_at, size in results:
                store(p["y"], at + (pixel * y[2] + channel), out, begin_at, min(size, valid - channel))

        chunks = units // chunk
        if paired:
            with T.parallel(0, batch * chunks) as unit:
                b, first = T.bind(unit // chunks), T.bind(unit % chunks * chunk)
                with T.serial(0, count) as t:
                    pack(b, first, t)
                with T.serial(0, blocks) as block, T.serial(0, count) as t:
                    tile(b, first, t, block)
        else:
            with T.parallel(0, batch * chunks * blocks) as unit:
                block, outer = T.bind(unit % blocks), T.bind(unit // blocks)
                b, first = T.bind(outer // chunks), T.bind(outer % chunks * chunk)
                with T.serial(0, count) as t:
                    tile(b, first, t, block)
    return builder.get()


def _reduce(
    taps_y: int, taps_x: int, groups: int, made: Tile, begin: Any, weights: Any, hops: tuple[int, int], parts: int
) -> None:
    """The steps of a reduction: all taps, ``groups`` each; the pixels of a tap begin ``hops`` further on.

    ``parts`` neighbouring taps of a row are at the same place.
    """
    group_bytes = made.lanes * made.dot
    steps = -(-groups // made.per_step)

    def tap(ky: Any, kx: Any, done: int) -> None:
        w = T.bind(weights + (ky * taps_x + kx) * (groups * group_bytes))
        x = T.bind(begin + (ky * hops[0] + kx // parts * hops[1]))

        def step(s: Any, count: int, first: bool) -> None:
            made.step(x + s * (made.per_step * made.advance), w + s * (made.per_step * group_bytes), count, first)

        whole, rest = divmod(groups, made.per_step)
        loop = whole if (steps - done) * made.cost > made.unrolled else 0
        for s in range(done):
            step(s, min(made.per_step, groups), True)
        if loop > done:
            with T.serial(done, loop) as s:
                step(s, made.per_step, False)
        for s in range(max(loop, done), steps):
            step(s, rest if s == whole else made.per_step, False)

    if taps_y * taps_x * steps * made.cost <= made.unrolled:
        for ky in range(taps_y):
            for kx in range(taps_x):
                tap(ky, kx, int(made.peels and ky == kx == 0))
        return
    if not made.peels:
        with T.serial(0, taps_y) as ky, T.serial(0, taps_x) as kx:
            tap(ky, kx, 0)
        return
    tap(0, 0, 1)
    if taps_x > 1:
        with T.serial(1, taps_x) as kx:
            tap(0, kx, 0)
    if taps_y > 1:
        with T.serial(1, taps_y) as ky, T.serial(0, taps_x) as kx:
            tap(ky, kx, 0)


KERNELS: dict[str, Callable[[Kernel, Decide], Any]] = {"conv_gemm": conv_gemm, "conv_depthwise": conv_depthwise}
SCHEDULES: dict[str, Callable[[Any, Kernel, Decide], None]] = {}
