"""Register tiles of a GEMM on aarch64, one class for each way to multiply int8.

A tile is ``rows`` pixels x ``lanes`` channels. Weights are packed [groups, lanes, dot]; a step takes up to ``per_step``
groups, for which it loads 16 bytes of each pixel. Sums lie in a local buffer that LLVM keeps in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from qcc.schedule.intrinsic import modular_sum
from qcc.schedule.neon_vectors import Epilogue, Vector, channels_of, intrinsic, lane, load, sdot

Four = tuple[int, int]
"""Four neighbouring channels of a pixel: (pixel, first channel)."""

Result = tuple[int, int, Vector, int, int]
"""(pixel, first channel, vector, begin, count): elements [begin, begin + count) are the bytes to store there."""

Residual = Callable[[Sequence[Four]], Vector]
"""The residual's bytes of fours, one after the other; eight at least."""


def channel_groups(lanes: int) -> Iterator[tuple[int, int]]:
    """(first, count) of the channels that are stored together: 16, then 8, then 4."""
    first = 0
    while first < lanes:
        count = next(c for c in (16, 8, 4) if c <= lanes - first)
        yield first, count
        first += count


class Tile:
    """What the tiles have in common."""

    dot: int
    """Bytes of a channel that lie side by side in the packed weights."""
    per_step: int
    peels = False
    """The first step differs from the others."""
    unrolled = 100
    """Multiplications up to which a reduction is written without loops: beyond, LLVM mixes its steps and spills."""

    def __init__(self, acc: Any, rows: int, lanes: int, x: Any, w: Any, step: int, symmetric: bool) -> None:
        """``acc`` holds the sums; pixels are ``step`` elements apart in x; symmetric weights are not -128."""
        self.acc, self.rows, self.lanes, self.x, self.w = acc, rows, lanes, x, w
        self.distance, self.symmetric = step, symmetric

    @staticmethod
    def registers(rows: int, lanes: int) -> int:
        """Vectors of sums."""
        raise NotImplementedError

    @property
    def cost(self) -> int:
        """Instructions that multiply in one step."""
        raise NotImplementedError

    @property
    def advance(self) -> int:
        """Elements of x from a group to the next."""
        return self.dot

    def start(self, bias: Any, channel: Any) -> None:
        """Begin the sums; what ``sums`` returns has the bias of the channels from ``channel`` in it."""
        raise NotImplementedError

    def step(self, x: Any, w: Any, groups: int, first: bool) -> None:
        """Add ``groups`` groups that begin at elements x and w; ``first`` says that they are the first ones."""
        raise NotImplementedError

    def results(
        self, tables: Mapping[str, Any], channel: Any, epilogue: Epilogue, residual: Residual | None
    ) -> Iterator[Result]:
        """The tile's bytes; its channels begin at ``channel`` of ``tables``: the kernel's parameters by key."""
        fours = [(p, c) for p in range(self.rows) for c in range(0, self.lanes, 4)]
        for begin in range(0, len(fours), 4):
            these = fours[begin : begin + 4]
            vectors = [
                epilogue.requantize(
                    self.sums(p, c, tables["bias"], channel), partial(channels_of, tables, channel + c)
                )
                for p, c in these
            ]
            out = T.bind(epilogue.finish(vectors, residual and residual(these), tables["q"]))
            for pixel in sorted({p for p, _ in these}):
                mine = [i for i, (p, _) in enumerate(these) if p == pixel]
                yield pixel, these[mine[0]][1], out, 4 * mine[0], 4 * len(mine)

    def sums(self, pixel: int, first: int, bias: Any, channel: Any) -> Vector:
        """Sums of four channels of a pixel, with the bias."""
        raise NotImplementedError

    def get(self, index: int) -> Vector:
        """A vector of sums."""
        return self.acc[T.ramp(T.int32(4 * index), 1, 4)]

    def put(self, index: int, value: Vector) -> None:
        """Replace a vector of sums."""
        T.buffer_store(self.acc, value, [T.ramp(T.int32(4 * index), 1, 4)])


