"""When each instruction runs: the units side by side, in their order, held up by ``sync``, fetch and DRAM.

An instruction starts when it has been fetched, its unit is free and its unit's syncs are satisfied. DRAM serves one
transfer at a time, in the first gap that is long enough; a transfer's latency delays its end but not the next transfer.
The first cycle is that of the first instruction: the cache is full, inputs lie in DRAM.
"""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import dataclass, field

from qcc.npu import isa, timing
from qcc.npu.isa import Instruction
from qcc.npu.ordering import INDEX
from qcc.npu.program import Program

Event = tuple[int, int, int, int]
"""Unit, layer, first cycle, end."""


@dataclass
class LayerCycles:
    """Cycles of one layer. ``elapsed`` is what it adds to the inference; units overlap, so that their sum is more."""

    array: int = 0
    """The matrix unit's with memories that keep up: SCALE-Sim's compute cycles, plus one."""
    compute: int = 0
    """The matrix unit's."""
    fill: int = 0
    """Of ``array``: filling and draining."""
    vector: int = 0
    """Requantization, pools, element-wise work."""
    dma: int = 0
    """DRAM, whatever for."""
    weights: int = 0
    """The weight unit's."""
    elapsed: int = 0
    bytes: Counter[str] = field(default_factory=Counter)
    """Exchanged with each memory."""

    @property
    def stall(self) -> int:
        """Elapsed cycles in which the layer's main unit does not work."""
        return max(0, self.elapsed - max(self.compute, self.vector))

    @property
    def bound(self) -> str:
        """The unit that the layer's time goes to; "latency" where none works for half of it."""
        busy = {"compute": self.compute, "requant": self.vector, "dma": self.dma, "weights": self.weights}
        unit = max(busy, key=lambda k: busy[k])
        return unit if 2 * busy[unit] >= self.elapsed > 0 else "latency" if self.elapsed else ""


@dataclass
class Timeline:
    """The result: cycles by layer and when each unit worked."""

    program: Program
    layers: list[LayerCycles]
    events: list[Event]
    total: int
    setup: int
    """Cycles that fill the cache, once after power-on."""

    @property
    def latency_ms(self) -> float:
        """An inference with the link's fixed cost and, where it has a bandwidth, inputs and outputs."""
        d = self.program.description
        moved = sum(p.bytes for p in (*self.program.inputs, *self.program.outputs))
        link = d.link.fixed_us / 1e3 + (moved / d.link.mb_per_s / 1e3 if d.link.mb_per_s else 0.0)
        return link + self.total / d.array.clock_mhz / 1e3

    @property
    def compute_only(self) -> int:
        """Cycles of the array alone, with memories that keep up."""
        return sum(x.array for x in self.layers)

    def utilization(self, layer: int | None = None) -> float:
        """Share of the array's multiply-accumulates that is used, of a layer or of all."""
        chosen = range(len(self.layers)) if layer is None else [layer]
        elapsed = sum(self.layers[i].elapsed for i in chosen)
        macs = sum(self.program.layers[i].macs for i in chosen)
        return macs / (elapsed * self.program.description.array.macs) if elapsed else 0.0


