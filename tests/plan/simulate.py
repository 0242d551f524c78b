"""Runs an integer program in the memory that layout and arena describe, with NumPy in the place of kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Graph
from qcc.ops import OPS
from qcc.plan.arena import Arena
from qcc.plan.layout import Layout, window_pads
from qcc.plan.memory import Memory


def started(layout: Layout, arena: Arena, inputs: Mapping[str, NDArray[Any]]) -> Memory:
    """One byte array for the arena, full of noise, and arrays for the caller's buffers, which hold the inputs."""
    noise = np.random.default_rng(1).integers(0, 256, arena.nbytes).astype(np.uint8)
    contents = {}
    for name, buffer in layout.buffers.items():
        at = arena.offsets[name] if buffer.kind == "arena" else 0
        contents[name] = noise[at : at + buffer.nbytes] if buffer.kind == "arena" else np.zeros(buffer.nbytes, np.uint8)
    memory = Memory(layout, contents)
    for name in layout.graph.inputs:
        if name in layout.places:
            memory.fill(name)
            memory.write(name, inputs[name])
    return memory


def simulate(graph: Graph, layout: Layout, arena: Arena, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Outputs of the program; asserts that every window holds what padding means."""
    memory = started(layout, arena, inputs)
    for node in graph.nodes:
        if node.output in layout.views:
            continue
        memory.fill(node.output)
        for value, pad in window_pads(graph, node):
            top, left, bottom, right = pad
            expected = np.pad(memory.read(value), ((0, 0), (top, bottom), (left, right), (0, 0)),
                              constant_values=graph.types[value].zero_point)
            np.testing.assert_array_equal(memory.read_at(layout.window(value, pad)), expected)
        x = {k: graph.constants[v] if v in graph.constants else memory.read(v) for k, v in node.inputs.items()}
        memory.write(node.output, OPS[node.op].integer(node, x, graph.input_types(node), graph.types[node.output]))
    return {v: memory.read(v) for v in graph.outputs}