class Sdot(Tile):
    """``sdot v.4s, v.16b, v.4b[lane]``: four channels, four products each."""

    dot, per_step = 4, 4

    @staticmethod
    def registers(rows: int, lanes: int) -> int:
        """One for four channels of a pixel."""
        return rows * lanes // 4

    @property
    def cost(self) -> int:
        """One for each group and vector of sums."""
        return self.per_step * self.registers(self.rows, self.lanes)

    def start(self, bias: Any, channel: Any) -> None:
        """Sums begin with the bias."""
        for p in range(self.rows):
            for first in range(0, self.lanes, 4):
                self.put(self._index(p, first), load(bias, channel + first, 4))

    def step(self, x: Any, w: Any, groups: int, first: bool) -> None:
        """As declared."""
        pixels = [T.bind(load(self.x, x + p * self.distance)) for p in range(self.rows)]
        for g in range(groups):
            for c in range(0, self.lanes, 4):
                weights = T.bind(load(self.w, w + (g * self.lanes + c) * 4))
                for p in range(self.rows):
                    i = self._index(p, c)
                    self.put(i, sdot(self.get(i), weights, lane(pixels[p], g)))

    def sums(self, pixel: int, first: int, bias: Any, channel: Any) -> Vector:
        """One vector."""
        return self.get(self._index(pixel, first))

    def _index(self, pixel: int, channel: int) -> int:
        return (pixel * self.lanes + channel) // 4


class Smlal(Tile):
    """``smull``, ``smlal2``, ``sadalp``: sixteen products of one channel into four partial sums.

    Two products fit int16 as long as weights are symmetric; otherwise each is widened by itself.
    """

    dot, per_step = 16, 2
    peels = True

    @staticmethod
    def registers(rows: int, lanes: int) -> int:
        """One for each channel of a pixel."""
        return rows * lanes

    @property
    def cost(self) -> int:
        """Three for each vector of sums."""
        return 3 * self.per_step * self.registers(self.rows, self.lanes)

    def start(self, bias: Any, channel: Any) -> None:
        """Sums begin with the first step."""

    def step(self, x: Any, w: Any, groups: int, first: bool) -> None:
        """As declared."""
        weights = [T.bind(load(self.w, w + c * 16)) for c in range(groups * self.lanes)]
        for p in range(self.rows):
            for g in range(groups):
                pixel = T.bind(load(self.x, x + (p * self.distance + g * 16)))
                for c in range(self.lanes):
                    halves = [
                        intrinsic("aarch64.neon.smull.v8i16", "int16x8",
                                  *(tirx.Shuffle([v], half) for v in (pixel, weights[g * self.lanes + c])))
                        for half in (list(range(8)), list(range(8, 16)))
                    ]  # fmt: skip
                    low, high = halves
                    total = _pairs(low + high) if self.symmetric else modular_sum(_pairs(low), _pairs(high), 4)
                    i = p * self.lanes + c
                    self.put(i, total if first and g == 0 else modular_sum(self.get(i), total, 4))

    def sums(self, pixel: int, first: int, bias: Any, channel: Any) -> Vector:
        """Partial sums of four channels added up (``addp``)."""
        a, b, c, d = (self.get(pixel * self.lanes + first + i) for i in range(4))
        total = _add_pairs(_add_pairs(a, b), _add_pairs(c, d))
        return modular_sum(total, load(bias, channel + first, 4), 4)


def _pairs(v: Vector) -> Vector:
    return intrinsic("aarch64.neon.saddlp.v4i32.v8i16", "int32x4", v)


def _add_pairs(a: Vector, b: Vector) -> Vector:
    return intrinsic("aarch64.neon.addp.v4i32", "int32x4", a, b)


