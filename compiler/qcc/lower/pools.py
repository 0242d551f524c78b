"""Calls of window nodes without weights: pools and bilinear resizing."""

from __future__ import annotations

import numpy as np

from qcc.ir.graph import Node
from qcc.lower.elementwise import limits, stored_zero
from qcc.lower.kernel import Call, CallBuilder, LowerContext
from qcc.ops.rounding import follows_tflite


def max_pool_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """max_pool; taps beyond the image are replaced by taps inside, so no halo is read."""
    a = node.attrs
    params = {k: tuple(a[k]) for k in ("kernel", "stride", "dilation")}
    call = CallBuilder("max_pool", node.output, {**params, "start": tuple(a["pad"][:2])})
    call.read("x", ctx.place(node.inputs["x"]))
    call.write("y", ctx.place(node.output))
    return [call.call()]


def avg_pool_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """avg_pool. Padding that counts is read from the halo; without one, padding is the zero point by a condition.

    A zero point adds nothing to the centred sum, so that it makes no difference for padding that does not count.
    """
    a = node.attrs
    pad, counts = tuple(a["pad"]), a["count_include_pad"]
    multiplier = ctx.constant(node.inputs["multiplier"])
    halo = counts and ctx.target.halos
    start = (0, 0) if halo else pad[:2]
    taps = int(np.prod(a["kernel"]))
    zero = stored_zero(ctx, node.inputs["x"])
    params = {"kernel": tuple(a["kernel"]), "stride": tuple(a["stride"]), "start": start, "shift": a["shift"],
              "bounded": not halo and any(pad)}  # fmt: skip
    call = CallBuilder("avg_pool", node.output, params)
    call.read("x", ctx.window(node.inputs["x"], a["pad"]) if halo else ctx.place(node.inputs["x"]))
    call.const("multiplier", multiplier)
    call.const("q", np.array([*limits(node, ctx), zero, zero * taps], np.int32))
    call.write("y", ctx.place(node.output))
    return [call.call()]


def resize_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """resize_bilinear; rows and cols become int32 [3, extent]: low, high, weight of high."""
    call = CallBuilder("tflite_resize_bilinear" if follows_tflite(node) else "resize_bilinear", node.output)
    call.read("x", ctx.place(node.inputs["x"]))
    for key in ("rows", "cols"):
        call.const(key, np.array(node.attrs[key], np.int32))
    call.write("y", ctx.place(node.output))
    return [call.call()]
