"""Sizes of register tiles. No TVM here: describing a kernel's calls asks these questions too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qcc.lower.kernel import Kernel

if TYPE_CHECKING:
    from qcc.schedule.decide import Decide
    from qcc.target import Target

LEVEL_2 = 384 * 1024
"""Bytes of input that may stay in the level-2 cache beside weights and outputs."""
SHARES = 8
"""Iterations of a parallel loop that balance well over a few threads."""


def divisors(n: int, at_most: int | None = None) -> list[int]:
    """Divisors of ``n`` in ascending order, none above ``at_most``."""
    limit = n if at_most is None else min(n, at_most)
    return [d for d in range(1, limit + 1) if n % d == 0]


def nearest_divisor(n: int, wanted: int) -> int:
    """The largest divisor of ``n`` that is at most ``wanted`` (1 at least)."""
    return divisors(n, max(1, wanted))[-1]


def register_tile(pixels: int, blocks: int, accumulators: int) -> tuple[int, int]:
    """Default (rows, cols) of a GEMM tile: rows divides pixels, cols divides blocks, and all of it stays in registers.

    ``cols`` vectors of weights are live beside the sums, two more than ``accumulators`` counts do fit.
    """
    rows, columns = divisors(pixels, accumulators), divisors(blocks, 8)
    options = [(r, c) for r in rows for c in columns if r * c + max(c, 2) <= accumulators + 2]
    return min(options, key=lambda option: tile_cost(*option))


def tile_cost(rows: int, cols: int) -> float:
    """Cycles per product, of which two are done in one where as many vectors are loaded, plus what tells tiles apart.

    Below ten sums a product's latency shows. A tile begins and ends. Two vectors of channels are finished together, and
    the constants of more do not stay in registers.
    """
    sums = rows * cols
    ends = 0.5 / sums + (0.05 if cols == 1 else 0.01 * (cols - 2))
    return max(1.0, (rows + cols) / sums) / 2 + max(0, 10 - sums) * 0.15 + ends


def split_pixels(pixels: int, blocks: int, accumulators: int) -> list[tuple[int, int]]:
    """Ranges [begin, end) of pixels to be computed by one kernel each: one, or a main part and a tail.

    A width without a useful divisor (31, say) is cut where the main part has one.
    """
    whole = tile_cost(*register_tile(pixels, blocks, accumulators))
    rows = min(accumulators, 14)
    if pixels <= rows or whole <= 0.9:
        return [(0, pixels)]
    main = pixels - pixels % rows
    return [(0, main), (main, pixels)] if main < pixels else [(0, pixels)]


def tile_steps(groups: int) -> int:
    """Multiplications of AMX tiles, which take 16 groups at most, for a run of so many groups."""
    return -(-groups // 16)


def whole_groups(target: Target, groups: int) -> int:
    """Groups of a run as the target's kernels want them packed: steps of the same size."""
    steps = tile_steps(groups) if target.family == "amx" else 1
    return -(-groups // steps) * steps


def gemm_chunk(kernel: Kernel, decide: Decide, rows: int, cols: int) -> int:
    """The decision ``chunk`` of a GEMM: output rows, or tiles where the whole image is one row.

    A chunk meets one block of channels at a time: the longer it is, the fewer times the weights are read; its input
    should stay in the level-2 cache, and threads want a share.
    """
    batch, height, width = kernel.param("outputs")
    blocks = kernel.view("w").shape[0]
    units = height if height > 1 else width // rows
    unit_bytes = kernel.param("stride") * kernel.view("x").strides[1] if height > 1 else rows * kernel.param("step")
    chunks = divisors(units)
    shared = [c for c in chunks if batch * (units // c) * (blocks // cols) >= SHARES] or chunks[:1]
    default = [c for c in shared if c * unit_bytes <= LEVEL_2 or c == shared[0]][-1]
    return nearest_divisor(units, decide("chunk", divisors(height if height > 1 else width), default))


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


def gemm_parts(target: Target, pixels: int, channels: int, depth: int, real: bool = False) -> list[GemmPart]:
    """How a target cuts a GEMM of rows of ``pixels`` with ``depth`` products an output: mostly one part.

    ``real``: it adds single products of float32.
    """
    if real:
        lanes = target.vector_bytes // 4
        ranges = split_pixels(pixels, -(-channels // lanes), target.accumulators)
        return [GemmPart(first, last, 0, channels, lanes, 1) for first, last in ranges]
    if target.family in ("neon", "neon32"):
        from qcc.schedule.neon_tiles import REGISTERS, neon_parts

        return neon_parts(pixels, channels, depth, target.dot, REGISTERS[target.family])
    if target.family == "amx":
        return [GemmPart(0, pixels, 0, channels, target.lanes, target.dot)]
    blocks = -(-channels // target.lanes)
    ranges = split_pixels(pixels, blocks, target.accumulators)
    return [GemmPart(first, last, 0, channels, target.lanes, target.dot) for first, last in ranges]


def depthwise_packing(target: Target, taps_y: int, sliding: bool, real: bool = False) -> tuple[int, int]:
    """(channels of a block, rows of a column side by side) in packed weights of a depthwise convolution.

    ``sliding``: rows of outputs lie one row of inputs apart, and their taps too. ``real``: as for ``gemm_parts``.
    """
    if real:
        return target.vector_bytes // 4, 1
    if target.family in ("neon", "neon32"):
        if target.dot < 4:
            return 8, 1
        return (8 if sliding and taps_y < 4 else 16), 4
    return target.lanes, target.dot
