"""Calls of nodes that compute float32, layers aside (``lower.weighted``), and of run-time quantization."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Attr, Node
from qcc.lower.kernel import BufferArg, Call, CallBuilder, LowerContext, View
from qcc.lower.reduce import matmul_operands, reduced
from qcc.lower.views import Source, add_source, elementwise_call, merge_axes, source, storage_offset
from qcc.numerics import BILINEAR_ONE
from qcc.numerics_float import WHOLE
from qcc.ops.pool import tap_counts
from qcc.ops.reduce import reduced_count


def binary_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """add, sub and mul."""
    reads = {key: source(ctx, node.inputs[key]) for key in ("a", "b")}
    params: dict[str, Attr] = {"limits": node.attrs["clamp"]}
    return [elementwise_call(f"float_{node.op}", node.output, reads, ctx.place(node.output), params=params)]


def pointwise_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """pointwise: the expression is part of the kernel."""
    reads = {"x": source(ctx, node.inputs["x"])}
    params = {"expr": node.attrs["expr"]}
    return [elementwise_call("float_pointwise", node.output, reads, ctx.place(node.output), params=params)]


def prelu_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """prelu."""
    reads = {key: source(ctx, node.inputs[key]) for key in ("x", "slope")}
    return [elementwise_call("float_prelu", node.output, reads, ctx.place(node.output))]


def sum_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """reduce_sum and reduce_mean."""
    call, y = reduced(node, ctx, "float_reduce_sum", tuple(node.attrs["axes"]))
    count = reduced_count(node, ctx.type(node.inputs["x"]).shape) if node.op == "reduce_mean" else 1
    call.const("count", np.array([count], np.float32))
    call.write("y", y)
    return [call.call()]


def avg_pool_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """avg_pool; padding that counts is read from the halo, other taps beyond the image count as 0 by a condition."""
    a, halo = node.attrs, node.attrs["count_include_pad"]
    pad = tuple(a["pad"])
    params = {"kernel": tuple(a["kernel"]), "stride": tuple(a["stride"]), "start": (0, 0) if halo else pad[:2],
              "bounded": not halo and any(pad)}  # fmt: skip
    call = CallBuilder("float_avg_pool", node.output, params)
    call.read("x", ctx.window(node.inputs["x"], a["pad"]) if halo else ctx.place(node.inputs["x"]))
    call.const("count", tap_counts(node, ctx.type(node.inputs["x"]).shape).astype(np.float32))
    call.write("y", ctx.place(node.output))
    return [call.call()]


def softmax_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """softmax over the last axis; the other axes merge."""
    x, (view, arg) = source(ctx, node.inputs["x"]), ctx.place(node.output)
    shape, (from_steps, to_steps), _ = merge_axes(view.shape[:-1], [x.view.strides[:-1], view.strides[:-1]])
    whole = (*shape, view.shape[-1])
    call = CallBuilder("float_softmax", node.output)
    add_source(call, "x", x.viewed(whole, (*from_steps, x.view.strides[-1])))
    call.write("y", (View(whole, (*to_steps, view.strides[-1]), view.dtype), arg))
    return [call.call()]


def resize_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """resize_bilinear: positions int32 [2, extent] and shares of the second float32 [extent], along each axis."""
    call = CallBuilder("float_resize_bilinear", node.output)
    call.read("x", ctx.place(node.inputs["x"]))
    for key in ("rows", "cols"):
        *positions, weight = node.attrs[key]
        call.const(key, np.array(positions, np.int32))
        call.const(f"{key}_share", (np.asarray(weight) / BILINEAR_ONE).astype(np.float32))
    call.write("y", ctx.place(node.output))
    return [call.call()]


def matmul_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """matmul."""
    _, operands = matmul_operands(node, ctx)
    a, b, y = (operands[key] for key in "aby")
    call = CallBuilder("float_matmul", node.output, macs=int(np.prod(y.view.shape)) * a.view.shape[-1])
    add_source(call, "a", a)
    add_source(call, "b", b)
    assert isinstance(y.arg, BufferArg)
    call.write("y", (y.view, y.arg))
    return [call.call()]


def dynamic_steps_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """dynamic_steps: a maximum over all of x, with as few axes as its strides allow."""
    x = source(ctx, node.inputs["x"])
    shape, (strides,), _ = merge_axes(x.view.shape, [x.view.strides])
    call = CallBuilder("dynamic_steps", node.output, {"levels": node.attrs["levels"]})
    add_source(call, "x", x.viewed(shape, strides))
    call.write("y", ctx.place(node.output))
    return [call.call()]


def dynamic_quantize_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """dynamic_quantize; f = [what rounds to a whole number, the zero point as it is stored included]."""
    zero = ctx.type(node.output).zero_point + storage_offset(ctx.storage)
    constants: dict[str, NDArray[np.generic]] = {"f": np.array([WHOLE + zero], np.float32)}
    step, shape = ctx.place(node.inputs["step"])[1], ctx.type(node.output).shape
    inverse = Source(View(shape, (0,) * len(shape), "float32"), BufferArg(step.value, step.offset + 1))
    reads = {"x": source(ctx, node.inputs["x"]), "step": inverse}
    return [elementwise_call("dynamic_quantize", node.output, reads, ctx.place(node.output), constants)]
