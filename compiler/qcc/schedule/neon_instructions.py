"""The instructions of NEON that LLVM has by other names for aarch64 and for 32-bit ARM.

Vectors have 128 bits, halves 64. Everything that LLVM finds by itself (additions, shuffles, loads) is not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from qcc.schedule.intrinsic import modular_sum

Vector = Any

def intrinsic(name: str, dtype: str, *operands: Any) -> Vector:
    """A call of an LLVM intrinsic without side effects."""
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id(f"llvm.{name}"), *operands, dtype=dtype)


@dataclass(frozen=True)
class Neon:
    """An instruction set: the prefix and suffixes of its intrinsics; docstrings have aarch64's mnemonics."""

    registers: int
    """Vectors."""
    together: int
    """Vectors that one instruction loads at most."""
    prefix: str
    long_product: str
    pair_sum: str
    accumulating: str
    """Empty where LLVM makes it of ``pair_sum`` and an addition."""
    pair_add: str
    pair_bits: int
    """Bits of a vector whose pairs ``pair_add`` adds."""
    high: str
    saturated: str
    shifted: str
    shifted_rounding: str
    load: str

    def _call(self, name: str, dtype: str, *operands: Any) -> Vector:
        return intrinsic(f"{self.prefix}.{name}", dtype, *operands)

    def product(self, a: Vector, b: Vector) -> Vector:
        """Products of int8x8: int16x8 (``smull``)."""
        return self._call(f"{self.long_product}.v8i16", "int16x8", a, b)

    def wide_product(self, a: Vector, b: Vector) -> Vector:
        """Products of int32x2: int64x2 (``smull``)."""
        return self._call(f"{self.long_product}.v2i64", "int64x2", a, b)

    def sum_pairs(self, v: Vector) -> Vector:
        """Sums of neighbours of int16x8: int32x4 (``saddlp``)."""
        return self._call(f"{self.pair_sum}.v4i32.v8i16", "int32x4", v)

    def accumulate(self, acc: Vector, v: Vector) -> Vector:
        """int32x4 plus ``sum_pairs``, modulo 2^32 (``sadalp``)."""
        if self.accumulating:
            return self._call(f"{self.accumulating}.v4i32.v8i16", "int32x4", acc, v)
        return modular_sum(acc, self.sum_pairs(v), 4)

    def add_pairs(self, a: Vector, b: Vector) -> Vector:
        """Sums of neighbours of two int32x4, one after the other: int32x4 (``addp``)."""
        if self.pair_bits == 128:
            return self._call(f"{self.pair_add}.v4i32", "int32x4", a, b)
        halves = [[tirx.Shuffle([v], half) for half in ([0, 1], [2, 3])] for v in (a, b)]
        sums = [self._call(f"{self.pair_add}.v2i32", "int32x2", low, high) for low, high in halves]
        return tirx.Shuffle(sums, [0, 1, 2, 3])

    def high_product(self, a: Vector, b: Vector) -> Vector:
        """``(2 * a * b + 2^31) >> 32`` of int32x4 (``sqrdmulh``)."""
        return self._call(f"{self.high}.v4i32", "int32x4", a, b)

    def saturate(self, v: Vector, dtype: str) -> Vector:
        """int32x4 to int16x4, or int16x8 to int8x8 (``sqxtn``)."""
        kind = {"int16x4": "v4i16", "int8x8": "v8i8"}[dtype]
        return self._call(f"{self.saturated}.{kind}", dtype, v)

    def shift(self, v: Vector, by: Vector, rounding: bool = False) -> Vector:
        """int32x4 to the left, by negative numbers to the right (``sshl``, ``srshl``)."""
        return self._call(f"{self.shifted_rounding if rounding else self.shifted}.v4i32", "int32x4", v, by)


def sdot(acc: Vector, a: Vector, b: Vector) -> Vector:
    """int32x4 plus sums of four products of int8x16; aarch64 only."""
    return intrinsic("aarch64.neon.sdot.v4i32.v16i8", "int32x4", acc, a, b)


def smmla(acc: Vector, a: Vector, b: Vector) -> Vector:
    """int32[2, 2] plus the product of int8[2, 8] and the transpose of int8[2, 8]; aarch64 only."""
    return intrinsic("aarch64.neon.smmla.v4i32.v16i8", "int32x4", acc, a, b)


def lane(value: Vector, index: int) -> Vector:
    """32 bits of an int8x16 everywhere: the operand ``v.4b[index]`` of ``sdot``."""
    return T.reinterpret(tirx.Shuffle([T.reinterpret(value, dtype="int32x4")], [index] * 4), dtype="int8x16")


NEON64 = Neon(
    registers=32, together=4, prefix="aarch64.neon", long_product="smull", pair_sum="saddlp", accumulating="",
    pair_add="addp", pair_bits=128, high="sqrdmulh", saturated="sqxtn", shifted="sshl", shifted_rounding="srshl",
    load="ld1",
)  # fmt: skip
NEON32 = Neon(
    registers=16, together=2, prefix="arm.neon", long_product="vmulls", pair_sum="vpaddls", accumulating="vpadals",
    pair_add="vpadd", pair_bits=64, high="vqrdmulh", saturated="vqmovns", shifted="vshifts",
    shifted_rounding="vrshifts", load="vld1",
)  # fmt: skip
