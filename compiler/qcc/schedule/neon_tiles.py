"""Sizes of register tiles on aarch64, and the cut of a GEMM into them. No TVM here, as in ``schedule.tiles``."""

from __future__ import annotations

from dataclasses import dataclass

from qcc.schedule.tiles import GemmPart, divisors

REGISTERS = 32

UNROLLED_DEPTH = 64
"""Products of an output up to which LLVM unrolls a reduction by ``smmla``."""

PACKED_DOT = {2: 16, 4: 4, 8: 8}
"""Bytes of a channel that lie side by side in packed weights, by products of an instruction's lane."""


@dataclass(frozen=True)
class Tile:
    """A tile of ``rows`` pixels x ``lanes`` channels, one of ``blocks`` such along the channels.

    ``depth``: products of an output; ``dot``: bytes of a channel that lie side by side.
    """

    rows: int
    lanes: int
    blocks: int
    depth: int
    dot: int

    @property
    def pairs(self) -> int:
        """Pairs of pixels."""
        return -(-self.rows // 2)

    @property
    def fits(self) -> bool:
        """Whether sums, a vector of each pixel and the vectors of weights fit the registers.

        LLVM needs some to spare; most where it writes a short reduction without a loop, and then mixes its steps.
        """
        if self.dot == 4:
            return self.rows * self.lanes // 4 + self.rows + 2 <= REGISTERS
        if self.dot == 16:
            return self.rows * self.lanes + 2 * self.lanes + 6 <= REGISTERS
        spare = 12 if self.depth <= UNROLLED_DEPTH else 5
        return self.pairs * self.lanes // 2 + self.pairs * (1 if self.blocks > 1 else 3) + spare <= REGISTERS

    @property
    def cost(self) -> float:
        """Instructions for 16 products of each output: multiplications, loads (weights in pairs) and a loop."""
        rows, lanes, pairs = self.rows, self.lanes, self.pairs
        if self.dot == 4:
            return rows * lanes + rows + lanes / 2 + 5
        if self.dot == 16:
            return 3 * rows * lanes + rows / 2 + lanes / 2 + 3
        if self.blocks > 1:  # pixels are paired once for all blocks
            loop = 0 if self.depth <= UNROLLED_DEPTH else 3
            return pairs * lanes + pairs + lanes / 2 + 5 * pairs / self.blocks + loop
        return pairs * lanes + 4 * pairs + lanes / 2 + 5


def neon_rows(pixels: int, lanes: int, blocks: int, depth: int, dot: int) -> int:
    """The best height of a tile that divides ``pixels``."""
    options = [tile for r in divisors(pixels, 12) if (tile := Tile(r, lanes, blocks, depth, dot)).fits]
    return min(options, key=lambda tile: tile.cost / tile.rows).rows


def neon_parts(pixels: int, channels: int, depth: int, products: int) -> list[GemmPart]:
    """The cut of pixels and channels into tiles that costs least: a main part and tails.

    ``products`` is the target's ``dot``.
    """
    dot = PACKED_DOT[products]
    best: list[GemmPart] = []
    best_cost = float("inf")
    for lanes in range(24, 0, -4):
        for rows in range(1, 13):
            whole = Tile(rows, lanes, channels // lanes, depth, dot)
            if rows > pixels or lanes > -(-channels // 4) * 4 or not whole.fits:
                continue
            parts = [
                GemmPart(first, last, begin, end, width, dot)
                for begin, end, width in _channel_cuts(channels, lanes)
                for first, last in _cuts(pixels, rows)
            ]
            total = sum(_part_cost(part, depth) for part in parts) * (1 + 0.01 * len(parts))
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


def _part_cost(part: GemmPart, depth: int) -> float:
    pixels, blocks = part.last - part.first, -(-(part.end - part.begin) // part.lanes)
    rows = neon_rows(pixels, part.lanes, blocks, depth, part.dot)
    return pixels // rows * blocks * Tile(rows, part.lanes, blocks, depth, part.dot).cost
