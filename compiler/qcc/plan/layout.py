"""Where activations lie: which values share a buffer, with which strides, and which buffers carry a halo.

Every activation of an integer graph gets a ``Place``: a strided view of one ``Buffer``. Three things save copies:

- a reshape or slice whose result is addressable in its input's buffer is a view of it and has no kernel;
- an input of a concat lies inside the concat's buffer, so that its producer writes it there;
- an element-wise node may write over an input that nobody reads again.

A value that is read with zero-point padding has a halo around its rows, filled once per run before the first write
(``Layout.fills``), so that convolutions read their padding like data.

Kernels may read beyond the end of a buffer of the arena, and never write there. Buffers of float32 (and other not
quantized) graph inputs and outputs are the caller's memory: dense, with nothing readable behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Graph, Node, TensorType
from qcc.lower.kernel import BufferArg, Fill, View, dense_strides
from qcc.ops.base import pair
from qcc.target import Target

Halo = tuple[int, int, int, int]
"""Rows and columns around an image: top, left, bottom, right."""

NO_HALO: Halo = (0, 0, 0, 0)
VIEW_OPS = ("reshape", "transpose", "expand", "slice")
LAYERS = ("conv2d", "conv_transpose2d", "dense")
IN_PLACE = {
    **dict.fromkeys(("add", "sub", "mul", "maximum", "minimum"), ("a", "b")),
    **dict.fromkeys(("lut", "prelu", "pointwise"), ("x",)),
    **dict.fromkeys(LAYERS, ("residual",)),
}
"""Inputs that a node may overwrite: its kernel reads their element i before it writes element i, and not afterwards."""


@dataclass(frozen=True)
class Frame:
    """An NHWC image and the halo around it; rows are dense: row stride = (left + W + right) * C."""

    shape: tuple[int, int, int, int]
    halo: Halo

    @property
    def outer(self) -> tuple[int, int, int, int]:
        """Shape with the halo."""
        (n, h, w, c), (top, left, bottom, right) = self.shape, self.halo
        return n, top + h + bottom, left + w + right, c

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides in elements."""
        return dense_strides(self.outer)

    @property
    def origin(self) -> int:
        """Offset of the first element inside the halo."""
        return self.halo[0] * self.strides[1] + self.halo[1] * self.strides[2]

    def merge(self, other: Frame) -> Frame | None:
        """The frame that serves both, if they are around the same image."""
        if self.shape != other.shape:
            return None
        return Frame(self.shape, widest(self.halo, other.halo))


