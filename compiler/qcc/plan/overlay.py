"""Outputs that may begin in memory where their node's input begins, although other parts of that are still to be read.

Kernels of targets with C source copy what they read into a column, a window of rows or a plane before they write
there, pixel by pixel, row by row or channel by channel. So an output may lie over an input that dies, if no pixel or
row is written before what it covers was read: from the first to the last, or the other way round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qcc.ir.graph import Node

if TYPE_CHECKING:
    from qcc.plan.layout import Layout

FORWARD, BACKWARD = 1, -1


def overlays(layout: Layout) -> dict[str, int]:
    """Node output → the direction in which its kernel has to go over its input, for those that may lie over it."""
    spans, found = layout.lifetimes(), dict[str, int]()
    for step, node in enumerate(layout.graph.nodes):
        if node.op not in ("conv2d", "dense") or layout.is_view(node.output):
            continue
        x, y = (layout.places.get(v) for v in (node.inputs["x"], node.output))
        if x is None or y is None or x.buffer == y.buffer:
            continue
        alone = all(
            layout.buffers[p.buffer].kind == "arena" and p.view.dense and not p.offset
            and layout.buffers[p.buffer].size == int(np.prod(p.view.shape)) for p in (x, y)
        )
        dies = spans.get(x.buffer, (0, 0))[1] == step and spans.get(y.buffer, (0, 0))[0] == step
        direction = _direction(layout, node) if alone and dies else None
        if direction is not None:
            found[node.output] = direction
    return found


def _direction(layout: Layout, node: Node) -> int | None:
    """FORWARD or BACKWARD if either is safe; the kernels that go by pixels prefer BACKWARD, the others FORWARD."""
    source, out = (layout.type(v).shape for v in (node.inputs["x"], node.output))
    if node.op == "dense":
        return _by_pixels(int(np.prod(out[:-1])), source[-1], out[-1])
    if source[0] != 1:
        return None
    groups, (_, ky, kx, _) = node.attrs["groups"], layout.type(node.inputs["w"]).shape
    if groups == 1 and (ky, kx) == (1, 1) and source[1:3] == out[1:3] and not any(node.attrs["pad"]):
        return _by_pixels(out[1] * out[2], source[3], out[3])
    if groups not in (1, source[3]) or (groups > 1 and out[3] != groups):
        return None
    rows, stride = range(out[1]), node.attrs["stride"][0]
    x_row, y_row = source[2] * source[3], out[2] * out[3]
    top = [i * stride - node.attrs["pad"][0] for i in rows]
    below = [t + (ky - 1) * node.attrs["dilation"][0] + 1 for t in top]
    if all((i + 1) * y_row <= below[i] * x_row or below[i] >= source[1] for i in rows):
        return FORWARD
    return BACKWARD if all(i * y_row >= top[i] * x_row or top[i] <= 0 for i in rows) else None


def _by_pixels(pixels: int, depth: int, channels: int) -> int | None:
    """Direction for a matrix of ``pixels`` rows; a single one is written while it is read."""
    if pixels == 1:
        return None
    return BACKWARD if channels >= depth else FORWARD
