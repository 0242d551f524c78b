"""Schedules of the accelerator: a node's TIR, tiled as the search decided, every tile tensorized.

Extents are rounded up to whole tiles, so that there are no predicates; the walk cuts tiles to what exists. Where
values lie does not change the schedule: what a block reads is copied to its memory first, and the walk leaves out
copies of what is on chip already.
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
from qcc.numerics import INT8_MIN

Shape = tuple[int, ...]
Registers = Mapping[str, int]


def rounded(extents: Sequence[int], tile: Sequence[int]) -> Shape:
    """Extents up to whole tiles."""
    return tuple(up(n, t) * t for n, t in zip(extents, tile, strict=True))


def _tile(sch: Any, block: Any, tile: Sequence[int], order: Sequence[int] = ()) -> list[Any]:
    """Split every loop of a block; returns the loops over tiles, in the given order of axes."""
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


class _Windows:
    """What the functions of convolutions, dense layers and pools have in common.

    Images are [batch, row, column, group, channel]; ``tile`` is of the result, of one image and one group.
    """

    def __init__(self, result: Sequence[int], tile: Sequence[int], windows: Registers) -> None:
        """``result``: its extents; ``windows``: registers."""
        self.r, self.tile = windows, tuple(tile)
        self.shape = rounded(result, tile)
        self.taps = (windows["kernel_h"], windows["kernel_w"])
        self.values = [windows[k] for k in WINDOW]
        self.target = Tile("act", self.tile, "int8")

    def image(self, shape: Shape, channels: int) -> Shape:
        """The input of a part of the result."""
        rows, columns = ((n - 1) * self.r[f"stride_{k}"] + (self.r[f"kernel_{k}"] - 1) * self.r[f"dilation_{k}"] + 1
                         for n, k in ((shape[1], "h"), (shape[2], "w")))  # fmt: skip
        return (shape[0], rows, columns, shape[3], channels)

    def start(self, tensors: Sequence[Any], sums: Tile, order: Sequence[int]) -> tuple[Any, Any, Any, list[Any]]:
        """A schedule with both stages inside the loops over tiles: it, the stages, these loops."""
        sch = s_tir.Schedule(te.create_prim_func(tensors))
        first, last = sch.get_sblock("acc"), sch.get_sblock("out")
        sch.set_scope(first, 0, SCOPES[sums.memory])
        loops = _tile(sch, last, self.tile, order)
        sch.compute_at(first, loops[-1], preserve_unit_loops=True)
        return sch, first, last, loops

    def begin(self, sch: Any, block: Any, loop: Any, sums: Tile, call: str, value: int = 0) -> None:
        """Where a reduction begins."""
        build = partial(stages.filled, self.tile, sums.dtype, value)
        _tensorize(sch, sch.decompose_reduction(block, loop), 5, intrinsic(call, (), build, [], sums))


def weighted(kind: str, result: Sequence[int], tile: Sequence[int], order: Sequence[int], windows: Registers,
             scaling: Registers, *, inputs: int, channels: int, repeat: int, rows: int, residual: bool,
             table: bool) -> Any:  # fmt: skip
    """The function of a convolution or dense layer.

    ``order`` are the result's axes, outermost loop first. A matmul has ``inputs`` channels in a group, of which an
    instruction takes ``channels``; a depthwise convolution has ``repeat`` outputs of each. ``rows`` of parameters.
    """
    w, scale = _Windows(result, tile, windows), {k: scaling.get(k, 0) for k in SCALING}
    depthwise, (groups, outputs) = kind == "depthwise", w.shape[3:]
    depth = 1 if depthwise else up(inputs, channels) * channels
    x = te.placeholder(w.image(w.shape, outputs // repeat if depthwise else depth), "int8", "x")
    weight = te.placeholder((groups, *w.taps, depth, outputs), "int8", "w")
    p = te.placeholder((rows, groups, outputs), "int32", "p")
    more = [te.placeholder(stages.table_shape(5), "int8", "table")] if table else []
    more += [te.placeholder(w.shape, "int8", "residual")] if residual else []

    def sums_of(shape: Shape, taken: int) -> Callable[..., Any]:
        if depthwise:
            return partial(stages.depthwise, shape, repeat, windows)
        return partial(stages.products, shape, taken, windows)

    acc = sums_of(w.shape, depth)(x, weight)
    out = stages.requantized(w.shape, scale, table, residual, acc, p, *more)
    sums = Tile("acc", w.tile, "int32")
    sch, first, last, loops = w.start([x, weight, p, *more, out], sums, order)
    at, inner = loops[-1], sch.get_loops(first)[len(loops) :]
    if table:
        read_whole(sch, last, "table")
    if depthwise:
        outer = inner[0]
        _read(sch, at, first, "x", "act")
        _read(sch, at, first, "w", "weight")
    else:
        outer, k = sch.split(inner[-1], [None, channels])
        sch.reorder(outer, *inner[:-1], k)
        # Outside of the loop over channels, if that is the inner one: all that a tile reads is loaded once.
        _read(sch, loops[list(order).index(2)], first, "x", "act")
        _read(sch, outer, first, "w", "weight")
    for name in ["p", *(["table"] if table else [])]:
        _read(sch, at, last, name, "param")
    if residual:
        _read(sch, at, last, "residual", "act")
    _write(sch, at, last)

    w.begin(sch, first, outer, sums, "clear")
    taken = tile[4] // repeat if depthwise else channels
    operands = [Tile("act", w.image(w.tile, taken), "int8"),
                Tile("weight", (1, *w.taps, 1 if depthwise else channels, tile[4]), "int8")]  # fmt: skip
    _tensorize(sch, first, 7 if depthwise else 8, intrinsic(
        kind, [*w.values, *([repeat] if depthwise else [])], sums_of(w.tile, channels), operands, sums, adds=True))
    reads = [sums, Tile("param", (rows, 1, tile[4]), "int32"),
             *[Tile("param", stages.table_shape(5), "int8")] * table, *[w.target] * residual]  # fmt: skip
    build = partial(stages.requantized, w.tile, scale, table, residual)
    _tensorize(sch, last, 5, intrinsic("requantize", [*scale.values()], build, reads, w.target))
    return sch.mod["main"]


def pool(form: str, result: Sequence[int], tile: Sequence[int], order: Sequence[int], windows: Registers,
         scaling: Registers, factors: Shape) -> Any:  # fmt: skip
    """The function of a pool. ``factors``: extents of an average's parameters [rows or 1, columns or 1, entries]."""
    w, scale = _Windows(result, tile, windows), {k: scaling.get(k, 0) for k in SCALING}
    each = len(factors) > 0 and factors[0] * factors[1] > 1
    part = (*(tile[1:3] if each else (1, 1)), *factors[2:])
    sums = Tile("vector", w.tile, "int8" if form == "max_pool" else "int32")
    x = te.placeholder(w.image(w.shape, w.shape[4]), "int8", "x")
    m = [te.placeholder((*rounded(factors, part),), "int32", "m")] if factors else []
    out = stages.pooled(w.shape, form, scale, each, stages.window(w.shape, form, windows, x), *m)
    sch, first, last, loops = w.start([x, *m, out], sums, order)
    at, inner = loops[-1], sch.get_loops(first)[len(loops) :]
    _read(sch, at, first, "x", "act")
    if factors:
        _read(sch, at, last, "m", "param")
    _write(sch, at, last)

    w.begin(sch, first, inner[0], sums, "begin", INT8_MIN if form == "max_pool" else 0)
    near = Tile("act", w.image(w.tile, tile[4]), "int8")
    build: Callable[..., Any] = partial(stages.window, w.tile, form, windows)
    _tensorize(sch, first, 7, intrinsic(f"fold.{form}", w.values, build, [near], sums, adds=True))
    build = partial(stages.pooled, w.tile, form, scale, each)
    entries = [Tile("param", part, "int32")] if factors else []
    _tensorize(sch, last, 5, intrinsic(f"pool.{form}", [*scale.values()], build, [sums, *entries], w.target))
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
