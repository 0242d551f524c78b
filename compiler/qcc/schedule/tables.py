"""Lookups in tables of 256 bytes by permutations of 16 bytes, for x86 with SSSE3's ``pshufb`` in any width."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from qcc.lower import expressions
from qcc.lower.kernel import Kernel
from qcc.schedule import simple
from qcc.schedule.decide import Decide
from qcc.schedule.intrinsic import Parameter, describe_block, implement, register_once

PERMUTE = {64: "llvm.x86.avx512.pshuf.b.512", 32: "llvm.x86.avx2.pshuf.b"}
"""Permutation within each 16 bytes, by bytes of a vector."""


@register_once
def lookup(width: int, storage: str) -> tuple[Any, Any]:
    """``d[i] = table[x[i] + 128]``: the low four bits choose from each row of 16, the others choose the row, bit by bit."""
    x: Parameter = ("x", (width,), storage)
    table: Parameter = ("table", (256,), storage)
    d: Parameter = ("d", (width,), storage)
    vector, first = f"int8x{width}", expressions.STORED[storage][0]

    def meaning(entries: Any, source: Any, out: Any) -> None:
        with T.serial(width) as i, T.sblock("out"):
            v = T.axis.spatial(width, i)
            T.reads(entries[0:256], source[v])
            T.writes(out[v])
            T.buffer_store(out, entries[T.Cast("int32", source[v]) - first], [v])

    def body(entries: Any, source: Any, out: Any) -> None:
        index = T.reinterpret(source.vload([0], f"{storage}x{width}"), dtype=vector)
        low = T.bitwise_and(index, T.broadcast(T.int8(15), width))
        rows = []
        for row in range(16):
            # Of a signed index the highest bit is that of the row inverted.
            start = 16 * (row if storage == "uint8" else row ^ 8)
            sixteen = T.reinterpret(entries.vload([start], f"{storage}x16"), dtype="int8x16")
            wide = tirx.Shuffle([sixteen] * (width // 16), list(range(width)))
            permute = T.llvm_lookup_intrinsic_id(PERMUTE[width])
            rows.append(T.call_llvm_pure_intrin(permute, wide, low, dtype=vector))
        for bit in (16, 32, 64, -128):
            hit = T.bitwise_and(index, T.broadcast(T.int8(bit), width)) != T.broadcast(T.int8(0), width)
            rows = [tirx.Select(hit, odd, even) for even, odd in zip(rows[::2], rows[1::2], strict=True)]
        T.buffer_store(out, T.reinterpret(rows[0], dtype=f"{storage}x{width}"), [T.ramp(T.int32(0), 1, width)])

    return describe_block([table, x], d, meaning), implement([table, x], d, body)


def lut(width: int, sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Vectors of ``width`` bytes where the inner loop is a whole number of them; else bytes."""
    x, y = kernel.view("x"), kernel.view("y")
    inner = simple.spread(sch)
    if int(sch.get(inner).extent) % width == 0 and x.strides[-1] == y.strides[-1] == 1:
        _, lanes = sch.split(inner, [None, width])
        # The index depends on data: without this the region that the block reads would be that index.
        whole = [(0, extent) for extent in kernel.view("table").shape]
        sch.annotate_buffer_access(sch.get_sblock("out"), 0, "read", lambda *_: whole)
        sch.tensorize(lanes, lookup(width, y.dtype))
