"""Lookups in tables of 256 bytes by permutations of 16 bytes, for x86 with SSSE3's ``pshufb`` in any width.

A tensor intrinsic cannot stand for a load whose index is data, so the schedule replaces the block itself.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.ir import Range
from tvm.script.ir_builder import tirx as T

from qcc.lower.kernel import Kernel
from qcc.schedule import simple
from qcc.schedule.decide import Decide

PERMUTE = {64: "llvm.x86.avx512.pshuf.b.512", 32: "llvm.x86.avx2.pshuf.b"}
"""Permutation within each 16 bytes, by bytes of a vector."""


def lookup(table: Any, x: Any, width: int, storage: str) -> Any:
    """``table[x + 128]`` of a vector of stored bytes: the low four bits choose in each row of 16, the others a row."""
    vector = f"int8x{width}"
    index = T.reinterpret(x, dtype=vector)
    low = T.bitwise_and(index, T.broadcast(T.int8(15), width))
    permute = T.llvm_lookup_intrinsic_id(PERMUTE[width])
    rows = []
    for row in range(16):
        # In int8 the highest bit of an index is inverted.
        start = 16 * (row if storage == "uint8" else row ^ 8)
        sixteen = T.reinterpret(table.vload([start], f"{storage}x16"), dtype="int8x16")
        wide = tirx.Shuffle([sixteen] * (width // 16), list(range(width)))
        rows.append(T.call_llvm_pure_intrin(permute, wide, low, dtype=vector))
    for bit in (16, 32, 64, -128):
        hit = T.bitwise_and(index, T.broadcast(T.int8(bit), width)) != T.broadcast(T.int8(0), width)
        rows = [tirx.Select(hit, odd, even) for even, odd in zip(rows[::2], rows[1::2], strict=True)]
    return T.reinterpret(rows[0], dtype=f"{storage}x{width}")


def lut(width: int, sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Vectors of ``width`` bytes where the inner loop is a whole number of them; else byte by byte."""
    x, y = kernel.view("x"), kernel.view("y")
    inner = simple.spread(sch)
    if int(sch.get(inner).extent) % width or (x.strides[-1], y.strides[-1]) != (1, 1):
        return
    _, lanes = sch.split(inner, [None, width])
    outer = sch.blockize(lanes)
    block = sch.get(outer)
    (written,), read = block.writes, {str(region.source.name): region.source for region in block.reads}
    at = [r.min for r in written.region]
    vector = lookup(read["table"], read["x"].vload(at, f"{y.dtype}x{width}"), width, y.dtype)
    whole = tirx.BufferRegion(read["table"], [Range(0, 256)])
    source = tirx.BufferRegion(read["x"], written.region)
    store = tirx.BufferStore(written.source, vector, [*at[:-1], tirx.Ramp(at[-1], 1, width)])
    replacement = type(block)(block.iter_vars, [source, whole], block.writes, "lookup", store)
    sch.state.replace(sch.get_sref(outer), replacement, {block: replacement})
