"""Loads in an order that LLVM keeps, several vectors by one instruction.

LLVM moves loads up until registers are spilled, and writes every address as a sum with the first. Here a load's
address is hidden from it: it is read from a cursor, which moves on by post-increment, and which empty assembly says to
depend on the sums so far. The helpers are LLVM functions, because the intrinsics that load several vectors return
structures, which TIR does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from qcc.schedule.neon_instructions import Neon, Vector

BEGIN, LOOK, TAKE, HIDE = "qcc_begin", "qcc_look", "qcc_take_", "qcc_hide_"
"""Names of the helpers; those of the last two end in a number of vectors."""

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


def helpers(neon: Neon, sums: int) -> str:
    """LLVM text of what ``Cursor`` calls, in a function whose tiles have ``sums`` vectors."""
    takers = (line for count in range(1, neon.together + 1) for line in _taker(neon, count))
    return "\n".join([_PLACES, *takers, *(line for count in {0, sums} for line in _hider(count))])


def _taker(neon: Neon, count: int) -> Iterator[str]:
    """Load ``count`` vectors as one wide vector and move on."""
    wide, several = f"<{16 * count} x i8>", f"{{ {', '.join(['<16 x i8>'] * count)} }}"
    load = f"@llvm.{neon.prefix}.{neon.load}x{count}.v16i8.p0"
    insert = f"@llvm.vector.insert.v{16 * count}i8.v16i8"
    if count > 1:
        yield f"declare {several} {load}(ptr)"
        yield f"declare {wide} {insert}({wide}, <16 x i8>, i64)"
    yield f"define internal {wide} @{TAKE}{count}(ptr %at) alwaysinline {{"
    yield "  %from = load ptr, ptr %at"
    yield f"  %next = getelementptr i8, ptr %from, i32 {16 * count}"
    yield '  %hidden = call ptr asm "", "=r,0"(ptr %next)'
    yield "  store ptr %hidden, ptr %at"
    if count == 1:
        yield f"  %w0 = load {wide}, ptr %from, align 1"
    else:
        yield f"  %all = call {several} {load}(ptr %from)"
        for i in range(count):
            before = f"%w{i - 1}" if i else "poison"
            yield f"  %v{i} = extractvalue {several} %all, {i}"
            yield f"  %w{i} = call {wide} {insert}({wide} {before}, <16 x i8> %v{i}, i64 {16 * i})"
    yield f"  ret {wide} %w{count - 1}"
    yield "}"


def _hider(count: int) -> Iterator[str]:
    """Empty assembly that is said to change an address and ``count`` vectors."""
    kinds = f"{{ {', '.join(['ptr'] + ['<4 x i32>'] * count)} }}"
    outputs, inputs = ",".join(["=r"] + ["=w"] * count), ",".join(map(str, range(count + 1)))
    yield f"define internal void @{HIDE}{count}(ptr %at, ptr %sums) alwaysinline {{"
    yield "  %from = load ptr, ptr %at"
    for i in range(count):
        yield f"  %p{i} = getelementptr <4 x i32>, ptr %sums, i32 {i}"
        yield f"  %v{i} = load <4 x i32>, ptr %p{i}"
    values = "".join(f", <4 x i32> %v{i}" for i in range(count))
    if not count:
        yield f'  %hidden = call ptr asm "", "{outputs},{inputs}"(ptr %from)'
    else:
        yield f'  %all = call {kinds} asm "", "{outputs},{inputs}"(ptr %from{values})'
        yield f"  %hidden = extractvalue {kinds} %all, 0"
    yield "  store ptr %hidden, ptr %at"
    for i in range(count):
        yield f"  %w{i} = extractvalue {kinds} %all, {i + 1}"
        yield f"  store <4 x i32> %w{i}, ptr %p{i}"
    yield "  ret void"
    yield "}"


class Cursor:
    """A place in memory from which vectors are taken one after the other (``ld1 {v0.16b-v3.16b}, [x], #64``)."""

    def __init__(self, neon: Neon) -> None:
        """Nowhere yet."""
        self.together = neon.together
        self.address = T.sblock_alloc_buffer((1,), "int64", scope="local")

    def _call(self, dtype: str, helper: str, *operands: Any) -> Any:
        return T.call_extern(dtype, helper, T.address_of(self.address[0]), *operands)

    def begin(self, buffer: Any, offset: Any) -> None:
        """Go to an element of a flat buffer."""
        T.evaluate(self._call("void", BEGIN, T.address_of(buffer[T.int32(0) + offset])))

    def hide(self) -> None:
        """Have LLVM not know where this is, so that it cannot tell equal values."""
        T.evaluate(self._call("void", f"{HIDE}0", T.address_of(self.address[0])))

    def wait(self, sums: Any, count: int) -> None:
        """Whatever is loaded from here on comes after the ``count`` vectors of the buffer ``sums``."""
        T.evaluate(self._call("void", f"{HIDE}{count}", T.address_of(sums[0])))

    def look(self, offset: int = 0) -> Vector:
        """The vector ``offset`` bytes from here; neighbours are loaded in pairs (``ldp``)."""
        return T.bind(self._call("int8x16", LOOK, T.int32(offset)))

    def take(self, count: int) -> Iterator[Vector]:
        """The next ``count`` vectors, loaded together as they are asked for."""
        for first in range(0, count, self.together):
            size = min(self.together, count - first)
            wide = T.bind(self._call(f"int8x{16 * size}", f"{TAKE}{size}"))
            for i in range(size):
                yield T.bind(tirx.Shuffle([wide], list(range(16 * i, 16 * i + 16)))) if size > 1 else wide
