"""Schedules for x86 with AMX: GEMMs in tile registers, everything else as for AVX-512 VNNI.

A tile of sums is ``rows`` pixels x 16 channels. A step of the reduction multiplies a tile of pixels, read where they
lie in the image (at most 64 bytes of each pixel's run), with a tile of weights: ``pack_gemm`` with lanes 16 and dot 4
is the layout that ``tdpbusd`` wants. The sums go through a small buffer; while the tile registers work on a group of
tiles, vectors finish the group before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcc.lower.kernel import Kernel
from qcc.schedule import avx512, floats, vnni
from qcc.schedule.decide import Decide
from qcc.schedule.intrinsic import shared_function
from qcc.schedule.tiles import SHARES, divisors, nearest_divisor, tile_steps

ROWS, ROW_BYTES = 16, 64
"""Size of a tile register at most."""
SUMS = 4
"""Tile registers that hold sums: 0 to 3. Pixels are in 4 and 5, weights in 6 and 7."""
PIXELS, WEIGHTS = (4, 5), (6, 7)
ROOM = 768 * 1024
"""Bytes of weights, or of results, that may stay in the level-2 cache beside others."""
NEAR = 24 * 1024
"""Bytes of weights that stay in the level-1 cache."""
LEAST_CYCLES = 9
"""Cycles of a ``tdpbusd`` with few rows; otherwise one for each."""
THROUGH_MEMORY = 12
"""Cycles it takes to bring a tile of sums through memory to vectors."""
LEVEL_1, LEVEL_2 = 3, 2
"""Caches, as LLVM numbers them for a prefetch."""
AHEAD = 8192
"""Bytes by which weights are prefetched when a first group of tiles meets them."""
NEXT_BYTES, NEXT_LINES = 256 * 1024, 4
"""Bytes behind the weights that the other groups prefetch into the level-2 cache: the next layers' weights lie there.
Lines of a step at most."""
RESULTS_AHEAD = 4096
"""Bytes by which lines of a result beyond ``ROOM`` are prefetched to be written."""
VNNI_GROUPS = 2
"""Groups of four products that ``vpdpbusd`` multiplies in a cycle, for 16 channels."""


@dataclass(frozen=True)
class Tiling:
    """How the pixels of an image are cut into tiles.

    A tile's pixels lie at even distances in the input. So they are of one image row; or, if the next image row begins
    a whole number ``pitch`` of such distances after the last one, from a line through all rows, on which the places
    that are no pixels are computed too and dropped.
    """

    pitch: int | None
    lines: int
    """Image rows, or 1 where they are one line."""
    length: int
    """Places of a line."""
    rows: int
    """Places of a tile. The last one of a line begins earlier than it would where that is not a divisor."""
    at_once: int
    """Tiles of a group, which meets a tile of weights at a time; the last group also begins earlier than it would."""

    @staticmethod
    def of(height: int, width: int, pitch: int | None, rows: int | None, at_once: int) -> Tiling:
        """``rows`` and ``at_once`` are the most; without ``rows`` they are chosen."""
        lines, length = (height, width) if pitch is None else (1, (height - 1) * pitch + width)
        tiles = -(-length // min(ROWS, rows or ROWS))
        if lines == 1:  # a last group is as large as the others
            tiles += -tiles % min(at_once, tiles)
        return Tiling(pitch, lines, length, min(length, rows or -(-length // tiles)), min(at_once, lines * tiles))

    @property
    def across(self) -> int:
        """Tiles of a line."""
        return -(-self.length // self.rows)

    @property
    def tiles(self) -> int:
        """Tiles of an image."""
        return self.lines * self.across

    @property
    def groups(self) -> int:
        """Groups of an image."""
        return -(-self.tiles // self.at_once)

    @property
    def cycles(self) -> int:
        """Cycles of ``tdpbusd`` for one tile of weights."""
        return self.groups * self.at_once * max(self.rows, LEAST_CYCLES)


def pitch_of(kernel: Kernel) -> int | None:
    """Distances of neighbouring pixels between image rows; None if that is not a whole number, or mostly waste."""
    _, height, width = kernel.param("outputs")
    pitch, rest = divmod(kernel.param("stride") * kernel.view("x").strides[1], kernel.param("step"))
    return pitch if height > 1 and rest == 0 and pitch < 2 * width else None


def pays(kernel: Kernel, tiling: Tiling) -> bool:
    """Whether tiles are faster than ``vpdpbusd`` by the cycles that a block of channels takes: not for single pixels,
    and not for the shortest reductions."""
    _, height, width = kernel.param("outputs")
    _, taps_y, taps_x, groups, _, _ = kernel.view("w").shape
    taps = taps_y * taps_x
    tiles = taps * tile_steps(groups) * tiling.cycles + THROUGH_MEMORY * tiling.groups * tiling.at_once
    return bool(tiles < taps * groups * height * width / VNNI_GROUPS)


def default_cols(kernel: Kernel) -> int:
    """Blocks of channels that a group of tiles meets at once: two, which loads the fewest tiles for a product.

    Weights of a few tiles of pixels that no cache holds are met once. Where a pixel takes few products, storing it
    limits, best in whole cache lines.
    """
    _, height, width = kernel.param("outputs")
    blocks, taps_y, taps_x, groups, _, _ = kernel.view("w").shape
    pitch, steps = pitch_of(kernel), tile_steps(groups)
    pixels = height * width if pitch is None else min(height * width, (height - 1) * pitch + width)
    if pixels <= ROWS * SUMS and math.prod(kernel.view("w").shape) > ROOM:
        return 1
    narrow = groups // steps <= 8 or taps_y * taps_x * steps == 1
    return next(c for c in ((4, 3, 2, 1) if narrow else (2, 3, 1)) if blocks % c == 0)


def weights_first(kernel: Kernel, sets: int, groups: int) -> bool:
    """Whether all groups of tiles meet some blocks of weights before the next ones, or all weights a group: by the
    bytes that come from the level-2 cache again and again. Pixels come slower: they do not lie in line."""
    _, height, width = kernel.param("outputs")
    x = kernel.view("x").strides
    weights = math.prod(kernel.view("w").shape)
    image = kernel.param("stride") * x[1] * height if height > 1 else kernel.param("step") * width
    return weights > ROOM or (weights > NEAR and 2 * groups * weights > 3 * sets * image)


def conv_gemm(kernel: Kernel, decide: Decide) -> Any | None:
    """The function of a kernel, or None where vectors are better.

    Units are (image, chunk of groups of tiles, share of the sets of blocks of channels).
    """
    batch, height, width = kernel.param("outputs")
    blocks, pitch = kernel.view("w").shape[0], pitch_of(kernel)
    cols = decide("amx_cols", divisors(blocks, SUMS), default_cols(kernel))
    options = [Tiling.of(height, width, p, None, SUMS // cols) for p in {None, pitch}]
    best = min(options, key=lambda t: (t.cycles, t.pitch is not None))
    if not decide("amx", [0, 1], int(pays(kernel, best))):
        return None
    joined = decide("amx_joined", [0, 1] if pitch is not None else [0], int(best.pitch is not None))
    best = Tiling.of(height, width, pitch if joined else None, None, SUMS // cols)
    rows = min(best.length, decide("amx_rows", range(1, ROWS + 1), best.rows))
    tiling = Tiling.of(height, width, best.pitch, rows, SUMS // cols)
    sets = blocks // cols
    first = weights_first(kernel, sets, tiling.groups)
    enough = [s for s in divisors(sets) if batch * tiling.groups * (sets // s) >= SHARES] or [1]
    share = nearest_divisor(sets, decide("amx_share", divisors(blocks), 1 if first else enough[-1]))
    chunks = divisors(tiling.groups)
    shared = [c for c in chunks if batch * (tiling.groups // c) * (sets // share) >= SHARES] or chunks[:1]
    most = decide("amx_chunk", [0, *(1 << n for n in range((height * width).bit_length()))], 0)
    chunk = nearest_divisor(tiling.groups, most or shared[-1 if first else 0])

    units, each = batch * (tiling.groups // chunk) * (sets // share), chunk * share
    with IRBuilder() as builder, shared_function(kernel, units) as (p, begin, end):
        gemm = _Gemm(kernel, p, tiling, cols)
        gemm.configure()

        def work(number: Any) -> Work:
            unit, inner = T.bind(T.floordiv(number, each)), T.bind(T.floormod(number, each))
            outer, image = T.bind(unit // (sets // share)), T.bind(unit // (units // batch))
            group = outer % (tiling.groups // chunk) * chunk + inner // share
            return Work(image, T.bind(group), T.bind((unit % (sets // share) * share + inner % share) * cols))

        first, last = T.bind(begin * each), T.bind(end * each)
        gemm.reduce(work(first), None)
        if units * each > 1:
            with T.serial(first + 1, last) as number:
                gemm.reduce(work(number), work(number - 1))
        gemm.finish(work(last - 1))
        _tile("tilerelease")
    return builder.get()


class Work(NamedTuple):
    """What is computed at a time: a group of tiles of an image, and the blocks of channels from ``block``."""

    image: Any
    group: Any
    block: Any


class _Gemm:
    """Emits the parts of one kernel, which does ``cols`` blocks at a time; ``p`` are flat buffers by operand key."""

    def __init__(self, kernel: Kernel, p: dict[str, Any], tiling: Tiling, cols: int) -> None:
        self.kernel, self.p, self.tiling, self.cols = kernel, p, tiling, cols
        _, self.taps_y, self.taps_x, groups, _, _ = kernel.view("w").shape
        self.steps = tile_steps(groups)
        self.depth = groups // self.steps
        self.x, self.y = kernel.view("x").strides, kernel.view("y").strides
        self.sums = T.sblock_alloc_buffer((tiling.at_once * tiling.rows * cols * ROWS,), "int32")

    def configure(self) -> None:
        """Load the shapes of the tile registers: palette 1, bytes of a row in 16 bits from byte 16, rows from 48."""
        shape = bytearray(64)
        shape[0] = 1
        for tile in range(8):
            row_bytes = 4 * self.depth if tile in PIXELS else ROW_BYTES
            shape[16 + 2 * tile : 18 + 2 * tile] = row_bytes.to_bytes(2, "little")
            shape[48 + tile] = self.depth if tile in WEIGHTS else self.tiling.rows
        config = T.sblock_alloc_buffer((16,), "int32")
        for i in range(16):
            T.buffer_store(config, T.int32(int.from_bytes(shape[4 * i : 4 * i + 4], "little")), [i])
        _tile("ldtilecfg", T.address_of(config[0]))

    def place(self, group: Any, i: Any) -> tuple[Any, Any, Any]:
        """(line, first place, places that earlier tiles have) of a group's tile ``i``."""
        t = self.tiling
        wanted = T.bind(group * t.at_once)
        tile = T.bind(tirx.Min(wanted, T.int32(t.tiles - t.at_once)) + i)
        column = T.bind(tile % t.across * t.rows)
        start = T.bind(tirx.Min(column, T.int32(t.length - t.rows)))
        done = column - start
        if t.tiles % t.at_once:
            done = tirx.Select(tile < wanted, T.int32(t.rows), done)
        return T.bind(tile // t.across), start, T.bind(done)

    def reduce(self, work: Work, before: Work | None) -> None:
        """The sums with their bias, as ``self.sums`` [tile, row, channel]; meanwhile finish what was reduced before."""
        p, t, cols, steps = self.p, self.tiling, self.cols, self.steps
        stride, dilation, step, hop, parts = (
            self.kernel.param(k) for k in ("stride", "dilation", "step", "hop", "parts")
        )
        pairs = [(i, j) for i in range(t.at_once) for j in range(cols)]
        sums = {pair: number for number, pair in enumerate(pairs)}
        places = [self.place(work.group, i) for i in range(t.at_once)]
        begins = [T.bind(work.image * self.x[0] + line * (stride * self.x[1]) + start * step)
                  for line, start, _ in places]
        tile_bytes = ROW_BYTES * self.depth
        block_bytes = self.taps_y * self.taps_x * steps * tile_bytes
        for i, j in pairs:
            _tile("tileloadd64", sums[i, j], T.address_of(p["bias"][(work.block + j) * ROWS]), T.int64(0))
        with T.serial(0, self.taps_y) as ky, T.serial(0, self.taps_x) as kx, T.serial(0, steps) as s:
            tap = T.bind(ky * (dilation * self.x[1]) + kx // parts * hop + s * (4 * self.depth))
            done = T.bind((ky * self.taps_x + kx) * steps + s)
            weights = T.bind(work.block * block_bytes + done * tile_bytes)
            self._prefetch(work, done, weights, block_bytes)
            for i in range(t.at_once):
                pixels = PIXELS[i % 2]
                _tile("tileloadd64", pixels, T.address_of(p["x"][begins[i] + tap]), T.int64(step))
                for j in range(cols):
                    channels = WEIGHTS[j % 2]
                    if i == 0 or cols > 2:
                        there = T.address_of(p["w"][weights + j * block_bytes])
                        _tile("tileloadd64", channels, there, T.int64(ROW_BYTES))
                    _tile("tdpbusd", sums[i, j], pixels, channels)
            if before is not None:
                self._finish_part(before, done, self.taps_y * self.taps_x * steps)
        for i, j in pairs:
            there = T.address_of(self.sums[(i * t.rows * cols + j) * ROWS])
            _tile("tilestored64", sums[i, j], there, T.int64(cols * ROWS * 4))

    def _prefetch(self, work: Work, step: Any, weights: Any, block_bytes: int) -> None:
        """The first group fetches its own weights ahead, the others what lies behind all weights."""
        w, steps = self.p["w"], self.taps_y * self.taps_x * self.steps
        with T.If(work.group == 0), T.Then():
            for line in range(self.cols * self.depth):
                ahead = line // self.depth * block_bytes + line % self.depth * ROW_BYTES + AHEAD
                _prefetch(T.address_of(w[weights + ahead]), LEVEL_1)
        sets = self.kernel.view("w").shape[0] // self.cols
        others = (self.tiling.groups - 1) * sets * steps
        if others == 0:
            return
        lines = min(NEXT_LINES, -(-NEXT_BYTES // ROW_BYTES // others))
        number = T.bind((((work.group - 1) * sets + T.floordiv(work.block, self.cols)) * steps + step) * lines)
        end = math.prod(self.kernel.view("w").shape)
        with T.If(tirx.all(work.group > 0, number < NEXT_BYTES // ROW_BYTES)), T.Then():
            for line in range(lines):
                _prefetch(T.address_of(w[end + (number + line) * ROW_BYTES]), LEVEL_2)

    def finish(self, work: Work) -> None:
        """Store the bytes of what was reduced."""
        self._finish_part(work, T.int32(0), 1)

    def _finish_part(self, work: Work, part: Any, parts: int) -> None:
        """Part ``part`` of ``parts`` of finishing: whole tiles, or some rows of one."""
        count, rows = self.tiling.at_once, self.tiling.rows
        if parts <= count:
            each = -(-count // parts)
            with T.serial(0, each) as i:
                tile = T.bind(part * each + i)
                _guarded(tile < count if parts * each > count else None, lambda: self._store(work, tile, 0, rows))
            return
        each = parts // count  # parts of a tile
        some = -(-rows // each)
        tile, begin = T.bind(part // each), T.bind(part % each * some)
        bounds = [*([tile < count] if parts % count else []), *([begin < rows] if each * some > rows else [])]
        end = tirx.Min(begin + some, T.int32(rows)) if rows % some else begin + some
        _guarded(tirx.all(*bounds) if bounds else None, lambda: self._store(work, tile, begin, end))

    def _store(self, work: Work, tile: Any, begin: Any, end: Any) -> None:
        """Rows [begin, end) of a tile of sums: the whole epilogue."""
        t = self.tiling
        line, start, done = self.place(work.group, tile)
        with T.serial(tirx.Max(begin, done), tirx.Max(end, done)) as r:
            place = T.bind(start + r)
            if t.pitch is None:
                self._store_pixel(work, line, place, tile * t.rows + r)
            else:
                row, column = T.bind(place // t.pitch), T.bind(place % t.pitch)
                width = self.kernel.param("outputs")[2]
                inside = column < width if width < t.pitch else None
                _guarded(inside, lambda: self._store_pixel(work, row, column, tile * t.rows + r))

    def _store_pixel(self, work: Work, row: Any, column: Any, number: Any) -> None:
        """One pixel of all blocks, whose sums have a number in the buffer."""
        channels = self.kernel.param("channels")
        residual = next((o.view.strides for o in self.kernel.operands if o.key == "residual"), None)

        def pixel(strides: tuple[int, ...]) -> Any:
            return work.image * strides[0] + row * strides[1] + column * strides[2]

        def vectors(key: str, begin: Any, count: int) -> list[Any]:
            return [self.p[key][T.ramp(begin + i * ROWS, 1, ROWS)] for i in range(count)]

        for j, count in _vectors(self.cols):
            channel, begin = (work.block + j) * ROWS, (number * self.cols + j) * ROWS
            sums = [self.sums[T.ramp(begin + i * ROWS, 1, ROWS)] for i in range(count)]
            y, into = self.p["y"], pixel(self.y) + channel
            if math.prod(self.kernel.view("y").shape) > ROOM:
                _prefetch(T.address_of(y[into + RESULTS_AHEAD]), LEVEL_1, write=True)
            out = T.decl_buffer((ROWS * count,), str(y.dtype), data=y.data, elem_offset=into)
            if "step" in self.p:
                self._store_floats(out, sums, channel, pixel(residual) + channel if residual is not None else None)
                continue
            shift, raised, clamped, fraction, short = (
                self.kernel.param(k) for k in ("shift", "raised", "clamped", "fraction", "short")
            )
            by = vectors("shift", channel, count) if shift is None else shift
            old = vectors("residual", pixel(residual) + channel, count) if residual is not None else None
            multipliers = vectors("multiplier", channel, count)
            v = avx512.finished(sums, multipliers, by, old, self.p["q"], raised, clamped, fraction, short)
            avx512.store(out, v, channel, channels)

    def _store_floats(self, out: Any, sums: Sequence[Any], channel: Any, old: Any | None) -> None:
        """Vectors of sums of a layer whose result is float32; ``old`` is the offset of its residual."""
        lanes = ROWS * len(sums)

        def at(key: str, offset: Any) -> Any:
            buffer = self.p[key]
            return T.decl_buffer((lanes,), str(buffer.dtype), data=buffer.data, elem_offset=offset)

        constants = {key: at(key, channel)[T.ramp(T.int32(0), 1, lanes)] for key in ("addend", "scale")}
        acc = sums[0] if len(sums) == 1 else tirx.Shuffle(sums, list(range(lanes)))
        residual = at("residual", old) if old is not None else None
        channels = self.kernel.param("channels")
        floats.store_layer(out, acc, constants, self.p["step"], residual, self.p["q"], channel, channels)


def _vectors(cols: int) -> Iterator[tuple[int, int]]:
    """(first, count) of the vectors that are finished together."""
    for j in range(0, cols, 2):
        yield j, min(2, cols - j)


def _guarded(condition: Any | None, body: Callable[[], None]) -> None:
    """``if``; None stands for true."""
    if condition is None:
        body()
        return
    with T.If(condition), T.Then():
        body()


def _prefetch(address: Any, level: int, write: bool = False) -> None:
    """Bring a line into a cache to be read, or to be written; any address will do."""
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", address, T.int32(write), T.int32(level), T.int32(1)))


def _tile(name: str, *operands: Any) -> None:
    """An instruction on tile registers, which are numbered by the leading operands."""
    numbered = [T.uint8(o) if isinstance(o, int) else o for o in operands]
    T.evaluate(T.call_llvm_intrin("void", f"llvm.x86.{name}", *numbered))


KERNELS: dict[str, Callable[[Kernel, Decide], Any | None]] = {"conv_gemm": conv_gemm}
SCHEDULES = vnni.SCHEDULES
