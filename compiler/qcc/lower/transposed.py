"""conv_transpose2d → convolutions: outputs whose rows and columns are congruent modulo the stride see the same taps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qcc.ir.graph import Node
from qcc.lower.kernel import BufferArg, Call, LowerContext, View
from qcc.lower.views import Placed
from qcc.lower.weighted import Window, centred_weights, epilogue_of, grouped_calls, moved, table_calls


@dataclass(frozen=True)
class Phase:
    """Outputs ``first``, ``first + stride``, … (``count`` of them) along one axis.

    Output number i meets ``taps[t]`` with input ``start + i + t * dilation``; the kernel's last tap comes first.
    """

    first: int
    count: int
    start: int
    taps: tuple[int, ...]
    dilation: int

    @property
    def extent(self) -> int:
        """Inputs that the outputs reach over."""
        return self.count + (max(len(self.taps), 1) - 1) * self.dilation


def phases(out: int, taps: int, stride: int, dilation: int, pad: int) -> list[Phase]:
    """Every output of an axis, by phase.

    Output y meets tap k with input ``(y + pad - k * dilation) / stride``, if that is whole.
    """
    step = dilation // math.gcd(stride, dilation)
    found = []
    for first in range(min(stride, out)):
        meets = tuple(k for k in reversed(range(taps)) if (first + pad - k * dilation) % stride == 0)
        start = (first + pad - meets[0] * dilation) // stride if meets else 0
        found.append(Phase(first, -(-(out - first) // stride), start, meets, step))
    return found


def transposed_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """Kernel calls of a conv_transpose2d node: a convolution for each phase of rows and of columns.

    Outputs that meet no tap get a 1x1 convolution with zero weights: their bytes come from bias and residual alone.
    """
    a = node.attrs
    w = centred_weights(node, ctx)
    y, size = ctx.place(node.output), ctx.type(node.inputs["x"]).shape
    down, across = (
        phases(y[0].shape[1 + i], w.shape[1 + i], a["stride"][i], a["dilation"][i], a["pad"][i]) for i in (0, 1)
    )
    top, left = (max(0, *(-p.start for p in axis)) for axis in (down, across))
    bottom, right = (
        max(0, *(p.start + p.extent - extent for p in axis if p.taps))
        for axis, extent in ((down, size[1]), (across, size[2]))
    )
    x = ctx.window(node.inputs["x"], (top, left, bottom, right))
    calls = []
    for rows in down:
        for columns in across:
            part = w[:, list(rows.taps)][:, :, list(columns.taps)]
            if not part.size:
                part = np.zeros((w.shape[0], 1, 1, w.shape[3]), w.dtype)
            epilogue = epilogue_of(node, ctx, part)
            if epilogue.residual is not None:
                epilogue.residual = _outputs(epilogue.residual, rows, columns, a["stride"])
            out = _outputs(y, rows, columns, a["stride"])
            if ctx.target.halos:
                index = (0, rows.start + top, columns.start + left, 0)
                source = moved(x, index, (size[0], rows.extent, columns.extent, size[3]))
                window = Window((1, 1), (rows.dilation, columns.dilation))
            else:
                source, window = x, Window((1, 1), (rows.dilation, columns.dilation), (rows.start, columns.start))
            calls += grouped_calls(node, ctx, source, out, part, window, epilogue)
    return calls + table_calls(node, ctx)


def _outputs(place: Placed, rows: Phase, columns: Phase, stride: tuple[int, int]) -> Placed:
    """The outputs of a phase."""
    view, arg = place
    batch, row, column, channel = view.strides
    offset = arg.offset + rows.first * row + columns.first * column
    strides = (batch, row * stride[0], column * stride[1], channel)
    shape = (view.shape[0], rows.count, columns.count, view.shape[3])
    return View(shape, strides, view.dtype), BufferArg(arg.value, offset)
