"""Element-wise work: add, multiply, compare, lookup, prelu, softmax, in chunks where an operand is in DRAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from numpy.typing import NDArray

from qcc.npu import timing
from qcc.npu.description import Description
from qcc.npu.emitter import Emitter, Ring
from qcc.npu.jobs import Job, Plan, Shortage, dense, extents, merge, overlapped

AXES = 3
"""Axes of one elementwise instruction."""


@dataclass(frozen=True)
class Chunk:
    """Axis that is cut, size of a part; axes before it are looped over, those behind it are whole."""

    axis: int
    size: int
    depth: int


@dataclass
class ElementJob(Job):
    """``out = form(a, b)``; strides of 0 broadcast. ``param`` goes to the parameter memory and is operand b."""

    layer: int
    name: str
    form: str
    a: str
    b: str | None
    out: str
    shape: tuple[int, ...]
    a_strides: tuple[int, ...]
    b_strides: tuple[int, ...]
    config: tuple[str, dict[str, int]] | None = None
    """Form and operands of the configure in front."""
    param: NDArray[Any] | None = None
    whole_last: bool = False
    """The last axis is neither merged nor cut (softmax, prelu)."""
    passes: int = 1
    dims: list[int] = field(default_factory=list)
    strides: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Merge axes."""
        self.reads = tuple(dict.fromkeys(v for v in (self.a, self.b) if v))
        self.writes = self.out
        layouts = [(v, tuple(s)) for v, s in ((self.a, self.a_strides), (self.b, self.b_strides)) if v]
        own = tuple(s if n > 1 else 0 for n, s in zip(self.shape, dense(self.shape), strict=True))
        strided = {v for v, s in layouts if tuple(k if n > 1 else 0 for n, k in zip(self.shape, s, strict=True)) != own}
        self.over = tuple(v for v, _ in layouts if v not in strided and not self.form.startswith("softmax"))
        self.weight_bytes = 0 if self.param is None else self.param.nbytes
        last = 1 if self.whole_last else 0
        head = len(self.shape) - last
        all_strides = (self.a_strides, self.b_strides, tuple(dense(self.shape)))
        dims, kept = merge(self.shape[:head], *(s[:head] for s in all_strides))
        if not dims:
            dims, kept = [1], [[0], [0], [0]]
        self.dims = dims + list(self.shape[head:])
        a, b, out = (k + list(s[head:]) for k, s in zip(kept, all_strides, strict=True))
        self.strides = {"a": a, "b": b, "out": out}

    def _operands(self) -> list[tuple[str, str]]:
        named = [("a", self.a), ("b", self.b), ("out", self.out)]
        return [(key, value) for key, value in named if value is not None]

    def _bytes(self, key: str, c: Chunk) -> int:
        """Bytes of a chunk of an operand."""
        s = self.strides[key]
        n = [c.size, *self.dims[c.axis + 1 :]]
        return prod(d for d, stride in zip(n, s[c.axis :], strict=True) if stride)

    def plans(self, d: Description, on_chip: frozenset[str], cached: bool) -> list[Plan] | Shortage:
        """Chunks, largest first."""
        if self.weight_bytes > d.memory.param.slot_bytes:
            return Shortage("param", f"tables of '{self.name}'", self.weight_bytes * d.memory.param.slots)
        external = [(key, value) for key, value in self._operands() if value not in on_chip]
        cuttable = len(self.dims) - (1 if self.whole_last else 0)
        found = []
        for axis in range(max(0, len(self.dims) - AXES), cuttable):
            for size in extents(self.dims[axis]):
                for depth in (2, 1) if external else (1,):
                    found.append(self._plan(d, Chunk(axis, size, depth), external))
                if not external:
                    break
            if not external:
                break
        return sorted(found, key=lambda p: (p.cycles, sum(p.buffers)))

    def _plan(self, d: Description, c: Chunk, external: list[tuple[str, str]]) -> Plan:
        steps = prod(self.dims[: c.axis]) * timing.up(self.dims[c.axis], c.size)
        work = steps * d.vector.startup + timing.up(prod(self.dims) * self.passes, d.vector.lanes)
        moved, buffers = 0, []
        for key, _ in external:
            nbytes = self._bytes(key, c)
            moved += steps * timing.dram(d, 1, nbytes)
            buffers += [nbytes] * c.depth
        cycles = overlapped([work, moved], steps) if c.depth == 2 else work + moved
        return Plan(tuple(buffers), cycles + (d.dram.latency_cycles if external else 0), c,
                    f"{steps} chunks" if steps > 1 else "whole")

    def emit(self, plan: Plan, buffers: Sequence[int], e: Emitter) -> None:
        """Schedule, then walk."""
        from qcc.npu import schedule
        from qcc.npu.walk import Operand, Walker

        c: Chunk = plan.tile
        tile = [*[1] * c.axis, c.size, *self.dims[c.axis + 1 :]]
        operands, rings, left = {}, {}, list(buffers)
        for key, value in self._operands():
            extents = tuple(n if s else 1 for n, s in zip(self.dims, self.strides[key], strict=True))
            operands[key] = Operand(value, extents, tuple(self.strides[key]))
            if e.homes[value].memory == "dram":
                rings[key], left = Ring(left[: c.depth]), left[c.depth :]
        if self.param is not None:
            table = self.param.reshape(*[1] * (len(tile) - 1), -1) if self.form == "table" else self.param
            operands["b"] = Operand(table, table.shape)
        if self.form.startswith("softmax"):
            func = schedule.softmax(self.form, self.dims, tile)
        else:
            configured, registers = self.config or ("", {})
            memory, b = ("act" if self.b else "param"), operands["b"]
            dtype = "int8" if isinstance(b.source, str) else str(b.source.dtype)
            func = schedule.element(self.form, configured, registers, self.dims, tile, operands["a"].shape,
                                    (b.shape, dtype, memory))  # fmt: skip
        Walker(e, operands, rings, self.weight_bytes).run(func)
