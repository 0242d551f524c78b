"""Cycles and traffic of single instructions: what the search minimizes and the cycle model adds up.

The systolic formulas are SCALE-Sim's (which reports one cycle less for a whole layer): a fold of the array costs its
fill, the stream through it and its drain. M pixels, N output channels, K products for each output. A memory that is too
slow for the array stretches an instruction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qcc.npu.description import Description


def up(a: int, b: int) -> int:
    """``ceil(a / b)``."""
    return -(-a // b)


@dataclass(frozen=True, slots=True)
class Cycles:
    """Cycles of a matrix instruction: ``array`` with memories that keep up, of which ``fill`` to fill and drain;
    ``total`` with those there are. Bytes the array exchanges with each memory.
    """

    total: int
    array: int
    fill: int
    act: int
    weight: int
    acc: int


def gemm(d: Description, rows: int, columns: int, N: int, K: int) -> Cycles:
    """A convolution block of rows x columns pixels."""
    a, M = d.array, rows * columns
    R, C = a.rows, a.columns
    if a.dataflow == "tiled":
        tiles = up(rows, R) * up(columns, C)
        steps = tiles * up(N, a.lanes) * up(K, a.dot)
        array, fill = a.startup + math.ceil(steps * a.interval), a.startup
        return _with_memories(d, array, fill, M * K * up(N, a.lanes), tiles * K * N, 4 * M * N)
    if a.dataflow == "output":
        folds = up(M, R) * up(N, C)
        array, fill = folds * (R + C + K - 2), folds * (R + C - 2)
        return _with_memories(d, array, fill, M * K * up(N, C), K * N * up(M, R), 4 * M * N)
    weight = a.dataflow == "weight"
    folds, stream = up(K, R) * up(N if weight else M, C), M if weight else N
    array = folds * (2 * R + C + stream - 2)
    act, weights = (M * K * up(N, C), K * N) if weight else (M * K, K * N * up(M, C))
    return _with_memories(d, array, array - folds * stream, act, weights, 4 * M * N * (2 * up(K, R) - 1))


def depthwise(d: Description, rows: int, columns: int, outputs: int, taps: int) -> Cycles:
    """A depthwise block. A systolic array holds the taps of several channels on its diagonal."""
    a, M = d.array, rows * columns
    R, C = a.rows, a.columns
    tiles = 1
    if a.dataflow == "tiled":
        tiles = up(rows, R) * up(columns, C)
        steps = tiles * up(outputs, a.lanes) * up(taps, a.dot)
        array, fill = a.startup + math.ceil(steps * a.depthwise_interval), a.startup
    elif a.dataflow == "output":
        folds = up(M, R) * outputs
        array, fill = folds * (R + taps - 1), folds * (R - 1)
    else:
        weight = a.dataflow == "weight"
        together = max(1, min(R // taps, C))
        folds = up(outputs, together) * up(taps, R) * (1 if weight else up(M, C))
        array, fill = folds * (2 * R + C - 2 + (M if weight else 1)), folds * (2 * R + C - 2)
    return _with_memories(d, array, fill, M * outputs * taps, tiles * outputs * taps, 4 * M * outputs)


def _with_memories(d: Description, array: int, fill: int, act: int, weight: int, acc: int) -> Cycles:
    m = d.memory
    slowest = max(act / m.act.bytes_per_cycle, weight / m.weight.bytes_per_cycle, acc / m.acc.bytes_per_cycle)
    return Cycles(max(array, math.ceil(slowest)), array, fill, act, weight, acc)


def vector(d: Description, elements: int, taps: int = 1) -> int:
    """Element-wise work and pools."""
    return d.vector.startup + max(up(elements * taps, d.vector.lanes),
                                  math.ceil(elements * taps / d.memory.act.bytes_per_cycle))


def requantize(d: Description, elements: int) -> int:
    """Accumulators to activations."""
    slowest = max(4 / d.memory.acc.bytes_per_cycle, 1 / d.memory.act.bytes_per_cycle)
    return d.vector.startup + max(up(elements, d.vector.lanes), math.ceil(elements * slowest))


def dram(d: Description, runs: int, run_bytes: int) -> int:
    """Cycles that a transfer of ``runs`` contiguous runs occupies DRAM."""
    moved = runs * up(run_bytes, d.dram.burst_bytes) * d.dram.burst_bytes
    return math.ceil(moved / d.dram_bytes_per_cycle)


def local(bytes_per_cycle: float, nbytes: int) -> int:
    """Cycles of a copy within the chip."""
    return math.ceil(nbytes / bytes_per_cycle)