@dataclass(frozen=True)
class Buffer:
    """Memory of one or more values. ``kind``: in the arena, or the caller's (``index`` says which input or output)."""

    name: str
    dtype: str
    size: int
    kind: Literal["arena", "input", "output"] = "arena"
    index: int = 0
    frame: Frame | None = None

    @property
    def nbytes(self) -> int:
        """Bytes, without slack."""
        return self.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Place:
    """A value's view of a buffer; ``offset`` in elements."""

    buffer: str
    offset: int
    view: View

    def sliced(self, begin: tuple[int, ...], end: tuple[int, ...], step: tuple[int, ...] | None = None) -> Place:
        """The part [begin, end) by step along every axis."""
        step = step or (1,) * len(begin)
        strides = self.view.strides
        shape = tuple(-(-(e - b) // s) for b, e, s in zip(begin, end, step, strict=True))
        offset = self.offset + sum(b * s for b, s in zip(begin, strides, strict=True))
        stepped = tuple(s * k for s, k in zip(strides, step, strict=True))
        return Place(self.buffer, offset, View(shape, stepped, self.view.dtype))

    def reshaped(self, shape: tuple[int, ...]) -> Place | None:
        """The same elements in the same order under another shape, where strides can say it."""
        strides = reshape_strides(self.view, shape)
        return None if strides is None else replace(self, view=View(shape, strides, self.view.dtype))


@dataclass
class Layout:
    """The decisions, and the ``LowerContext`` that ops ask for them."""

    graph: Graph
    target: Target
    buffers: dict[str, Buffer] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    views: set[str] = field(default_factory=set)
    """Node outputs that are views of their input: these nodes have no kernels."""
    in_place: dict[str, str] = field(default_factory=dict)
    """Node output → the input it overwrites."""
    fills: dict[str, list[Fill]] = field(default_factory=dict)
    """Node output, or int8 graph input → halos to fill before it is written."""
    overlays: dict[str, int] = field(default_factory=dict)
    """Node output that may begin where its input x does → the direction of its kernel (``plan.overlay``)."""

    @property
    def storage(self) -> str:
        """dtype in which int8 activations are stored: ``int8``, or ``uint8`` holding q + 128."""
        return self.target.storage

    def type(self, value: str) -> TensorType:
        """Type of a value of the integer program."""
        return self.graph.types[value]

    def constant(self, value: str) -> NDArray[Any]:
        """Array of a constant value."""
        return self.graph.constants[value]

    def is_constant(self, value: str) -> bool:
        """Whether a value is a constant."""
        return value in self.graph.constants

    def is_view(self, value: str) -> bool:
        """Whether a node's output is a view of its input, so that nothing is to be computed."""
        return value in self.views

    def place(self, value: str) -> tuple[View, BufferArg]:
        """Where a value lies. Values of one buffer have ``BufferArg.value`` in common, so places can be compared."""
        at = self.places[value]
        return at.view, BufferArg(at.buffer, at.offset)

    def overlay(self, value: str) -> int:
        """1 or -1 where a node's output may lie over its input x, if its kernel goes forward or backward; else 0."""
        return self.overlays.get(value, 0)

    def part(self, value: str, begin: tuple[int, ...], end: tuple[int, ...]) -> tuple[View, BufferArg]:
        """Where the part [begin, end) of a value lies; a concat's input is there if this equals its ``place``."""
        at = self.places[value].sliced(begin, end)
        return at.view, BufferArg(at.buffer, at.offset)

    def window(self, value: str, pad: Halo) -> tuple[View, BufferArg]:
        """As ``place`` for an NHWC value, extended by ``pad`` = (top, left, bottom, right) into the halo, if any."""
        view, arg = self.place(value)
        if not self.target.halos:
            return view, arg
        top, left, bottom, right = pad
        halo = self.halo(value)
        assert all(p <= h for p, h in zip(pad, halo, strict=True)), f"{value}: padding {pad} exceeds the halo {halo}"
        if pad == NO_HALO:
            return view, arg
        n, h, w, c = view.shape
        start = arg.offset - top * view.strides[1] - left * view.strides[2]
        return View((n, top + h + bottom, left + w + right, c), view.strides, view.dtype), BufferArg(arg.value, start)

    def halo(self, value: str) -> Halo:
        """The halo that a value can be read with: its buffer's, unless the value is a cut-out of the image."""
        at = self.places[value]
        frame = self.buffers[at.buffer].frame
        if frame is None or len(at.view.shape) != 4:
            return NO_HALO
        rest = at.offset % frame.strides[0]
        at_origin = rest - rest % frame.strides[2] == frame.origin
        whole = at.view.shape[1:3] == frame.shape[1:3] and at.view.strides[1:3] == frame.strides[1:3]
        return frame.halo if whole and at_origin else NO_HALO

    def lifetimes(self) -> dict[str, tuple[int, int]]:
        """First and last step, both inclusive, at which each arena buffer is needed.

        Steps are node indices; -1 is the copying in of inputs, ``len(nodes)`` the copying out of outputs.
        """
        spans: dict[str, tuple[int, int]] = {}

        def touch(value: str, step: int) -> None:
            if value in self.places:
                name = self.places[value].buffer
                first, last = spans.get(name, (step, step))
                spans[name] = min(first, step), max(last, step)

        for value in self.graph.inputs:
            touch(value, -1)
        for step, node in enumerate(self.graph.nodes):
            for value in (*node.inputs.values(), node.output):
                touch(value, step)
        for value in self.graph.outputs:
            touch(value, len(self.graph.nodes))
        return {name: span for name, span in spans.items() if self.buffers[name].kind == "arena"}


def plan_layout(graph: Graph, target: Target) -> Layout:
    """Decide the place of every activation of an integer graph (see the module's docstring)."""
    from qcc.plan.overlay import overlays

    layout = _Planner(graph, target).plan()
    if target.firmware:
        layout.overlays = overlays(layout)
    return layout


def widest(a: Halo, b: Halo) -> Halo:
    """The smallest halo that contains both."""
    return max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def window_pads(graph: Graph, node: Node) -> Iterator[tuple[str, Halo]]:
    """The values that a node reads with zero-point padding, and how far.

    ``max_pool`` is not among them: its padding never wins, which no zero point guarantees. A transposed convolution
    reads input row ``(y + top - k * dilation) / stride`` for output row y and tap k: beyond the image at both ends.
    """
    a = node.attrs
    if node.op == "conv2d" or (node.op == "avg_pool" and a["count_include_pad"]):
        top, left, bottom, right = a["pad"]
        yield node.inputs["x"], (top, left, bottom, right)
    elif node.op == "conv_transpose2d":
        (_, kh, kw, _), out = graph.types[node.inputs["w"]].shape, graph.types[node.output].shape
        size = graph.types[node.inputs["x"]].shape
        before, after = [], []
        for axis, taps in ((0, kh), (1, kw)):
            stride, dilation, pad = pair(a["stride"])[axis], pair(a["dilation"])[axis], a["pad"][axis]
            before.append(max(0, ((taps - 1) * dilation - pad) // stride))
            after.append(max(0, (out[axis + 1] - 1 + pad) // stride - (size[axis + 1] - 1)))
        yield node.inputs["x"], (before[0], before[1], after[0], after[1])


def reshape_strides(view: View, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Strides under which the elements of ``view``, in row-major order, have another shape; None if there are none."""
    runs: list[list[int]] = []  # maximal runs of axes that are contiguous with each other: [elements, innermost stride]
    for extent, stride in zip(view.shape, view.strides, strict=True):
        if extent == 1:
            continue
        if runs and runs[-1][1] == extent * stride:
            runs[-1] = [runs[-1][0] * extent, stride]
        else:
            runs.append([extent, stride])
    strides: list[int] = []
    left, step = 1, 1
    for extent in reversed(shape):
        if extent == 1:
            strides.append(step)
            continue
        if left == 1:
            left, step = runs.pop()
        if left % extent:
            return None
        strides.append(step)
        left //= extent
        step *= extent
    return tuple(reversed(strides))


def keeps_order(graph: Graph, node: Node) -> bool:
    """Whether a transpose moves nothing but axes of extent 1."""
    shape = graph.types[node.inputs["x"]].shape
    moved = [axis for axis in node.attrs["perm"] if shape[axis] != 1]
    return moved == sorted(moved)


def same_axes(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two shapes differ by axes of extent 1 only."""
    return [d for d in a if d != 1] == [d for d in b if d != 1]


class _Planner:
    """Two sweeps: backwards for halos and concats (a reader decides what its input must look like), then forwards."""

    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph, self.layout = graph, Layout(graph, target)
        self.node_of, self.users = graph.node_of(), graph.users()
        self.outside = {v for v in (*graph.inputs, *graph.outputs) if graph.types[v].dtype != "int8"}
        """Graph inputs and outputs that are not quantized activations: kernels use the caller's arrays themselves."""
        self.frames: dict[str, Frame] = {}
        self.inside: dict[str, tuple[str, tuple[int, ...]]] = {}
        """Value → the concat whose buffer holds it, and the begin of its part there."""
        self.materialized: set[str] = set()
        """Results of view ops that need a buffer of their own, because they are read with padding of their own."""

    def plan(self) -> Layout:
        for node in self.graph.nodes if self.layout.target.halos else ():
            for value, pad in window_pads(self.graph, node):
                if pad != NO_HALO:
                    self._require(value, Frame(self._shape4(value), pad))
        for node in reversed(self.graph.nodes):
            self._pass_frame_up(node)
            self._join_concat(node.output)
        for value in self.graph.activations():
            if self.users[value] or value in self.graph.outputs or value in self.node_of:
                self._resolve(value)
        self._share_dying()
        self._hand_out()
        self._fill()
        return self.layout

    def _shape4(self, value: str) -> tuple[int, int, int, int]:
        n, h, w, c = self.graph.types[value].shape
        return n, h, w, c

    def _require(self, value: str, frame: Frame) -> bool:
        """Let a value have a frame too; False if it has one around another image, or its concat cuts the image."""
        merged = frame.merge(self.frames.get(value, frame))
        if merged is None:
            return False
        if value in self.inside:
            concat, begin = self.inside[value]
            if merged.shape != self.graph.types[value].shape or any(begin[1:3]):
                return False
            outer = self._shape4(concat)
            if outer[1:3] != merged.shape[1:3] or not self._require(concat, Frame(outer, merged.halo)):
                return False
        self.frames[value] = merged
        return True

    def _pass_frame_up(self, node: Node) -> None:
        """A view needs its halo in its input's buffer; where that cannot be, it becomes a copy."""
        if node.op not in VIEW_OPS or node.output not in self.frames:
            return
        frame, source = self.frames[node.output], node.inputs["x"]
        shape = self.graph.types[source].shape
        if source in self.graph.constants or source in self.outside:
            self.materialized.add(node.output)
            return
        if node.op == "slice":
            whole = all(node.attrs[k][1:3] == v for k, v in (("begin", (0, 0)), ("end", shape[1:3]), ("step", (1, 1))))
            whole = whole and frame.shape == self.graph.types[node.output].shape
            fits = whole and self._require(source, Frame(self._shape4(source), frame.halo))
        else:
            fits = same_axes(shape, frame.shape) and self._require(source, frame)
        if not fits:
            self.materialized.add(node.output)

    def _join_concat(self, value: str) -> None:
        """Place a value inside the concat that reads it."""
        concats = [n for n in self.users[value] if n.op == "concat"]
        if len(concats) != 1 or value in self.graph.outputs or self.node_of[value].op in VIEW_OPS:
            return
        concat, = concats
        types, parts = self.graph.types, list(concat.inputs.values())
        if parts.count(value) != 1 or types[value].qparams != types[concat.output].qparams:
            return
        axis = concat.attrs["axis"] % len(types[value].shape)
        begin = [0] * len(types[value].shape)
        begin[axis] = sum(types[v].shape[axis] for v in parts[: parts.index(value)])
        self.inside[value] = concat.output, tuple(begin)
        if value in self.frames and not self._require(value, self.frames[value]):
            del self.inside[value]

    def _resolve(self, value: str) -> Place:
        """The place of a value: inside its concat, a view of its input, or a buffer of its own."""
        places = self.layout.places
        if value not in places:
            place = None
            if value in self.inside:
                concat, begin = self.inside[value]
                end = tuple(b + d for b, d in zip(begin, self.graph.types[value].shape, strict=True))
                place = self._resolve(concat).sliced(begin, end)
            elif value in self.node_of and value not in self.materialized:
                place = self._view(self.node_of[value])
                if place is not None:
                    self.layout.views.add(value)
            places[value] = place or self._own_buffer(value)
        return places[value]

    def _view(self, node: Node) -> Place | None:
        """The result of a view op in its input's buffer, if strides can say it and the last axis stays contiguous."""
        if node.op not in VIEW_OPS or node.inputs["x"] in self.graph.constants:
            return None
        place = self._seen(node, self._resolve(node.inputs["x"]))
        if place is None or (place.view.shape[-1:] not in ((), (1,)) and place.view.strides[-1] != 1):
            return None
        return place

    def _seen(self, node: Node, base: Place) -> Place | None:
        """The result of a view op in the buffer of its input, if strides can say it."""
        shape = self.graph.types[node.output].shape
        if node.op == "slice":
            return base.sliced(node.attrs["begin"], node.attrs["end"], node.attrs["step"])
        if node.op != "reshape" and not same_axes(base.view.shape, shape):
            return None
        frame = self.layout.buffers[base.buffer].frame
        if node.op == "transpose" and not keeps_order(self.graph, node):
            return None
        if frame is not None and shape == frame.shape and base.offset == frame.origin:
            return Place(base.buffer, base.offset, View(shape, frame.strides, base.view.dtype))
        return base.reshaped(shape)

    def _own_buffer(self, value: str) -> Place:
        t, frame = self.graph.types[value], self.frames.get(value)
        dtype = self.layout.storage if t.dtype == "int8" else t.dtype
        if frame is None:
            self.layout.buffers[value] = Buffer(value, dtype, t.size)
            return Place(value, 0, View(t.shape, dense_strides(t.shape), dtype))
        self.layout.buffers[value] = Buffer(value, dtype, int(np.prod(frame.outer)), frame=frame)
        image = Place(value, frame.origin, View(frame.shape, frame.strides, dtype))
        place = image if t.shape == frame.shape else image.reshaped(t.shape)
        assert place is not None, "a frame is around the same axes as its value"
        return place

    def _share_dying(self) -> None:
        """Element-wise nodes write over an input of identical layout that nobody reads again."""
        layout, places = self.layout, self.layout.places
        last = {name: span[1] for name, span in layout.lifetimes().items()}
        for step, node in enumerate(self.graph.nodes):
            own = places[node.output]
            if own.buffer != node.output or node.output in self.outside:
                continue
            for key in IN_PLACE.get(node.op, ()):
                value = node.inputs.get(key)
                if value is None or value not in places or value in self.outside:
                    continue
                # Whole vectors are read: one that reaches into the pixel stored just before would wait for that store.
                if key == "residual" and own.view.shape[-1] % layout.target.lanes:
                    continue
                old = places[value]
                shared = [v for v in node.inputs.values() if v in places and places[v].buffer == old.buffer]
                a, b = layout.buffers[old.buffer], layout.buffers[own.buffer]
                alike = (old.view, old.offset, a.size, a.frame) == (own.view, own.offset, b.size, b.frame)
                if alike and len(shared) == 1 and last[old.buffer] == step:
                    last[old.buffer] = last[own.buffer]
                    layout.in_place[node.output] = value
                    self._rename(own.buffer, old.buffer)
                    break

    def _rename(self, old: str, new: str) -> None:
        del self.layout.buffers[old]
        for value, place in self.layout.places.items():
            if place.buffer == old:
                self.layout.places[value] = replace(place, buffer=new)

    def _hand_out(self) -> None:
        """Buffers that are the caller's: those of inputs, and those that one output fills exactly."""
        layout = self.layout
        for index, value in enumerate(self.graph.inputs):
            if value in self.outside and value in layout.places:
                layout.buffers[value] = replace(layout.buffers[value], kind="input", index=index)
        for index, value in enumerate(self.graph.outputs):
            if value in self.outside and value in layout.places:
                place = layout.places[value]
                buffer = layout.buffers[place.buffer]
                fits = place.view.dense and buffer.size == self.graph.types[value].size
                if buffer.kind == "arena" and fits and not self._read_by_layer(place.buffer):
                    layout.buffers[place.buffer] = replace(buffer, kind="output", index=index)

    def _read_by_layer(self, buffer: str) -> bool:
        """Whether a layer reads a buffer: whole vectors of it, beyond its end."""
        values = [v for v, place in self.layout.places.items() if place.buffer == buffer]
        return any(node.op in LAYERS for value in values for node in self.users[value])

    def _fill(self) -> None:
        """A halo is filled before the first write to its buffer, and again where a later writer needs another byte."""
        layout = self.layout
        filled: dict[str, int] = {}
        for value in self.graph.activations():
            if value not in layout.places or value in layout.views:
                continue
            buffer = layout.buffers[layout.places[value].buffer]
            if buffer.frame is None or buffer.frame.halo == NO_HALO:
                continue
            quantized = self.graph.types[value].qparams
            byte = (quantized.zero_point if quantized else 0) + (128 if buffer.dtype == "uint8" else 0)
            if filled.get(buffer.name) != byte:
                layout.fills.setdefault(value, []).append(Fill(value, byte))
                filled[buffer.name] = byte
