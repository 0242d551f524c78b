"""Tensor intrinsics of AVX-512 VNNI: dot products of fours, and the epilogue in vectors of 16 int32 lanes.

Activations are uint8 (q + 128), because ``vpdpbusd`` multiplies unsigned by signed bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
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

LANES = 16


def _ramp(at: int = 0) -> Any:
    return T.ramp(T.int32(at), 1, LANES)


def _lanes(buffer: Any, at: int = 0) -> Any:
    return buffer[_ramp(at)]


def _shift_right(v: Any, by: int) -> Any:
    """The low words of an int64x8 shifted right; up to 32 the logical shift has the same ones and needs no AVX-512."""
    if by > 32:
        return T.shift_right(v, T.broadcast(T.int64(by), 8))
    return T.reinterpret(
        T.shift_right(T.reinterpret(v, dtype="uint64x8"), T.broadcast(T.uint64(by), 8)), dtype="int64x8"
    )


def _dpbusd(acc: Any, unsigned: Any, signed: Any) -> Any:
    """``vpdpbusd``: acc (int32x16) plus sums of four products; both byte operands as int8x64."""
    return T.call_llvm_pure_intrin(
        T.llvm_lookup_intrinsic_id("llvm.x86.avx512.vpdpbusd.512"), acc, unsigned, signed, dtype="int32x16"
    )


def _multiply_add(a: Any, b: Any) -> Any:
    """``vpmaddwd``: the lanes' halves multiplied, the two products of a lane added."""
    halves = [T.reinterpret(v, dtype="int16x32") for v in (a, b)]
    multiply_add = T.llvm_lookup_intrinsic_id("llvm.x86.avx512.pmaddw.d.512")
    return T.call_llvm_pure_intrin(multiply_add, *halves, dtype="int32x16")


@register_once
def dot() -> tuple[Any, Any]:
    """``c[i] += sum_k a[k] * b[i, k]``: four bytes of one pixel against 16 output channels."""

    def body(a: Any, b: Any, c: Any) -> None:
        four = T.reinterpret(a.vload([0], "uint8x4"), dtype="int32")
        value = _dpbusd(
            _lanes(c), T.reinterpret(T.broadcast(four, LANES), dtype="int8x64"), b.vload([0, 0], dtype="int8x64")
        )
        T.buffer_store(c, value, [T.ramp(T.int32(0), 1, LANES)])

    a: Parameter = ("a", (4,), "uint8")
    b: Parameter = ("b", (16, 4), "int8")
    c: Parameter = ("c", (16,), "int32")

    def meaning(four: Any, weights: Any, sums: Any) -> None:
        with T.grid(LANES, 4) as (i, k), T.sblock("update"):
            i, k = T.axis.remap("SR", [i, k])
            T.buffer_store(sums, sums[i] + T.Cast("int32", four[k]) * T.Cast("int32", weights[i, k]), [i])

    return describe_block([a, b], c, meaning), implement([a, b], c, body, update=True)


