"""The accelerator's instructions as tensor intrinsics of TIR.

What an instruction computes is what the node computes, for one tile: the description is made by the same function as
the node's block. The implementation is a call that names the instruction, with the values of ``configure``. Extents are
operands of an instruction, so that emission may cut a tile at the edge of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import s_tir, te, tirx
from tvm.ir import Range
from tvm.s_tir import TensorIntrin
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcc.lower.expressions import i32
from qcc.schedule.intrinsic import restride

Build = Callable[..., Any]
SCOPES = {m: f"global.{m}" for m in ("act", "weight", "acc", "param", "vector")}
"""TIR's names of the memories; ``vector`` are the registers of the vector unit."""


@dataclass(frozen=True)
class Tile:
    """An operand of an instruction."""

    memory: str
    shape: tuple[int, ...]
    dtype: str

    def buffer(self, name: str) -> Any:
        """Its buffer."""
        return tirx.decl_buffer(self.shape, self.dtype, name, scope=SCOPES.get(self.memory, "global"), offset_factor=1)


def intrinsic(call: str, arguments: Sequence[int], build: Build, inputs: Sequence[Tile], output: Tile,
             adds: bool = False) -> str:
    """The intrinsic of ``build(*tensors)`` over tiles; ``adds``: of a reduction without its initialization."""
    name = f"qcc.npu.{call}{arguments}{inputs}{output}"
    if TensorIntrin.get(name, allow_missing=True) is None:
        TensorIntrin.register(name, _describe(build, inputs, output, adds),
                              _implement(call, arguments, inputs, output, adds))
    return name


def read_index(sch: Any, block: Any, name: str) -> int:
    """Which of a block's reads is of the buffer."""
    return next(k for k, r in enumerate(sch.get(block).reads) if r.source.name == name)


def read_whole(sch: Any, block: Any, table: str) -> None:
    """State that a block may read all of a table, as the index is data. TVM wants as many axes as the block has."""
    sch.annotate_buffer_access(block, read_index(sch, block, table), "read",
                               lambda *axes: [*[(0, 1)] * (len(axes) - 1), (0, 256)])  # fmt: skip


def _describe(build: Build, inputs: Sequence[Tile], output: Tile, adds: bool) -> Any:
    tensors = [te.placeholder(t.shape, t.dtype, f"i{k}") for k, t in enumerate(inputs)]
    made = build(*tensors)
    func = te.create_prim_func([*tensors, made])
    func = restride(func, [t.buffer(f"i{k}") for k, t in enumerate((*inputs, output))])
    sch = s_tir.Schedule(func)
    block = sch.get_sblock(made.op.name)
    for k, t in enumerate(inputs):
        if (t.memory, t.dtype) == ("param", "int8"):
            read_whole(sch, block, f"i{k}")
    if adds:
        sch.decompose_reduction(block, sch.get_loops(block)[0])
    outer = sch.get(sch.blockize(sch.get_loops(block)[0]))
    axes = [axis.var for axis in outer.iter_vars]

    def first(var: Any) -> Any:
        return i32(0) if any(var.same_as(axis) for axis in axes) else var

    body = tvm_ffi.structural_map(outer.body, (tirx.Var, first))
    reads, writes = ([_whole(r.source) for r in regions] for regions in (outer.reads, outer.writes))
    root = s_tir.SBlockRealize([], True, s_tir.SBlock([], reads, writes, "root", body))
    return tirx.PrimFunc(func.params, root, func.ret_type, func.attrs)


def _whole(buffer: Any) -> Any:
    return tirx.BufferRegion(buffer, [Range(0, extent) for extent in buffer.shape])


def _implement(call: str, arguments: Sequence[int], inputs: Sequence[Tile], output: Tile, adds: bool) -> Any:
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("impl")
        buffers = [T.arg(f"i{k}", t.buffer(f"i{k}")) for k, t in enumerate((*inputs, output))]
        with T.sblock("root"):
            whole = [b[tuple(slice(0, e) for e in b.shape)] for b in buffers]
            T.reads(*(whole if adds else whole[:-1]))
            T.writes(whole[-1])
            T.evaluate(T.call_extern("int32", call, *arguments))
    return builder.get()
