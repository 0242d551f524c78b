"""What the command line prints about a compiled model: tables and the arena map."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from qcc.npu.description import Description
    from qcc.npu.sweep import Point
    from qcc.runtime import Model
    from qcc.target import Target

Manifest = Mapping[str, Any]
MAP_ROWS, MAP_COLUMNS = 24, 72
MARKS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def console() -> Console:
    """Standard output; lines of a pipe are not wrapped."""
    out = Console(highlight=False, markup=False, emoji=False)
    return out if out.is_terminal else Console(highlight=False, markup=False, emoji=False, width=200)


def table(title: str | None, *columns: str) -> Table:
    """A table whose columns named with a leading ``>`` are right-aligned."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.lstrip(">"), justify="right" if right else "left", overflow="fold")
    return made


def number(value: float) -> str:
    """With thousands separated; nothing for 0."""
    return f"{value:,}" if value else ""


def shape(sizes: Sequence[int]) -> str:
    """``1x32x32x3``."""
    return "x".join(map(str, sizes)) or "scalar"


def layers(manifest: Manifest) -> None:
    """One row for each node."""
    made = table("layers", ">", "value", "op", "shape", ">MACs", ">weight bytes", "kernels", "remarks")
    for step, layer in enumerate(manifest["layers"]):
        remarks = [f"[{layer['source']}]"] if layer["source"] else []
        made.add_row(str(step), layer["name"], layer["op"], shape(layer["shape"]), number(layer["macs"]),
                     number(layer["weight_bytes"]), "\n".join(dict.fromkeys(layer["kernels"])),
                     "; ".join(remarks + layer["remarks"]))  # fmt: skip
    console().print(made)


def summary(manifest: Manifest, folder: Path) -> None:
    """Inputs, outputs, sizes."""
    out = console()
    for kind in ("inputs", "outputs"):
        for e in manifest[kind]:
            quantized = f"  scale {e['scale']:g}, zero point {e['zero_point']}" if "scale" in e else ""
            out.print(f"{kind[:-1]:8}{e['name']}: {e['dtype']} {shape(e['shape'])}{quantized}")
    area = manifest["arena"]
    over = area["bytes"] / area["lower_bound"] - 1 if area["lower_bound"] else 0.0
    library = folder / f"lib{manifest['prefix']}.so"
    out.print(f"target  {manifest['target']['name']}")
    if manifest.get("arithmetic", "int8") != "int8":
        out.print(f"mode    {manifest['arithmetic']}")
    out.print(f"work    {manifest['macs']:,} MACs in {sum(bool(x['kernels']) for x in manifest['layers'])} layers")
    out.print(f"arena   {area['bytes']:,} bytes ({over:.1%} above the largest live set)")
    out.print(f"weights {manifest['weight_bytes']:,} bytes")
    measured = manifest.get("measured")
    if len(manifest.get("memory", ())) > 1:
        for name, nbytes in manifest["memory"].items():
            out.print(f"memory  {nbytes:,} bytes in '{name}'")
    if measured:
        stack = measured.get("stack_bytes")
        out.print(f"flash   {measured['flash_bytes']:,} bytes of code and constants"
                  + (f"; stack {stack:,} bytes" if stack is not None else ""))
    if library.exists():
        out.print(f"library {library.stat().st_size:,} bytes: {library}", soft_wrap=True)
    for remark in manifest["remarks"]:
        out.print(f"remark  {remark}", soft_wrap=True)


def arena(manifest: Manifest) -> None:
    """Lifetimes over offsets."""
    out = console()
    out.print("arena map: steps to the right, bytes downwards")
    for line in arena_map(manifest):
        out.print(line, soft_wrap=True)


def arena_map(manifest: Manifest) -> list[str]:
    """One letter for each buffer, where and when it is needed; ``.`` is free. The letters' meaning follows."""
    area, steps = manifest["arena"], len(manifest["layers"]) + 2
    buffers = sorted(area["buffers"], key=lambda b: (b["first"], b["offset"]))
    if not buffers:
        return ["(empty)"]
    columns, total = min(steps, MAP_COLUMNS), max(area["bytes"], 1)
    grid = [["."] * columns for _ in range(MAP_ROWS)]
    legend = []
    for index, b in enumerate(buffers):
        mark = MARKS[index % len(MARKS)]
        top = b["offset"] * MAP_ROWS // total
        bottom = max(top + 1, -(-(b["offset"] + b["bytes"]) * MAP_ROWS // total))
        left, right = ((s + 1) * columns // steps for s in (b["first"], b["last"]))
        for row in range(top, bottom):
            for column in range(left, right + 1):
                grid[row][column] = mark
        legend.append(f"{mark} {b['name']}: {b['bytes']:,} bytes at {b['offset']:,}, steps {b['first']} to {b['last']}")
    return [f"{total * row // MAP_ROWS:>12,} |{''.join(cells)}|" for row, cells in enumerate(grid)] + legend


def latency(model: Model, threads: int, times: Sequence[float]) -> None:
    """Median, best and spread of whole inferences (seconds)."""
    made = table(None, "model", ">threads", ">runs", ">median", ">best", ">90 %", ">GMAC/s")
    middle = statistics.median(times)
    tail = sorted(times)[min(len(times) - 1, len(times) * 9 // 10)]
    rate = f"{model.manifest['macs'] / middle / 1e9:.1f}"
    spread = (f"{t * 1e3:.3f} ms" for t in (middle, min(times), tail))
    made.add_row(model.name, str(threads), str(len(times)), *spread, rate)
    console().print(made)


def layer_times(model: Model, times: Mapping[str, float]) -> None:
    """Median time of each layer (seconds), the slowest first."""
    made = table(None, "value", "op", "shape", ">µs", ">share", ">GMAC/s")
    total = sum(times.values()) or 1.0
    found = {layer["name"]: layer for layer in model.manifest["layers"]}
    for name, seconds in sorted(times.items(), key=lambda item: -item[1]):
        layer = found[name]
        rate = f"{layer['macs'] / seconds / 1e9:.1f}" if layer["macs"] and seconds else ""
        made.add_row(name, layer["op"], shape(layer["shape"]), f"{seconds * 1e6:.1f}", f"{seconds / total:.1%}", rate)
    console().print(made)


def targets(shipped: Sequence[Target], host: str) -> None:
    """One row for each target."""
    made = table(None, "target", "", "needs", "description")
    for t in shipped:
        here = "host" if t.name == host else "" if t.missing() else "runs here"
        made.add_row(t.name, here, f"{t.arch}: {', '.join(t.requires)}", t.description)
    console().print(made)


def accelerators(shipped: Sequence[Description]) -> None:
    """One row for each accelerator."""
    made = table(None, "accelerator", ">MACs/cycle", ">MHz", ">cache bytes", "description")
    for d in shipped:
        made.add_row(d.name, f"{d.array.macs:,}", f"{d.array.clock_mhz:g}", f"{d.cache.bytes:,}", d.description)
    console().print(made)


def pareto(keys: Sequence[str], points: Sequence[Point]) -> None:
    """One row for each variant of a sweep; ``*`` marks those that no other beats."""
    made = table(None, "", *keys, ">cycles", ">latency", ">utilization", ">MACs/cycle", ">on-chip bytes", "")
    for p in points:
        figures = [f"{p.cycles:,}", f"{p.latency_ms:.3f} ms", f"{p.utilization:.1%}"] if not p.fault else ["", "", ""]
        figures += [f"{p.macs:,}", f"{p.on_chip_bytes:,}", p.fault]
        made.add_row("*" if p.front else "", *map(str, p.values), *figures)
    console().print(made)
