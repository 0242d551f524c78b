"""A tuning job: defaults first, then what the search asks for, then the best candidates once more beside the default,
in the model where it runs here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from qcc.errors import TuningError
from qcc.ir.graph import Graph
from qcc.lower.build import Variant, Workers, build_kernels, plan_variants
from qcc.lower.repack import repacked, scheduled_decisions
from qcc.schedule.tiles import SHARES
from qcc.target import Target
from qcc.tune.inmodel import ModelBench
from qcc.tune.measure import Measure, Outcome, choose_measure
from qcc.tune.records import IN_MODEL, LEAST_GAIN, Journal, Key, Record
from qcc.tune.search import require_tuner, search
from qcc.tune.space import Chosen
from qcc.tune.tasks import Candidate, Task, find_tasks

BATCH = 8
"""Candidates that the search proposes at a time."""
BUILD_SECONDS = 120.0
"""Time that a candidate may take to be compiled."""
PROMISING = 0.985
"""A candidate with at most this part of the best one's time is measured a second time before it is believed."""
PATIENCE = 24
"""Candidates for each task that may pass without gain before a job ends."""
LEADING = 16
"""The best candidates of a task that are measured in the model."""
WORTH = 0.998
"""Gain of the whole model that counts as such."""


@dataclass(frozen=True)
class Progress:
    """How far a job is. ``best`` and ``default``: sums over the model, in ``unit``; ``seconds`` since it started."""

    trials: int
    measured: int
    default: float
    best: float
    unit: str
    devices: int
    seconds: float
    doing: str


@dataclass(frozen=True)
class Row:
    """What became of one task; values of one call."""

    what: str
    count: int
    default: float
    tuned: float
    decisions: Chosen


@dataclass(frozen=True)
class Result:
    """What a job found; ``history`` are (candidates tried, sum over the model of the best)."""

    rows: tuple[Row, ...]
    unit: str
    history: tuple[tuple[int, float], ...]
    measured: int
    failed: int
    ended: str
    remarks: tuple[str, ...]

    @property
    def default(self) -> float:
        """The sum over the model, by default."""
        return sum(row.count * row.default for row in self.rows)

    @property
    def tuned(self) -> float:
        """The sum over the model, tuned."""
        return sum(row.count * row.tuned for row in self.rows)


class _Over(Exception):  # noqa: N818 - the end of a job is no error
    """The job ends."""


def run_job(
    graph: Graph, target: Target, records: Path, *, trials: int = 400, seconds: float | None = None, seed: int = 0,
    jobs: int = 1, measure: Measure | None = None, watch: Callable[[Progress], None] | None = None,
) -> Result:
    """Tune the kernels of an integer program; every measured candidate is in ``records`` at once.

    ``trials``: candidates in all, those that the records know already included: a job that was interrupted takes up
    where it was. ``seconds``: longest time of this run. ``jobs``: processes that compile. ``watch`` is told of
    progress. Raises QccError.
    """
    require_tuner()
    journal = Journal(records)
    try:
        how = measure or choose_measure(target)
        with Workers(jobs, BUILD_SECONDS) as workers, ThreadPoolExecutor(how.devices) as devices:
            job = _Job(graph, target, journal, how, workers, devices, jobs, watch)
            return job.run(trials, seconds, seed)
    finally:
        journal.close()


