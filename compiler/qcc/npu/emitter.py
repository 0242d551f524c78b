"""Appends instructions, and in front of each the ``sync`` that its operands need."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from qcc.npu import isa
from qcc.npu.description import Description, Memory
from qcc.npu.isa import Instruction
from qcc.npu.jobs import merge, outer
from qcc.npu.ordering import INDEX, START, Clocks, Tracker
from qcc.npu.program import tracked


@dataclass(frozen=True)
class Home:
    """Where a value lies, densely: memory and first byte."""

    memory: str
    address: int


@dataclass
class Ring:
    """Parts of a memory that are used in turn; a part that still holds what is wanted is used again."""

    slots: Sequence[int]
    slot_bytes: int = 0
    held: list[Hashable] = field(default_factory=list)
    tails: list[Hashable] = field(default_factory=list)
    """What the ends of the parts hold."""
    turn: int = 0

    def __post_init__(self) -> None:
        """All parts are empty."""
        self.held, self.tails = [None] * len(self.slots), [None] * len(self.slots)

    def get(self, key: Hashable) -> tuple[int, bool]:
        """Address of the part for ``key``, and whether it is there already."""
        if key in self.held:
            self.turn = self.held.index(key)
            return self.slots[self.turn], True
        self.turn = (self.turn + 1) % len(self.slots)
        self.held[self.turn] = key
        return self.slots[self.turn], False

    def tail(self, key: Hashable) -> tuple[int, bool]:
        """The same of the last 256 bytes of the part that was got last, for a table."""
        held, self.tails[self.turn] = self.tails[self.turn] == key, key
        return self.slots[self.turn] + self.slot_bytes - 256, held


def ring(memory: Memory) -> Ring:
    """The parts of an on-chip memory."""
    return Ring([i * memory.slot_bytes for i in range(memory.slots)], memory.slot_bytes)


class Emitter:
    """The program under construction."""

    def __init__(self, d: Description, homes: dict[str, Home], constants: bytes, data_bytes: int) -> None:
        """``homes`` says where every value lies; constants follow ``data_bytes`` in DRAM."""
        self.d, self.homes = d, homes
        self.constants = bytearray(constants)
        self.setup: list[Instruction] = []
        self.body: list[Instruction] = []
        self.weights, self.params, self.sums = ring(d.memory.weight), ring(d.memory.param), ring(d.memory.acc)
        self.cache_used = 0
        self.layer = 0
        self._cached: dict[int, int] = {}
        self._registers = isa.Registers()
        self._configured: set[str] = set()
        self._clocks = Clocks()
        self._data_bytes = data_bytes
        self._tracker = Tracker(tracked(d, data_bytes))

    def configure(self, form: str, **operands: int) -> None:
        """Set registers, unless they hold these values."""
        ins = isa.make("configure", form, self.layer, **operands)
        if form not in self._configured or self._registers.sets[form] != ins.operands:
            self._configured.add(form)
            self._append(ins)
            self._registers.apply(ins)

    def __call__(self, op: str, form: str, **operands: int) -> None:
        """Append an instruction, after the sync it needs."""
        ins = isa.make(op, form, self.layer, **operands)
        unit, spans = INDEX[ins.unit], isa.touches(ins, self._registers)
        waits = list(START)
        for race in self._tracker.races(unit, spans, self._clocks.now[unit]):
            waits[race.unit] = max(waits[race.unit], race.number)
        if any(waits):
            self._append(isa.make("sync", ins.unit, self.layer, **dict(zip(isa.UNITS, waits, strict=True))))
            self._clocks.wait(unit, tuple(waits))
        number = self._append(ins)
        self._tracker.record(unit, number, spans)

    def _append(self, ins: Instruction) -> int:
        self.body.append(ins)
        return self._clocks.issue(INDEX[ins.unit])

    def copy(self, source: Home, target: Home, shape: Sequence[int], s: Sequence[int], d: Sequence[int]) -> None:
        """Move bytes, between DRAM and the activation memory or within the latter."""
        dims, (s, d) = merge(shape, s, d)
        head = max(len(dims) - 4, 0)
        for a, b in outer(dims[:head], s[:head], d[:head]):
            self._copy4(source.memory, source.address + a, target, b, dims[head:], s[head:], d[head:])

    def fill(self, target: int, value: int, shape: Sequence[int], d: Sequence[int]) -> None:
        """Set bytes of the activation memory."""
        dims, (d,) = merge(shape, d)
        head = max(len(dims) - 4, 0)
        for (b,) in outer(dims[:head], d[:head]):
            self._copy4("fill", value, Home("act", target), b, dims[head:], [0] * (len(dims) - head), d[head:])

    def _copy4(self, memory: str, source: int, target: Home, offset: int, dims: Sequence[int], s: Sequence[int],
               d: Sequence[int]) -> None:
        lead = 4 - len(dims)
        n, s, d = [1] * lead + list(dims), [0] * lead + list(s), [0] * lead + list(d)
        strides = {f"{k}{i}": v[i] for k, v in (("n", n), ("s", s), ("d", d)) for i in range(4)}
        op, form = ("load", memory) if target.memory == "act" else ("store", "dram")
        self(op, form, src=source, dst=target.address + offset, **strides)

    def blob(self, data: bytes) -> int:
        """Add constants to DRAM; returns their address."""
        address = self._data_bytes + len(self.constants)
        self.constants += data
        return address

    def cache(self, address: int, nbytes: int) -> None:
        """Keep constants of DRAM in the cache from now on."""
        ins = isa.make("loadw", "cache", self.layer, src=address, dst=self.cache_used, bytes=nbytes)
        self.setup.append(ins)
        self._cached[address] = self.cache_used
        self.cache_used += nbytes

    def loadw(self, memory: str, address: int, nbytes: int, target: int) -> None:
        """Bring constants into the weight or parameter memory, from the cache if they are there."""
        if address in self._cached:
            self("loadw", f"cached_{memory}", src=self._cached[address], dst=target, bytes=nbytes)
        else:
            self("loadw", memory, src=address, dst=target, bytes=nbytes)
