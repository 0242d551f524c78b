"""Calls of nodes whose kernels TFLite's arithmetic makes others (``compute_tflite``)."""

from __future__ import annotations

import numpy as np

from qcc.ir.graph import Node
from qcc.lower.elementwise import limits, stored_zero
from qcc.lower.kernel import Call, CallBuilder, LowerContext
from qcc.lower.views import elementwise_call, source, storage_offset
from qcc.ops.pool import tap_counts


def add_calls(node: Node, ctx: LowerContext, sign: int) -> list[Call]:
    """add (sign 1) and sub (-1)."""
    a = node.attrs
    reads = {key: source(ctx, node.inputs[key]) for key in ("a", "b")}
    zeros = [stored_zero(ctx, node.inputs[key]) for key in ("a", "b")]
    q = np.array([*limits(node, ctx), *zeros, *a["multipliers"], *a["shifts"]], np.int32)
    return [elementwise_call("tflite_add", node.output, reads, ctx.place(node.output), {"q": q}, {"sign": sign})]


def prelu_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """prelu."""
    pairs = zip(*(ctx.constant(node.inputs[key]).tolist() for key in ("multiplier", "shift")), strict=True)
    numbers = [number for pair in pairs for number in pair]
    q = np.array([*limits(node, ctx), stored_zero(ctx, node.inputs["x"]), *numbers], np.int32)
    reads = {key: source(ctx, node.inputs[key]) for key in ("x", "slope")}
    return [elementwise_call("tflite_prelu", node.output, reads, ctx.place(node.output), {"q": q})]


def avg_pool_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """avg_pool; q[0] leads from stored values to those that TFLite's kernel computes with."""
    a = node.attrs
    counts = tap_counts(node, ctx.type(node.inputs["x"]).shape).astype(np.int32)
    params = {"kernel": tuple(a["kernel"]), "stride": tuple(a["stride"]), "start": tuple(a["pad"][:2]),
              "bounded": any(a["pad"]), "count": int(counts[0]) if counts.size == 1 else 0}  # fmt: skip
    call = CallBuilder("tflite_avg_pool", node.output, params)
    call.read("x", ctx.place(node.inputs["x"]))
    call.const("count", counts)
    clamp = [v + storage_offset(ctx.storage) for v in a["clamp"]]
    call.const("q", np.array([int(a["offset"]) - storage_offset(ctx.storage), *clamp], np.int32))
    call.write("y", ctx.place(node.output))
    return [call.call()]
