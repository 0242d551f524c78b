"""Schedules of the accelerator: a node's TIR, tiled as the search decided, every tile tensorized.

Extents are rounded up to whole tiles, so that there are no predicates; the walk cuts tiles to what exists. Where values
lie does not change the schedule: what a block reads is copied to its memory first, and the walk leaves out copies of what
is on chip already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tvm import s_tir, te
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcc.npu import isa, stages
from qcc.npu.intrinsics import SCOPES, Tile, intrinsic, read_index, read_whole
from qcc.npu.timing import up
from qcc.npu.walk import SCALING, WINDOW

Shape = tuple[int, ...]
Registers = Mapping[str, int]


def rounded(extents: Sequence[int], tile: Sequence[int]) -> Shape:
    """Extents up to whole tiles."""
    return tuple(up(n, t) * t for n, t in zip(extents, tile, strict=True))


def _tile(sch: Any, block: Any, tile: Sequence[int], order: Sequence[int] = ()) -> list[Any]:
    """Split every loop of a block; the loops over tiles, outermost first, in the given order of axes."""
    pairs = [sch.split(loop, [None, t]) for loop, t in zip(sch.get_loops(block), tile, strict=True)]
    outer = [pairs[k][0] for k in order or range(len(pairs))]
    sch.reorder(*outer, *(inner for _, inner in pairs))
    return outer


def _read(sch: Any, loop: Any, block: Any, name: str, memory: str) -> None:
    """Copy what a block reads of a tensor, inside a loop."""
    index = read_index(sch, block, name)
    sch.read_at(loop, block, index, SCOPES[memory])


def _write(sch: Any, loop: Any, block: Any) -> None:
    sch.write_at(loop, block, 0, SCOPES["act"])


def _tensorize(sch: Any, block: Any, rank: int, name: str) -> None:
    sch.tensorize(sch.get_loops(block)[-rank], name)


def window(kind: str, x: Sequence[int], result: Sequence[int], tile: Sequence[int], channels: int, order: Sequence[int],
           windows: Registers, scaling: Registers, *, repeat: int = 1, factors: Sequence[int] = (), residual: bool = False,
           table: bool = False) -> Any:
    """The function of a convolution, dense layer or pool.

    ``x`` (with padding) and ``result`` are images [batch, row, column, group, channel]; ``tile`` is the result's,
    ``channels`` the input channels of one instruction; ``order`` are the result's axes, outermost loop first.
    ``windows`` and ``scaling`` are registers. ``factors`` is the shape of the parameters.
    """
    weighted, each = kind in ("matmul", "depthwise"), len(factors) > 0 and factors[0] * factors[1] > 1
    r, scale = windows, {k: scaling.get(k, 0) for k in SCALING}
    taps = tuple(r[k] for k in ("kernel_h", "kernel_w"))
    shape = rounded(result, tile)

    def image(rows: int, columns: int) -> tuple[int, int]:
        """Of the input, for so many rows and columns of the result."""
        reach = [(n - 1) * r[f"stride_{k}"] + (r[f"kernel_{k}"] - 1) * r[f"dilation_{k}"] + 1
                 for n, k in ((rows, "h"), (columns, "w"))]
        return reach[0], reach[1]

    depth = up(x[4], channels) * channels if kind == "matmul" else 1
    data = te.placeholder((x[0], *image(*shape[1:3]), shape[3], depth if kind == "matmul" else shape[4] // repeat), "int8", "x")
    part = (1, *image(*tile[1:3]), 1, channels if kind == "matmul" else tile[4] // repeat)
    near, sums = Tile("act", part, "int8"), Tile("acc", tuple(tile), "int32")
    window_values = [r[k] for k in WINDOW]
    tensors = [data]
    if weighted:
        extents = (shape[3], *taps, depth, shape[4])
        weight = te.placeholder(extents, "int8", "w")
        p = te.placeholder((factors[0], shape[3], shape[4]), "int32", "p")
        more = ([te.placeholder(stages.table_shape(5), "int8", "table")] if table else []) + (
            [te.placeholder(shape, "int8", "residual")] if residual else [])
        tensors += [weight, p, *more]
        product = (partial(stages.products, channels=depth, r=r) if kind == "matmul" else
                   partial(stages.depthwise, repeat=repeat, r=r))
        acc = product(shape, x=data, w=weight)
        out = stages.requantized(shape, scale, table, residual, acc, p, *more)
    else:
        sums = Tile("vector", tuple(tile), "int8" if kind == "max_pool" else "int32")
        acc = stages.window(shape, kind, r, data)
        m = [te.placeholder((*rounded(factors[:2], tile[1:3] if each else (1, 1)), *factors[2:]), "int32", "m")] if factors else []
        tensors += m
        out = stages.pooled(shape, kind, scale, each, acc, *m)

    sch = s_tir.Schedule(te.create_prim_func([*tensors, out]))
    first, last = sch.get_sblock("acc"), sch.get_sblock("out")
    sch.set_scope(first, 0, SCOPES[sums.memory])
    if table:
        read_whole(sch, last, "table")
    loops = _tile(sch, last, tile, order)
    sch.compute_at(first, loops[-1], preserve_unit_loops=True)
    inner = sch.get_loops(first)[len(loops) :]
    at = loops[-1]
    if kind == "matmul":
        outer, k = sch.split(inner[-1], [None, channels])
        sch.reorder(outer, *inner[:-1], k)
        # Channels inside: all of a tile's input is loaded once.
        _read(sch, loops[list(order).index(2)], first, "x", "act")
        _read(sch, outer, first, "w", "weight")
        begin = sch.decompose_reduction(first, outer)
    else:
        _read(sch, at, first, "x", "act")
        if weighted:
            _read(sch, at, first, "w", "weight")
        begin = sch.decompose_reduction(first, inner[0])
    for name, memory in (("p", "param"), ("table", "param"), ("m", "param"), ("residual", "act")):
        if any(t.op.name == name for t in tensors):
            _read(sch, at, last, name, memory)
    _write(sch, at, last)

    value = -128 if kind == "max_pool" else 0
    _tensorize(sch, begin, 5, intrinsic("clear" if weighted else "begin", (), partial(
        stages.filled, tile, sums.dtype, value), [], sums))
    target, byte = Tile("act", tuple(tile), "int8"), Tile("param", stages.table_shape(5), "int8")
    if kind == "matmul":
        w_tile = Tile("weight", (1, *taps, channels, tile[4]), "int8")
        build: Callable[..., Any] = partial(stages.products, tile, channels, r)
        _tensorize(sch, first, 8, intrinsic("matmul", window_values, build, [near, w_tile], sums, adds=True))
    elif kind == "depthwise":
        w_tile = Tile("weight", (1, *taps, 1, tile[4]), "int8")
        build = partial(stages.depthwise, tile, repeat, r)
        _tensorize(sch, first, 7, intrinsic("depthwise", (*window_values, repeat), build, [near, w_tile], sums, adds=True))
    else:
        build = partial(stages.window, tile, kind, r)
        _tensorize(sch, first, 7, intrinsic(f"fold.{kind}", window_values, build, [near], sums, adds=True))
    if weighted:
        reads = [sums, Tile("param", (factors[0], 1, tile[4]), "int32"), *[byte] * table, *[target] * residual]
        build = partial(stages.requantized, tile, scale, table, residual)
        _tensorize(sch, last, 5, intrinsic("requantize", [*scale.values()], build, reads, target))
    else:
        entries = [Tile("param", (*(tile[1:3] if each else (1, 1)), *factors[2:]), "int32")] if factors else []
        build = partial(stages.pooled, tile, kind, scale, each)
        _tensorize(sch, last, 5, intrinsic(f"pool.{kind}", [*scale.values()], build, [sums, *entries], target))
    return sch.mod["main"]


def element(form: str, configured: str, registers: Registers, shape: Sequence[int],
            tile: Sequence[int], a: Sequence[int], b: tuple[Shape, str, str]) -> Any:
    """The function of an elementwise node. ``a``: extents of the first operand, 1 where it is repeated; ``b``: the
    second's extents, dtype and memory.
    """
    extents = rounded(shape, tile)
    b_shape, b_dtype, b_memory = b

    def part(own: Sequence[int], whole: Sequence[int]) -> Shape:
        return tuple(1 if n == 1 else w for n, w in zip(own, whole[len(whole) - len(own) :], strict=True))

    table = form == "table"
    left = te.placeholder(part(a, extents), "int8", "a")
    right = te.placeholder(b_shape if table else part(b_shape, extents), b_dtype, "b")
    near = Tile("act", part(a, tile), "int8")
    second = Tile(b_memory, b_shape if table else part(b_shape, tile), b_dtype)
    target = Tile("act", tuple(tile), "int8")
    sch = s_tir.Schedule(te.create_prim_func([left, right, stages.element(extents, form, registers, left, right)]))
    block = sch.get_sblock("out")
    at = _tile(sch, block, tile)[-1]
    _read(sch, at, block, "a", "act")
    if table:
        read_whole(sch, block, "b")
    _read(sch, at, block, "b", b_memory)
    _write(sch, at, block)
    build = partial(stages.element, tile, form, registers)
    values = [registers.get(k, 0) for k in isa.OPERATIONS["configure"].forms[configured]] if configured else []
    _tensorize(sch, block, len(tile), intrinsic(f"element.{form}.{configured}", values, build, [near, second], target))
    return sch.mod["main"]


def softmax(form: str, shape: Sequence[int], tile: Sequence[int]) -> Any:
    """Rows of a softmax: one instruction, whose dozen of stages is not taken apart (``numerics.softmax``)."""
    extents = rounded(shape, tile)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        x, table, y = (T.arg(n, T.buffer(s, d)) for n, s, d in (
            ("a", extents, "int8"), ("b", (256,), "int32"), ("out", extents, "int8")))
        counts = [n // t for n, t in zip(extents, tile, strict=True)]
        with T.sblock("root"), T.grid(*counts, 1) as loops, T.sblock("out"):
            v = [T.axis.spatial(n, i) for n, i in zip(counts, loops, strict=False)]
            region = tuple(slice(i * t, i * t + t) for i, t in zip(v, tile, strict=True))
            T.reads(x[region], table[0:256])
            T.writes(y[region])
            T.evaluate(T.call_extern("int32", f"element.{form}."))
    sch = s_tir.Schedule(builder.get())
    block = sch.get_sblock("out")
    at = sch.get_loops(block)[-1]
    _read(sch, at, block, "a", "act")
    _read(sch, at, block, "b", "param")
    _write(sch, at, block)
    return sch.mod["main"]


def move(shape: Sequence[int], tile: Sequence[int], value: int | None) -> Any:
    """The function of a node that moves bytes, or fills with ``value``."""
    extents = rounded(shape, tile)
    target = Tile("", tuple(tile), "int8")
    source = [] if value is not None else [te.placeholder(extents, "int8", "x")]

    def build(own: Sequence[int], *x: Any) -> Any:
        return stages.copied(own, *x) if x else stages.filled(own, "int8", value or 0)

    made = build(extents, *source)
    sch = s_tir.Schedule(te.create_prim_func([*source, made]))
    block = sch.get_sblock(made.op.name)
    _tile(sch, block, tile)
    _tensorize(sch, block, len(tile), intrinsic("move", [] if value is None else [value], partial(build, tile),
                                                [target] * len(source), target))  # fmt: skip
    return sch.mod["main"]
