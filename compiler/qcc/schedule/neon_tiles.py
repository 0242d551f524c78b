"""Sizes of register tiles on aarch64, and the cut of a GEMM into them. No TVM here, as in ``schedule.tiles``."""

from __future__ import annotations

from qcc.schedule.tiles import GemmPart, divisors

NEON_REGISTERS = 32
NEON_DOT = {2: 16, 4: 4, 8: 8}
"""Bytes of a channel that lie side by side in packed weights, by products of an instruction's lane."""


def neon_fits(rows: int, lanes: int, dot: int) -> bool:
    """Whether sums, a vector of each pixel and the vectors of weights fit the registers."""
    if dot == 4:
        return rows * lanes // 4 + rows + 2 <= NEON_REGISTERS
    if dot == 8:
        return -(-rows // 2) * (lanes // 2 + 3) + 2 <= NEON_REGISTERS - 2
    return rows * lanes + 2 * lanes + 6 <= NEON_REGISTERS


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


def neon_parts(pixels: int, channels: int, products: int) -> list[GemmPart]:
    """The cut of pixels and channels into tiles that costs least: a main part and tails.

    ``products`` is the target's ``dot``.
    """
    dot = NEON_DOT[products]
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


def _part_cost(part: GemmPart) -> float:
    rows = neon_rows(part.last - part.first, part.lanes, part.dot)
    tiles = (part.last - part.first) // rows * -(-(part.end - part.begin) // part.lanes)
    return tiles * neon_cost(rows, part.lanes, part.dot)
