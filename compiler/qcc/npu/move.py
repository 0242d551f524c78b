"""Moving bytes: slices, concatenations, transpositions, padding, repetition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from qcc.npu import timing
from qcc.npu.description import Description
from qcc.npu.emitter import Emitter, Ring
from qcc.npu.jobs import Job, Plan, Shortage, extents, merge


@dataclass(frozen=True)
class Copy:
    """A strided block of one value becomes a strided block of the result; without a source it is filled."""

    source: str | None
    shape: tuple[int, ...]
    source_offset: int
    source_strides: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]
    value: int = 0


@dataclass
class MoveJob(Job):
    """All copies that make up one value."""

    layer: int
    name: str
    out: str
    copies: list[Copy]

    def __post_init__(self) -> None:
        """Derive what other stages ask for."""
        self.reads = tuple(dict.fromkeys(c.source for c in self.copies if c.source))
        self.writes = self.out

    def _through(self, on_chip: frozenset[str]) -> list[Copy]:
        """Copies that need a buffer: from DRAM to DRAM, or filling DRAM."""
        return [c for c in self.copies if self.out not in on_chip and (c.source is None or c.source not in on_chip)]

    def plans(self, d: Description, on_chip: frozenset[str], cached: bool) -> list[Plan] | Shortage:
        """Sizes of the buffer for copies between places in DRAM."""
        through = self._through(on_chip)
        total = sum(prod(c.shape) for c in self.copies)
        slow = any(v not in on_chip for v in (*self.reads, self.out))
        base = timing.dram(d, 1, total * (2 if through else 1)) if slow else total / d.memory.act.bytes_per_cycle
        base += d.dram.latency_cycles if slow else 0
        if not through:
            return [Plan((), base, 0, "copy")]
        largest = max(prod(c.shape) for c in through)
        return [Plan((size, size), base + d.dram.latency_cycles * largest / size, size, f"by {size} bytes")
                for size in extents(largest)]  # fmt: skip

    def emit(self, plan: Plan, buffers: Sequence[int], e: Emitter) -> None:
        """Each copy is a function of its own; those that need no buffer are one tile."""
        from qcc.npu import schedule
        from qcc.npu.walk import Operand, Walker

        through = self._through(frozenset(v for v, home in e.homes.items() if home.memory == "act"))
        ring = Ring(buffers)
        for c in self.copies:
            dims, (s, t) = merge(c.shape, c.source_strides, c.strides)
            dims, s, t = dims or [1], s or [0], t or [0]
            operands = {"out": Operand(self.out, tuple(dims), tuple(t), c.offset)}
            if c.source is not None:
                operands["x"] = Operand(c.source, tuple(dims), tuple(s), c.source_offset)
            tile = dims
            if c in through:
                axis = next(i for i in range(len(dims)) if prod(dims[i + 1 :]) <= plan.tile)
                size = min(plan.tile // prod(dims[axis + 1 :]), dims[axis])
                tile = [*[1] * axis, size, *dims[axis + 1 :]]
            func = schedule.move(dims, tile, None if c.source else c.value)
            Walker(e, operands, {"buffer": ring} if c in through else {}).run(func)
