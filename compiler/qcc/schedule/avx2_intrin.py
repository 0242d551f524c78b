"""Tensor intrinsics of AVX2: sums of two 16-bit products (``vpmaddwd``), and the epilogue in vectors of 8 int32 lanes.

The byte instruction ``vpmaddubsw`` saturates its sums at 16 bits, so operands are widened to int16 first: no product or
pair of products leaves int32.
"""

from __future__ import annotations

from typing import Any

from tvm.script.ir_builder import tirx as T

from qcc.lower import expressions
from qcc.schedule.intrinsic import Parameter, describe, describe_block, implement, register_once

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

    return describe_block([a, b], c, meaning, update=True), implement([a, b], c, body, update=True)


@register_once
def requantize(
    storage: str, shift: int, channels: int, clamped: bool, residual: bool, fraction: int
) -> tuple[Any, Any]:
    """The epilogue of 8 channels; lanes beyond ``channels`` (a last, partial block) are not stored.

    Even and odd lanes are multiplied apart (``vpmuldq``). AVX2 shifts 64-bit lanes as unsigned only. Up to a shift of 32
    the low words are the same; beyond, the high words are shifted on as int32.
    """
    inputs: list[Parameter] = [("c", (LANES,), "int32"), ("bias", (LANES,), "int32"), ("mult", (LANES,), "int32")]
    if residual:
        inputs.append(("r", (LANES,), storage))
    inputs.append(("q", (5,), "int32"))
    output: Parameter = ("d", (LANES,), storage)

    def value(v: Any, c: Any, bias: Any, mult: Any, *rest: Any) -> Any:
        r = rest[0][v] if residual else None
        return expressions.epilogue(c[v] + bias[v], mult[v], rest[-1], shift, r, fraction, storage, clamped)

    def body(c: Any, bias: Any, mult: Any, *rest: Any) -> None:
        q, out = rest[-2], rest[-1]
        addend = T.int32(0) + q[0]
        if residual:
            addend = (q[0] << T.int32(fraction)) - q[3] * q[4]
            if fraction:
                addend = addend + T.int32(1 << (fraction - 1))
        v = _multiply(_lanes(c) + _lanes(bias), _lanes(mult), shift, addend)
        if residual:
            r = T.Cast("int32x8", _lanes(rest[0]))
            v = T.shift_right(v + r * _all(q[4]), _all(T.int32(fraction)))
        low, high = (q[1], q[2]) if clamped else map(T.int32, expressions.STORED[storage])
        v = T.Cast(f"{storage}x8", T.min(T.max(v, _all(low)), _all(high)))
        if channels % LANES == 0:
            T.buffer_store(out, v, [T.ramp(T.int32(0), 1, LANES)])
        else:
            inside = T.ramp(bias.elem_offset, 1, LANES) < _all(T.int32(channels))
            T.evaluate(T.call_llvm_intrin("void", "llvm.masked.store", v, out.access_ptr("w"), inside))

    return describe(inputs, output, value), implement(inputs, output, body)


def _multiply(acc: Any, mult: Any, shift: int, addend: Any) -> Any:
    """``addend + rounding_shift(acc * mult, shift)`` of int32x8 and a scalar."""
    acc, mult = T.reinterpret(acc, dtype="int64x4"), T.reinterpret(mult, dtype="int64x4")
    s32 = T.broadcast(T.int64(32), 4)
    start = T.int64(1 << (shift - 1))
    if shift <= 32:
        start = start + (T.Cast("int64", addend) << T.int64(shift))
    start = T.broadcast(start, 4)
    even = T.shift_right(T.shift_left(acc, s32), s32) * T.shift_right(T.shift_left(mult, s32), s32) + start
    odd = T.shift_right(acc, s32) * T.shift_right(mult, s32) + start
    word = T.broadcast(T.int64(0xFFFFFFFF), 4)
    by = min(shift, 32)
    low = T.shift_right(T.reinterpret(even, dtype="uint64x4"), T.broadcast(T.uint64(by), 4))
    low = T.bitwise_and(T.reinterpret(low, dtype="int64x4"), word)
    high = T.bitwise_and(T.shift_left(odd, T.broadcast(T.int64(32 - by), 4)), T.broadcast(T.int64(-(1 << 32)), 4))
    v = T.reinterpret(T.bitwise_or(low, high), dtype="int32x8")
    return v if shift <= 32 else T.shift_right(v, _all(T.int32(shift - 32))) + _all(addend)
