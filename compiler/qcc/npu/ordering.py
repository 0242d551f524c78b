"""Which instructions are known to have finished when another begins, and which therefore may race.

The compiler uses this to place ``sync``; the simulator to find where one is missing. Both see the same rule: two
instructions of different units that touch the same line of a memory, one of them writing, must be ordered; so must two
that touch the same bank of a memory whose banks have one port.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcc.npu.isa import UNITS, Span

LINE = 64
"""Bytes in which conflicts are seen; buffers are aligned to it."""
INDEX = {unit: i for i, unit in enumerate(UNITS)}

Clock = tuple[int, ...]
"""For each unit, how many of its instructions have certainly finished."""
START: Clock = (0,) * len(UNITS)


class Clocks:
    """What each unit knows of the others: its own order, and what it waited for."""

    def __init__(self) -> None:
        """Nothing has run."""
        self.now: list[Clock] = [START] * len(UNITS)
        self.counts = [0] * len(UNITS)
        self.history: list[list[Clock]] = [[] for _ in UNITS]

    def wait(self, unit: int, waits: Clock) -> None:
        """A sync of ``unit``: it learns what the others knew when they began the instructions it waits for."""
        known = list(self.now[unit])
        for other, count in enumerate(waits):
            if other != unit and 0 < count <= self.counts[other]:
                known = [max(k, h) for k, h in zip(known, self.history[other][count - 1], strict=True)]
                known[other] = max(known[other], count)
        self.now[unit] = tuple(known)

    def issue(self, unit: int) -> int:
        """An instruction of ``unit``; returns its number in the unit, from 1."""
        self.counts[unit] += 1
        self.history[unit].append(self.now[unit])
        return self.counts[unit]


@dataclass
class Race:
    """An earlier instruction that must have finished: its unit and number, and why."""

    unit: int
    number: int
    reason: str


class Tracker:
    """The last reads and writes of every line, and the last use of every bank."""

    def __init__(self, memories: dict[str, tuple[int, int]]) -> None:
        """``memories``: bytes and one-port banks (0: none) of each; the others are never written."""
        units = len(UNITS)
        self._memories = memories
        lines = {m: -(-size // LINE) for m, (size, _) in memories.items()}
        self._written = {m: np.zeros((units, n), np.int32) for m, n in lines.items()}
        self._read = {m: np.zeros((units, n), np.int32) for m, n in lines.items()}
        self._used = {m: np.zeros((units, max(banks, 1)), np.int32) for m, (_, banks) in memories.items()}

    def _parts(self, span: Span) -> tuple[slice, slice] | None:
        """Lines and banks of a span; None where nothing is tracked."""
        memory, low, high, _ = span
        size, banks = self._memories.get(memory, (0, 0))
        high = min(high, size)
        if high <= low:
            return None
        width = size // banks if banks else 0
        used = slice(low // width, (high - 1) // width + 1) if banks else slice(0, 0)
        return slice(low // LINE, (high - 1) // LINE + 1), used

    def races(self, unit: int, spans: list[Span], known: Clock) -> list[Race]:
        """Instructions that touch the same bytes or banks and are not known to have finished."""
        found = []
        for span in spans:
            parts = self._parts(span)
            if parts is None:
                continue
            memory, _, _, write = span
            lines, banks = parts
            last = self._written[memory][:, lines].max(axis=1)
            if write:
                last = np.maximum(last, self._read[memory][:, lines].max(axis=1))
            found += _late(last, unit, known, f"the same bytes of {memory} memory")
            if banks.stop:
                last = self._used[memory][:, banks].max(axis=1)
                found += _late(last, unit, known, f"the same bank of {memory} memory")
        return found

    def record(self, unit: int, number: int, spans: list[Span]) -> None:
        """An instruction touches ``spans``."""
        for span in spans:
            parts = self._parts(span)
            if parts is not None:
                lines, banks = parts
                (self._written if span[3] else self._read)[span[0]][unit, lines] = number
                self._used[span[0]][unit, banks] = number


def _late(last: NDArray[np.int32], unit: int, known: Clock, reason: str) -> list[Race]:
    return [Race(other, int(number), reason) for other, number in enumerate(last)
            if other != unit and number > known[other]]
