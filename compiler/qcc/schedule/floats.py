"""Schedules of float32, for every family: vectors that LLVM knows, sums in registers and in their stated order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from qcc.lower import float_expressions
from qcc.lower.kernel import Kernel
from qcc.schedule import simple
from qcc.schedule.decide import Decide
from qcc.schedule.intrinsic import Parameter, describe, implement, register_once, store_channels
from qcc.schedule.loops import gemm_loops
from qcc.schedule.tiles import divisors, gemm_chunk, nearest_divisor, register_tile

ACCUMULATORS = {16: 28, 8: 12, 4: 24}
"""Vectors of sums in registers, by the floats of a vector."""
UNROLLED = 256
"""Products of a depthwise tile that are written out."""


def fused(func: Any) -> Any:
    """The function with every sum and product of float32 as one fused multiply-add."""

    def fuse(e: Any) -> Any:
        if isinstance(e.b, tirx.Mul) and str(e.ty).startswith("float32"):
            return float_expressions.TIR.fma(e.b.a, e.b.b, e.a)
        return e

    return tvm_ffi.structural_map(func, (tirx.Add, fuse))


def conv_gemm(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Tiles of pixels x channels; a step of the reduction broadcasts an element of each pixel."""
    acc = sch.get_sblock("acc")
    _, _, width = kernel.param("outputs")
    blocks, lanes = kernel.view("w").shape[0], kernel.view("w").shape[4]
    most = ACCUMULATORS[lanes]
    rows_default, cols_default = register_tile(width, blocks, most)
    rows = decide("rows", divisors(width, most), rows_default)
    cols = decide("cols", divisors(blocks, 8), cols_default)
    chunk = gemm_chunk(kernel, decide, rows, cols)
    at, xi, nr, ni = gemm_loops(sch, kernel, rows, chunk, (cols, lanes))
    sch.compute_at(acc, at, preserve_unit_loops=True)
    pixel, channel, ky, kx, r = sch.get_loops(acc)[-5:]
    cr, cl = sch.split(channel, [cols, lanes])
    sch.reorder(ky, kx, r, pixel, cr, cl)
    _in_registers(sch, acc, ky, [pixel, cr], cl)
    sch.tensorize(ni, finish_layer(kernel, lanes))
    sch.unroll(nr)
    sch.unroll(xi)


