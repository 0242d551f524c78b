"""Schedules for x86 with AVX2 and without VNNI.

Register tile: ``rows`` pixels x ``cols`` vectors of 8 channels, at most 12 accumulators of the 16 registers. The pixels
of a tile are widened to int16 once, on the stack; a step of the reduction broadcasts two of their elements from there
and widens ``cols`` vectors of weights as it loads them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qcc.lower.kernel import Kernel
from qcc.schedule import avx2_intrin, loops, products, tables
from qcc.schedule.decide import Decide
from qcc.schedule.floats import finish_layer
from qcc.schedule.loops import GemmTile
from qcc.schedule.tiles import divisors

ACCUMULATORS = 12
REGISTERS = 16
WIDENED_BYTES = 24 * 1024
"""Room for a tile's widened pixels: they share a level-1 cache of 32 KB with the weights that stream through it."""


def gemm_tile(pixels: int, blocks: int) -> tuple[int, int]:
    """Default (rows, cols): the fewest operand instructions per product (widening a vector of weights takes two).

    Besides the sums, registers hold ``cols`` vectors of weights and a pair of a pixel, which becomes the last product.
    """
    options = [
        (rows, cols)
        for rows in divisors(pixels, ACCUMULATORS)
        for cols in divisors(blocks, ACCUMULATORS)
        if rows * cols <= ACCUMULATORS and rows * cols + cols + 1 <= REGISTERS
    ]
    return min(options, key=lambda tile: (tile[0] + 2 * tile[1]) / (tile[0] * tile[1]))


def conv_gemm(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """``loops.gemm`` on pixels that are widened before."""
    acc, width = sch.get_sblock("acc"), kernel.param("outputs")[2]
    blocks, _, _, groups, lanes, dot = kernel.view("w").shape
    run, step = groups * dot, kernel.param("step")
    rows_default, cols_default = gemm_tile(width, blocks)
    rows = decide("rows", divisors(width, ACCUMULATORS), rows_default)
    cols = decide("cols", divisors(blocks, ACCUMULATORS), cols_default)
    shared = step < run  # neighbouring pixels have elements in common: widen what a tile spans, else pixel by pixel
    room = WIDENED_BYTES // 2 - (rows - 1) * step if shared else WIDENED_BYTES // 2 // rows
    fitting = [d for d in divisors(groups, max(1, room // dot)) if d >= 32]
    part = decide("part", divisors(groups), fitting[-1] if fitting else groups)
    wide = sch.cache_read(acc, 0, "global") if shared else sch.reindex(acc, ("read", 0))
    sch.unsafe_set_dtype(wide, 0, "int16")
    tile = GemmTile(rows, cols, part, lanes, dot)
    loops.gemm(sch, kernel, decide, tile, avx2_intrin.dot(kernel.view("x").dtype), _epilogue(kernel), 1, wide)


def conv_depthwise(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """``loops.depthwise``."""
    _, taps_x, groups, lanes, _ = kernel.view("w").shape
    lines, pixels = loops.depthwise_tile(kernel, decide, kernel.param("sliding"), REGISTERS, (8, 7))
    stride, dilation, storage = kernel.param("stride"), kernel.param("dilation"), kernel.view("x").dtype
    shape = (lines, pixels, stride, dilation, taps_x, kernel.param("parts"), groups)
    loops.depthwise(sch, (lines, pixels), lanes, avx2_intrin.depthwise(storage, *shape), _epilogue(kernel), (1, 1))


def _epilogue(kernel: Kernel) -> str:
    if kernel.view("y").dtype == "float32":
        return finish_layer(kernel, avx2_intrin.LANES)
    residual = any(o.key == "residual" for o in kernel.operands)
    keys = ("shift", "raised", "channels", "clamped")
    fixed = [kernel.param(key) for key in keys]
    return avx2_intrin.requantize(kernel.view("y").dtype, *fixed, residual, kernel.param("fraction"))


SCHEDULES: dict[str, Callable[[Any, Kernel, Decide], None]] = {
    "conv_gemm": conv_gemm, "conv_depthwise": conv_depthwise, "lut": partial(tables.lut, 32),
    "matmul": partial(products.matmul, ACCUMULATORS),
}  # fmt: skip
