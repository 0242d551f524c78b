"""Executed instructions of C source on QEMU's boards: exact, and the same every time."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qcc.data import data_folder
from qcc.emit.csource import SUPPORT
from qcc.emit.library import call_tool, compiler_command
from qcc.emit.package import C_TYPES
from qcc.errors import ToolError, TuningError
from qcc.tune.measure import SECONDS, Outcome, built_plugin

if TYPE_CHECKING:
    from qcc.target import Target
    from qcc.tune.case import Case
    from qcc.tune.tasks import Candidate

QEMU = "qemu-system-arm"


class BoardMeasure:
    """Instructions of one call, on the board that the target's file names."""

    unit, exact, whole, devices = "instructions", True, False, 1

    def __init__(self, target: Target) -> None:
        """Raises TuningError without a board, and ToolError if the counting plugin cannot be built."""
        if target.board is None:
            raise TuningError("the target names no board of QEMU to count instructions on", where=target.name,
                              hint="add [board] to its file, as in targets/cortex-m4.toml")
        self.target, self.board = target, target.board
        self.plugin = built_plugin(data_folder("runtime") / "board" / "count.c")

    def run(self, candidates: Sequence[Candidate]) -> Outcome:
        """See ``Measure``."""
        with tempfile.TemporaryDirectory(prefix="qcc-") as scratch:
            candidate, case = candidates[0], candidates[0].case
            image = self._link(candidate, case, Path(scratch))
            command = [QEMU, "-M", self.board.machine, "-nographic", "-monitor", "none", "-serial", "none",
                       "-semihosting-config", "enable=on,target=native", "-plugin", str(self.plugin), "-kernel",
                       str(image)]  # fmt: skip
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
            except subprocess.TimeoutExpired:
                return Outcome("timeout", "no answer in time")
            except OSError as error:
                raise ToolError(f"'{QEMU}' cannot be started ({error.strerror})",
                                hint="install qemu-system-arm") from error
        said = done.stdout + done.stderr
        if done.returncode != 0:
            return Outcome("crash", " ".join(said.split())[:200] or f"exit code {done.returncode}")
        memory = _memory(said)
        difference = case.difference([*memory, *case.buffers[len(memory) :]])
        if difference is not None:
            return Outcome("wrong", difference)
        return Outcome("ok", values=(float(re.findall(r"instructions (\d+)", said)[0]),))

    def _link(self, candidate: Candidate, case: Case, folder: Path) -> Path:
        """The image of a program that makes one call and prints all memory that may change."""
        runtime, (code, room), (data, space) = data_folder("runtime"), self.board.code, self.board.data
        (folder / "memory.ld").write_text(f"MEMORY {{ CODE (rx) : ORIGIN = {code}, LENGTH = {room}\n"
                                          f" DATA (rwx) : ORIGIN = {data}, LENGTH = {space} }}\nINCLUDE link.ld\n")
        for i, buffer in enumerate(case.buffers):
            (folder / f"buffer{i}.bin").write_bytes(buffer.tobytes())
        (folder / "main.c").write_text("\n".join(_main(candidate, case, self.target)) + "\n")
        board, image = runtime / "board", folder / "image.elf"
        call_tool([*compiler_command(self.target), f"-I{runtime / 'mcu'}", f"-I{board}", "-Wl,--gc-sections",
                   "-Wl,-ereset", "-nostartfiles", "-specs=nano.specs", "-specs=nosys.specs", f"-L{board}", "-T",
                   "memory.ld", str(board / "start.c"), "main.c", "-o", str(image)], folder)  # fmt: skip
        return image


def _memory(said: str) -> list[np.ndarray[tuple[int], np.dtype[np.uint8]]]:
    """The buffers that a program printed."""
    texts = ["".join(re.findall(r"^[0-9a-f]+$", part, re.M)) for part in said.split("memory\n")[1:]]
    return [np.frombuffer(bytes.fromhex(text), np.uint8) for text in texts]


def _main(candidate: Candidate, case: Case, target: Target) -> Iterator[str]:
    """The C source. Numbers are volatile, lest a compiler make a function of its own for this one call."""
    built = candidate.built
    yield '#include "board.h"'
    yield from (f'#include "{name}"' for name in SUPPORT[target.family])
    yield built.object.read_text()
    changing = len(case.buffers) - case.constants
    for i, buffer in enumerate(case.buffers):
        yield (f'__asm__(".section .rodata\\n.balign 16\\nfresh{i}: .incbin \\"buffer{i}.bin\\"\\n.text");')
        yield f"extern const uint8_t fresh{i}[];"
        if i < changing:
            yield f"static uint8_t memory{i}[{buffer.size}] __attribute__((aligned(16)));"
    for i, (_, dtype, nbytes) in enumerate(built.work):
        yield f"static {C_TYPES[dtype]} work{i}[{max(1, nbytes // np.dtype(dtype).itemsize)}];"
    for i, number in enumerate(built.numbers):
        yield f"static volatile int32_t number{i} = {number};"
    arguments = []
    for operand, (n, offset) in zip(candidate.call.kernel.operands, case.args, strict=True):
        const = "" if operand.role == "out" else "const "
        place = f"memory{n}" if n < changing else f"fresh{n}"
        arguments.append(f"({const}{C_TYPES[operand.view.dtype]} *)(const void *)&{place}[{offset}]")
    arguments += [f"work{i}" for i in range(len(built.work))] + [f"number{i}" for i in range(len(built.numbers))]
    yield "int board_main(void)"
    yield "{"
    yield from (f"    memcpy(memory{i}, fresh{i}, sizeof memory{i});" for i in range(changing))
    yield "    COUNT_START();"
    yield f"    {built.symbol}({', '.join(arguments)});"
    yield "    COUNT_END();"
    for i in range(changing):
        yield f'    board_print("memory\\n"); board_print_bytes(memory{i}, sizeof memory{i});'
    yield "    return 0;"
    yield "}"
