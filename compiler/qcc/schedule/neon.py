"""Kernels with weights for aarch64: convolutions written out as loops around tiles of registers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcc.lower.kernel import Kernel, View
from qcc.schedule.decide import Decide
from qcc.schedule.neon_multiply import MULTIPLY
from qcc.schedule.neon_vectors import Epilogue, load, store
from qcc.schedule.tiles import divisors, nearest_divisor, neon_rows

CACHED_BYTES = 128 * 1024
"""Part of the input that is read once per block of channels: it should stay in the level-2 cache."""


@contextmanager
def function(kernel: Kernel) -> Iterator[dict[str, Any]]:
    """A function under construction: gives its parameters, flat buffers by operand key."""
    with T.prim_func(s_tir=True):
        T.func_name("main")
        buffers = {o.key: T.arg(o.key, T.Buffer((_reach(o.view),), o.view.dtype)) for o in kernel.operands}
        with T.sblock("root"):
            T.reads()
            T.writes()
            yield buffers


def _reach(view: View) -> int:
    return sum((extent - 1) * stride for extent, stride in zip(view.shape, view.strides, strict=True)) + 1


def conv_gemm(kernel: Kernel, decide: Decide) -> Any:
    """Tiles of ``rows`` pixels x one block of channels; sums stay in registers from the bias to the stored bytes."""
    batch, height, width = kernel.param("outputs")
    blocks, taps_y, taps_x, groups, lanes, dot = kernel.view("w").shape
    x, y = kernel.view("x").strides, kernel.view("y").strides
    stride, dilation, step, hop = (kernel.param(k) for k in ("stride", "dilation", "step", "hop"))
    multiply = MULTIPLY[dot]
    rows = decide("rows", divisors(width, 16), neon_rows(width, lanes, dot))
    units = height if height > 1 else width // rows
    unit_bytes = (width if height > 1 else rows) * taps_y * taps_x * groups * dot
    wanted = max(1, min(CACHED_BYTES // unit_bytes, -(-units // 4)))
    chunk = decide("chunk", divisors(units), nearest_divisor(units, wanted))
    chunks = units // chunk
    epilogue, valid = Epilogue.of(kernel), min(lanes, kernel.param("channels"))

    with IRBuilder() as builder, function(kernel) as p:
        acc = T.sblock_alloc_buffer((multiply.registers(rows, lanes) * 4,), "int32", scope="local")

        def tile(b: Any, row: Any, column: Any, block: Any) -> None:
            begin = T.bind(b * x[0] + row * (stride * x[1]) + column * step)
            weights = T.bind(block * (taps_y * taps_x * groups * lanes * dot))
            made = multiply(acc, rows, lanes, p["x"], p["w"], step)
            made.start(p["bias"], block * lanes)
            _reduce(taps_y, taps_x, groups, made, begin, weights, (dilation * x[1], hop))
            at = T.bind(b * y[0] + row * y[1] + column * y[2] + block * lanes)
            for pixel, channel, count, vectors in made.results(p["multiplier"], block * lanes, epilogue):
                here = at + (pixel * y[2] + channel)
                residual = None
                if epilogue.residual:
                    r = kernel.view("residual").strides
                    there = b * r[0] + row * r[1] + (column + pixel) * r[2] + block * lanes + channel
                    residual = load(p["residual"], there, max(count, 8))
                store(p["y"], here, epilogue.finish(vectors, residual, p["q"]), min(count, valid - channel))

        with T.parallel(0, batch * chunks * blocks) as unit:
            block = T.bind(unit % blocks)
            outer = T.bind(unit // blocks)
            b, first = T.bind(outer // chunks), T.bind(outer % chunks * chunk)
            with T.serial(0, chunk) as inner:
                if height > 1:
                    with T.serial(0, width // rows) as column:
                        tile(b, first + inner, column * rows, block)
                else:
                    tile(b, T.int32(0), (first + inner) * rows, block)
    return builder.get()


UNROLLED = 100
"""Multiplications of a tile up to which its reduction is written without loops."""


def _reduce(taps_y: int, taps_x: int, groups: int, made: Any, begin: Any, weights: Any, hops: tuple[int, int]) -> None:
    """The steps of a reduction: all taps, ``groups`` each; the pixels of a tap begin ``hops`` further on."""
    group_bytes = made.lanes * made.dot
    whole, rest = divmod(groups, made.per_step)
    if taps_y * taps_x * groups * made.cost <= UNROLLED:
        for ky in range(taps_y):
            for kx in range(taps_x):
                tap = (ky * taps_x + kx) * groups * group_bytes
                origin = begin + (ky * hops[0] + kx * hops[1])
                for g in range(0, groups, made.per_step):
                    made.step(origin + g * made.dot, weights + (tap + g * group_bytes), min(made.per_step, groups - g))
        return
    with T.serial(0, taps_y) as ky, T.serial(0, taps_x) as kx:
        tap = T.bind(weights + (ky * taps_x + kx) * (groups * group_bytes))
        origin = T.bind(begin + (ky * hops[0] + kx * hops[1]))
        if whole:
            with T.serial(0, whole) as s:
                made.step(origin + s * (made.per_step * made.dot), tap + s * (made.per_step * group_bytes), made.per_step)
        if rest:
            done = whole * made.per_step
            made.step(origin + done * made.dot, tap + done * group_bytes, rest)


KERNELS: dict[str, Callable[[Kernel, Decide], Any]] = {"conv_gemm": conv_gemm}
SCHEDULES: dict[str, Callable[[Any, Kernel, Decide], None]] = {}
