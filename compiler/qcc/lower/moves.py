"""Calls of nodes that move data, where their result is not already a view of the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from qcc import numerics
from qcc.ir.graph import Node
from qcc.lower.kernel import Call, CallBuilder, LowerContext, View
from qcc.lower.views import Placed, Source, add_source, elementwise_call, merge_axes, source, storage_offset
from qcc.lower.weighted import moved
from qcc.plan.layout import reshape_strides


def copy_call(node: Node, x: Source, y: Placed) -> Call:
    """``y = x``, element by element."""
    return elementwise_call("copy", node.output, {"x": x}, y)


def concat_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """Copies of the inputs that do not lie in y already."""
    shape, axis, start = ctx.type(node.output).shape, node.attrs["axis"], 0
    calls = []
    for value in node.inputs.values():
        begin, end = [0] * len(shape), list(shape)
        begin[axis], end[axis] = start, start + ctx.type(value).shape[axis]
        start = end[axis]
        part = ctx.part(node.output, tuple(begin), tuple(end))
        if ctx.is_constant(value) or ctx.place(value) != part:
            calls.append(copy_call(node, source(ctx, value), part))
    return calls


def slice_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """A copy of every ``step``-th element from ``begin`` on."""
    x, y = source(ctx, node.inputs["x"]), ctx.place(node.output)
    steps = tuple(s * k for s, k in zip(x.view.strides, node.attrs["step"], strict=True))
    return [copy_call(node, x.part(node.attrs["begin"], y[0].shape).viewed(y[0].shape, steps), y)]


def transpose_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """A copy with permuted strides."""
    return [copy_call(node, source(ctx, node.inputs["x"]).permuted(node.attrs["perm"]), ctx.place(node.output))]


def expand_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """A copy that reads some elements repeatedly."""
    return [copy_call(node, source(ctx, node.inputs["x"]), ctx.place(node.output))]


def reshape_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """A copy in the shape of either side, where the other's strides can say it; else by computed index."""
    x, y = source(ctx, node.inputs["x"]), ctx.place(node.output)
    strides = reshape_strides(x.view, y[0].shape)
    if strides is not None:
        return [copy_call(node, x.viewed(y[0].shape, strides), y)]
    strides = reshape_strides(y[0], x.view.shape)
    if strides is not None:
        return [copy_call(node, x, (View(x.view.shape, strides, y[0].dtype), y[1]))]
    call = CallBuilder("reshape", node.output)
    add_source(call, "x", x)
    call.write("y", y)
    return [call.call()]


def gather_call(node: Node, x: Source, indices: Mapping[int, NDArray[np.int32]], y: Placed) -> Call:
    """``y[…, i, …] = x[…, indices[axis][i], …]`` along the axes of ``indices``, which are in ascending order."""
    view, arg = y
    shape, (from_strides, to_strides), axes = merge_axes(view.shape, [x.view.strides, view.strides], indices)
    extents = list(shape)
    for place, axis in zip(axes, indices, strict=True):
        extents[place] = x.view.shape[axis]
    call = CallBuilder("gather", node.output, {"axes": tuple(axes)})
    add_source(call, "x", x.viewed(tuple(extents), from_strides))
    for place, index in zip(axes, indices.values(), strict=True):
        call.const(f"index{place}", np.asarray(index, np.int32))
    call.write("y", (View(shape, to_strides, view.dtype), arg))
    return call.call()


def take_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """A gather along one axis."""
    indices = {node.attrs["axis"]: np.array(node.attrs["indices"], np.int32)}
    return [gather_call(node, source(ctx, node.inputs["x"]), indices, ctx.place(node.output))]


def pad_calls(node: Node, ctx: LowerContext) -> list[Call]:
    """Constant: a copy and fills of the borders. Edge and reflect: a gather along the padded axes."""
    x, y = source(ctx, node.inputs["x"]), ctx.place(node.output)
    pads: tuple[tuple[int, int], ...] = node.attrs["pads"]
    shape = x.view.shape
    if node.attrs["mode"] != "constant":
        indices = {
            axis: np.pad(np.arange(extent), pad, mode=node.attrs["mode"]).astype(np.int32)
            for axis, (pad, extent) in enumerate(zip(pads, shape, strict=True))
            if pad != (0, 0)
        }
        return [gather_call(node, x, indices, y)] if indices else [copy_call(node, x, y)]
    q = ctx.type(node.inputs["x"]).qparams
    value = node.attrs["value"] if q is None else int(numerics.quantize(node.attrs["value"], q))
    fill = np.array([value + (0 if q is None else storage_offset(ctx.storage))], y[0].dtype)
    inside = moved(y, tuple(before for before, _ in pads), shape)
    return [copy_call(node, x, inside), *(_fill_call(node, fill, part) for part in _borders(y, pads))]


def _borders(y: Placed, pads: tuple[tuple[int, int], ...]) -> Iterator[Placed]:
    """Disjoint parts that make up y without its inside: along each axis what the earlier axes left."""
    begin, extents = [0] * len(pads), list(y[0].shape)
    for axis, (before, after) in enumerate(pads):
        whole = extents[axis]
        for first, count in ((0, before), (whole - after, after)):
            if count:
                index, shape = list(begin), list(extents)
                index[axis], shape[axis] = first, count
                yield moved(y, tuple(index), tuple(shape))
        begin[axis], extents[axis] = before, whole - before - after


def _fill_call(node: Node, value: NDArray[np.generic], y: Placed) -> Call:
    return elementwise_call("fill", node.output, {}, y, {"value": value})
