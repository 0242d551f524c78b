"""Tensor intrinsics of AVX2: sums of two 16-bit products (``vpmaddwd``), and the epilogue in vectors of 8 int32 lanes.

The byte instruction ``vpmaddubsw`` saturates its sums at 16 bits, so operands are widened to int16 first: no product or
pair of products leaves int32.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from qcc.lower import expressions
from qcc.schedule.intrinsic import (
    Parameter,
    depthwise_meaning,
    describe,
    describe_block,
    divide_by_power,
    implement,
    modular_sum,
    register_once,
    store_channels,
)

LANES = 8
PAIR = 2


def _lanes(buffer: Any) -> Any:
    return buffer[T.ramp(T.int32(0), 1, LANES)]


def _all(value: Any) -> Any:
    return T.broadcast(value, LANES)


def _maddwd(a: Any, b: Any) -> Any:
    """``vpmaddwd``: int16x16 by int16x16, neighbouring products added, int32x8."""
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id("llvm.x86.avx2.pmadd.wd"), a, b, dtype="int32x8")


@register_once
def dot(storage: str) -> tuple[Any, Any]:
    """``c[i] += sum_k a[k] * b[i, k]``: two elements of one pixel, widened before, against 8 output channels."""
    a: Parameter = ("a", (PAIR,), "int16")
    b: Parameter = ("b", (LANES, PAIR), "int8")
    c: Parameter = ("c", (LANES,), "int32")

    def meaning(pair: Any, weights: Any, sums: Any) -> None:
        with T.grid(LANES, PAIR) as (i, k), T.sblock("update"):
            i, k = T.axis.remap("SR", [i, k])
            product = T.Cast("int32", T.Cast(storage, pair[k])) * T.Cast("int32", weights[i, k])
            T.buffer_store(sums, sums[i] + product, [i])

    def body(pair: Any, weights: Any, sums: Any) -> None:
        both = T.reinterpret(_all(T.reinterpret(pair.vload([0], "int16x2"), dtype="int32")), dtype="int16x16")
        products = _maddwd(both, T.Cast("int16x16", weights.vload([0, 0], dtype="int8x16")))
        T.buffer_store(sums, _lanes(sums) + products, [T.ramp(T.int32(0), 1, LANES)])

    return describe_block([a, b], c, meaning), implement([a, b], c, body, update=True)


@register_once
def depthwise(
    storage: str, rows: int, pixels: int, stride: int, dilation: int, taps_x: int, parts: int, groups: int
) -> tuple[Any, Any]:
    """A tile of a depthwise convolution: ``rows`` x ``pixels`` neighbouring outputs of 8 channels, all taps added.

    Two rows of a column are interleaved and widened once, and serve every output that the column touches: one
    ``vpmaddwd`` per output, column and pair of rows. A second row of outputs reads the same pairs one row further down:
    same pixels, weights moved up by one row. So two rows of outputs want stride and dilation of rows 1 and no weight in
    the last row.
    """
    columns = (pixels - 1) * stride + (taps_x // parts - 1) * dilation + 1
    x: Parameter = ("x", (rows, PAIR * groups, columns, LANES), storage)
    w: Parameter = ("w", (taps_x, groups, LANES, PAIR), "int8")
    c: Parameter = ("c", (rows, pixels, LANES), "int32")
    meaning = depthwise_meaning((rows, pixels, LANES), (taps_x, groups, PAIR), stride, dilation, parts)
    interleaved = [LANES * k + n for n in range(LANES) for k in range(PAIR)]
    channels = T.ramp(T.int32(0), 1, LANES)

    def body(source: Any, weights: Any, sums: Any) -> None:
        def column(g: int, j: int) -> Any:
            lines = [source.vload([0, PAIR * g + k, j, 0], dtype=f"{storage}x8") for k in range(PAIR)]
            return T.Cast("int16x16", tirx.Shuffle(lines, interleaved))

        def taps(y: int, kx: int, g: int) -> Any:
            if y == 0:
                return T.Cast("int16x16", weights.vload([kx, g, 0, 0], dtype="int8x16"))
            s16 = _all(T.int32(16))
            moved = T.shift_left(T.reinterpret(taps(0, kx, g), dtype="int32x8"), s16)
            if g > 0:
                above = T.reinterpret(taps(0, kx, g - 1), dtype="uint32x8")
                moved = T.bitwise_or(moved, T.reinterpret(T.shift_right(above, _all(T.uint32(16))), dtype="int32x8"))
            return T.reinterpret(moved, dtype="int16x16")

        for y in range(rows):
            for p in range(pixels):
                total = sums[y, p, channels]
                for kx in range(taps_x):
                    for g in range(groups):
                        total = total + _maddwd(column(g, p * stride + kx // parts * dilation), taps(y, kx, g))
                T.buffer_store(sums, total, [T.int32(y), T.int32(p), channels])

    return describe_block([x, w], c, meaning), implement([x, w], c, body, update=True, rows=("x",))


@register_once
def requantize(
    storage: str, shift: int | None, raised: bool, channels: int, clamped: bool, residual: bool, fraction: int
) -> tuple[Any, Any]:
    """The epilogue of 8 channels; lanes beyond ``channels`` (a last, partial block) are not stored.

    Even and odd lanes are multiplied apart (``vpmuldq``). AVX2 shifts 64-bit lanes as unsigned only. Up to a shift of
    32 the low words are the same; beyond, the high words are shifted on as int32. Without ``shift`` each channel has
    its own and rounds as TFLite does.
    """
    inputs: list[Parameter] = [("c", (LANES,), "int32"), ("bias", (LANES,), "int32"), ("mult", (LANES,), "int32")]
    if shift is None:
        inputs.append(("shift", (LANES,), "int32"))
    if residual:
        inputs.append(("r", (LANES,), storage))
    inputs.append(("q", (5,), "int32"))
    output: Parameter = ("d", (LANES,), storage)

    def value(v: Any, c: Any, bias: Any, mult: Any, *rest: Any) -> Any:
        r = rest[0][v] if residual else None
        by = rest[0][v] if shift is None else shift
        return expressions.epilogue(c[v] + bias[v], mult[v], rest[-1], by, r, fraction, storage, clamped)

    def body(c: Any, bias: Any, mult: Any, *rest: Any) -> None:
        q, out = rest[-2], rest[-1]
        addend = T.int32(0) + q[0]
        if residual:
            addend = (q[0] << T.int32(fraction)) - q[3] * q[4]
            if fraction:
                addend = addend + T.int32(1 << (fraction - 1))
        if shift is None:
            acc = modular_sum(_lanes(c), _lanes(bias), LANES)
            v = _rounded_twice(acc, _lanes(mult), _lanes(rest[0]), raised) + _all(addend)
        else:
            v = _multiply(_lanes(c) + _lanes(bias), _lanes(mult), shift, addend)
        if residual:
            r = T.Cast("int32x8", _lanes(rest[0]))
            v = T.shift_right(v + r * _all(q[4]), _all(T.int32(fraction)))
        # Saturated to the storage first (packing does that), clamped as bytes.
        least, most = (_all(T.int32(limit)) for limit in expressions.STORED[storage])
        y = T.Cast(f"{storage}x8", T.min(T.max(v, least), most))
        if clamped:
            low, high = (_all(T.Cast(storage, limit)) for limit in (q[1], q[2]))
            y = T.min(T.max(y, low), high)
        store_channels(out, y, bias.elem_offset, channels)

    return describe(inputs, output, value), implement(inputs, output, body)


def _swapped(v: Any) -> Any:
    """The odd lanes of an int32x8 in even places."""
    return tirx.Shuffle([v], [1, 1, 3, 3, 5, 5, 7, 7])


def _even(v: Any) -> Any:
    """The even lanes of an int32x8 as int64x4: written so that their product becomes ``vpmuldq``."""
    s32 = T.broadcast(T.int64(32), 4)
    return T.shift_right(T.shift_left(T.reinterpret(v, dtype="int64x4"), s32), s32)


def _rounded_twice(acc: Any, mult: Any, shift: Any, raised: bool) -> Any:
    """``expressions.multiply`` of 8 lanes; without ``raised`` no shift is negative."""
    if raised:
        zero = _all(T.int32(0))
        acc, shift = T.shift_left(acc, T.max(zero - shift, zero)), T.max(shift, zero)
    return divide_by_power(_multiply(acc, mult, 31, T.int32(0)), shift, LANES)


def _multiply(acc: Any, mult: Any, shift: int, addend: Any) -> Any:
    """``addend + rounding_shift(acc * mult, shift)`` of int32x8 and a scalar."""
    start = T.int64(1 << (shift - 1))
    if shift <= 32:
        start = start + (T.Cast("int64", addend) << T.int64(shift))
    start = T.broadcast(start, 4)
    even = _even(acc) * _even(mult) + start
    odd = _even(_swapped(acc)) * _even(_swapped(mult)) + start
    word = T.broadcast(T.int64(0xFFFFFFFF), 4)
    by = min(shift, 32)
    low = T.shift_right(T.reinterpret(even, dtype="uint64x4"), T.broadcast(T.uint64(by), 4))
    low = T.bitwise_and(T.reinterpret(low, dtype="int64x4"), word)
    high = T.bitwise_and(T.shift_left(odd, T.broadcast(T.int64(32 - by), 4)), T.broadcast(T.int64(-(1 << 32)), 4))
    v = T.reinterpret(T.bitwise_or(low, high), dtype="int32x8")
    return v if shift <= 32 else T.shift_right(v, _all(T.int32(shift - 32))) + _all(addend)
