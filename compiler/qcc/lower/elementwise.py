"""Calls of elementwise nodes, edges included.

Zero points, multipliers and limits are constants, so that kernels are shared.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Attr, Node
from qcc.lower.kernel import BufferArg, Call, CallBuilder, LowerContext, View
from qcc.lower.views import Placed, Source, elementwise_call, merge_axes, source, storage_offset, stored
from qcc.numerics import INT8_MAX, INT8_MIN
from qcc.ops.rounding import follows_tflite


def limits(node: Node, ctx: LowerContext) -> list[int]:
    """[zero point, low, high] of a node's output in stored form."""
    return [v + storage_offset(ctx.storage) for v in (node.attrs["zero_point"], *node.attrs["clamp"])]


def stored_zero(ctx: LowerContext, value: str) -> int:
    """A value's zero point in stored form."""
    return ctx.type(value).zero_point + storage_offset(ctx.storage)


def shifts(node: Node, ctx: LowerContext) -> tuple[dict[str, Attr], dict[str, NDArray[np.int32]]]:
    """(parameters, constants) that say how a requantization shifts: by the attribute, or as TFLite does."""
    if follows_tflite(node):
        return {"shift": None}, {"shift": ctx.constant(node.inputs["shift"])}
    return {"shift": node.attrs["shift"]}, {}


def add_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """add and sub. Both zero points and the rounding half are one addend, which keeps every sum within int32."""
    a = node.attrs
    zeros = {key: stored_zero(ctx, node.inputs[key]) for key in ("a", "b")}
    addend = (1 << a["shift"]) >> 1
    addend -= zeros["a"] * a["multiplier_a"] + zeros["b"] * a["multiplier_b"]
    q = np.array([*limits(node, ctx), addend, a["multiplier_a"], a["multiplier_b"]], np.int32)
    reads = {key: source(ctx, node.inputs[key]) for key in ("a", "b")}
    return [elementwise_call("add", node.output, reads, ctx.place(node.output), {"q": q}, {"shift": a["shift"]})]


def mul_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """mul."""
    reads = {key: source(ctx, node.inputs[key]) for key in ("a", "b")}
    zeros = [stored_zero(ctx, node.inputs[key]) for key in ("a", "b")]
    multiplier = int(ctx.constant(node.inputs["multiplier"])[0])
    q = np.array([*limits(node, ctx), *zeros, multiplier], np.int32)
    params, shift = shifts(node, ctx)
    return [elementwise_call("mul", node.output, reads, ctx.place(node.output), {"q": q, **shift}, params)]


def compare_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """maximum and minimum: storing keeps the order."""
    reads = {key: source(ctx, node.inputs[key]) for key in ("a", "b")}
    return [elementwise_call(node.op, node.output, reads, ctx.place(node.output))]


def lookup_calls(node: Node, ctx: LowerContext, x: Placed, table: NDArray[np.int8], y: Placed) -> list[Call]:
    """``y = table[x + 128]``; x and y may be the same place. Rows are cut where their last whole vector ends."""
    (*outer, count), strides, _ = merge_axes(y[0].shape, [x[0].strides, y[0].strides])
    calls = []
    for begin, end in pairwise(sorted({0, count - count % ctx.target.vector_bytes, count})):
        call = CallBuilder("lut", node.output)
        part, target = (
            (View((*outer, end - begin), steps, view.dtype), BufferArg(arg.value, arg.offset + begin * steps[-1]))
            for steps, (view, arg) in zip(strides, (x, y), strict=True)
        )
        call.read("x", part)
        call.const("table", stored(table, ctx.storage))
        call.write("y", target)
        calls.append(call.call())
    return calls


def lut_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """lut."""
    table = ctx.constant(node.inputs["table"])
    return lookup_calls(node, ctx, ctx.place(node.inputs["x"]), table, ctx.place(node.output))


def prelu_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """prelu."""
    q = np.array([*limits(node, ctx), stored_zero(ctx, node.inputs["x"]), node.attrs["multiplier"]], np.int32)
    reads = {"x": source(ctx, node.inputs["x"]), "negative": source(ctx, node.inputs["multiplier"])}
    params = {"shift": node.attrs["shift"]}
    return [elementwise_call("prelu", node.output, reads, ctx.place(node.output), {"q": q}, params)]


def _permuted(node: Node, read: Source) -> Source:
    perm: Any = node.attrs["perm"]
    return read if perm is None else read.permuted(perm)


def quantize_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """quantize: ``numerics.quantize_input``; f = [1 / scale, low, high] in float32, the limits relative to 0.

    TFLite's divides by the scale.
    """
    q = ctx.type(node.output).qparams
    assert q is not None, "the output of quantize has parameters"
    compute, factor = ("tflite_quantize", q.step) if follows_tflite(node) else ("quantize", 1.0 / q.step)
    f = np.array([factor, INT8_MIN - q.zero_point, INT8_MAX - q.zero_point], np.float32)
    zero = np.array([q.zero_point + storage_offset(ctx.storage)], np.int32)
    reads = {"x": _permuted(node, source(ctx, node.inputs["x"]))}
    return [elementwise_call(compute, node.output, reads, ctx.place(node.output), {"f": f, "q": zero})]


def dequantize_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """dequantize: ``numerics.dequantize_output``; f = [scale] in float32."""
    q = ctx.type(node.inputs["x"]).qparams
    assert q is not None, "the input of dequantize has parameters"
    zero = np.array([q.zero_point + storage_offset(ctx.storage)], np.int32)
    reads = {"x": _permuted(node, source(ctx, node.inputs["x"]))}
    constants = {"f": np.array([q.step], np.float32), "q": zero}
    return [elementwise_call("dequantize", node.output, reads, ctx.place(node.output), constants)]


def recentre_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """recentre: from the caller's uint8 to stored values, or back."""
    into = ctx.type(node.output).dtype == "int8"
    delta = (storage_offset(ctx.storage) - 128) * (1 if into else -1)
    reads = {"x": source(ctx, node.inputs["x"])}
    return [elementwise_call("recentre", node.output, reads, ctx.place(node.output), params={"delta": delta})]
