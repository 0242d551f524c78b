"""Register tiles of a GEMM with NEON, one class for each way to multiply int8.

A tile is ``rows`` pixels x ``lanes`` channels. Weights are packed [groups, lanes, dot] and stream through a few
registers; a step takes up to ``per_step`` groups, for which it loads the bytes of each pixel. Sums lie in a local
buffer that LLVM keeps in registers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from qcc.schedule.intrinsic import modular_sum
from qcc.schedule.neon_instructions import Neon, Vector, lane, sdot, smmla
from qcc.schedule.neon_loads import Cursor
from qcc.schedule.neon_tiles import TileSize
from qcc.schedule.neon_vectors import Epilogue, load, load_fours

Four = tuple[int, int]
"""Four neighbouring channels of a pixel: (pixel, first channel)."""

Result = tuple[int, int, Vector, int, int]
"""(pixel, first channel, vector, begin, count): elements [begin, begin + count) are the bytes to store there."""

Totals = Callable[[int, int], Vector]
"""Sums of four channels, with the bias, by (pixel, first channel)."""

Residual = Callable[[Sequence[Four]], Vector]
"""The residual's bytes of fours, one after the other; eight at least."""


def channel_groups(lanes: int) -> Iterator[tuple[int, int]]:
    """(first, count) of the channels that are stored together: 16, then 8, then 4."""
    first = 0
    while first < lanes:
        count = next(c for c in (16, 8, 4) if c <= lanes - first)
        yield first, count
        first += count


