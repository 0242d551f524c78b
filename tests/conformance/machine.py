"""Runs compiled kernels on arrays, node by node, and compares every byte of memory with the integer reference."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permission import ask_for
from qcc.ir.evaluate import reference
from qcc.ir.graph import Graph
from qcc.ir.verify import verify
from qcc.lower.build import build_kernels
from qcc.lower.kernel import BufferArg, Call, View
from qcc.pipeline import lower
from qcc.plan.layout import Layout, plan_layout
from qcc.target import Target

GUARD = 256
"""Noise around every buffer and constant: kernels may read some of it, and never write there."""


class Memory:
    """The buffers of a layout, with noise around and inside them."""

    def __init__(self, layout: Layout, seed: int) -> None:
        self.layout = layout
        rng = np.random.default_rng(seed)
        self.bytes = {name: rng.integers(0, 256, b.nbytes + 2 * GUARD).astype(np.uint8)
                      for name, b in layout.buffers.items()}  # fmt: skip

    def at(self, place: tuple[View, BufferArg]) -> NDArray[Any]:
        view, arg = place
        flat = self.bytes[arg.value][GUARD:-GUARD].view(view.dtype)
        strides = tuple(s * flat.itemsize for s in view.strides)
        return np.lib.stride_tricks.as_strided(flat[arg.offset :], view.shape, strides)

    def read(self, value: str) -> NDArray[Any]:
        found = self.at(self.layout.place(value))
        return (found ^ 0x80).view(np.int8) if found.dtype == np.uint8 else found.copy()

    def write(self, value: str, array: NDArray[Any]) -> None:
        place = self.at(self.layout.place(value))
        place[...] = array.view(np.uint8) ^ 0x80 if place.dtype == np.uint8 else array

    def fill(self, value: str) -> None:
        for fill in self.layout.fills.get(value, []):
            buffer = self.layout.buffers[self.layout.places[fill.value].buffer]
            assert buffer.frame is not None
            (top, left, _, _), (_, h, w, _) = buffer.frame.halo, buffer.frame.shape
            item = np.dtype(buffer.dtype).itemsize
            image = self.bytes[buffer.name][GUARD:-GUARD].reshape(*buffer.frame.outer, item)
            inside = image[:, top : top + h, left : left + w].copy()
            image[...] = fill.byte & 0xFF
            image[:, top : top + h, left : left + w] = inside

    def pointer(self, arg: BufferArg, dtype: str) -> int:
        return int(self.bytes[arg.value].ctypes.data) + GUARD + arg.offset * np.dtype(dtype).itemsize


class Machine:
    """The kernels of several programs for one target, linked into one library."""

    def __init__(self, programs: Sequence[Graph], target: Target, folder: Path) -> None:
        for program in programs:
            verify(program)
        self.layouts = [plan_layout(p, target) for p in programs]
        self.calls = [lower(p, layout) for p, layout in zip(programs, self.layouts, strict=True)]
        self.built = build_kernels([c.kernel for calls in self.calls for c in calls], target, jobs=1)
        self.folder, self.target = folder, target
        self.load(sorted({str(b.object) for b in self.built.values()}))

    def load(self, objects: Sequence[str]) -> None:
        library = self.folder / f"kernels-{self.target.name}.so"
        subprocess.run(["cc", "-shared", "-o", str(library), *objects], check=True)
        ask_for(self.target)
        self.library = ctypes.CDLL(str(library))

    def run(self, call: Call, memory: Memory) -> None:
        """One call, as two halves, as two threads would share it."""
        built = self.built[call.kernel.digest]
        pointers, alive = [], []
        for operand, arg in zip(call.kernel.operands, call.args, strict=True):
            if isinstance(arg, BufferArg):
                pointers.append(memory.pointer(arg, operand.view.dtype))
            else:
                padded = np.frombuffer(np.ascontiguousarray(arg).tobytes() + bytes(GUARD), np.uint8).copy()
                alive.append(padded)
                pointers.append(int(padded.ctypes.data))
        middle = built.extent // 2
        for begin, end in ((0, middle), (middle, built.extent)):
            self.library[built.symbol](*map(ctypes.c_void_p, pointers), begin, end)

    def check(self, number: int, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Run a program; raises AssertionError at the first node that writes another byte than the reference does."""
        layout, graph = self.layouts[number], self.layouts[number].graph
        memory = Memory(layout, number)
        for name in graph.inputs:
            if name in layout.places:
                memory.fill(name)
                memory.write(name, inputs[name])
        for node in graph.nodes:
            if layout.is_view(node.output):
                continue
            memory.fill(node.output)
            x = {k: graph.constants[v] if v in graph.constants else memory.read(v) for k, v in node.inputs.items()}
            expected = Memory(layout, number)
            expected.bytes = {name: array.copy() for name, array in memory.bytes.items()}
            expected.write(node.output, reference(graph, node, x))
            for call in self.calls[number]:
                if call.node == node.output:
                    self.run(call, memory)
            got, wanted = memory.read(node.output), expected.read(node.output)
            wrong = np.argwhere(got != wanted)
            assert not wrong.size, (
                f"program {number}, {node.output} = {node.op} {wanted.shape} {node.attrs}: {len(wrong)} of {got.size} "
                f"differ, first at {wrong[0]}: {got[tuple(wrong[0])]} instead of {wanted[tuple(wrong[0])]}"
            )
            for name, array in memory.bytes.items():
                assert np.array_equal(array, expected.bytes[name]), f"program {number}, {node.output} wrote outside y"
