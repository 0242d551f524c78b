"""Sizes of register tiles. No TVM here: describing a kernel's calls asks these questions too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qcc.target import Target


def divisors(n: int, at_most: int | None = None) -> list[int]:
    """Divisors of ``n`` in ascending order, none above ``at_most``."""
    limit = n if at_most is None else min(n, at_most)
    return [d for d in range(1, limit + 1) if n % d == 0]


def nearest_divisor(n: int, wanted: int) -> int:
    """The largest divisor of ``n`` that is at most ``wanted`` (1 at least)."""
    return divisors(n, max(1, wanted))[-1]


def register_tile(pixels: int, blocks: int, accumulators: int) -> tuple[int, int]:
    """Default (rows, cols) of a GEMM tile: rows divides pixels, cols divides blocks, and all of it stays in registers.

    ``cols`` vectors of weights are live beside the sums, two more than ``accumulators`` counts do fit. The tile that
    loads the fewest vectors per product wins, with enough independent sums to hide a product's latency.
    """
    rows, columns = divisors(pixels, accumulators), divisors(blocks, 8)
    options = [(r, c) for r in rows for c in columns if r * c + max(c, 2) <= accumulators + 2]
    return min(options, key=lambda option: tile_cost(*option))


def tile_cost(rows: int, cols: int) -> float:
    """Vector loads per product, plus a penalty below ten sums."""
    sums = rows * cols
    return (rows + cols) / sums + max(0, 10 - sums) * 0.15


def split_pixels(pixels: int, blocks: int, accumulators: int) -> list[tuple[int, int]]:
    """Ranges [begin, end) of pixels to be computed by one kernel each: one, or a main part and a tail.

    A width without a useful divisor (31, say) is cut where the main part has one.
    """
    whole = tile_cost(*register_tile(pixels, blocks, accumulators))
    rows = min(accumulators, 14)
    if pixels <= rows or whole <= 1.2:
        return [(0, pixels)]
    main = pixels - pixels % rows
    return [(0, main), (main, pixels)] if main < pixels else [(0, pixels)]


@dataclass(frozen=True)
class GemmPart:
    """Pixels [first, last) and channels [begin, end) that one kernel computes; its weights are packed by ``lanes`` and
    ``dot``."""

    first: int
    last: int
    begin: int
    end: int
    lanes: int
    dot: int


def gemm_parts(target: Target, pixels: int, channels: int) -> list[GemmPart]:
    """How a target cuts a GEMM of rows of ``pixels``: mostly one part."""
    if target.family == "neon":
        return list(_neon_parts(pixels, channels, NEON_DOT[target.dot]))
    blocks = -(-channels // target.lanes)
    ranges = split_pixels(pixels, blocks, target.accumulators)
    return [GemmPart(first, last, 0, channels, target.lanes, target.dot) for first, last in ranges]


NEON_REGISTERS = 32
NEON_DOT = {2: 16, 4: 4, 8: 8}
"""Bytes of a channel that lie side by side in packed weights, by products of an instruction's lane."""


def neon_fits(rows: int, lanes: int, dot: int) -> bool:
    """Whether sums, a vector of each pixel and the vectors of weights fit the registers."""
    if dot == 4:
        return rows * lanes // 4 + rows + 2 <= NEON_REGISTERS
    if dot == 8:
        return -(-rows // 2) * (lanes // 2 + 3) + 2 <= NEON_REGISTERS - 2
    return rows * lanes + lanes + 8 <= NEON_REGISTERS


def neon_cost(rows: int, lanes: int, dot: int) -> float:
    """Instructions of a tile for 16 products of each output: multiplications, loads (weights in pairs) and a loop."""
    if dot == 4:
        return rows * lanes + rows + lanes / 2 + 2
    if dot == 8:
        pairs = -(-rows // 2)
        return pairs * lanes + 3 * pairs + lanes / 2 + 2
    return 3 * rows * lanes + rows + lanes / 2 + 2


def neon_rows(pixels: int, lanes: int, dot: int) -> int:
    """The best height of a tile that divides ``pixels``."""
    options = [r for r in divisors(pixels, 8) if neon_fits(r, lanes, dot)]
    return min(options, key=lambda r: neon_cost(r, lanes, dot) / r)


def _neon_parts(pixels: int, channels: int, dot: int) -> Iterator[GemmPart]:
    """The cut of pixels and channels into tiles that costs least: a main part and tails."""
    best: list[GemmPart] = []
    best_cost = float("inf")
    for lanes in (24, 20, 16, 12, 8, 4):
        for rows in range(1, 9):
            if rows > pixels or lanes > -(-channels // 4) * 4 or not neon_fits(rows, lanes, dot):
                continue
            parts = [
                GemmPart(first, last, begin, end, width, dot)
                for begin, end, width in _channel_cuts(channels, lanes)
                for first, last in _cuts(pixels, rows)
            ]
            cost = sum(_part_cost(part) for part in parts) * (1 + 0.01 * len(parts))
            if cost < best_cost:
                best, best_cost = parts, cost
    yield from best


def _cuts(extent: int, size: int) -> list[tuple[int, int]]:
    main = extent - extent % size
    return [part for part in ((0, main), (main, extent)) if part[0] < part[1]]


def _channel_cuts(channels: int, lanes: int) -> list[tuple[int, int, int]]:
    """(begin, end, lanes): whole blocks, then one narrower block for the rest."""
    return [
        (begin, end, lanes if (end - begin) % lanes == 0 else -(-(end - begin) // 4) * 4)
        for begin, end in _cuts(channels, lanes)
    ]


def _part_cost(part: GemmPart) -> float:
    rows = neon_rows(part.last - part.first, part.lanes, part.dot)
    tiles = (part.last - part.first) // rows * -(-(part.end - part.begin) // part.lanes)
    return tiles * neon_cost(rows, part.lanes, part.dot)
