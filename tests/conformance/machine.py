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
from qcc.lower.kernel import BufferArg, Call
from qcc.pipeline import lower
from qcc.plan.layout import Layout, plan_layout
from qcc.plan.memory import Memory
from qcc.target import Target

GUARD = 256
"""Noise around every buffer and constant: kernels may read some of it, and never write there."""


def noise(layout: Layout, seed: int) -> Memory:
    """The buffers of a layout, with noise around and inside them."""
    rng = np.random.default_rng(seed)
    contents = {n: rng.integers(0, 256, b.nbytes + 2 * GUARD).astype(np.uint8) for n, b in layout.buffers.items()}
    return Memory(layout, contents, GUARD)


def pointer(memory: Memory, arg: BufferArg, dtype: str) -> int:
    return int(memory.bytes[arg.value].ctypes.data) + GUARD + arg.offset * np.dtype(dtype).itemsize


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
                pointers.append(pointer(memory, arg, operand.view.dtype))
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
        memory = noise(layout, number)
        for name in graph.inputs:
            if name in layout.places:
                memory.fill(name)
                memory.write(name, inputs[name])
        for node in graph.nodes:
            if layout.is_view(node.output):
                continue
            memory.fill(node.output)
            x = {k: graph.constants[v] if v in graph.constants else memory.read(v) for k, v in node.inputs.items()}
            expected = memory.copy()
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