class _Job:
    def __init__(
        self, graph: Graph, target: Target, journal: Journal, measure: Measure, workers: Workers,
        devices: ThreadPoolExecutor, jobs: int, watch: Callable[[Progress], None] | None,
    ) -> None:  # fmt: skip
        self.graph, self.target, self.journal, self.measure = graph, target, journal, measure
        self.workers, self.watch = workers, watch
        self.key, self.unit, self.jobs = Key.of(target), measure.unit, jobs
        self.pool, self.start, self.lock = devices, time.monotonic(), threading.Lock()
        self.tried = self.measured = self.failed = self.idle = 0
        self.history: list[tuple[int, float]] = []
        self.remarks: list[str] = []
        self._say("look for decisions")
        self.tasks = find_tasks(graph, target)
        if not self.tasks:
            raise TuningError(f"{target.name} leaves nothing to be decided in this model", where=graph.name)

    def run(self, trials: int, seconds: float | None, seed: int) -> Result:
        """All of it."""
        self.deadline = None if seconds is None else self.start + seconds
        self.defaults()
        if not self.tasks:
            raise TuningError("no kernel of the model could be measured", hint=self.remarks[0])
        self.tasks.sort(key=lambda t: -t.count * self.value(t, {}))
        self.patience = PATIENCE * len(self.tasks)
        self.history.append((0, self.total(best=True)))
        ended = "every candidate was tried"
        try:
            search(self.tasks, self.evaluate, trials, max(BATCH, self.measure.devices), seed)
            if self.tried >= trials:
                ended = f"{trials} candidates were tried"
        except _Over as over:
            ended = str(over)
        except KeyboardInterrupt:
            ended = "interrupted"
        if self.measure.whole and ended != "interrupted":
            self.settle()
        elif self.measured and not self.measure.exact:
            self.confirm()
        rows = tuple(Row(t.what, t.count, self.value(t, {}), self.best_value(t), self.chosen(t)) for t in self.tasks)
        return Result(rows, self.unit, tuple(self.history), self.measured, self.failed, ended, tuple(self.remarks))

    def defaults(self) -> None:
        """Measure the defaults; a task whose default fails is left out."""
        self._say("compile the defaults")
        self.plain = build_kernels([task.kernel for task in self.tasks], self.target, self.jobs)
        self._say("measure the defaults")
        missing = [t for t in self.tasks if self.found(t, {}) is None]
        list(self.pool.map(lambda task: self.keep(task, {}, self.measure_alone(task)), missing))
        for task in list(self.tasks):
            record = self.found(task, {})
            if record is None or record.value is None:
                self.tasks.remove(task)
                self.remarks.append(f"{task.what} is left out: its default fails ({record and record.error})")

    def evaluate(self, task: Task, choices: Sequence[Chosen]) -> list[Record]:
        """Records of candidates: known ones, and those that are built and measured now."""
        self._check_time()
        chosen = [task.space.differing(c) for c in choices]
        new = [c for c in chosen if self.found(task, c) is None]
        before = self.total(best=True)
        self._say(task.what)
        futures = [self.workers.submit(self.variant(task, c), self.target) for c in new]
        list(self.pool.map(lambda pair: self._try(task, *pair), zip(new, futures, strict=True)))
        self.tried += len(choices)
        after = self.total(best=True)
        self.history.append((self.tried, after))
        self.idle = 0 if after <= WORTH * before else self.idle + len(choices)
        if self.idle >= self.patience:
            raise _Over(f"{self.idle} candidates passed without gain")
        records = [self.found(task, c) for c in chosen]
        return [r for r in records if r is not None]

    def _try(self, task: Task, chosen: Chosen, compiled: Future[str | None]) -> None:
        """Measure one candidate."""
        failure = compiled.result()
        self._check_time()
        if failure is not None:
            outcome = Outcome("unbuildable", failure.strip().splitlines()[-1])
        else:
            candidate, least = self.candidate(task, chosen), self.least_extent(task)
            if candidate.built.extent < least:
                said = f"threads would share {candidate.built.extent} iterations, not {least}"
                outcome = Outcome("unbuildable", said)
            else:
                outcome = self.measure.run([candidate]) if self.measure.exact else self.beside(task, chosen)
        self.keep(task, chosen, outcome)
        self._say(task.what)

    def least_extent(self, task: Task) -> int:
        """Iterations that a candidate must leave for threads to share: it is measured with one, and runs with many."""
        return min(SHARES, self.plain[task.kernel.digest].extent)

    def measure_alone(self, task: Task) -> Outcome:
        """Measure a default."""
        return self.measure.run([self.candidate(task, {})])

    def beside(self, task: Task, chosen: Chosen) -> Outcome:
        """Measure a candidate beside the best so far: its value is the best one's times their ratio.

        One that seems to be better is measured twice, and the worse result counts: luck must not win.
        """
        best = self.journal.records.best(self.key, task.kernel.digest, self.unit)
        assert best is not None and best.value is not None, "defaults come first"  # noqa: PT018
        candidates = [self.candidate(task, c) for c in (chosen, dict(best.decisions))]
        ratio = 0.0
        for _ in range(2):
            outcome = self.measure.run(candidates)
            if outcome.status != "ok":
                return outcome
            ratio = max(ratio, outcome.values[0] / outcome.values[1])
            if ratio > PROMISING:
                break
        return replace(outcome, values=(ratio * best.value,))

    def confirm(self) -> None:
        """Measure every winner beside its default, which settles the gain that is recorded."""
        for task in self.tasks:
            chosen, default = self.chosen(task), self.value(task, {})
            if not chosen:
                continue
            self._say(f"confirm {task.what}")
            candidates = [self.candidate(task, c) for c in (chosen, {})]
            outcomes = [self.measure.run(candidates) for _ in range(2)]
            if all(o.status == "ok" for o in outcomes):
                ratio = max(o.values[0] / o.values[1] for o in outcomes)
                self.keep(task, chosen, replace(outcomes[0], values=(ratio * default,)))

    def settle(self) -> None:
        """Measure the best candidates of every task in the model, one of each at a time, then the winners once more:
        of their two results the worse one counts."""
        best = {task.kernel.digest: self.leading(task) for task in self.tasks}
        rounds = [{d: known[n] for d, known in best.items() if n < len(known)}
                  for n in range(max(1, *map(len, best.values())))]  # fmt: skip
        self._say("compile the model")
        self.unit = IN_MODEL
        rounds = [r for r in rounds if any(self.found(t, r.get(t.kernel.digest, {})) is None for t in self.tasks)]
        if not rounds:
            return
        with ModelBench(self.graph, self.target, self.tasks) as bench:
            for number, chosen in enumerate(rounds):
                self.keep_in_model(bench, chosen)
                self._say(f"measured in the model, {number + 1} of {len(rounds) + 1}")
            self.keep_in_model(bench, {t.kernel.digest: self.chosen(t) for t in self.tasks})

    def leading(self, task: Task) -> list[Chosen]:
        """The candidates that are to be measured in the model, all faster than the default."""
        known = self.journal.records.ranked(self.key, task.kernel.digest, self.unit)
        return [dict(r.decisions) for r in takewhile(lambda r: r.decisions, known[:LEADING])]

    def keep_in_model(self, bench: ModelBench, chosen: Mapping[str, Chosen]) -> None:
        """Measure decisions in the model; a value is the first one of the default times what they make of it."""
        times = bench.times(chosen)
        for task in self.tasks:
            now, tuned = times[task.kernel.digest]
            if self.found(task, {}) is None:
                self.keep(task, {}, Outcome("ok", values=(now,)))
            decisions = chosen.get(task.kernel.digest)
            if decisions:
                before, value = self.found(task, decisions), tuned / now * self.value(task, {})
                if before is not None and before.value is not None:
                    value = max(value, before.value)
                self.keep(task, decisions, Outcome("ok", values=(value,)))

    def keep(self, task: Task, chosen: Chosen, outcome: Outcome) -> None:
        """Write a record."""
        value = outcome.values[0] if outcome.status == "ok" else None
        decisions = tuple(sorted(chosen.items()))
        record = Record(task.kernel.digest, task.what, self.target.name, self.key, decisions, outcome.status, self.unit,
                        value, outcome.error)  # fmt: skip
        with self.lock:
            self.journal.append(record)
            self.measured += 1
            self.failed += value is None

    def variant(self, task: Task, chosen: Chosen) -> Variant:
        """What is compiled for a candidate."""
        kernel = repacked(task.call, self.target, chosen).kernel
        return plan_variants([kernel], self.target, {kernel.digest: scheduled_decisions(chosen)})[kernel.digest][0]

    def candidate(self, task: Task, chosen: Chosen) -> Candidate:
        """A candidate that was compiled; a default as the whole model has it."""
        if not chosen:
            return Candidate(task, task.call, self.plain[task.kernel.digest])
        call = repacked(task.call, self.target, chosen)
        decisions = {call.kernel.digest: scheduled_decisions(chosen)}
        return Candidate(task, call, build_kernels([call.kernel], self.target, chosen=decisions)[call.kernel.digest])

    def found(self, task: Task, chosen: Chosen) -> Record | None:
        """The record of a candidate."""
        return self.journal.records.find(self.key, task.kernel.digest, self.unit, tuple(sorted(chosen.items())))

    def value(self, task: Task, chosen: Chosen) -> float:
        """The value of a correct candidate."""
        record = self.found(task, chosen)
        assert record is not None and record.value is not None, "it was measured"  # noqa: PT018
        return record.value

    def chosen(self, task: Task) -> Chosen:
        """The decisions that are best, ``{}`` where that is the default or hardly worse."""
        best = self.journal.records.best(self.key, task.kernel.digest, self.unit)
        better = best is not None and best.value is not None and best.value <= LEAST_GAIN * self.value(task, {})
        return dict(best.decisions) if best is not None and better else {}

    def best_value(self, task: Task) -> float:
        """The value of the decisions that are best."""
        return self.value(task, self.chosen(task))

    def total(self, best: bool) -> float:
        """The sum over the model."""
        return sum(t.count * (self.best_value(t) if best else self.value(t, {})) for t in self.tasks)

    def _check_time(self) -> None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise _Over("the time is over")

    def _say(self, doing: str) -> None:
        if self.watch is not None:
            sums = (self.total(False), self.total(True)) if self.history else (0.0, 0.0)
            elapsed = time.monotonic() - self.start
            self.watch(Progress(self.tried, self.measured, *sums, self.unit, self.measure.devices, elapsed, doing))
