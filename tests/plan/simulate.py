"""Runs an integer program in the memory that layout and arena describe, with NumPy in the place of kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Graph
from qcc.lower.kernel import BufferArg, View
from qcc.ops import OPS
from qcc.plan.arena import Arena
from qcc.plan.layout import Layout, window_pads


class Memory:
    """One byte array for the arena, full of noise, and arrays for the caller's buffers."""

    def __init__(self, layout: Layout, arena: Arena, inputs: Mapping[str, NDArray[Any]]) -> None:
        self.layout = layout
        noise = np.random.default_rng(1).integers(0, 256, arena.nbytes).astype(np.uint8)
        self.flat: dict[str, NDArray[Any]] = {}
        for name, buffer in layout.buffers.items():
            if buffer.kind == "arena":
                at = arena.offsets[name]
                self.flat[name] = noise[at : at + buffer.nbytes].view(buffer.dtype)
            else:
                self.flat[name] = np.zeros(buffer.size, buffer.dtype)
        for name in layout.graph.inputs:
            if name in layout.places:
                self.fill(name)
                self.write(name, inputs[name])

    def at(self, place: tuple[View, BufferArg]) -> NDArray[Any]:
        view, arg = place
        flat = self.flat[arg.value]
        reach = sum((d - 1) * s for d, s in zip(view.shape, view.strides, strict=True))
        assert 0 <= arg.offset <= arg.offset + reach < flat.size, "a view leaves its buffer"
        size = flat.itemsize
        strides = tuple(s * size for s in view.strides)
        return np.lib.stride_tricks.as_strided(flat[arg.offset :], view.shape, strides)

    def read(self, place: tuple[View, BufferArg]) -> NDArray[Any]:
        stored = self.at(place)
        return (stored ^ 0x80).view(np.int8) if stored.dtype == np.uint8 else stored.copy()

    def write(self, value: str, array: NDArray[Any]) -> None:
        target = self.at(self.layout.place(value))
        target[...] = array.view(np.uint8) ^ 0x80 if target.dtype == np.uint8 else array

    def fill(self, value: str) -> None:
        for fill in self.layout.fills.get(value, []):
            buffer = self.layout.buffers[self.layout.places[fill.value].buffer]
            assert buffer.frame is not None
            (top, left, _, _), (_, h, w, _) = buffer.frame.halo, buffer.frame.shape
            image = self.flat[buffer.name].view(np.uint8).reshape(buffer.frame.outer)
            inside = image[:, top : top + h, left : left + w].copy()
            image[...] = fill.byte & 0xFF
            image[:, top : top + h, left : left + w] = inside


def simulate(graph: Graph, layout: Layout, arena: Arena, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Outputs of the program; asserts that every window holds what padding means."""
    memory = Memory(layout, arena, inputs)
    for node in graph.nodes:
        if node.output in layout.views:
            continue
        memory.fill(node.output)
        for value, pad in window_pads(graph, node):
            top, left, bottom, right = pad
            expected = np.pad(memory.read(layout.place(value)), ((0, 0), (top, bottom), (left, right), (0, 0)),
                              constant_values=graph.types[value].zero_point)
            np.testing.assert_array_equal(memory.read(layout.window(value, pad)), expected)
        x = {k: graph.constants[v] if v in graph.constants else memory.read(layout.place(v))
             for k, v in node.inputs.items()}  # fmt: skip
        memory.write(node.output, OPS[node.op].integer(node, x, graph.input_types(node), graph.types[node.output]))
    return {v: memory.read(layout.place(v)) for v in graph.outputs}
