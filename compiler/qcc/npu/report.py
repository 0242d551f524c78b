"""What the cycle model says: as text, JSON, a Chrome trace and an SVG timeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from io import StringIO
from typing import Any
from xml.etree import ElementTree as Xml

from rich.console import Console

from qcc import svg
from qcc.npu.cycles import Timeline
from qcc.npu.isa import UNITS
from qcc.npu.sweep import Point
from qcc.report import table

WIDTH, ROW, LEFT = 1200, 26, 90
NAME = 40
"""Characters of a layer's name in the text."""


def as_dict(t: Timeline) -> dict[str, Any]:
    """JSON values: cycles are ints, latency is in milliseconds, memory levels are in bytes."""
    p, d = t.program, t.program.description
    layers = []
    for i, (layer, c) in enumerate(zip(p.layers, t.layers, strict=True)):
        layers.append({
            "name": layer.name, "op": layer.op, "macs": layer.macs, "tile": layer.tiling, "on_chip": layer.on_chip,
            "weights": layer.weights, "weight_bytes": layer.weight_bytes, "elapsed": c.elapsed, "compute": c.compute,
            "array": c.array, "fill_drain": c.fill, "requant": c.vector, "dma": c.dma, "weight_load": c.weights,
            "stall": c.stall, "bound": c.bound, "utilization": round(t.utilization(i), 4), "bytes": dict(c.bytes),
            "act_bytes_in_use": p.occupancy[i],
        })  # fmt: skip
    return {
        "model": p.name, "target": d.name, "cycles": t.total, "compute_only_cycles": t.compute_only,
        "setup_cycles": t.setup, "latency_ms": round(t.latency_ms, 4), "link_fixed_ms": d.link.fixed_us / 1e3,
        "utilization": round(t.utilization(), 4), "macs": sum(x.macs for x in p.layers),
        "cached_weight_bytes": sum(x.weight_bytes for x in p.layers if x.weights == "cached"),
        "streamed_weight_bytes": sum(x.weight_bytes for x in p.layers if x.weights == "streamed"),
        "cache_bytes": d.cache.bytes, "bytes": dict(_bytes(t)), "instructions": len(p.body), "layers": layers,
    }  # fmt: skip


def _short(name: str) -> str:
    """The end of a layer's name; TFLite's list all that was fused."""
    last = name.rsplit(";", 1)[-1]
    return last if len(last) <= NAME else "…" + last[1 - NAME :]


def _bytes(t: Timeline) -> Counter[str]:
    return sum((x.bytes for x in t.layers), start=Counter())


def as_text(t: Timeline) -> str:
    """A row for each layer, and totals."""
    made = table(None, "layer", "op", "tile", ">cycles", ">compute", ">fill", ">requant", ">dma", ">stall", "bound",
                 ">util", ">DRAM bytes", "weights", "result")  # fmt: skip
    p, d = t.program, t.program.description
    for i, (layer, c) in enumerate(zip(p.layers, t.layers, strict=True)):
        numbers = (f"{v:,}" for v in (c.elapsed, c.compute, c.fill, c.vector, c.dma, c.stall))
        used = f"{t.utilization(i):.0%}" if layer.macs else ""
        made.add_row(_short(layer.name), layer.op, layer.tiling, *numbers, c.bound, used, f"{c.bytes['dram']:,}",
                     layer.weights, "on chip" if layer.on_chip else "DRAM")  # fmt: skip
    out = Console(file=StringIO(), highlight=False, markup=False, emoji=False, width=220)
    out.print(made)
    found = as_dict(t)
    out.print(f"{p.name} on {d.name} ({d.description})")
    out.print(f"cycles    {t.total:,}, of the array alone {t.compute_only:,}; utilization {t.utilization():.1%} of "
              f"{d.array.macs:,} MACs a cycle")
    out.print(f"latency   {t.latency_ms:.3f} ms at {d.array.clock_mhz:g} MHz, the link's fixed {d.link.fixed_us:g} µs "
              "included")
    out.print("bytes     " + ", ".join(f"{k} {v:,}" for k, v in sorted(found["bytes"].items())))
    out.print(f"weights   {found['cached_weight_bytes']:,} bytes cached (cache of {d.cache.bytes:,}: in program order "
              f"while they fit; filled once in {t.setup:,} cycles), {found['streamed_weight_bytes']:,} streamed")
    out.print(f"scratch   at most {max(p.occupancy, default=0):,} of {d.memory.act.bytes:,} bytes of activation memory")
    text = out.file.getvalue() if isinstance(out.file, StringIO) else ""
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def chrome_trace(t: Timeline) -> dict[str, Any]:
    """For chrome://tracing or Perfetto; one track for each unit, microseconds."""
    clock = t.program.description.array.clock_mhz
    names = [x.name for x in t.program.layers]
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 0, "tid": i, "name": "thread_name", "args": {"name": unit}} for i, unit in enumerate(UNITS)]
    events += [{"ph": "X", "pid": 0, "tid": unit, "name": names[layer], "ts": start / clock,
                "dur": (end - start) / clock} for unit, layer, start, end in t.events]  # fmt: skip
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def timeline_svg(t: Timeline) -> str:
    """The units' work by layer over time, and the activation memory in use."""
    rows = len(UNITS)
    root = svg.picture(WIDTH + LEFT + 10, (rows + 3) * ROW + 40)
    scale = WIDTH / max(t.total, 1)
    for unit, name in enumerate(UNITS):
        svg.write(root, 6, unit * ROW + 18, name)
    for unit, layer, start, end in _joined(t):
        box = Xml.SubElement(root, "rect", x=f"{LEFT + start * scale:.2f}", y=str(unit * ROW + 3), height=str(ROW - 6),
                             width=f"{max((end - start) * scale, 0.2):.2f}", fill=svg.COLOURS[layer % len(svg.COLOURS)])
        Xml.SubElement(box, "title").text = f"{t.program.layers[layer].name}: {start:,} to {end:,}"
    base, capacity, position = (rows + 3) * ROW, t.program.description.memory.act.bytes, 0
    peak = max(t.program.occupancy, default=0)
    svg.write(root, 6, rows * ROW + 18, f"activation memory in use: at most {peak:,} of {capacity:,} bytes")
    for layer, used in enumerate(t.program.occupancy):
        height = 2 * ROW * used / max(peak, 1)
        box = Xml.SubElement(root, "rect", x=f"{LEFT + position * scale:.2f}", y=f"{base - height:.2f}",
                             width=f"{t.layers[layer].elapsed * scale:.2f}", height=f"{height:.2f}", fill="#a0a0a0")
        Xml.SubElement(box, "title").text = f"{t.program.layers[layer].name}: {used:,} of {capacity:,} bytes"
        position += t.layers[layer].elapsed
    svg.write(root, LEFT, base + 24, f"{t.program.name} on {t.program.description.name}: {t.total:,} cycles, "
                                 f"{t.latency_ms:.3f} ms")
    return svg.as_text(root)


