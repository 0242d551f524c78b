"""What a tuning job shows: progress while it runs, then a table and a plot of the best so far."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from qcc.report import console, table
from qcc.tune.job import Progress, Result
from qcc.tune.records import IN_MODEL, Key, Records

WIDTH, HEIGHT, MARGIN = 640, 360, 56


@contextmanager
def shown_progress(trials: int, seconds: float | None) -> Iterator[Callable[[Progress], None]]:
    """A function that shows how far a job is: a live line on a terminal, else a line now and then, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    out = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not sys.stderr.isatty():
        last = [float("-inf")]

        def say(p: Progress) -> None:
            if p.seconds - last[0] >= 30 and p.trials:
                last[0] = p.seconds
                out.print(f"{p.trials} of {trials} candidates, {status(p, trials, seconds)}")

        yield say
        return
    with Bar(BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False), console=out,
             transient=True) as bar:  # fmt: skip
        task = bar.add_task("", total=trials)
        yield lambda p: bar.update(task, completed=p.trials, description=f"{status(p, trials, seconds)}  {p.doing}")


def status(p: Progress, trials: int, seconds: float | None) -> str:
    """Best so far, time that is left, devices."""
    gain = f"best {amount(p.best, p.unit)}, {p.default / p.best:.3f}x the default, " if p.best else ""
    left = p.seconds * (trials - p.trials) / p.trials if p.trials else None
    if seconds is not None:
        left = min(seconds - p.seconds, left if left is not None else seconds)
    remaining = f"{max(left, 0) / 60:.0f} min left" if left is not None else "starting"
    return f"{gain}{remaining}, {p.devices} device{'s' if p.devices > 1 else ''}"


def amount(value: float, unit: str) -> str:
    """A value with its unit."""
    return f"{value * 1e6:,.1f} µs" if unit in ("s", IN_MODEL) else f"{value:,.0f} {unit}"


def summary(result: Result) -> None:
    """One row for each task, those with the largest share of the model's time first; totals."""
    out, default, tuned = console(), result.default, result.tuned
    made = table(None, "task", ">calls", ">default", ">tuned", ">gain", ">share", "decisions")
    for row in sorted(result.rows, key=lambda r: -r.count * r.default):
        decisions = ", ".join(f"{k} {v}" for k, v in sorted(row.decisions.items()))
        values = (amount(row.default, result.unit), amount(row.tuned, result.unit), f"{row.default / row.tuned:.3f}")
        made.add_row(row.what, str(row.count), *values, f"{row.count * row.default / default:.1%}", decisions)
    out.print(made)
    what = "kernels in the model" if result.unit == IN_MODEL else "kernels"
    sums = f"{amount(default, result.unit)} → {amount(tuned, result.unit)}"
    out.print(f"tuned {what}: {sums}, {default / tuned:.3f}x")
    out.print(f"{result.measured} measured, {result.failed} of them failed; {result.ended}")
    for remark in result.remarks:
        out.print(f"remark  {remark}", soft_wrap=True)


def plot(history: Sequence[tuple[int, float]], unit: str) -> str:
    """An SVG of the best so far over the candidates tried."""
    last, top, low = max(history[-1][0], 1), history[0][1], history[-1][1]
    span = (top - low) or top or 1.0

    def at(trial: int, value: float) -> tuple[float, float]:
        x = MARGIN + (WIDTH - 2 * MARGIN) * trial / last
        return x, HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - low) / span

    steps: list[tuple[float, float]] = []
    for (_, before), (trial, value) in zip([history[0], *history], history, strict=False):
        steps += [at(trial, before), at(trial, value)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in steps)
    left, bottom = MARGIN, HEIGHT - MARGIN
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" \
font-size="12">
<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>
<path d="M{left} {MARGIN}V{bottom}H{WIDTH - MARGIN}" fill="none" stroke="#888"/>
<polyline points="{line}" fill="none" stroke="#1667b7" stroke-width="2"/>
<text x="{left}" y="{MARGIN - 12}">{amount(top, unit)} by default, {amount(low, unit)} tuned: {top / low:.3f}x</text>
<text x="{left}" y="{bottom + 20}">0</text>
<text x="{WIDTH - MARGIN}" y="{bottom + 20}" text-anchor="end">{last} candidates</text>
</svg>
"""


def show_records(records: Records, known: Sequence[tuple[str, Key]]) -> None:
    """One row for each kernel; ``known`` are the shipped targets and the keys of records that hold for them now."""
    columns = ("kernel", "task", "target", ">candidates", ">failed", ">default", ">best", ">gain", "decisions", "")
    made = table(None, *columns)
    groups: dict[Any, list[Any]] = {}
    for record in records:
        groups.setdefault((record.key, record.kernel, record.unit), []).append(record)
    names = {key.target: name for name, key in known}
    current = {key for _, key in known}
    for (key, kernel, unit), group in groups.items():
        best, default = records.best(key, kernel, unit), records.find(key, kernel, unit, ())
        values = [amount(r.value, unit) if r and r.value is not None else "" for r in (default, best)]
        gain = f"{default.value / best.value:.3f}" if default and best and default.value and best.value else ""
        age = "" if key in current or key.target not in names else "older schedules"
        what = group[-1].what + (", in a model" if unit == IN_MODEL else "")
        made.add_row(kernel, what, names.get(key.target, group[-1].machine), str(len(group)),
                     str(sum(r.value is None for r in group)), *values, gain,
                     ", ".join(f"{k} {v}" for k, v in best.decisions) if best else "", age)  # fmt: skip
    out = console()
    out.print(made)
    if records.damaged:
        out.print(f"{records.damaged} damaged line{'s' if records.damaged > 1 else ''} ignored")
