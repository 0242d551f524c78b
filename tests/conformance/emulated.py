"""``Machine`` for targets that run in an emulator: the kernels behind a small server on its standard streams."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from machine import GUARD, Machine

from qcc.emit.entry import prototype
from qcc.ir.graph import Graph
from qcc.lower.kernel import BufferArg, Call
from qcc.plan.memory import Memory
from qcc.remote import RUNNER
from qcc.target import Target

SERVER = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
{prototypes}
static int32_t number(void) {{ int32_t v; return fread(&v, 4, 1, stdin) == 1 ? v : -1; }}
int main(void)
{{
    for (int32_t kernel, bytes; (kernel = number()) >= 0; fflush(stdout)) {{
        bytes = number();
        uint8_t *memory = aligned_alloc(64, (size_t)bytes), *p[16];
        int32_t begin = number(), end = number();
        for (int32_t i = 0, count = number(); i < count; ++i) p[i] = memory + number();
        if (fread(memory, 1, (size_t)bytes, stdin) != (size_t)bytes) return 1;
        switch (kernel) {{
{cases}
        }}
        fwrite(memory, 1, (size_t)bytes, stdout);
        free(memory);
    }}
    return 0;
}}
"""
"""Requests: kernel, bytes of memory, begin, end, offsets of the pointers, the memory. Replies: the memory."""


class EmulatedMachine(Machine):
    """The kernels of several programs, linked into one program for the target's emulator."""

    def __init__(self, programs: Sequence[Graph], target: Target, folder: Path) -> None:
        self.target = target
        super().__init__(programs, target, folder)

    def load(self, objects: Sequence[str]) -> None:
        kernels = {c.kernel.digest: c.kernel for calls in self.calls for c in calls}
        self.numbers = {digest: number for number, digest in enumerate(kernels)}
        cases = []
        for digest, number in self.numbers.items():
            pointers = "".join(f"(void *)p[{i}], " for i in range(len(kernels[digest].operands)))
            cases.append(f"        case {number}: {self.built[digest].symbol}({pointers}begin, end); break;")
        prototypes = "\n".join(prototype(k, self.built[d].symbol) for d, k in kernels.items())
        source, program = self.folder / "server.c", self.folder / "server"
        source.write_text(SERVER.format(prototypes=prototypes, cases="\n".join(cases)))
        compiler = self.target.link.cc[0]
        subprocess.run([compiler, "-O1", "-static", "-o", str(program), str(source), *objects], check=True)
        command = [word.replace(RUNNER, str(program)) for word in self.target.run.command]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self) -> None:
        self.server.communicate()

    def run(self, call: Call, memory: Memory) -> None:
        """One call, as two halves, as two threads would share it."""
        built = self.built[call.kernel.digest]
        parts, places, end = [], {}, 0

        def add(name: str | int, data: bytes) -> None:
            nonlocal end
            places[name] = end
            parts.append(data + bytes(-len(data) % 64))
            end += len(parts[-1])

        for name, array in memory.bytes.items():
            add(name, array.tobytes())
        pointers = []
        for index, (operand, arg) in enumerate(zip(call.kernel.operands, call.args, strict=True)):
            if isinstance(arg, BufferArg):
                pointers.append(places[arg.value] + GUARD + arg.offset * np.dtype(operand.view.dtype).itemsize)
            else:
                add(index, np.ascontiguousarray(arg).tobytes() + bytes(GUARD))
                pointers.append(places[index])
        blob, middle = b"".join(parts), built.extent // 2
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        for first, last in ((0, middle), (middle, built.extent)):
            head = [self.numbers[call.kernel.digest], len(blob), first, last, len(pointers), *pointers]
            self.server.stdin.write(np.array(head, np.int32).tobytes() + blob)
            self.server.stdin.flush()
            blob = self.server.stdout.read(len(blob))
        for name, array in memory.bytes.items():
            array[...] = np.frombuffer(blob, np.uint8)[places[name] : places[name] + array.size]
