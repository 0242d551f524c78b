"""Cycles of single instructions: what the compiler's search minimizes and the cycle model adds up.

The systolic formulas are SCALE-Sim's (which reports one cycle less for a whole layer): a fold of the array costs its
fill, the stream through it and its drain. M pixels, N output channels, K products for each output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qcc.npu.description import Description


def up(a: int, b: int) -> int:
    """``ceil(a / b)``."""
    return -(-a // b)


@dataclass(frozen=True)
class Cycles:
    """Cycles of a matrix instruction; ``fill`` of them fill and drain the array."""

    total: int
    fill: int


def gemm(d: Description, rows: int, columns: int, N: int, K: int) -> Cycles:
    """A convolution block of rows x columns pixels."""
    a, M = d.array, rows * columns
    R, C = a.rows, a.columns
    if a.dataflow == "tiled":
        steps = up(rows, R) * up(columns, C) * up(N, a.lanes) * up(K, a.dot)
        return Cycles(a.startup + math.ceil(steps * a.interval), a.startup)
    if a.dataflow == "weight":
        folds, stream = up(K, R) * up(N, C), M
        return Cycles(folds * (2 * R + C + M - 2), folds * (2 * R + C + M - 2 - stream))
    if a.dataflow == "input":
        folds, stream = up(K, R) * up(M, C), N
        return Cycles(folds * (2 * R + C + N - 2), folds * (2 * R + C + N - 2 - stream))
    folds = up(M, R) * up(N, C)
    return Cycles(folds * (R + C + K - 2), folds * (R + C - 2))


def depthwise(d: Description, rows: int, columns: int, outputs: int, taps: int) -> Cycles:
    """A depthwise block. A systolic array holds the taps of several channels on its diagonal."""
    a = d.array
    if a.dataflow == "tiled":
        steps = up(rows, a.rows) * up(columns, a.columns) * up(outputs, a.lanes) * taps
        return Cycles(a.startup + math.ceil(steps * a.depthwise_interval), a.startup)
    M, R, C = rows * columns, a.rows, a.columns
    if a.dataflow == "output":
        folds, fill, stream = up(M, R) * outputs, R - 1, taps
    else:
        together = max(1, min(R // taps, C))
        stationary = a.dataflow == "weight"
        folds = up(outputs, together) * up(taps, R) * (1 if stationary else up(M, C))
        fill, stream = 2 * R + C - 2, M if stationary else 1
    return Cycles(folds * (fill + stream), folds * fill)


def vector(d: Description, elements: int, taps: int = 1) -> int:
    """Requantization, element-wise work, pools."""
    return d.vector.startup + up(elements * taps, d.vector.lanes)


def dram(d: Description, runs: int, run_bytes: int) -> int:
    """Cycles that a transfer of ``runs`` contiguous runs occupies DRAM."""
    moved = runs * up(run_bytes, d.dram.burst_bytes) * d.dram.burst_bytes
    return math.ceil(moved / d.dram_bytes_per_cycle)


def local(bytes_per_cycle: float, nbytes: int) -> int:
    """Cycles of a copy within the chip."""
    return math.ceil(nbytes / bytes_per_cycle)
