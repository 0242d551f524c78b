"""Calls of nodes that reduce axes: sums, means, maxima, argmax, softmax, and products of two activations."""

from __future__ import annotations

import numpy as np

from qcc.ir.graph import Node
from qcc.lower.elementwise import limits, shifts, stored_zero
from qcc.lower.kernel import BufferArg, Call, CallBuilder, LowerContext, View
from qcc.lower.views import Placed, Source, add_source, merge_axes, source, storage_offset
from qcc.ops.reduce import reduced_count
from qcc.ops.rounding import follows_tflite
from qcc.schedule.tiles import split_pixels

WIDENED = 128 * 1024
"""Bytes of the int16 copy of an operand of matmul that a kernel keeps on its stack."""


def reduced(node: Node, ctx: LowerContext, compute: str, axes: tuple[int, ...]) -> tuple[CallBuilder, Placed]:
    """(call that reads x as [kept axes…, reduced axes…], y in the kept axes), both with merged axes."""
    x, (view, arg) = source(ctx, node.inputs["x"]), ctx.place(node.output)
    kept = [i for i in range(len(x.view.shape)) if i not in axes]
    outer, inner = x.permuted(kept), x.permuted(axes)
    steps = view.strides
    if len(view.shape) == len(x.view.shape):
        steps = tuple(steps[i] for i in kept)
    shape, (from_steps, to_steps), _ = merge_axes(outer.view.shape, [outer.view.strides, steps])
    taps, (tap_steps,), _ = merge_axes(inner.view.shape, [inner.view.strides])
    call = CallBuilder(compute, node.output)
    add_source(call, "x", x.viewed((*shape, *taps), (*from_steps, *tap_steps)))
    return call, (View(shape, to_steps, view.dtype), arg)


def sum_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """reduce_sum and reduce_mean."""
    call, y = reduced(node, ctx, "reduce_sum", tuple(node.attrs["axes"]))
    params, shift = shifts(node, ctx)
    call.params |= params
    zero = stored_zero(ctx, node.inputs["x"]) * reduced_count(node, ctx.type(node.inputs["x"]).shape)
    multiplier = int(ctx.constant(node.inputs["multiplier"])[0])
    call.const("q", np.array([*limits(node, ctx), zero, multiplier], np.int32))
    for key, array in shift.items():
        call.const(key, array)
    call.write("y", y)
    return [call.call()]


def max_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """reduce_max."""
    call, y = reduced(node, ctx, "reduce_max", tuple(node.attrs["axes"]))
    call.write("y", y)
    return [call.call()]


def argmax_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """argmax."""
    call, y = reduced(node, ctx, "argmax", (node.attrs["axis"],))
    call.write("y", y)
    return [call.call()]


def softmax_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """softmax over the last axis; the other axes merge."""
    x, (view, arg) = source(ctx, node.inputs["x"]), ctx.place(node.output)
    count = view.shape[-1]
    shape, (from_steps, to_steps), _ = merge_axes(view.shape[:-1], [x.view.strides[:-1], view.strides[:-1]])
    call = CallBuilder("tflite_softmax" if follows_tflite(node) else "softmax", node.output)
    add_source(call, "x", x.viewed((*shape, count), (*from_steps, x.view.strides[-1])))
    call.const("table", ctx.constant(node.inputs["table"]))
    call.const("q", np.array([storage_offset(ctx.storage) - 128], np.int32))
    call.write("y", (View((*shape, count), (*to_steps, view.strides[-1]), view.dtype), arg))
    return [call.call()]


def matmul_operands(node: Node, ctx: LowerContext) -> tuple[tuple[int, ...], dict[str, Source]]:
    """(leading axes, merged; a as [axes…, M, K], b as [axes…, K, N] whichever way it lies, y as [axes…, M, N])."""
    a, b, y = source(ctx, node.inputs["a"]), source(ctx, node.inputs["b"]), Source(*ctx.place(node.output))
    if node.attrs["transpose_b"]:
        rank = len(b.view.shape)
        b = b.permuted((*range(rank - 2), rank - 1, rank - 2))
    *batch, rows, columns = y.view.shape
    depth = a.view.shape[-1]
    shapes = {"a": (rows, depth), "b": (depth, columns), "y": (rows, columns)}
    wide = {"a": a.broadcast((*batch, *shapes["a"])), "b": b.broadcast((*batch, *shapes["b"])), "y": y}
    outer, steps, _ = merge_axes(batch, [v.view.strides[:-2] for v in wide.values()])
    return outer, {
        key: read.viewed((*outer, *shapes[key]), (*outer_steps, *read.view.strides[-2:]))
        for (key, read), outer_steps in zip(wide.items(), steps, strict=True)
    }


def matmul_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """matmul: a call has the rows that one register tile divides, and as many columns as a widened b should have."""
    outer, whole = matmul_operands(node, ctx)
    *_, rows, depth = whole["a"].view.shape
    columns, lanes = whole["y"].view.shape[-1], ctx.target.lanes
    zeros = [stored_zero(ctx, node.inputs[key]) for key in ("a", "b")]
    multiplier = int(ctx.constant(node.inputs["multiplier"])[0])
    q = np.array([*limits(node, ctx), *zeros, multiplier], np.int32)
    params, shift = shifts(node, ctx)
    at_once, calls = max(lanes, WIDENED // (2 * depth) // lanes * lanes), []
    for left in range(0, columns, at_once):
        width = min(at_once, columns - left)
        for top, bottom in split_pixels(rows, -(-width // lanes), ctx.target.accumulators):
            height, none = bottom - top, (0,) * len(outer)
            call = CallBuilder("matmul", node.output, {**params, "lanes": lanes})
            call.macs = int(np.prod(outer)) * height * width * depth
            add_source(call, "a", whole["a"].part((*none, top, 0), (*outer, height, depth)))
            add_source(call, "b", whole["b"].part((*none, 0, left), (*outer, depth, width)))
            call.const("q", q)
            for key, array in shift.items():
                call.const(key, array)
            part = whole["y"].part((*none, top, left), (*outer, height, width))
            assert isinstance(part.arg, BufferArg)
            call.write("y", (part.view, part.arg))
            calls.append(call.call())
    return calls
