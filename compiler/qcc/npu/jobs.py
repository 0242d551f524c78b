"""What the compiler needs of a node: the ways to tile it, and the instructions of one of them."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from qcc.npu.description import Description

if TYPE_CHECKING:
    from qcc.npu.emitter import Emitter

SPLITS = (*range(1, 9), 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96, 112, 128, 192, 256, 384, 512, 768, 1024)


@dataclass(frozen=True)
class Plan:
    """One way to tile a node: bytes of each buffer it wants in the activation memory, its estimated cycles, its tile
    sizes.
    """

    buffers: tuple[int, ...]
    cycles: float
    tile: Any
    text: str


@dataclass(frozen=True)
class Shortage:
    """Why nothing fits: the memory, what should lie there, the bytes it takes at least."""

    memory: str
    tensor: str
    least: int


class Job(ABC):
    """A node of the device's graph. ``reads`` and ``writes`` are values with memory of their own."""

    layer: int
    name: str
    reads: tuple[str, ...]
    writes: str
    over: tuple[str, ...] = ()
    """Operands that the result may overwrite: element i is read before element i is written, and not afterwards."""
    weight_bytes: int = 0
    """Bytes of weights and parameters, which may be cached."""

    @abstractmethod
    def plans(self, d: Description, on_chip: frozenset[str], cached: bool) -> list[Plan] | Shortage:
        """Every tiling that the weight, accumulator and parameter memories allow, best first."""

    @abstractmethod
    def emit(self, plan: Plan, buffers: Sequence[int], e: Emitter) -> None:
        """The instructions of a plan whose buffers lie at the given addresses."""


@cache
def extents(n: int) -> tuple[int, ...]:
    """Tile sizes to try for an extent, largest first."""
    return tuple(sorted({-(-n // k) for k in SPLITS if k <= n} | {1}, reverse=True))


@cache
def sizes(n: int, size: int) -> tuple[tuple[int, int], ...]:
    """(size, how many) of the parts of an extent."""
    full, rest = divmod(n, size)
    return tuple((s, c) for s, c in ((size, full), (rest, 1)) if s and c)


def overlapped(units: Sequence[float], steps: int) -> float:
    """Cycles of units that work in a pipeline of ``steps`` steps: the slowest, and one step of the others."""
    slowest = max(units)
    return slowest + (sum(units) - slowest) / max(steps, 1)


def merge(shape: Sequence[int], *strides: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """The same elements with as few axes as possible: extents of 1 go, axes that lie densely in all strides join."""
    dims: list[int] = []
    kept: list[list[int]] = [[] for _ in strides]
    for axis, n in enumerate(shape):
        here = [s[axis] for s in strides]
        if n == 1:
            continue
        if dims and all(k[-1] == h * n for k, h in zip(kept, here, strict=True)):
            dims[-1] *= n
            for k, h in zip(kept, here, strict=True):
                k[-1] = h
        else:
            dims.append(n)
            for k, h in zip(kept, here, strict=True):
                k.append(h)
    return dims, kept


def outer(shape: Sequence[int], *strides: Sequence[int]) -> list[tuple[int, ...]]:
    """Offsets (by stride list) of every index of ``shape``."""
    return [tuple(sum(i * s for i, s in zip(index, one, strict=True)) for one in strides)
            for index in itertools.product(*map(range, shape))]


def dense(shape: Sequence[int]) -> list[int]:
    """Row-major strides in elements."""
    found = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        found[i] = found[i + 1] * shape[i + 1]
    return found
