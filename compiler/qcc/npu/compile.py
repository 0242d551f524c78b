"""From an integer program to an accelerator's: what stays on chip, which weights are cached, how nodes are tiled.

- A value stays in the activation memory from its producer to its last reader if the estimated cycles of the nodes in
  between fall by that; values whose stay serves most readers for the fewest nodes are asked first. A sum may lie over
  its operand. Inputs and outputs lie in DRAM.
- Weights are cached in program order as long as they fit; a node whose weights do not is skipped, and streams them.
- Each node takes, of all its tilings whose buffers fit beside what stays, the one with the fewest estimated cycles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from qcc.errors import QccError
from qcc.ir.graph import Node
from qcc.npu.description import Description
from qcc.npu.emitter import Emitter, Home
from qcc.npu.jobs import Job, Plan, Shortage
from qcc.npu.lower import LOWERINGS, Context
from qcc.npu.move import MoveJob
from qcc.npu.ordering import LINE
from qcc.npu.program import Layer, Port, Program
from qcc.npu.split import Split
from qcc.ops import OPS

Range = tuple[int, int]
"""First and last node that needs something."""


class DoesNotFitError(QccError):
    """A node needs more of a memory than there is; ``memory`` is its key, ``short`` the bytes that are missing."""

    def __init__(self, node: str, shortage: Shortage, have: int) -> None:
        self.memory, self.short = shortage.memory, shortage.least - have
        super().__init__(f"{shortage.tensor} take at least {shortage.least:,} bytes of {shortage.memory} memory, "
                         f"which has {have:,}: {self.short:,} bytes short", where=f"node '{node}'",
                         hint=f"raise memory.{shortage.memory}.bytes, or make the layer smaller")


@dataclass
class Space:
    """Intervals of a memory, each taken for a range of nodes."""

    size: int | None
    taken: list[tuple[Range, int, int]] = field(default_factory=list)

    def gaps(self, live: Range) -> list[tuple[int, int]]:
        """Free intervals during a range."""
        busy = sorted((a, b) for (first, last), a, b in self.taken if first <= live[1] and live[0] <= last)
        found, position = [], 0
        for a, b in busy:
            if a > position:
                found.append((position, a))
            position = max(position, b)
        if self.size is None or position < self.size:
            found.append((position, self.size if self.size is not None else 2**62))
        return found

    def fit(self, live: Range, buffers: Sequence[int]) -> list[int] | None:
        """Addresses for buffers that exist together, or None; the largest are placed first."""
        gaps = self.gaps(live)
        found = [0] * len(buffers)
        for index in sorted(range(len(buffers)), key=lambda i: -buffers[i]):
            size = -(-buffers[index] // LINE) * LINE
            for g, (a, b) in enumerate(gaps):
                if a + buffers[index] <= b:
                    found[index] = a
                    gaps[g] = (min(a + size, b), b)
                    break
            else:
                return None
        return found

    def free(self, live: Range, address: int, nbytes: int, besides: Sequence[Range]) -> bool:
        """Whether an interval is free during a range but for what was taken just there for the ranges ``besides``."""
        return not any(first <= live[1] and live[0] <= last and a < address + nbytes and address < b
                       for (first, last), a, b in self.taken if (first, last) not in besides or a != address)

    def take(self, live: Range, address: int, nbytes: int) -> None:
        """Occupy an interval."""
        self.taken.append((live, address, address + -(-nbytes // LINE) * LINE))


class Compiler:
    """The decisions for one program."""

    def __init__(self, parts: Split, d: Description) -> None:
        """Jobs and lifetimes."""
        self.parts, self.d = parts, d
        self.graph = parts.graph
        self.roots = {v: v for v in self.graph.types}
        self.nodes: list[Node] = []
        for node in parts.device:
            if node.op == "reshape":
                self.roots[node.output] = self.roots[node.inputs["x"]]
            else:
                self.nodes.append(node)
        context = Context(self.graph, self.roots)
        self.jobs: list[Job] = []
        for layer, node in enumerate(self.nodes):
            context.layer = layer
            self.jobs.append(LOWERINGS[node.op](context, node))
        self.live = self._lifetimes()
        self.act, self.homes = Space(d.memory.act.bytes), dict[str, Home]()
        self.on_chip: frozenset[str] = frozenset()
        self.cached = self._cached()
        self._plans: dict[tuple[int, frozenset[str]], list[Plan]] = {}

    def _lifetimes(self) -> dict[str, Range]:
        live: dict[str, Range] = {}
        for i, job in enumerate(self.jobs):
            for value in (*job.reads, job.writes):
                first, _ = live.get(value, (i, i))
                live[value] = (first, i)
        return live

    def _edges(self) -> set[str]:
        return {self.roots[v] for v in (*self.parts.inputs, *self.parts.outputs)}

    def _cached(self) -> list[bool]:
        left, found = self.d.cache.bytes, []
        for job in self.jobs:
            fits = 0 < job.weight_bytes <= left
            left -= job.weight_bytes if fits else 0
            found.append(fits)
        return found

    def plans(self, i: int, on_chip: frozenset[str]) -> list[Plan]:
        """Tilings of a node; raises DoesNotFitError."""
        job = self.jobs[i]
        key = (i, on_chip & {*job.reads, job.writes})
        if key not in self._plans:
            found = job.plans(self.d, key[1], self.cached[i])
            if isinstance(found, Shortage):
                raise DoesNotFitError(job.name, found, getattr(self.d.memory, found.memory).bytes)
            self._plans[key] = found
        return self._plans[key]

    def best(self, i: int, on_chip: frozenset[str]) -> tuple[Plan, list[int]] | None:
        """The best tiling of a node whose buffers fit beside what is on chip."""
        gaps = self.act.gaps((i, i))
        room, largest = sum(b - a for a, b in gaps), max((b - a for a, b in gaps), default=0)
        for plan in self.plans(i, on_chip):
            if sum(plan.buffers) <= room and max(plan.buffers, default=0) <= largest:
                addresses = self.act.fit((i, i), plan.buffers)
                if addresses is not None:
                    return plan, addresses
        return None

    def keep(self) -> None:
        """Decide which values stay on chip."""
        edges = self._edges()
        readers = {v: sum(v in job.reads for job in self.jobs) for v in self.live}
        candidates = [v for v in self.live if v not in edges and v not in self.graph.constants]
        candidates.sort(key=lambda v: ((self.live[v][1] - self.live[v][0]) / (1 + readers[v]), self.live[v]))
        for value in candidates:
            live, nbytes = self.live[value], self.graph.types[value].nbytes
            place = self._in_place(value) or self.act.fit(live, [nbytes])
            if place is None:
                continue
            now = self._cost(live, self.on_chip)
            self.act.take(live, place[0], nbytes)
            if self._cost(live, self.on_chip | {value}) < now:
                self.on_chip |= {value}
                self.homes[value] = Home("act", place[0])
            else:
                self.act.taken.pop()

    def _in_place(self, value: str) -> list[int] | None:
        """The address of an operand that ends where ``value`` begins, or of a result that begins where it ends."""
        (first, last), nbytes = self.live[value], self.graph.types[value].nbytes
        before = [v for v in self.jobs[first].over if self.jobs[first].writes == value and self.live[v][1] == first]
        behind = [self.jobs[last].writes] if value in self.jobs[last].over else []
        others = [v for v in (*before, *behind) if v in self.homes and self.graph.types[v].nbytes == nbytes]
        besides = [self.live[v] for v in others]
        addresses = [self.homes[v].address for v in others]
        return next(([a] for a in addresses if self.act.free((first, last), a, nbytes, besides)), None)

    def _cost(self, live: Range, on_chip: frozenset[str]) -> float:
        found = [self.best(i, on_chip) for i in range(live[0], live[1] + 1)]
        return sum(float("inf") if f is None else f[0].cycles for f in found)

    def place_in_dram(self) -> tuple[int, bytes]:
        """Homes of everything else; bytes of data, and the constants that are read like data."""
        space = Space(None)
        end = len(self.jobs)
        edges = self._edges()
        constants = b""
        for value in dict.fromkeys([*map(self.roots.__getitem__, self.parts.inputs), *self.live]):
            if value in self.homes or value in self.graph.constants:
                continue
            live = (-1, end) if value in edges else self.live[value]
            nbytes = self.graph.types[value].nbytes
            place = space.fit(live, [nbytes])
            assert place is not None, "DRAM has no end"
            space.take(live, place[0], nbytes)
            self.homes[value] = Home("dram", place[0])
        data = max((b for _, _, b in space.taken), default=0)
        for value in self.live:
            if value in self.graph.constants:
                self.homes[value] = Home("dram", data + len(constants))
                constants += self.graph.constants[value].tobytes()
        return data, constants

    def program(self) -> Program:
        """Emit every node."""
        self.keep()
        data, constants = self.place_in_dram()
        e = Emitter(self.d, self.homes, constants, data)
        layers, occupancy = [], []
        for i, job in enumerate(self.jobs):
            found = self.best(i, self.on_chip)
            if found is None:
                raise self._too_large(i)
            plan, addresses = found
            e.layer = i
            before = e.cache_used
            job.emit(plan, addresses, e)
            state = "" if not job.weight_bytes else "cached" if e.cache_used > before else "streamed"
            layers.append(self._layer(i, job, plan, state))
            taken = sum(b - a for (first, last), a, b in self.act.taken if first <= i <= last)
            occupancy.append(min(taken + sum(plan.buffers), self.d.memory.act.bytes))
        inputs, outputs = (
            [Port(v, self.homes[self.roots[v]].address, self.graph.types[v].nbytes) for v in values]
            for values in (self.parts.inputs, self.parts.outputs))
        return Program(self.graph.name, self.d, bytes(e.constants), data, inputs, outputs, layers, e.setup, e.body,
                       occupancy)

    def _layer(self, i: int, job: Job, plan: Plan, weights: str) -> Layer:
        node = self.nodes[i]
        macs = OPS[node.op].macs(node, self.graph.input_types(node), self.graph.types[node.output])
        return Layer(node.output, node.op, macs, job.weight_bytes, weights, plan.text, job.writes in self.on_chip)

    def _too_large(self, i: int) -> DoesNotFitError:
        """Nothing stays beside this node (else that would not have been kept): its own buffers are too large."""
        job = self.jobs[i]
        least = min(self.plans(i, self.on_chip), key=lambda p: sum(-(-b // LINE) * LINE for b in p.buffers))
        need = sum(-(-b // LINE) * LINE for b in least.buffers)
        tiles = f"tiles of {', '.join(map(repr, (*job.reads, job.writes)))}"
        tensor = f"buffers of '{job.name}'" if isinstance(job, MoveJob) else tiles
        return DoesNotFitError(job.name, Shortage("act", f"{tensor} ({least.text})", need), self.d.memory.act.bytes)


def compile_graph(parts: Split, d: Description) -> Program:
    """The accelerator's program of the device part of a split graph. Raises DoesNotFitError."""
    return Compiler(parts, d).program()