class _Channel:
    """DRAM: intervals in which it is busy."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def take(self, earliest: int, cycles: int) -> int:
        """The first cycle of a gap of ``cycles`` from ``earliest`` on, which is busy from now on."""
        i = bisect.bisect_right(self.ends, earliest)
        start = earliest
        while i < len(self.starts) and self.starts[i] < start + cycles:
            start = max(start, self.ends[i])
            i += 1
        self.starts.insert(i, start)
        self.ends.insert(i, start + cycles)
        return start


class _Model:
    def __init__(self, program: Program) -> None:
        self.p, self.d = program, program.description
        self.layers = [LayerCycles() for _ in program.layers]
        self.registers = isa.Registers()
        self.dram = _Channel()
        self.free = [0] * len(isa.UNITS)
        self.done: list[list[int]] = [[] for _ in isa.UNITS]
        self.started: list[list[int]] = [[] for _ in isa.UNITS]
        self.events: list[Event] = []

    def run(self) -> None:
        fetch = isa.WORD.size / self.d.fetch.bytes_per_cycle
        clock = 0.0
        for ins in self.p.body:
            unit = INDEX[ins.unit]
            waiting = self.started[unit]
            if len(waiting) >= self.d.fetch.queue:
                clock = max(clock, float(waiting[-self.d.fetch.queue]))
            clock += fetch
            self._step(ins, unit, int(clock))

    def _step(self, ins: Instruction, unit: int, fetched: int) -> None:
        start = max(fetched, self.free[unit])
        end = finished = start
        if ins.op == "configure":
            self.registers.apply(ins)
            end = finished = start + 1
        elif ins.op == "sync":
            waits = [self.done[other][count - 1] for other, count in enumerate(ins.args) if count]
            end = finished = max([start, *waits])
        else:
            cycles, external = self._work(ins, self.layers[ins.layer])
            if external:
                start = self.dram.take(start, cycles)
                finished = start + cycles + self.d.dram.latency_cycles
            else:
                finished = start + cycles
            end = start + cycles
            self.events.append((unit, ins.layer, start, end))
        self.free[unit] = end
        self.started[unit].append(start)
        previous = self.done[unit][-1] if self.done[unit] else 0
        self.done[unit].append(max(previous, finished))
        layer = self.layers[ins.layer]
        layer.elapsed = max(layer.elapsed, finished)

    def _work(self, ins: Instruction, layer: LayerCycles) -> tuple[int, bool]:
        """Cycles of an instruction, and whether they are DRAM's; adds to the layer's account."""
        o, d = ins.operands, self.d
        if ins.op in ("load", "store"):
            return self._transfer(ins, layer)
        if ins.op == "loadw" and ins.form in isa.GATHERS:
            return self._gather(ins, layer)
        if ins.op == "loadw":
            target = ins.form.removeprefix("cached_")
            external = target == ins.form
            layer.bytes[target] += o["bytes"]
            layer.bytes["dram" if external else "cache"] += o["bytes"]
            rate = getattr(d.memory, target).bytes_per_cycle if target != "cache" else d.cache.bytes_per_cycle
            cycles = timing.dram(d, 1, o["bytes"]) if external else 0
            cycles = max(cycles, timing.local(rate if external else min(rate, d.cache.bytes_per_cycle), o["bytes"]))
            layer.weights += cycles
            layer.dma += cycles if external else 0
            return cycles, external
        if ins.op in ("matmul", "depthwise"):
            r = self.registers.sets["window"]
            taps = r["kernel_h"] * r["kernel_w"]
            if ins.op == "matmul":
                c = timing.gemm(d, o["rows"], o["columns"], o["outputs"], taps * o["channels"])
            else:
                c = timing.depthwise(d, o["rows"], o["columns"], o["outputs"], taps)
            layer.array, layer.fill, layer.compute = layer.array + c.array, layer.fill + c.fill, layer.compute + c.total
            layer.bytes.update(act=c.act, weight=c.weight, acc=c.acc)
            return c.total, False
        if ins.op == "requantize":
            n = o["rows"] * o["columns"] * o["outputs"]
            cycles = timing.requantize(d, n)
            layer.bytes.update(acc=4 * n, act=n * (2 if ins.form == "residual" else 1), param=8 * o["outputs"])
        else:
            r = self.registers.sets["pool"]
            taps = 3 if ins.form.startswith("softmax") else 1
            if ins.form.endswith("_pool"):
                taps = r["kernel_h"] * r["kernel_w"]
            n = o["n0"] * o["n1"] * o["n2"]
            cycles = timing.vector(d, n, taps)
            layer.bytes["act"] += n * (taps + (2 if ins.form in isa.TWO_TENSORS else 1))
        layer.vector += cycles
        return cycles, False

    def _gather(self, ins: Instruction, layer: LayerCycles) -> tuple[int, bool]:
        o, d, source = ins.operands, self.d, isa.GATHERS[ins.form]
        total, external = o["rows"] * o["columns"], source == "dram"
        run = o["columns"] if o["column"] == 1 else 1
        cycles = timing.dram(d, total // run, run) if external else timing.local(d.memory.act.bytes_per_cycle, total)
        cycles = max(cycles, timing.local(d.memory.weight.bytes_per_cycle, total))
        layer.bytes.update({source: total, "weight": total})
        layer.weights += cycles
        layer.dma += cycles if external else 0
        return cycles, external

    def _transfer(self, ins: Instruction, layer: LayerCycles) -> tuple[int, bool]:
        o, d = ins.operands, self.d
        n = [o[f"n{i}"] for i in range(4)]
        total = n[0] * n[1] * n[2] * n[3]
        external = ins.op == "store" or ins.form == "dram"
        layer.bytes["act"] += total if external or ins.form == "fill" else 2 * total
        if not external:
            return timing.local(d.memory.act.bytes_per_cycle, total), False
        layer.bytes["dram"] += total
        run = n[3] if o["d3" if ins.op == "store" else "s3"] == 1 or n[3] == 1 else 1
        cycles = timing.dram(d, total // run, run)
        layer.dma += cycles
        return cycles, True


def analyse(program: Program) -> Timeline:
    """Cycles of one inference."""
    model = _Model(program)
    model.run()
    total = previous = 0
    for layer in model.layers:
        total = max(total, layer.elapsed)
        layer.elapsed, previous = total - previous, total
    setup = sum(timing.dram(program.description, 1, ins.operands["bytes"]) for ins in program.setup)
    return Timeline(program, model.layers, model.events, total, setup)
