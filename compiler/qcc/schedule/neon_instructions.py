"""The instructions of NEON that LLVM has by other names for aarch64 and for 32-bit ARM.

Vectors have 128 bits, halves 64. Everything that LLVM finds by itself (additions, shuffles, loads) is not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from qcc.schedule.intrinsic import modular_sum

Vector = Any

BEGIN, LOOK, TAKE, PART = "qcc_begin", "qcc_look", "qcc_take_", "qcc_part_"
"""Names of ``Neon.helpers``."""

_PLACES = f"""
define internal void @{BEGIN}(ptr %at, ptr %first) alwaysinline {{
  store ptr %first, ptr %at
  ret void
}}
define internal <16 x i8> @{LOOK}(ptr %at, i32 %offset) alwaysinline {{
  %from = load ptr, ptr %at
  %place = getelementptr i8, ptr %from, i32 %offset
  %vector = load <16 x i8>, ptr %place, align 1
  ret <16 x i8> %vector
}}
"""


def intrinsic(name: str, dtype: str, *operands: Any) -> Vector:
    """A call of an LLVM intrinsic without side effects."""
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id(f"llvm.{name}"), *operands, dtype=dtype)


@dataclass(frozen=True)
class Neon:
    """An instruction set: the prefix and suffixes of its intrinsics; docstrings have aarch64's mnemonics."""

    registers: int
    """Vectors."""
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

    def helpers(self, sums: int) -> str:
        """LLVM functions for ``Cursor``, and ``part`` with as many sums.

        The intrinsics that load several vectors return structures, unknown to TIR. A taken vector's address is hidden
        from LLVM, which otherwise writes all as sums with the first, and adds instructions.
        """
        takers = (line for count in range(1, self.registers // 8 + 1) for line in self._taker(count))
        return "\n".join([_PLACES, *takers, *(line for count in {0, sums} for line in _part(count))])

    def _taker(self, count: int) -> Iterator[str]:
        parts = f"{{ {', '.join(['<16 x i8>'] * count)} }}"
        load = f"@llvm.{self.prefix}.{self.load}x{count}.v16i8.p0"
        insert = f"@llvm.vector.insert.v{16 * count}i8.v16i8"
        if count > 1:
            yield f"declare {parts} {load}(ptr)"
            yield f"declare <{16 * count} x i8> {insert}(<{16 * count} x i8>, <16 x i8>, i64)"
        yield f"define internal <{16 * count} x i8> @{TAKE}{count}(ptr %at) alwaysinline {{"
        yield "  %from = load ptr, ptr %at"
        yield f"  %next = getelementptr i8, ptr %from, i32 {16 * count}"
        yield '  %hidden = call ptr asm "", "=r,0"(ptr %next)'
        yield "  store ptr %hidden, ptr %at"
        if count == 1:
            yield "  %with0 = load <16 x i8>, ptr %from, align 1"
        else:
            yield f"  %all = call {parts} {load}(ptr %from)"
            for i in range(count):
                before = f"%with{i - 1}" if i else "poison"
                yield f"  %part{i} = extractvalue {parts} %all, {i}"
                yield f"  %with{i} = call <{16 * count} x i8> {insert}(<{16 * count} x i8> {before}, <16 x i8> %part{i}, i64 {16 * i})"
        yield f"  ret <{16 * count} x i8> %with{count - 1}"
        yield "}"


class Cursor:
    """A place in memory from which vectors are taken one after the other, several by one instruction.

    ``ld1 {v0.16b-v3.16b}, [x], #64``.
    """

    def __init__(self, together: int) -> None:
        """Nowhere yet; an instruction loads ``together`` vectors at most."""
        self.together = together
        self.address = T.sblock_alloc_buffer((1,), "int64", scope="local")

    def begin(self, buffer: Any, offset: Any) -> None:
        """Go to an element of a flat buffer."""
        first = T.address_of(buffer[T.int32(0) + offset])
        T.evaluate(T.call_extern("void", BEGIN, T.address_of(self.address[0]), first))

    def look(self, offset: int = 0) -> Vector:
        """The vector ``offset`` bytes from here; neighbours are loaded in pairs (``ldp``)."""
        return T.bind(T.call_extern("int8x16", LOOK, T.address_of(self.address[0]), T.int32(offset)))

    def take(self, count: int) -> Iterator[Vector]:
        """The next ``count`` vectors, loaded together as they are asked for."""
        for first in range(0, count, self.together):
            size = min(self.together, count - first)
            wide = T.bind(T.call_extern(f"int8x{16 * size}", f"{TAKE}{size}", T.address_of(self.address[0])))
            for i in range(size):
                yield T.bind(tirx.Shuffle([wide], list(range(16 * i, 16 * i + 16)))) if size > 1 else wide


def part(sums: Any, count: int, *cursors: Cursor) -> None:
    """Whatever the cursors load from here on comes after the ``count`` vectors of the buffer ``sums``.

    LLVM may not move a load up across this, where it would spill registers; there is no instruction.
    """
    at = [T.address_of(c.address[0]) for c in cursors]
    T.evaluate(T.call_extern("void", f"{PART}{count}", T.address_of(sums[0]), at[0], at[-1]))


def _part(count: int) -> Iterator[str]:
    """``part``: assembly without instructions that is said to change its operands."""
    kinds = ["ptr", "ptr"] + ["<4 x i32>"] * count
    values = "".join(f", <4 x i32> %v{i}" for i in range(count))
    outputs, inputs = ",".join(["=r", "=r"] + ["=w"] * count), ",".join(map(str, range(count + 2)))
    yield f"define internal void @{PART}{count}(ptr %sums, ptr %a, ptr %b) alwaysinline {{"
    yield "  %x = load ptr, ptr %a"
    yield "  %y = load ptr, ptr %b"
    for i in range(count):
        yield f"  %p{i} = getelementptr <4 x i32>, ptr %sums, i32 {i}"
        yield f"  %v{i} = load <4 x i32>, ptr %p{i}"
    yield f'  %all = call {{ {", ".join(kinds)} }} asm "", "{outputs},{inputs}"(ptr %x, ptr %y{values})'
    for name, index in (("a", 0), ("b", 1)):
        yield f"  %{name}{name} = extractvalue {{ {', '.join(kinds)} }} %all, {index}"
        yield f"  store ptr %{name}{name}, ptr %{name}"
    for i in range(count):
        yield f"  %w{i} = extractvalue {{ {', '.join(kinds)} }} %all, {i + 2}"
        yield f"  store <4 x i32> %w{i}, ptr %p{i}"
    yield "  ret void"
    yield "}"


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
    registers=32, prefix="aarch64.neon", long_product="smull", pair_sum="saddlp", accumulating="", pair_add="addp", pair_bits=128, high="sqrdmulh",
    saturated="sqxtn", shifted="sshl", shifted_rounding="srshl", load="ld1",
)  # fmt: skip
NEON32 = Neon(
    registers=16, prefix="arm.neon", long_product="vmulls", pair_sum="vpaddls", accumulating="vpadals", pair_add="vpadd", pair_bits=64, high="vqrdmulh",
    saturated="vqmovns", shifted="vshifts", shifted_rounding="vrshifts", load="vld1",
)  # fmt: skip