class Tile(ABC):
    """What the tiles have in common."""

    dot: int
    """Bytes of a channel that lie side by side in the packed weights."""
    peels = False
    """The first step differs from the others."""
    taken = False
    """Pixels too are taken in order."""
    unrolled = 400
    """Multiplications up to which a reduction, or a turn of its loop, is written out."""
    products = 1
    """Instructions for a group and a vector of sums."""

    def __init__(
        self, neon: Neon, tables: Mapping[str, Any], x: Any, size: TileSize, step: int, symmetric: bool
    ) -> None:
        """``tables`` are the kernel's parameters by key; pixels are ``step`` elements apart in x; symmetric weights are
        not -128.
        """
        self.neon, self.tables, self.x, self.distance, self.symmetric = neon, tables, x, step, symmetric
        self.rows, self.lanes, self.pairs, self.sums = size.rows, size.lanes, size.pairs, size.sums
        self.per_step = 16 * size.deep // self.dot
        self.acc = T.sblock_alloc_buffer((self.sums * 4,), "int32", scope="local")
        self.weights, self.table, self.place = (Cursor(neon) for _ in range(3))

    @property
    def cost(self) -> int:
        """Instructions that multiply in one step."""
        return self.products * self.per_step * self.sums

    @abstractmethod
    def prepare(self, channel: Any) -> None:
        """Once before the tiles of the channels from ``channel``."""

    def start(self, weights: Any, channel: Any) -> None:
        """Begin a tile, whose packed weights begin at element ``weights``."""
        self.weights.begin(self.tables["w"], weights)

    def go(self, x: Any) -> None:
        """Steps read pixels relative to element x from here on."""
        self.place.begin(self.x, x)

    def part(self) -> None:
        """Keep the loads that follow behind the multiplications so far."""
        self.place.wait(self.acc, self.sums)
        self.weights.wait(self.acc, self.sums)

    def stream(self, count: int) -> Iterator[Vector]:
        """The next ``count`` vectors of weights; a load follows the multiplications by the weights before."""
        for first in range(0, count, self.neon.together):
            if first:
                self.weights.wait(self.acc, self.sums)
            yield from self.weights.take(min(self.neon.together, count - first))

    def pixels(self, at: int, count: int) -> list[list[Vector]]:
        """``count`` vectors of each pixel."""
        return [[self.place.look(at + p * self.distance + 16 * i) for i in range(count)] for p in range(self.rows)]

    @abstractmethod
    def step(self, at: int, groups: int, first: bool) -> None:
        """Add the next ``groups`` groups, ``at`` bytes from where ``go`` went; ``first``: they are the first ones."""

    def get(self, index: int) -> Vector:
        """A vector of sums."""
        return self.acc[T.ramp(T.int32(4 * index), 1, 4)]

    def put(self, index: int, value: Vector) -> None:
        """Replace a vector of sums."""
        T.buffer_store(self.acc, value, [T.ramp(T.int32(4 * index), 1, 4)])

    def read(self, table: Any, first: Any, count: int) -> list[Vector]:
        """``count`` vectors of an int32 table."""
        self.table.begin(table, first)
        self.table.hide()
        return [T.bind(T.reinterpret(self.table.look(16 * i), dtype="int32x4")) for i in range(count)]

    @abstractmethod
    def totals(self, channel: Any) -> Totals:
        """The finished sums of the tile, whose channels begin at ``channel``."""

    def results(self, channel: Any, epilogue: Epilogue, residual: Residual | None) -> Iterator[Result]:
        """The tile's bytes."""
        total = self.totals(channel)
        fours = [(p, c) for p in range(self.rows) for c in range(0, self.lanes, 4)]
        tables = [load_fours(self.tables[key], channel, self.lanes) for key in epilogue.tables]
        for begin in range(0, len(fours), 4):
            these = fours[begin : begin + 4]
            vectors = [epilogue.requantize(total(p, c), *(table[c // 4] for table in tables)) for p, c in these]
            out = T.bind(epilogue.finish(vectors, residual and residual(these), self.tables["q"]))
            for pixel in sorted({p for p, _ in these}):
                mine = [i for i, (p, _) in enumerate(these) if p == pixel]
                yield pixel, these[mine[0]][1], out, 4 * mine[0], 4 * len(mine)


class Sdot(Tile):
    """``sdot v.4s, v.16b, v.4b[lane]``: four channels, four products each."""

    dot = 4

    def prepare(self, channel: Any) -> None:
        """The bias once for each pixel, so that four sums begin by one load."""
        self.begin = self.tables["bias"], channel
        if self.rows > 1:
            self.begin = T.sblock_alloc_buffer((self.sums * 4,), "int32", scope="local"), 0
            for i in range(self.sums):
                bias = load(self.tables["bias"], channel + 4 * i % self.lanes, 4)
                T.buffer_store(self.begin[0], bias, [T.ramp(T.int32(4 * i), 1, 4)])

    def start(self, weights: Any, channel: Any) -> None:
        """Sums begin with the bias."""
        super().start(weights, channel)
        for i, v in enumerate(self.read(*self.begin, self.sums)):
            self.put(i, v)

    def step(self, at: int, groups: int, first: bool) -> None:
        """As declared."""
        pixels = self.pixels(at, -(-groups // 4))
        weights = self.stream(groups * self.lanes // 4)
        for g in range(groups):
            for c in range(self.lanes // 4):
                four = next(weights)
                for p in range(self.rows):
                    i = p * self.lanes // 4 + c
                    self.put(i, sdot(self.get(i), four, lane(pixels[p][g // 4], g % 4)))

    def totals(self, channel: Any) -> Totals:
        """As declared."""
        return lambda pixel, first: self.get((pixel * self.lanes + first) // 4)


class Smlal(Tile):
    """``smull``, ``smlal2``, ``sadalp``: sixteen products of one channel into four partial sums.

    Two products fit int16 as long as weights are symmetric; otherwise each is widened by itself.
    """

    dot = 16
    products = 3
    peels = True

    def prepare(self, channel: Any) -> None:
        """Nothing."""

    def step(self, at: int, groups: int, first: bool) -> None:
        """As declared."""
        pixels = self.pixels(at, groups)
        for i, weights in enumerate(self.stream(groups * self.lanes)):
            g, c = divmod(i, self.lanes)
            for p in range(self.rows):
                low, high = (
                    self.neon.product(*(tirx.Shuffle([v], half) for v in (pixels[p][g], weights)))
                    for half in (list(range(8)), list(range(8, 16)))
                )
                k, terms = p * self.lanes + c, [low + high] if self.symmetric else [low, high]
                total = self.neon.sum_pairs(terms.pop(0)) if first and g == 0 else self.get(k)
                for term in terms:
                    total = self.neon.accumulate(total, term)
                self.put(k, total)

    def totals(self, channel: Any) -> Totals:
        """As declared."""
        bias = load_fours(self.tables["bias"], channel, self.lanes)

        def total(pixel: int, first: int) -> Vector:
            a, b, c, d = (self.get(pixel * self.lanes + first + i) for i in range(4))
            four = self.neon.add_pairs(self.neon.add_pairs(a, b), self.neon.add_pairs(c, d))
            return modular_sum(four, bias[first // 4], 4)

        return total


class Smmla(Tile):
    """``smmla``: two pixels x two channels, eight products each."""

    dot = 8

    def prepare(self, channel: Any) -> None:
        """Tables as sums lie: two channels twice; the bias once for each pair of pixels as well."""
        self.twice: dict[str, Any] = {}
        half = self.lanes // 2
        for key in ("bias", "multiplier", "shift"):
            if key in self.tables:
                count = self.sums if key == "bias" else half
                self.twice[key] = T.sblock_alloc_buffer((count * 4,), "int32", scope="local")
                fours = self.read(self.tables[key], channel, self.lanes // 4)
                for i in range(count):
                    two = [i % half % 2 * 2, i % half % 2 * 2 + 1]
                    twice = tirx.Shuffle([fours[i % half // 2]], two * 2)
                    T.buffer_store(self.twice[key], twice, [T.ramp(T.int32(4 * i), 1, 4)])

    def start(self, weights: Any, channel: Any) -> None:
        """Sums begin with the bias."""
        super().start(weights, channel)
        for i, v in enumerate(self.read(self.twice["bias"], 0, self.sums)):
            self.put(i, v)

    def step(self, at: int, groups: int, first: bool) -> None:
        """As declared."""
        pixels = self.pixels(at, -(-groups // 2))
        rows = [[pixels[min(p, self.rows - 1)] for p in (k, k + 1)] for k in range(0, self.rows, 2)]
        pairs = [[pair_halves(a, b, k) for a, b in zip(*row, strict=True) for k in (0, 1)] for row in rows]
        self.multiply(([pair[g] for pair in pairs] for g in range(groups)), groups)

    def multiply(self, pairs: Iterator[list[Vector]], groups: int) -> None:
        """Add groups of all pairs of pixels."""
        weights = self.stream(groups * self.lanes // 2)
        for group in pairs:
            for c in range(self.lanes // 2):
                two = next(weights)
                for k, pair in enumerate(group):
                    i = k * self.lanes // 2 + c
                    self.put(i, smmla(self.get(i), pair, two))

    def results(self, channel: Any, epilogue: Epilogue, residual: Residual | None) -> Iterator[Result]:
        """Two pixels at a time; pairs of channels alternate between them until the last permutation."""
        half = self.lanes // 2
        tables = [self.read(self.twice[key], 0, half) for key in epilogue.tables]
        for pair in range(self.pairs):
            for first, count in channel_groups(self.lanes):
                r = residual and self._residual(residual, 2 * pair, first, count)
                parts = []
                for at in range(0, count, 8):
                    vectors = [
                        epilogue.requantize(self.get(pair * half + c), *(table[c] for table in tables))
                        for c in range((first + at) // 2, (first + min(at + 8, count)) // 2)
                    ]
                    parts.append(T.bind(epilogue.finish(vectors, r and r[at // 8], self.tables["q"])))
                units = [T.reinterpret(v, dtype=f"int16x{min(count, 8)}") for v in parts]
                for k in range(min(2, self.rows - 2 * pair)):
                    mixed = tirx.Shuffle(units, list(range(k, count, 2)))
                    yield 2 * pair + k, first, T.reinterpret(mixed, dtype=f"int8x{count}"), 0, count

    def totals(self, channel: Any) -> Totals:
        """Halves of two vectors."""
        half = self.lanes // 2

        def total(pixel: int, first: int) -> Vector:
            two = [self.get(pixel // 2 * half + first // 2 + i) for i in (0, 1)]
            k = 2 * (pixel % 2)
            return tirx.Shuffle(two, [k, k + 1, 4 + k, 5 + k])

        return total

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


def pair_halves(a: Vector, b: Vector, half: int) -> Vector:
    """Eight bytes of a and of b, side by side: the lower or the upper ones (``zip1``, ``zip2``)."""
    return T.bind(tirx.Shuffle([a, b], [*range(8 * half, 8 * half + 8), *range(16 + 8 * half, 24 + 8 * half)]))


class SmmlaPanel(Smmla):
    """``Smmla`` on pixels that were paired before, for all blocks of channels: x is [groups, pairs, 2, 8]."""

    taken = True

    def step(self, at: int, groups: int, first: bool) -> None:
        """As declared."""

        def taken() -> Iterator[list[Vector]]:
            for g in range(groups):
                if g:
                    self.part()
                yield list(self.place.take(self.pairs))

        self.multiply(taken(), groups)


PACKED_AT_ONCE = 16
"""Groups that are paired without a loop."""


def panel_bytes(rows: int, groups: int) -> int:
    """Size of the paired pixels of a tile."""
    return -(-rows // 2) * 16 * groups


def pack_panel(panel: Any, to: Any, x: Any, begin: Any, rows: int, distance: int, groups: int) -> None:
    """Pair the pixels of a tile: ``groups`` groups of one tap."""

    def pack(first: Any, count: int) -> None:
        for pair in range(0, rows, 2):
            both = [begin + (min(pair + k, rows - 1) * distance + first * 8) for k in range(2)]
            for g in range(count):
                a, b = (T.bind(load(x, at + g // 2 * 16)) for at in both)
                to_g = to + (first + g) * panel_bytes(rows, 1) + pair * 8
                T.buffer_store(panel, pair_halves(a, b, g % 2), [T.ramp(T.int32(0) + to_g, 1, 16)])

    whole, rest = divmod(groups, 4) if groups > PACKED_AT_ONCE else (0, groups)
    if whole:
        with T.serial(0, whole) as s:
            pack(s * 4, 4)
    if rest:
        pack(4 * whole, rest)


MULTIPLY: dict[int, type[Tile]] = {tile.dot: tile for tile in (Sdot, Smlal, Smmla)}
"""By the bytes of a channel that lie side by side."""
