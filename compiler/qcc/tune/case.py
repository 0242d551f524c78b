"""Memory that one kernel call works on, and the bytes that it must leave there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.lower.kernel import BufferArg, Call, View
from qcc.ops import OPS
from qcc.plan.layout import Layout
from qcc.plan.memory import Memory

GUARD = 256
"""Bytes around every buffer: kernels may read some of them, and never write there."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """``buffers`` before the call, constants last; ``args`` are (buffer, byte offset) by operand of the kernel.

    ``expected``: the buffer ``output`` after it; all others stay as they are.
    """

    buffers: tuple[Bytes, ...]
    constants: int
    args: tuple[tuple[int, int], ...]
    output: int
    expected: Bytes

    def difference(self, after: Sequence[Bytes]) -> str | None:
        """None if memory is as it must be after the call, else what is wrong."""
        for index, (before, found) in enumerate(zip(self.buffers, after, strict=True)):
            wanted = self.expected if index == self.output else before
            wrong = np.flatnonzero(wanted != found)
            if wrong.size:
                where = "of the result differ" if index == self.output else "of an input were overwritten"
                return f"{wrong.size} bytes {where}, the first at {int(wrong[0]) - GUARD}"
        return None


def make_case(call: Call, layout: Layout) -> Case:
    """Random inputs for a call, and what the integer reference makes of them."""
    graph, rng = layout.graph, np.random.default_rng(0)
    node = graph.node_of()[call.node]
    names = list(dict.fromkeys(arg.value for arg in call.args if isinstance(arg, BufferArg)))
    noise = {n: rng.integers(0, 256, layout.buffers[n].nbytes + 2 * GUARD).astype(np.uint8) for n in names}
    memory = Memory(layout, noise, GUARD)
    for value in graph.inputs:
        memory.fill(value)
    for earlier in graph.nodes[: graph.nodes.index(node) + 1]:
        memory.fill(earlier.output)
    inputs = [v for v in node.inputs.values() if v in layout.places and layout.place(v)[1].value in names]
    for value in inputs:
        memory.write(value, _random(graph.types[value].shape, graph.types[value].dtype, rng))
    x = {k: graph.constants[v] if v in graph.constants else memory.read(v) for k, v in node.inputs.items()}
    types = (graph.input_types(node), graph.types[node.output])
    if {"table", "w"} <= x.keys():  # the sums, then a lookup in place
        sums = OPS[node.op].integer(node, {k: v for k, v in x.items() if k != "table"}, *types)
        if call.kernel.compute == "lut":
            memory.write(node.output, sums)
        else:
            del x["table"]
    before = memory.copy()
    memory.write(node.output, OPS[node.op].integer(node, x, *types))

    operand, out = next((o, a) for o, a in zip(call.kernel.operands, call.args, strict=True) if o.role == "out")
    assert isinstance(out, BufferArg), "results go to buffers"
    view = operand.view
    if call.kernel.compute.startswith("conv_"):  # whole vectors, of which only channels are stored
        view = View((*view.shape[:-1], call.kernel.param("channels")), view.strides, view.dtype)
    expected = before.copy()
    expected.at((view, out))[...] = memory.at((view, out))

    buffers = list(before.bytes.values())
    args = []
    for o, arg in zip(call.kernel.operands, call.args, strict=True):
        if isinstance(arg, BufferArg):
            args.append((names.index(arg.value), GUARD + arg.offset * np.dtype(o.view.dtype).itemsize))
        else:
            args.append((len(buffers), 0))
            buffers.append(np.frombuffer(np.ascontiguousarray(arg).tobytes() + bytes(GUARD), np.uint8))
    index = names.index(out.value)
    return Case(tuple(buffers), len(buffers) - len(names), tuple(args), index, expected.bytes[out.value])


def _random(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> NDArray[Any]:
    if dtype == "float32":
        return rng.normal(0, 4, shape).astype(np.float32)
    info = np.iinfo(np.int8)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)
