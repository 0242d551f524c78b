"""Products of two activations for x86: pairs of centred int16 operands, added by ``vpmaddwd``."""

from __future__ import annotations

import math
from typing import Any

from tvm.script.ir_builder import tirx as T

from qcc.lower.kernel import Kernel
from qcc.schedule import simple
from qcc.schedule.decide import Decide
from qcc.schedule.intrinsic import Parameter, describe_block, implement, register_once
from qcc.schedule.tiles import divisors, nearest_divisor, register_tile

MULTIPLY_ADD = {16: "llvm.x86.avx512.pmaddw.d.512", 8: "llvm.x86.avx2.pmadd.wd"}
"""int16 by int16, neighbouring products added, by int32 lanes."""


@register_once
def dot(lanes: int) -> tuple[Any, Any]:
    """``c[i] += sum_k a[k] * b[i, k]``: two elements of a row against ``lanes`` columns."""
    a: Parameter = ("a", (2,), "int16")
    b: Parameter = ("b", (lanes, 2), "int16")
    c: Parameter = ("c", (lanes,), "int32")

    def meaning(pair: Any, columns: Any, sums: Any) -> None:
        with T.grid(lanes, 2) as (i, k), T.sblock("update"):
            i, k = T.axis.remap("SR", [i, k])
            T.buffer_store(sums, sums[i] + T.Cast("int32", pair[k]) * T.Cast("int32", columns[i, k]), [i])

    def body(pair: Any, columns: Any, sums: Any) -> None:
        vector, at = f"int16x{2 * lanes}", [T.ramp(T.int32(0), 1, lanes)]
        both = T.broadcast(T.reinterpret(pair.vload([0], "int16x2"), dtype="int32"), lanes)
        multiply = T.llvm_lookup_intrinsic_id(MULTIPLY_ADD[lanes])
        products = T.call_llvm_pure_intrin(
            multiply, T.reinterpret(both, dtype=vector), columns.vload([0, 0], dtype=vector), dtype=f"int32x{lanes}"
        )
        T.buffer_store(sums, sums[tuple(at)] + products, at)

    return describe_block([a, b], c, meaning), implement([a, b], c, body, update=True)


def matmul(accumulators: int, sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Tiles of rows x columns in registers; an iteration of the parallel loop widens b once, a tile its rows of a."""
    left, right, acc, out = (sch.get_sblock(name) for name in ("left", "right", "acc", "out"))
    lanes = kernel.param("lanes")
    rows, blocks = kernel.view("y").shape[-2], -(-kernel.view("y").shape[-1] // lanes)
    rows_default, cols_default = register_tile(rows, blocks, accumulators)
    tile = decide("rows", divisors(rows, accumulators), rows_default)
    cols = decide("cols", divisors(blocks, 8), cols_default)
    *batch, row, column, k = sch.get_loops(acc)
    count = math.prod(kernel.view("y").shape[:-2])
    default = nearest_divisor(rows // tile, max(1, simple.UNITS // 2 // count))
    shares = nearest_divisor(rows // tile, decide("shares", divisors(rows), default))
    share, chunk, m = sch.split(row, [shares, None, tile])
    sch.reverse_compute_at(out, chunk)
    sch.compute_at(left, chunk)
    sch.compute_at(right, share)
    sch.parallel(sch.fuse(*batch, share))
    no, nr, ni = sch.split(column, [None, cols, lanes])
    ko, ki = sch.split(k, [None, 2])
    sch.reorder(no, ko, m, nr, ni, ki)
    init = sch.decompose_reduction(acc, ko)
    *_, im, ir, ii = sch.get_loops(init)
    sch.vectorize(ii)
    for loop in (im, ir):
        sch.unroll(loop)
    sch.tensorize(ni, dot(lanes))
    for loop in (m, nr):
        sch.unroll(loop)