class Smmla(Tile):
    """``smmla``: two pixels x two channels, eight products each."""

    dot, per_step = 8, 2

    @staticmethod
    def registers(rows: int, lanes: int) -> int:
        """One for two channels of two pixels."""
        return -(-rows // 2) * lanes // 2

    @property
    def cost(self) -> int:
        """One for each group and vector of sums."""
        return self.per_step * self.registers(self.rows, self.lanes)

    def start(self, bias: Any, channel: Any) -> None:
        """Sums begin with the bias."""
        for pair in range(0, self.rows, 2):
            for c in range(0, self.lanes, 2):
                self.put(self._index(pair, c), _twice(bias, channel + c))

    def step(self, x: Any, w: Any, groups: int, first: bool) -> None:
        """As declared."""
        pairs = [pair_groups(self.x, x, self.rows, self.distance, pair, groups) for pair in range(0, self.rows, 2)]
        for g in range(groups):
            self._multiply([pair[g] for pair in pairs], w + g * self.lanes * 8)

    def _multiply(self, pairs: Sequence[Vector], w: Any) -> None:
        """Add one group of all pairs of pixels."""
        for c in range(0, self.lanes, 2):
            weights = T.bind(load(self.w, w + c * 8))
            for k, pair in enumerate(pairs):
                i = self._index(2 * k, c)
                self.put(i, intrinsic("aarch64.neon.smmla.v4i32.v16i8", "int32x4", self.get(i), pair, weights))

    def results(
        self, tables: Mapping[str, Any], channel: Any, epilogue: Epilogue, residual: Residual | None
    ) -> Iterator[Result]:
        """Two pixels at a time; pairs of channels alternate between them until the last permutation."""
        for pair in range(0, self.rows, 2):
            for first, count in channel_groups(self.lanes):
                r = residual and self._residual(residual, pair, first, count)
                parts = []
                for at in range(0, count, 8):
                    vectors = [
                        epilogue.requantize(
                            self.get(self._index(pair, c)), partial(_channels_twice, tables, channel + c)
                        )
                        for c in range(first + at, first + min(at + 8, count), 2)
                    ]
                    parts.append(T.bind(epilogue.finish(vectors, r and r[at // 8], tables["q"])))
                units = [T.reinterpret(v, dtype=f"int16x{min(count, 8)}") for v in parts]
                for k in range(min(2, self.rows - pair)):
                    mixed = tirx.Shuffle(units, list(range(k, count, 2)))
                    yield pair + k, first, T.reinterpret(mixed, dtype=f"int8x{count}"), 0, count

    def sums(self, pixel: int, first: int, bias: Any, channel: Any) -> Vector:
        """Halves of two vectors."""
        k = pixel % 2
        halves = [self.get(self._index(pixel, first + c)) for c in (0, 2)]
        return tirx.Shuffle(halves, [2 * k, 2 * k + 1, 4 + 2 * k, 5 + 2 * k])

    def _residual(self, residual: Residual, pair: int, first: int, count: int) -> list[Vector]:
        """The residual of two pixels in the order of their sums."""
        fours = range(first, first + max(count, 8), 4)
        rows = [residual([(min(pair + k, self.rows - 1), c) for c in fours]) for k in range(2)]
        width = max(count, 8) // 2
        units = [T.reinterpret(r, dtype=f"int16x{width}") for r in rows]
        mixed = [unit for i in range(count // 2) for unit in (i, width + i)]
        each = min(count, 8)
        return [T.reinterpret(tirx.Shuffle(units, mixed[i : i + each]), dtype=f"int8x{2 * each}")
                for i in range(0, count, each)]  # fmt: skip

    def _index(self, pixel: int, channel: int) -> int:
        return (pixel // 2 * self.lanes + channel) // 2


def pair_groups(x: Any, begin: Any, rows: int, distance: int, pair: int, groups: int) -> list[Vector]:
    """Pixels ``pair`` and ``pair + 1`` (the last one twice), eight bytes of each side by side: one vector a group."""
    both = [T.bind(load(x, begin + min(pair + k, rows - 1) * distance)) for k in range(2)]
    return [
        T.bind(tirx.Shuffle(both, [*range(8 * g, 8 * g + 8), *range(16 + 8 * g, 24 + 8 * g)])) for g in range(groups)
    ]


class SmmlaPanel(Smmla):
    """``Smmla`` on pixels that were paired before, for all blocks of channels: x is [groups, pairs, 2, 8]."""

    per_step = 4

    @property
    def advance(self) -> int:
        """Bytes of all pairs."""
        return panel_bytes(self.rows, 1)

    def step(self, x: Any, w: Any, groups: int, first: bool) -> None:
        """As declared."""
        for g in range(groups):
            pairs = [T.bind(load(self.x, x + g * self.advance + k * 16)) for k in range(-(-self.rows // 2))]
            self._multiply(pairs, w + g * self.lanes * 8)


def panel_bytes(rows: int, groups: int) -> int:
    """Size of the paired pixels of a tile."""
    return -(-rows // 2) * 16 * groups


def pack_panel(panel: Any, to: Any, x: Any, begin: Any, rows: int, distance: int, groups: int) -> None:
    """Pair the pixels of a tile: ``groups`` groups of one tap."""

    def pack(first: Any, count: int) -> None:
        for pair in range(0, rows, 2):
            made = pair_groups(x, begin + first * 8, rows, distance, pair, count)
            for g, value in enumerate(made):
                at = to + (first + g) * panel_bytes(rows, 1) + pair * 8
                T.buffer_store(panel, value, [T.ramp(T.int32(0) + at, 1, 16)])

    if groups // 2:
        with T.serial(0, groups // 2) as s:
            pack(s * 2, 2)
    if groups % 2:
        pack(groups - 1, 1)


def _channels_twice(tables: Mapping[str, Any], first: Any, key: str) -> Vector:
    return _twice(tables[key], first)


def _twice(table: Any, index: Any) -> Vector:
    """Two int32 of a table, twice (``ld1r``)."""
    two = T.reinterpret(load(table, index, 2), dtype="int64")
    return T.reinterpret(T.broadcast(two, 2), dtype="int32x4")


MULTIPLY: dict[int, type[Tile]] = {tile.dot: tile for tile in (Sdot, Smlal, Smmla)}
"""By the bytes of a channel that lie side by side."""
