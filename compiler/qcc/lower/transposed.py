"""conv_transpose2d → convolutions: outputs whose rows and columns are congruent modulo the stride see the same taps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Node
from qcc.lower.kernel import BufferArg, Call, LowerContext, View
from qcc.lower.weighted import Epilogue, Placed, Window, grouped_calls, table_calls
from qcc.plan.layout import window_pads


@dataclass(frozen=True)
class Phase:
    """Outputs ``first``, ``first + stride``, … (``count`` of them) along one axis.

    Output number i reads inputs ``start + i``, ``start + i + dilation``, … for ``taps``, the last tap of the kernel first.
    """

    first: int
    count: int
    start: int
    taps: tuple[int, ...]
    dilation: int


def phases(out: int, taps: int, stride: int, dilation: int, pad: int) -> Iterator[Phase]:
    """Every output of an axis, by phase: input ``(y + pad - k * dilation) / stride`` meets tap k where that is whole."""
    step = dilation // math.gcd(stride, dilation)
    for first in range(min(stride, out)):
        meets = [k for k in range(taps) if (first + pad - k * dilation) % stride == 0]
        reversed_taps = tuple(reversed(meets))
        start = (first + pad - reversed_taps[0] * dilation) // stride if meets else 0
        yield Phase(first, -(-(out - first) // stride), start, reversed_taps, step)


def _every(place: Placed, rows: Phase, columns: Phase, stride: tuple[int, int]) -> Placed:
    """The outputs of a phase."""
    view, arg = place
    n, _, _, c = view.shape
    batch, row, column, channel = view.strides
    offset = arg.offset + rows.first * row + columns.first * column
    strides = (batch, row * stride[0], column * stride[1], channel)
    return View((n, rows.count, columns.count, c), strides, view.dtype), BufferArg(arg.value, offset)


def transposed_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """Kernel calls of an integer conv_transpose2d node: a convolution for each phase of rows and columns."""
    a = node.attrs
    w: NDArray[np.int8] = ctx.constant(node.inputs["w"])
    stride, dilation = tuple(a["stride"]), tuple(a["dilation"])
    halo = dict(window_pads(ctx.graph, node))[node.inputs["x"]]
    x, y = ctx.window(node.inputs["x"], halo), ctx.place(node.output)
    calls = []
    axes = [list(phases(y[0].shape[i + 1], w.shape[i + 1], stride[i], dilation[i], a["pad"][i])) for i in (0, 1)]
    for rows in axes[0]:
        for columns in axes[1]:
            taps = w[:, list(rows.taps)][:, :, list(columns.taps)]
            window = Window((1, 1), (rows.dilation, columns.dilation))
            if not taps.size:
                taps = np.zeros((w.shape[0], 1, 1, w.shape[3]), np.int8)
            epilogue = Epilogue(node, ctx, taps)
            if epilogue.residual is not None:
                epilogue.residual = _every(epilogue.residual, rows, columns, stride)
            calls += grouped_calls(node, ctx, x, _every(y, rows, columns, stride), taps, window, epilogue)
    return calls + table_calls(node, ctx)