def _joined(t: Timeline) -> list[tuple[int, int, int, int]]:
    """Events of one unit and layer that follow each other closely, as one."""
    gap = t.total / WIDTH / 2
    found: list[tuple[int, int, int, int]] = []
    for unit in range(len(UNITS)):
        for _, layer, start, end in sorted((e for e in t.events if e[0] == unit), key=lambda e: e[2]):
            if found and found[-1][:2] == (unit, layer) and start - found[-1][3] <= gap:
                found[-1] = (unit, layer, found[-1][2], max(end, found[-1][3]))
            else:
                found.append((unit, layer, start, end))
    return found


def pareto_plot(points: Sequence[Point]) -> str:
    """Latency of a sweep's points over on-chip memory, or, where that is the same for all, over the array's size."""
    good = [p for p in points if not p.fault]
    by_memory = len({p.on_chip_bytes for p in good}) > 1
    shown = [(p.on_chip_bytes / 2**20 if by_memory else p.macs, p.latency_ms, ", ".join(map(str, p.values)), p.front)
             for p in good]
    return _scatter(shown, "on-chip memory, MiB" if by_memory else "MACs a cycle", "latency, ms")


def _scatter(points: list[tuple[float, float, str, bool]], x_title: str, y_title: str) -> str:
    """(x, y, label, on the front) as an SVG plot whose axes begin at 0."""
    root = svg.picture(760, 520)
    x_max = 1.05 * max((x for x, *_ in points), default=1.0)
    y_max = 1.05 * max((y for _, y, *_ in points), default=1.0)

    def at(x: float, y: float) -> tuple[float, float]:
        return 80 + 640 * x / x_max, 460 - 430 * y / y_max

    for a, b in (((0, 0), (x_max, 0)), ((0, 0), (0, y_max))):
        (x1, y1), (x2, y2) = at(*a), at(*b)
        Xml.SubElement(root, "line", x1=f"{x1}", y1=f"{y1}", x2=f"{x2}", y2=f"{y2}", stroke="black")
    for i in range(1, 6):
        x, y = x_max * i / 5, y_max * i / 5
        svg.write(root, at(x, 0)[0] - 20, 478, f"{x:.3g}")
        svg.write(root, 30, at(0, y)[1] + 4, f"{y:.3g}")
    front = sorted(at(x, y) for x, y, _, best in points if best)
    Xml.SubElement(root, "polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in front), fill="none",
                   stroke=svg.COLOURS[3])
    for x, y, label, best in points:
        px, py = at(x, y)
        dot = Xml.SubElement(root, "circle", cx=f"{px:.1f}", cy=f"{py:.1f}", r="5", fill=svg.COLOURS[3 if best else 0])
        Xml.SubElement(dot, "title").text = label
        if best:
            svg.write(root, px + 8, py - 6, label)
    svg.write(root, 340, 505, x_title)
    svg.write(root, 10, 18, y_title)
    return svg.as_text(root)