@register_once
def depthwise(
    rows: int, pixels: int, stride: int, dilation: int, taps_x: int, parts: int, groups: int
) -> tuple[Any, Any]:
    """A tile of a depthwise convolution: ``rows`` x ``pixels`` neighbouring outputs of 16 channels, all taps added.

    The bytes of four rows of a column are interleaved once (16 groups of four) and serve every output that the column
    touches: one ``vpdpbusd`` per output, column and group of four rows. A second row of outputs reads the same four
    rows one further down: same bytes, weights moved up by one byte. So two rows go with kernels of height 3 at most,
    stride and dilation of rows 1.
    """
    columns = (pixels - 1) * stride + (taps_x // parts - 1) * dilation + 1
    x: Parameter = ("x", (rows, 4 * groups, columns, LANES), "uint8")
    w: Parameter = ("w", (taps_x, groups, LANES, 4), "int8")
    c: Parameter = ("c", (rows, pixels, LANES), "int32")
    meaning = depthwise_meaning((rows, pixels, LANES), (taps_x, groups, 4), stride, dilation, parts)
    order = [LANES * k + n for n in range(LANES) for k in range(4)]

    def body(source: Any, weights: Any, sums: Any) -> None:
        def column(g: int, j: int) -> Any:
            lines = [source.vload([0, 4 * g + k, j, 0], dtype="uint8x16") for k in range(4)]
            return T.reinterpret(tirx.Shuffle(lines, order), dtype="int8x64")

        def taps(y: int, kx: int, g: int) -> Any:
            four = weights.vload([kx, g, 0, 0], dtype="int8x64")
            if y == 0:
                return four
            moved = T.shift_left(T.reinterpret(four, dtype="int32x16"), T.broadcast(T.int32(8), LANES))
            return T.reinterpret(moved, dtype="int8x64")

        for y in range(rows):
            for p in range(pixels):
                total = sums[y, p, T.ramp(T.int32(0), 1, LANES)]
                for kx in range(taps_x):
                    for g in range(groups):
                        total = _dpbusd(total, column(g, p * stride + kx // parts * dilation), taps(y, kx, g))
                T.buffer_store(sums, total, [T.int32(y), T.int32(p), T.ramp(T.int32(0), 1, LANES)])

    return describe_block([x, w], c, meaning), implement([x, w], c, body, update=True, rows=("x",))


@register_once
def requantize(
    lines: int, pixels: int, vectors: int, shift: int | None, raised: bool, channels: int, clamped: bool,
    residual: bool, fraction: int, short: bool,
) -> tuple[Any, Any]:
    """The epilogue of one or two vectors of 16 channels: of one pixel, or of two in a line or in two lines.

    Lanes beyond ``channels`` (a last block) are not stored. Without ``shift`` each channel has its own and rounds as
    TFLite does.
    """
    lanes = LANES * vectors
    image = (lines, pixels, lanes)
    inputs: list[Parameter] = [("c", image, "int32"), ("bias", (lanes,), "int32"), ("mult", (lanes,), "int32")]
    if shift is None:
        inputs.append(("shift", (lanes,), "int32"))
    if residual:
        inputs.append(("r", image, "uint8"))
    inputs.append(("q", (5,), "int32"))
    output: Parameter = ("d", image, "uint8")

    def value(*operands: Any) -> Any:
        y, x, v, c, bias, mult, *rest = operands
        r = rest[-2][y, x, v] if residual else None
        by = rest[0][v] if shift is None else shift
        return expressions.epilogue(c[y, x, v] + bias[v], mult[v], rest[-1], by, r, fraction, "uint8", clamped)

    def added(a: Any, b: Any) -> Any:
        return modular_sum(a, b, LANES) if shift is None else a + b

    def body(c: Any, bias: Any, mult: Any, *rest: Any) -> None:
        q, out = rest[-2], rest[-1]
        rows = [(T.int32(y), T.int32(x)) for y in range(lines) for x in range(pixels)]
        places = [(row, at) for row in rows for at in range(0, lanes, LANES)]
        v = finished(
            [added(c[(*row, _ramp(at))], _lanes(bias, at)) for row, at in places],
            [_lanes(mult, at) for _, at in places],
            [_lanes(rest[0], at) for _, at in places] if shift is None else shift,
            [rest[-3][(*row, _ramp(at))] for row, at in places] if residual else None,
            q, raised, clamped, fraction, short,
        )  # fmt: skip
        for i, row in enumerate(rows):
            part = tirx.Shuffle([v], list(range(i * lanes, (i + 1) * lanes))) if len(rows) > 1 else v
            store(out, part, bias.elem_offset, channels, row)

    return describe(inputs, output, value), implement(inputs, output, body, rows=("c", "r", "d"))


def finished(
    sums: Sequence[Any], multipliers: Sequence[Any], shift: int | Sequence[Any], residual: Sequence[Any] | None,
    q: Any, raised: bool, clamped: bool, fraction: int, short: bool,
) -> Any:
    """``expressions.epilogue`` of one or two vectors of sums with bias, whose other operands are vectors as well: uint8
    values of as many lanes.

    Even and odd lanes are multiplied apart (``vpmuldq``). Rounding, zero points and the zero point of the residual are
    one 64-bit addend. Two vectors are packed with saturation (``vpackssdw``, ``vpackuswb``), which is cheaper than
    narrowing each. A ``short`` multiplier of the residual takes one instruction instead of two (``vpmaddwd``: the high
    halves of its lanes are zero).
    """
    addend = T.int32(0) + q[0]
    if residual is not None:
        addend = (q[0] << T.int32(fraction)) - q[3] * q[4]
        if fraction:
            addend = addend + T.int32(1 << (fraction - 1))
    if isinstance(shift, int):
        wide = T.broadcast((T.Cast("int64", addend) << T.int64(shift)) + T.int64(1 << (shift - 1)), 8)

    def scaled(i: int) -> Any:
        if not isinstance(shift, int):
            v = _rounded_twice(sums[i], multipliers[i], shift[i], raised) + T.broadcast(addend, LANES)
        else:
            v = _high_product(sums[i], multipliers[i], wide, shift)
        if residual is not None:
            r, by = T.Cast("int32x16", residual[i]), T.broadcast(q[4], LANES)
            r = _multiply_add(r, by) if short else r * by
            v = T.shift_right(v + r, T.broadcast(T.int32(fraction), LANES))
        return v

    low, high = (q[1], q[2]) if clamped else (T.int32(0), T.int32(255))
    values = [scaled(i) for i in range(len(sums))]
    if len(values) == 1:
        return T.Cast("uint8x16", T.min(T.max(values[0], T.broadcast(low, LANES)), T.broadcast(high, LANES)))
    v = _pack(*values)
    if clamped:
        bounds = [T.broadcast(T.Cast("uint8", limit), 2 * LANES) for limit in (low, high)]
        v = T.min(T.max(v, bounds[0]), bounds[1])
    return v


def store(out: Any, v: Any, begin: Any, channels: int, row: Sequence[Any] = ()) -> None:
    """Store the lanes of ``v`` that are channels, the first being ``begin``; ``row`` is the index of leading axes."""
    lanes = int(out.shape[-1])
    if channels % lanes in (0, 1):
        # LLVM 22 makes a masked, truncating store of one lane a store of 4 bytes.
        store_channels(out, v, begin, channels, row)
    else:
        inside = T.ramp(begin, 1, lanes) < T.broadcast(T.int32(channels), lanes)
        address = T.address_of(out[(*row, T.int32(0))])
        T.evaluate(T.call_llvm_intrin("void", "llvm.masked.store", v, address, inside))


def _rounded_twice(acc: Any, multiplier: Any, shift: Any, raised: bool) -> Any:
    """``expressions.multiply`` of 16 lanes; without ``raised`` no shift is negative."""
    if raised:
        zero = T.broadcast(T.int32(0), LANES)
        acc, shift = T.shift_left(acc, T.max(zero - shift, zero)), T.max(shift, zero)
    v = _high_product(acc, multiplier, T.broadcast(T.int64(1 << 30), 8), 31)
    return divide_by_power(v, shift, LANES)


def _high_product(acc: Any, multiplier: Any, addend: Any, shift: int) -> Any:
    """``(acc * multiplier + addend) >> shift`` of 16 lanes through 64 bits, even and odd lanes apart."""
    acc, mul = T.reinterpret(acc, dtype="int64x8"), T.reinterpret(multiplier, dtype="int64x8")
    s32 = T.broadcast(T.int64(32), 8)
    even = T.shift_right(T.shift_left(acc, s32), s32) * T.shift_right(T.shift_left(mul, s32), s32) + addend
    odd = T.shift_right(acc, s32) * T.shift_right(mul, s32) + addend
    low = T.bitwise_and(_shift_right(even, shift), T.broadcast(T.int64(0xFFFFFFFF), 8))
    if shift == 32:
        high = T.bitwise_and(odd, T.broadcast(T.int64(-(1 << 32)), 8))
    else:
        high = T.shift_left(_shift_right(odd, shift), s32)
    return T.reinterpret(T.bitwise_or(low, high), dtype="int32x16")


def _pack(first: Any, second: Any) -> Any:
    """Two int32x16 saturated to one uint8x32; packing works within 128 bits, so four-byte groups are put in order."""
    pack16 = T.llvm_lookup_intrinsic_id("llvm.x86.avx512.packssdw.512")
    pack8 = T.llvm_lookup_intrinsic_id("llvm.x86.avx512.packuswb.512")
    words = T.call_llvm_pure_intrin(pack16, first, second, dtype="int16x32")
    groups = T.reinterpret(T.call_llvm_pure_intrin(pack8, words, words, dtype="int8x64"), dtype="int32x16")
    return T.reinterpret(tirx.Shuffle([groups], [0, 4, 8, 12, 1, 5, 9, 13]), dtype="uint8x32")
