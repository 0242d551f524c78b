"""Sizes of register tiles for NEON, and the cut of a GEMM into them. No TVM here, as in ``schedule.tiles``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from qcc.schedule.tiles import GemmPart, divisors

REGISTERS = {"neon": 32, "neon32": 16}
"""Vectors of 128 bits by family."""

PACKED_DOT = {2: 16, 4: 4, 8: 8}
"""Bytes of a channel that lie side by side in packed weights, by products of an instruction's lane."""


@dataclass(frozen=True)
class TileSize:
    """A tile of ``rows`` pixels x ``lanes`` channels, one of ``blocks`` such along the channels.

    ``depth``: products of an output; ``dot``: bytes of a channel that lie side by side; ``deep``: vectors of each pixel
    that are loaded at a time.
    """

    rows: int
    lanes: int
    blocks: int
    depth: int
    dot: int
    deep: int
    registers: int

    @property
    def pairs(self) -> int:
        """Pairs of pixels."""
        return -(-self.rows // 2)

    @property
    def sums(self) -> int:
        """Vectors of sums."""
        return {4: self.rows * self.lanes // 4, 16: self.rows * self.lanes, 8: self.pairs * self.lanes // 2}[self.dot]

    @property
    def streamed(self) -> int:
        """Vectors of weights that one instruction loads."""
        return self.registers // 8

    @property
    def fits(self) -> bool:
        """Whether sums, the pixels' vectors and those of weights fit the registers, with one to spare."""
        pixels = self.rows * self.deep
        if self.dot == 16:
            pixels += 2
        elif self.dot == 8:
            pixels = self.pairs if self.blocks > 1 else 3 * self.pairs
        return self.sums + pixels + self.streamed < self.registers

    @property
    def cost(self) -> float:
        """Instructions: multiplications, loads (the pixels' in pairs), a loop; what follows the sums."""
        rows, lanes, pairs, sixteens = self.rows, self.lanes, self.pairs, -(-self.depth // 16)
        weights, loop = lanes / self.streamed, 5 / self.deep
        outputs = rows * lanes
        epilogue = outputs * 0.8 + rows * {0: 0, 4: 1.5, 8: 1, 12: 2.5}[lanes % 16] + rows * (lanes // 16)
        if self.dot == 4:
            return sixteens * (outputs + rows / self.deep + weights + loop) + epilogue
        if self.dot == 16:
            return sixteens * (3 * outputs + rows / self.deep + weights + loop) + epilogue + outputs
        if self.blocks > 1:  # pixels are paired once for all blocks
            return sixteens * (pairs * lanes + 2 * -(-pairs // 4) + weights + 5 * pairs / self.blocks + loop) + epilogue
        return sixteens * (pairs * lanes + 4 * pairs + weights + loop) + epilogue


def _tiles(rows: int, lanes: int, blocks: int, depth: int, dot: int, registers: int) -> list[TileSize]:
    """Those of a size that fit."""
    depths = (1, 2) if depth > 16 else (1,)
    return [t for deep in depths if (t := TileSize(rows, lanes, blocks, depth, dot, deep, registers)).fits]


@cache
def neon_tile(pixels: int, lanes: int, blocks: int, depth: int, dot: int, registers: int) -> TileSize:
    """The best tile whose height divides ``pixels``."""
    options = [t for r in divisors(pixels, 12) for t in _tiles(r, lanes, blocks, depth, dot, registers)]
    return min(options, key=lambda tile: tile.cost / tile.rows)


def neon_parts(pixels: int, channels: int, depth: int, products: int, registers: int) -> list[GemmPart]:
    """The cut of pixels and channels into tiles that costs least: a main part and tails.

    ``products`` is the target's ``dot``.
    """
    dot = PACKED_DOT[products]
    best: list[GemmPart] = []
    best_cost = float("inf")
    for lanes in range(24, 0, -4):
        for rows in range(1, 13):
            if rows > pixels or lanes > -(-channels // 4) * 4:
                continue
            if not _tiles(rows, lanes, channels // lanes, depth, dot, registers):
                continue
            parts = [
                GemmPart(first, last, begin, end, width, dot)
                for begin, end, width in _channel_cuts(channels, lanes)
                for first, last in _cuts(pixels, rows)
            ]
            total = sum(_part_cost(part, depth, registers) for part in parts) * (1 + 0.01 * len(parts))
            if total < best_cost:
                best, best_cost = parts, total
    return best


def _cuts(extent: int, size: int) -> list[tuple[int, int]]:
    main = extent - extent % size
    return [part for part in ((0, main), (main, extent)) if part[0] < part[1]]


def _channel_cuts(channels: int, lanes: int) -> list[tuple[int, int, int]]:
    """(begin, end, lanes): whole blocks, then one narrower block for the rest."""
    return [
        (begin, end, lanes if (end - begin) % lanes == 0 else -(-(end - begin) // 4) * 4)
        for begin, end in _cuts(channels, lanes)
    ]


def _part_cost(part: GemmPart, depth: int, registers: int) -> float:
    pixels, blocks = part.last - part.first, -(-(part.end - part.begin) // part.lanes)
    tile = neon_tile(pixels, part.lanes, blocks, depth, part.dot, registers)
    return pixels // tile.rows * blocks * tile.cost