def conv_depthwise(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Rows in parallel; a tile of ``pixels`` outputs of one vector of channels shares its taps in registers."""
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    _, taps_x, taps_y, lanes, _ = kernel.view("w").shape
    width = kernel.param("outputs")[2]
    pixels = decide("pixels", divisors(width, 16), nearest_divisor(width, 8))
    b, y, x, n = sch.get_loops(out)
    xo, xi = sch.split(x, [None, pixels])
    no, ni = sch.split(n, [None, lanes])
    sch.reorder(b, y, xo, no, xi, ni)
    sch.parallel(sch.fuse(b, y))
    sch.compute_at(acc, no, preserve_unit_loops=True)
    pixel, channel, kx, g, k = sch.get_loops(acc)[-5:]
    sch.reorder(kx, g, k, pixel, channel)
    _in_registers(sch, acc, kx, [pixel], channel)
    for loop in (kx, g, k) if taps_x * taps_y * pixels <= UNROLLED else ():
        sch.unroll(loop)
    sch.tensorize(ni, finish_layer(kernel, lanes))
    sch.unroll(xi)


def matmul(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Tiles of rows x columns in registers; columns are vectors where they lie side by side in b."""
    acc, out = sch.get_sblock("acc"), sch.get_sblock("out")
    rows, columns = kernel.view("y").shape[-2:]
    side_by_side = kernel.view("b").strides[-1] == 1
    lanes = vector(columns) if side_by_side else 1
    tile, cols = register_tile(rows, columns // lanes, 12)
    *outer, m, n = sch.get_loops(out)
    mo, mi = sch.split(m, [None, tile])
    no, ni = sch.split(n, [None, cols * lanes])
    sch.reorder(*outer, mo, no, mi, ni)
    simple.share(sch, [*outer, mo])
    sch.compute_at(acc, no, preserve_unit_loops=True)
    row, column, k = sch.get_loops(acc)[-3:]
    cr, cl = sch.split(column, [cols, lanes])
    sch.reorder(k, row, cr, cl)
    _in_registers(sch, acc, k, [row, cr], cl)


def elementwise(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Outer axes in parallel, the innermost in vectors: LLVM would not vectorize what keeps roundings apart."""
    inner = simple.spread(sch)
    sch.vectorize(sch.split(inner, [None, vector(int(sch.get(inner).extent))])[1])


def softmax(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Rows one by one: the maximum, the powers, their sum, the quotients."""
    simple.rows(sch, kernel, ["top", "power", "total"])
    power = sch.get_loops(sch.get_sblock("power"))[-1]
    sch.vectorize(sch.split(power, [None, vector(kernel.view("x").shape[-1])])[1])


def dynamic_steps(sch: Any, kernel: Kernel, decide: Decide) -> None:
    """Partial maxima in vectors, then the largest of them."""
    part = sch.get_sblock("part")
    lane, *taps = sch.get_loops(part)
    sch.reorder(*taps, lane)
    _in_registers(sch, part, taps[0], [], lane)


def _in_registers(sch: Any, acc: Any, reduction: Any, tile: Sequence[Any], lane: Any) -> None:
    """Write out the loops of a tile inside the reduction, and of its beginning: ``lane`` as vectors."""
    sch.vectorize(lane)
    for loop in tile:
        sch.unroll(loop)
    init = sch.decompose_reduction(acc, reduction)
    *outer, last = sch.get_loops(init)[-1 - len(tile) :]
    sch.vectorize(last)
    for loop in outer:
        sch.unroll(loop)


def vector(extent: int) -> int:
    """The largest divisor of an extent that is at most 16."""
    return divisors(extent, 16)[-1]


@register_once
def finish(lanes: int, channels: int, integer: bool, residual: bool) -> tuple[Any, Any]:
    """``float_expressions.layer`` of a vector of channels; lanes beyond ``channels`` (a last block) are not stored.

    ``integer``: the sums are int32, and there is a step.
    """
    inputs: list[Parameter] = [("c", (lanes,), "int32" if integer else "float32"), ("addend", (lanes,), "float32")]
    if integer:
        inputs += [("scale", (lanes,), "float32"), ("bias", (lanes,), "int32"), ("step", (2,), "float32")]
    if residual:
        inputs.append(("r", (lanes,), "float32"))
    inputs.append(("q", (2,), "float32"))
    output: Parameter = ("d", (lanes,), "float32")
    names = [name for name, _, _ in inputs]

    def value(v: Any, *buffers: Any) -> Any:
        t = dict(zip(names, buffers, strict=True))
        constants: dict[str, Any] = {name: t[name][v] for name in ("addend", "scale", "bias") if name in t}
        if integer:
            constants["step"] = t["step"][0]
        return float_expressions.layer(t["c"][v], constants, t["r"][v] if residual else None, (t["q"][0], t["q"][1]))

    def body(*buffers: Any) -> None:
        t = dict(zip([*names, "d"], buffers, strict=True))

        def whole(name: str) -> Any:
            return t[name][T.ramp(T.int32(0), 1, lanes)]

        constants: dict[str, Any] = {name: whole(name) for name in ("addend", "scale", "bias") if name in t}
        store_layer(t["d"], whole("c"), constants, t.get("step"), t.get("r"), t["q"], t["addend"].elem_offset, channels)

    return describe(inputs, output, value), implement(inputs, output, body)


def store_layer(
    out: Any, acc: Any, constants: dict[str, Any], step: Any, residual: Any, q: Any, channel: Any, channels: int
) -> None:
    """Store ``float_expressions.layer`` of the vector ``acc``, whose first lane is ``channel``, in the buffer ``out``.

    ``step`` (None with float32 sums), ``residual`` (or None) and ``q`` are buffers.
    """
    lanes = int(out.shape[0])
    if step is not None:
        constants = {**constants, "step": T.broadcast(step[0], lanes)}
    old = None if residual is None else residual[T.ramp(T.int32(0), 1, lanes)]
    limits = (T.broadcast(q[0], lanes), T.broadcast(q[1], lanes))
    store_channels(out, float_expressions.layer(acc, constants, old, limits), channel, channels)


def finish_layer(kernel: Kernel, lanes: int) -> str:
    """The intrinsic that ends a layer whose result is float32."""
    keys = {o.key for o in kernel.operands}
    return finish(lanes, kernel.param("channels"), "step" in keys, "residual" in keys)


SCHEDULES: dict[str, Callable[[Any, Kernel, Decide], None]] = {
    "conv_gemm_float": conv_gemm, "conv_depthwise_float": conv_depthwise, "float_matmul": matmul,
    "float_softmax": softmax, "float_reduce_sum": simple.reduction, "float_avg_pool": simple.reduction,
    "dynamic_steps": dynamic_steps, "float_pointwise": elementwise, "float_resize_bilinear": elementwise,
}  # fmt: skip
FUSED = ("conv_gemm_float", "conv_depthwise_float", "float_matmul")
"""Computes whose sums of products are fused multiply-adds."""
