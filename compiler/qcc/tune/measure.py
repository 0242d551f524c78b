"""How long variants of a kernel take: what every way of measuring offers, and the programs that measure here and in
emulators or on boards that the target's ``[run] command`` reaches.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from qcc.data import data_folder
from qcc.errors import ToolError, TuningError
from qcc.remote import RUNNER
from qcc.tune.program import Program, ProgramEndedError, compiled_once, link_program
from qcc.tune.records import Status

if TYPE_CHECKING:
    from qcc.target import Target
    from qcc.tune.tasks import Candidate

SECONDS = 20.0
"""Time that a candidate may take to answer."""
BLOCK_SECONDS = 2e-4
"""A block of calls takes at least this long: clocks are coarse."""
LEAST_ROUNDS, MOST_ROUNDS, LONGEST = 16, 512, 0.25
"""Rounds of blocks, and seconds in which they should be done."""
STEADY = 0.004
"""Relative standard error that is good enough."""


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate; ``values`` are those of each variant, in the measure's unit."""

    status: Status
    error: str = ""
    values: tuple[float, ...] = ()


class Measure(Protocol):
    """A way of measuring."""

    unit: str
    exact: bool
    """The same value every time: nothing is measured twice, nor beside anything else."""

    whole: bool
    """Whole models can be timed there too."""

    @property
    def devices(self) -> int:
        """How many candidates can be measured at once."""

    def run(self, candidates: Sequence[Candidate]) -> Outcome:
        """Compare the first candidate's bytes with the reference, then measure all of them beside each other: two of
        one task whose constants are packed alike.

        Raises QccError where something else than the candidate is wrong.
        """


class Timed:
    """Seconds, by a measuring program on this machine or behind the target's command."""

    unit, exact, whole, devices = "s", False, True, 1

    def __init__(self, target: Target) -> None:
        self.target = target

    def run(self, candidates: Sequence[Candidate]) -> Outcome:
        """See ``Measure``."""
        with tempfile.TemporaryDirectory(prefix="qcc-") as scratch:
            program = link_program(candidates, self.target, Path(scratch))
            return talk(_command(self.target, program), candidates)


def talk(command: Sequence[str], candidates: Sequence[Candidate]) -> Outcome:
    """Check and time the candidates of a program."""
    case = candidates[0].case
    try:
        with Program(command, case, SECONDS) as running:
            difference = case.difference(running.call(0))
            if difference is not None:
                return Outcome("wrong", difference)
            return Outcome("ok", values=steady_times(running, len(candidates)))
    except ProgramEndedError as error:
        return Outcome("timeout" if error.late else "crash", str(error))
    except OSError as error:
        raise _not_started(command, error) from error


def steady_times(running: Program, variants: int) -> tuple[float, ...]:
    """Seconds of each variant: medians over rounds in which all of them took their turn.

    Of two variants the first one's is the second's times the median of their ratios: what disturbs a round disturbs
    both. Rounds go on until that is steady.
    """
    (once,) = running.times(variants, 1, 1)
    calls = max(1, int(BLOCK_SECONDS / max(once.max(), 1e-9)))
    running.times(variants, calls, 2)
    rounds = running.times(variants, calls, LEAST_ROUNDS)
    while len(rounds) < MOST_ROUNDS and rounds.sum() * calls < LONGEST:
        ratios = rounds[:, 0] / rounds[:, -1] if variants > 1 else rounds[:, 0]
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        if 0.93 * (high - low) / np.sqrt(len(ratios)) < STEADY * middle:
            break
        rounds = np.concatenate([rounds, running.times(variants, calls, LEAST_ROUNDS)])
    last = float(np.median(rounds[:, -1]))
    return (*(float(np.median(rounds[:, v] / rounds[:, -1])) * last for v in range(variants - 1)), last)


class Counted:
    """Executed instructions, by the measuring program in QEMU's user mode: an emulator's time says nothing."""

    unit, exact, whole, devices = "instructions", True, False, 1

    def __init__(self, target: Target) -> None:
        self.target, self.plugin = target, built_plugin(data_folder("runtime") / "tune" / "count_aarch64.c")

    def run(self, candidates: Sequence[Candidate]) -> Outcome:
        """See ``Measure``."""
        with tempfile.TemporaryDirectory(prefix="qcc-") as scratch:
            counts = Path(scratch, "counts")
            case, program = candidates[0].case, link_program(candidates[:1], self.target, Path(scratch))
            emulator, *rest = _command(self.target, program)
            command = [emulator, "-plugin", f"{self.plugin},out={counts}", *rest]
            try:
                with Program(command, case, SECONDS) as running:
                    difference = case.difference(running.call(0))
            except ProgramEndedError as error:
                return Outcome("timeout" if error.late else "crash", str(error))
            except OSError as error:
                raise _not_started(command, error) from error
            if difference is not None:
                return Outcome("wrong", difference)
            return Outcome("ok", values=(float(counts.read_text().split()[1]),))


def choose_measure(target: Target, rpc: str | None = None, key: str | None = None) -> Measure:
    """How to measure for a target: on the farm behind the tracker ``rpc``, or as the target's file says.

    That is this machine, an emulator that counts, or the command. Raises TuningError if there is nothing.
    """
    if rpc is not None or key is not None:
        from qcc.tune.farm import Farm

        if rpc is None or key is None or target.firmware:
            what = f"cannot run the C source of {target.name}" if target.firmware else "needs both --rpc and --key"
            raise TuningError(f"a farm {what}", hint="give the tracker's HOST:PORT and the devices' key")
        return Farm(target, rpc, key)
    if target.emit == "object":
        raise TuningError("LLVM's objects for microcontrollers cannot be measured", where=target.name,
                          hint='tune C source: emit = "c"')
    if target.emit == "c":
        from qcc.tune.board import BoardMeasure

        return BoardMeasure(target)
    if not target.missing():
        return Timed(target)
    if not target.run.command:
        raise TuningError(f"this machine lacks {', '.join(target.missing())}, and the target names no other",
                          where=target.name, hint="add [run] command to its file, or give --rpc and --key")
    emulated = Path(target.run.command[0]).name.startswith("qemu-")
    return Counted(target) if emulated else Timed(target)


def built_plugin(source: Path) -> Path:
    """A counting plugin for QEMU, by the C compiler of this machine. Raises ToolError."""
    return compiled_once(["cc", "-O2", "-shared", "-fPIC"], source, ".so")


def _command(target: Target, program: Path) -> list[str]:
    """The command that starts a program on the target's machine."""
    if not target.missing():
        return [str(program)]
    return [part.replace(RUNNER, str(program)) for part in target.run.command]


def _not_started(command: Sequence[str], error: OSError) -> ToolError:
    return ToolError(f"'{command[0]}' cannot be started ({error.strerror})",
                     hint="install it, or name your own under [run] command in a target file")


