"""Moving bytes: slices, concatenations, transpositions, padding, repetition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from qcc.npu import timing
from qcc.npu.description import Description
from qcc.npu.emitter import Emitter, Home, Ring
from qcc.npu.jobs import Job, Plan, Shortage, blocks, dense, extents, merge, outer


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
        """Copies one after the other."""
        home = e.homes[self.out]
        ring = Ring(buffers) if buffers else None
        for number, c in enumerate(self.copies):
            target = Home(home.memory, home.address + c.offset)
            source = None if c.source is None else e.homes[c.source]
            if source is None and target.memory == "act":
                e.fill(target.address, c.value, c.shape, c.strides)
            elif source is not None and "act" in (source.memory, target.memory):
                start = Home(source.memory, source.address + c.source_offset)
                e.copy(start, target, c.shape, c.source_strides, c.strides)
            else:
                assert ring is not None, "a copy between places in DRAM has a buffer"
                self._through_buffer(c, number, source, target, ring, plan.tile, e)

    def _through_buffer(self, c: Copy, number: int, source: Home | None, target: Home, ring: Ring, room: int,
                        e: Emitter) -> None:
        dims, (s, t) = merge(c.shape, c.source_strides, c.strides)
        dims, s, t = dims or [1], s or [0], t or [0]
        axis = next(i for i in range(len(dims)) if prod(dims[i + 1 :]) <= room)
        size = min(room // prod(dims[axis + 1 :]), dims[axis])
        for a, b in outer(dims[:axis], s[:axis], t[:axis]):
            for low, high in blocks(dims[axis], size):
                shape = [high - low, *dims[axis + 1 :]]
                buffer, _ = ring.get((number, a, b, low))
                near = dense(shape)
                if source is None:
                    e.fill(buffer, c.value, shape, near)
                else:
                    start = Home(source.memory, source.address + c.source_offset + a + low * s[axis])
                    e.copy(start, Home("act", buffer), shape, s[axis:], near)
                end = Home(target.memory, target.address + b + low * t[axis])
                e.copy(Home("act", buffer), end, shape, near, t[axis:])
