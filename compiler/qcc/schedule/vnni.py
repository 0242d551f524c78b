"""Schedules for x86 with AVX-512 VNNI.

Register tile: ``rows`` pixels x ``cols`` vectors of 16 channels, at most 28 accumulators of the 32 registers. A step of
the reduction broadcasts four bytes of each pixel and loads ``cols`` vectors of weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qcc.lower.kernel import Kernel
from qcc.schedule import avx512, loops, products, tables
from qcc.schedule.decide import Decide
from qcc.schedule.floats import finish_layer
from qcc.schedule.loops import GemmTile
from qcc.schedule.tiles import divisors, register_tile

ACCUMULATORS = 28


def conv_gemm(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """``loops.gemm``; two vectors of channels are finished together where there are two."""
    width = kernel.param("outputs")[2]
    blocks, _, _, groups, lanes, dot = kernel.view("w").shape
    rows_default, cols_default = register_tile(width, blocks, ACCUMULATORS)
    rows = decide("rows", divisors(width, ACCUMULATORS), rows_default)
    cols = decide("cols", divisors(blocks, 8), cols_default)
    vectors = 2 if cols % 2 == 0 else 1
    tile = GemmTile(rows, cols, groups, lanes, dot)
    loops.gemm(sch, kernel, decide, tile, avx512.dot(), _epilogue(kernel, (1, 1), vectors), vectors)


def conv_depthwise(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """``loops.depthwise``; two pixels are finished together where a tile has two."""
    _, taps_x, groups, lanes, _ = kernel.view("w").shape
    sharing = kernel.param("sliding") and groups == 1
    lines, pixels = loops.depthwise_tile(kernel, decide, sharing, ACCUMULATORS, (14, 14))
    stride, dilation = kernel.param("stride"), kernel.param("dilation")
    product = avx512.depthwise(lines, pixels, stride, dilation, taps_x, kernel.param("parts"), groups)
    pair = (2, 1) if lines == 2 else (1, 2) if pixels % 2 == 0 else (1, 1)
    if kernel.view("y").dtype == "float32":
        pair = (1, 1)
    loops.depthwise(sch, (lines, pixels), lanes, product, _epilogue(kernel, pair, 1), pair)


def _epilogue(kernel: Kernel, pixels: tuple[int, int], vectors: int) -> str:
    if kernel.view("y").dtype == "float32":
        return finish_layer(kernel, avx512.LANES * vectors)
    residual = any(o.key == "residual" for o in kernel.operands)
    keys = ("shift", "raised", "channels", "clamped")
    fixed = [kernel.param(key) for key in keys]
    return avx512.requantize(*pixels, vectors, *fixed, residual, kernel.param("fraction"), kernel.param("short"))


SCHEDULES: dict[str, Callable[[Any, Kernel, Decide], None]] = {
    "conv_gemm": conv_gemm, "conv_depthwise": conv_depthwise, "lut": partial(tables.lut, 64),
    "matmul": partial(products.matmul, ACCUMULATORS),
}  # fmt: skip
