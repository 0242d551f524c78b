"""A compiled model that runs elsewhere: in an emulator, or on a board behind ssh or adb.

The artifact holds a program (``runtime/runner.c`` around the library) that is started by the target's ``[run] command``
and takes commands on its standard input. It has the interface of ``qcc.runtime.Model``.
"""

from __future__ import annotations

import subprocess
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.errors import ArtifactError, InputError, ToolError
from qcc.runtime import MOST_THREADS, Arrays, Model, check_machine, read_layer

RUNNER = "{runner}"
"""Stands for the program's path in a target's command."""


class RemoteModel(Model):
    """A model behind its runner, which starts with the first command and ends with this object."""

    def _attach(self) -> None:
        self._command = remote_command(self.folder, self.manifest)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()

    def run_into(self, inputs: Sequence[NDArray[Any]], outputs: Sequence[NDArray[Any]]) -> None:
        """Run on arrays in the model's order that ``checked`` returned or that are like them."""
        with self._lock:
            self._send(b"r", *inputs)
            for output in outputs:
                output[...] = self._receive(output.dtype, output.size).reshape(output.shape)

    def set_threads(self, count: int) -> int:
        """Use ``count`` threads from now on; returns how many there are. Raises InputError if ``count`` is below 1."""
        if count < 1:
            raise InputError(f"{count} threads", hint="give 1 or more")
        with self._lock:
            self._send(b"s", np.int32(min(count, MOST_THREADS)))
            return self._number()

    def trace(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """As ``Model.trace``."""
        found: dict[str, NDArray[Any]] = {}
        layers, arena = self.manifest["layers"], self.manifest["arena"]["bytes"]
        with self._lock:
            self._send(b"t", *self.checked(inputs))
            while (step := self._number()) >= 0:
                memory = self._receive(np.uint8, arena)
                if layers[step]["place"] is not None:
                    found[layers[step]["name"]] = read_layer(memory, layers[step])
        return found

    def measure(self, seconds: float, least: int = 10) -> list[float]:
        """As ``Model.measure``, timed by the machine that runs it."""
        with self._lock:
            self._send(b"m", np.float64(0), np.int32(1))
            self._receive(np.float64, self._number())
            self._send(b"m", np.float64(seconds), np.int32(least))
            return [float(t) for t in self._receive(np.float64, self._number())]

    def measure_layers(self, seconds: float) -> dict[str, float]:
        """As ``Model.measure_layers``, timed by the machine that runs it."""
        with self._lock:
            self._send(b"l", np.float64(seconds))
            steps = self._receive(np.int32, self._number())
            times = self._receive(np.float64, self._number() * len(steps)).reshape(-1, len(steps))
        names = [self.manifest["layers"][step]["name"] for step in steps]
        return {name: float(t) for name, t in zip(names, np.median(times, axis=0), strict=True)}

    def _send(self, command: bytes, *values: Any) -> None:
        process = self._started()
        assert process.stdin is not None, "a pipe was asked for"
        try:
            process.stdin.write(command + b"".join(np.asarray(v).tobytes() for v in values))
            process.stdin.flush()
        except OSError as error:
            raise self._ended() from error

    def _receive(self, dtype: Any, count: int) -> NDArray[Any]:
        process = self._started()
        assert process.stdout is not None, "a pipe was asked for"
        wanted = np.dtype(dtype).itemsize * count
        data = process.stdout.read(wanted)
        if len(data) != wanted:
            raise self._ended()
        return np.frombuffer(bytearray(data), dtype)

    def _number(self) -> int:
        return int(self._receive(np.int32, 1)[0])

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            if not self._command:
                check_machine(self.folder, self.manifest["target"])
            runner = runner_path(self.folder, self.manifest)
            if not runner.is_file():
                raise ArtifactError(f"{runner.name} is missing", where=str(self.folder), hint="compile the model again")
            try:
                process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                           stderr=subprocess.PIPE)  # fmt: skip
            except OSError as error:
                raise ToolError(f"'{self._command[0]}' cannot be started ({error.strerror})", where=str(self.folder),
                                hint="install it, or name your own under [run] command in a target file") from error
            weakref.finalize(self, _stop, process)
            self._process = process
            sizes = [[t.nbytes for t in types.values()] for types in (self.inputs, self.outputs)]
            arena = np.int32(self.manifest["arena"]["bytes"])
            self._send(b"", *(np.array([len(s), *s], np.int32) for s in sizes), arena)
        return self._process

    def _ended(self) -> ToolError:
        """What to raise when the runner is gone."""
        assert self._process is not None, "only a started runner ends"
        _, said = self._process.communicate()
        code, self._process = self._process.returncode, None
        lines = said.decode(errors="replace").splitlines() or [f"exit code {code}"]
        return ToolError(f"'{self._command[0]}' ended: {lines[-1]}", where=str(self.folder),
                         hint="is this the right machine for the target?")


def remote_command(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """The command that starts the runner of the artifact in ``folder``."""
    runner = str(runner_path(folder, manifest))
    return [part.replace(RUNNER, runner) for part in manifest["target"]["run"]]


def runner_path(folder: Path, manifest: dict[str, Any]) -> Path:
    """The runner's program in the artifact in ``folder``."""
    return (folder / f"run_{manifest['prefix']}").absolute()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a runner: it leaves its loop when its input ends."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
