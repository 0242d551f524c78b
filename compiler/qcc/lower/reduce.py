"""Calls of nodes that reduce axes: sums, means, maxima, argmax, softmax, and products of two activations."""

from __future__ import annotations

import numpy as np

from qcc.ir.graph import Node
from qcc.lower.elementwise import limits, shifts, stored_zero
from qcc.lower.kernel import Call, CallBuilder, LowerContext, View
from qcc.lower.views import Placed, add_source, merge_axes, source, storage_offset
from qcc.ops.reduce import reduced_count
from qcc.ops.rounding import follows_tflite


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


def matmul_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """matmul; b is read as [batch…, K, N] whichever way it lies, and leading axes merge."""
    a, b, (view, arg) = source(ctx, node.inputs["a"]), source(ctx, node.inputs["b"]), ctx.place(node.output)
    if node.attrs["transpose_b"]:
        rank = len(b.view.shape)
        b = b.permuted((*range(rank - 2), rank - 1, rank - 2))
    (rows, depth), columns = a.view.shape[-2:], view.shape[-1]
    batch = view.shape[:-2]
    a, b = a.broadcast((*batch, rows, depth)), b.broadcast((*batch, depth, columns))
    steps = [a.view.strides[:-2], b.view.strides[:-2], view.strides[:-2]]
    shape, (a_steps, b_steps, y_steps), _ = merge_axes(batch, steps)
    params, shift = shifts(node, ctx)
    call = CallBuilder("matmul", node.output, params, macs=int(np.prod(view.shape)) * depth)
    add_source(call, "a", a.viewed((*shape, rows, depth), (*a_steps, *a.view.strides[-2:])))
    add_source(call, "b", b.viewed((*shape, depth, columns), (*b_steps, *b.view.strides[-2:])))
    zeros = [stored_zero(ctx, node.inputs[key]) for key in ("a", "b")]
    multiplier = int(ctx.constant(node.inputs["multiplier"])[0])
    call.const("q", np.array([*limits(node, ctx), *zeros, multiplier], np.int32))
    for key, array in shift.items():
        call.const(key, array)
    call.write("y", (View((*shape, rows, columns), (*y_steps, *view.strides[-2:]), view.dtype), arg))
    return [call.call()]
