"""The measuring program: variants of one kernel linked with ``runtime/tune/measure.c``, and talking to it."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.data import data_folder
from qcc.emit.entry import prototype
from qcc.emit.library import call_tool, compiler_command
from qcc.emit.package import C_TYPES
from qcc.lower.build import cache_folder
from qcc.tune.case import Bytes, Case

if TYPE_CHECKING:
    from qcc.target import Target
    from qcc.tune.tasks import Candidate

COLD_BYTES = 4 << 20
"""Constants are read from as much memory in turn, beyond a level-2 cache."""


class ProgramEndedError(Exception):
    """The measuring program is gone; ``late`` if it was ended because time was up."""

    def __init__(self, what: str, late: bool) -> None:
        super().__init__(what)
        self.late = late


def link_program(candidates: Sequence[Candidate], target: Target, folder: Path) -> Path:
    """A program for the target's machine. Raises ToolError."""
    lines, variants = [prepare_source(target)], [c.built for c in candidates]
    kernel = candidates[0].call.kernel
    for i, built in enumerate(variants):
        pointers = [f"{'' if o.role == 'out' else 'const '}{C_TYPES[o.view.dtype]} *" for o in kernel.operands]
        arguments = ", ".join(f"({pointer})a[{n}]" for n, pointer in enumerate(pointers))
        lines += [prototype(kernel, built.symbol),
                  f"static void variant_{i}(void *const *a) {{ {built.symbol}({arguments}, 0, {built.extent}); }}"]
    table = ", ".join(f"variant_{i}" for i in range(len(variants)))
    lines += [f"void (*const variants[])(void *const *) = {{{table}}};",
              f"const int32_t variant_count = {len(variants)};", ""]
    (folder / "variants.c").write_text("\n".join(lines))
    program = folder / "measure"
    static = ["-static"] if target.missing() else []
    objects = list(dict.fromkeys(str(v.object) for v in variants))
    command = compiler_command(target)
    measuring = compiled_once([*command, "-c"], data_folder("runtime") / "tune" / "measure.c", ".o")
    call_tool([*command, *static, str(measuring), "variants.c", *objects, "-o", str(program)], folder)
    return program


def compiled_once(command: Sequence[str], source: Path, suffix: str) -> Path:
    """What a C compiler's command makes of a source of qcc's own, which the cache keeps. Raises ToolError."""
    headers = sorted((data_folder("runtime") / "include" / "qcc").glob("*.h"))
    text = [*command, *(f.read_text() for f in (source, *headers))]
    digest = hashlib.sha256("\0".join(text).encode()).hexdigest()[:12]
    made = cache_folder() / f"{source.stem}-{digest}{suffix}"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="qcc-", dir=made.parent) as scratch:
            part = Path(scratch, made.name)
            call_tool([*command, str(source), "-o", str(part)], Path(scratch))
            part.replace(made)
    return made


def prepare_source(target: Target) -> str:
    """C source of what a process does before it runs code for a target; 0 if the system refuses."""
    asked = "qcc_amx_allowed()" if target.permission else "1"
    include = '#include "qcc/amx.h"\n' if target.permission else ""
    return f"#include <stdint.h>\n{include}int prepare(void);\nint prepare(void) {{ return {asked}; }}"


class Program:
    """A running measuring program, ended after ``seconds`` without an answer."""

    def __init__(self, command: Sequence[str], case: Case, seconds: float) -> None:
        """Raises ProgramEndedError, and OSError if it cannot be started."""
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._seconds, self._case, self._late = seconds, case, False
        head: list[Any] = [np.int32(len(case.buffers))]
        for buffer in case.buffers:
            head += [np.int32(buffer.size), buffer]
        args = np.array([len(case.args), *(n for place in case.args for n in place)], np.int32)
        self._head = b"".join(np.asarray(v).tobytes() for v in (*head, args, np.int32(COLD_BYTES)))
        self._head += np.int32(case.constants).tobytes()

    def __enter__(self) -> Program:
        """As it is."""
        return self

    def __exit__(self, *failure: object) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def call(self, variant: int) -> list[Bytes]:
        """All memory after one call on fresh memory."""
        sizes = [b.size for b in self._case.buffers]
        data = self._ask(b"r" + np.int32(variant).tobytes(), sum(sizes))
        return np.split(np.frombuffer(data, np.uint8), np.cumsum(sizes)[:-1])

    def times(self, variants: int, calls: int, rounds: int) -> NDArray[Any]:
        """[rounds, variants] seconds of one call, each the mean of ``calls``."""
        data = self._ask(b"m" + np.array([calls, rounds], np.int32).tobytes(), 8 * variants * rounds)
        return np.frombuffer(data, np.float64).reshape(rounds, variants) / calls

    def _ask(self, command: bytes, wanted: int) -> bytes:
        process, head = self._process, self._head
        self._head = b""
        assert process.stdin is not None and process.stdout is not None, "pipes were asked for"  # noqa: PT018
        timer = threading.Timer(self._seconds, self._end)
        timer.start()
        try:
            process.stdin.write(head + command)
            process.stdin.flush()
            data = process.stdout.read(wanted)
        except OSError:
            data = b""
        finally:
            timer.cancel()
        if len(data) != wanted:
            raise self._ended()
        return data

    def _end(self) -> None:
        self._late = True
        self._process.kill()

    def _ended(self) -> ProgramEndedError:
        """What to raise when the program is gone."""
        _, said = self._process.communicate()
        lines = said.decode(errors="replace").splitlines() or [f"exit code {self._process.returncode}"]
        return ProgramEndedError("no answer in time" if self._late else lines[-1], self._late)
