"""Scheduled TIR → a function with plain C parameters, free of TVM's runtime.

TVM's own pipeline ends in its packed calling convention and moves stack buffers above 1 KB to its workspace allocator.
Here buffer parameters become typed pointers, and those two passes are left out.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx

BLOCKS_TO_LOOPS = [
    s_tir.transform.CanonicalizeLoop(), s_tir.transform.LowerInitBlock(),
    s_tir.transform.PlanAndUpdateBufferAllocationLocation(), s_tir.transform.ConvertBlocksToOpaque(),
    s_tir.transform.CompactBufferAllocation(), s_tir.transform.LowerMatchBuffer(), s_tir.transform.StmtSimplify(),
    s_tir.transform.LowerOpaqueBlock(), tirx.transform.FlattenBuffer(), tirx.transform.NarrowDataType(32),
]  # fmt: skip
LOOPS_TO_VECTORS = [
    s_tir.transform.LoopPartition(), tirx.transform.VectorizeLoop(True), tirx.transform.StorageRewrite(),
    tirx.transform.UnrollLoop(), tirx.transform.StmtSimplify(), tirx.transform.RemoveNoOp(),
]  # fmt: skip


EXTENT = "qcc.extent"
"""Attribute of a function that has the trailing (begin, end) already: the extent of what it shares out."""
MAGIC, MAGIC_BITS = 1.5 * 2.0**23, 0x4B400000
"""A float32 whose last bit is worth one, and its bits: they grow with what is added to it, rounded half to even."""


def nearest_integer(cast: Any) -> Any:
    """``int32(nearbyint(v))`` as an addition of floats and one of integers; v is a stored value, far from 2^22.

    Some machines have no instruction that rounds, and no libm is linked; on others it saves one.
    """
    if str(cast.ty.dtype) != "int32" or getattr(getattr(cast.value, "op", None), "name", "") != "tirx.nearbyint":
        return cast
    moved = cast.value.args[0] + tirx.const(MAGIC, "float32")
    return tirx.reinterpret("int32", moved) - tirx.const(MAGIC_BITS, "int32")


def plain_function(func: Any, symbol: str, target: Any) -> tuple[Any, int]:
    """(function with pointer parameters and a trailing (begin, end), extent of the outermost parallel loop)."""
    lowered = tvm.ir.transform.Sequential(BLOCKS_TO_LOOPS)(tvm.IRModule({"main": func}))["main"]
    if EXTENT in func.attrs:
        *buffers, begin, end = lowered.params
        body, extent = lowered.body, int(func.attrs[EXTENT])
    else:
        buffers, begin, end = lowered.params, tirx.Var("begin", "int32"), tirx.Var("end", "int32")
        body, extent = _bounded(lowered.body, begin, end)
    body = tvm_ffi.structural_map(body, (tirx.Cast, nearest_integer))
    pointers, declarations = [], []
    for buffer in buffers:
        pointer = tirx.Var(buffer.name, tvm.ir.PointerType(tvm.ir.PrimType(str(buffer.dtype))))
        pointers.append(pointer)
        declarations.append(tirx.DeclBuffer(buffer, data=pointer))
    plain = tirx.PrimFunc([*pointers, begin, end], tirx.SeqStmt([*declarations, body]))
    plain = plain.with_attrs({"global_symbol": symbol, "target": target, "tirx.noalias": True})
    finish = tvm.ir.transform.Sequential([*LOOPS_TO_VECTORS, tirx.transform.LowerIntrin()])
    module = finish(tvm.IRModule({symbol: plain}))
    return module[symbol], extent


def _bounded(body: Any, begin: Any, end: Any) -> tuple[Any, int]:
    """The body with its parallel loop from begin to end, and the extent that this loop had."""
    extents: list[int] = []

    def bound(loop: Any) -> Any:
        if loop.kind != tirx.ForKind.PARALLEL:
            return loop
        extents.append(int(loop.extent))
        return tirx.For(loop.loop_var, begin, end - begin, tirx.ForKind.SERIAL, loop.body)

    body = tvm_ffi.structural_map(body, (tirx.For, bound))
    if not extents:  # a parallel loop of one iteration was dropped
        return tirx.For(tirx.Var("once", "int32"), begin, end - begin, tirx.ForKind.SERIAL, body), 1
    assert len(extents) == 1, f"a schedule marks exactly one loop parallel, not {len(extents)}"
    return body, extents[0]
