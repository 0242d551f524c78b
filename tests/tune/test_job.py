"""Jobs that are the same every time, survive their end, and do not believe what is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import jobs
import numpy as np
import pytest

from qcc import pipeline
from qcc.emit.entry import prototype
from qcc.errors import RecordsError, TuningError
from qcc.ir.graph import Graph
from qcc.lower.build import build_kernels
from qcc.schedule.tiles import SHARES
from qcc.target import Target, missing_here
from qcc.tune import job, measure, report
from qcc.tune.inmodel import ModelBench
from qcc.tune.job import LEADING, run_job
from qcc.tune.measure import Outcome, Timed, choose_measure
from qcc.tune.records import Key, Records, load_records, write_records
from qcc.tune.search import require_tuner
from qcc.tune.space import Chosen
from qcc.tune.tasks import Candidate, Task, find_tasks
from qcc.verify import random_samples, verify_model

HOST = Target.load("host")
pytest.importorskip("xgboost", reason="tuning needs qcc[tune]")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of a job that nothing interrupted."""
    path = tmp_path_factory.mktemp("tune") / "whole.tune"
    result = jobs.tune(path)
    assert result.measured == len(load_records(path))
    assert result.failed == sum("threads would share" in r.error for r in load_records(path))
    return path


def test_the_same_seed_gives_the_same_records(whole: Path, tmp_path: Path) -> None:
    jobs.tune(tmp_path / "again.tune")
    assert (tmp_path / "again.tune").read_text() == whole.read_text()


def test_a_job_that_was_killed_goes_on(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "killed.tune"
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(pipeline.__file__).parents[1])]
    running = subprocess.Popen([sys.executable, str(Path(jobs.__file__)), str(path)],
                           env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)}, start_new_session=True)
    deadline = time.monotonic() + 300
    while not (path.exists() and path.read_text().count("\n") >= 7):
        assert running.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    before = load_records(path)
    assert before.damaged == 0
    assert 7 <= len(before) < len(load_records(whole))
    result = jobs.tune(path)
    assert result.measured == len(load_records(whole)) - len(before), "nothing is measured again"
    assert path.read_text() == whole.read_text()


def test_threads_keep_their_share(whole: Path) -> None:
    """A candidate is measured with one thread, and must not take the work of others."""
    for task in find_tasks(jobs.network(), HOST):
        digest = task.kernel.digest
        tried = [dict(r.decisions) for r in load_records(whole) if r.kernel == digest and r.status == "ok"]
        extents = [build_kernels([task.kernel], HOST, 1, chosen={digest: c})[digest].extent for c in ({}, *tried)]
        assert min(extents) >= min(SHARES, extents[0])


def test_records_are_compiled_by_and_change_no_byte(whole: Path, tmp_path: Path) -> None:
    graph = jobs.network()
    model = pipeline.build(graph, HOST, tmp_path / "out", jobs=1, records=whole)
    plain = pipeline.build(graph, HOST, tmp_path / "plain", jobs=1)
    chosen = load_records(whole).chosen(Key.of(HOST), [t.kernel.digest for t in find_tasks(graph, HOST)])
    assert chosen
    assert f"{len(chosen)} of 2 kernels are compiled as {whole} say" in model.manifest["remarks"]
    kernels = [[k for layer in m.manifest["layers"] for k in layer["kernels"]] for m in (model, plain)]
    assert kernels[0] != kernels[1]
    assert verify_model(model, random_samples(model, 2)) is None
    sample = random_samples(model, 1)[0]
    for a, b in zip(model.run(sample).values(), plain.run(sample).values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_records_that_do_not_hold_are_ignored_with_a_reason(whole: Path, tmp_path: Path) -> None:
    key = Key.of(HOST)
    old, other = replace(key, schedules="old"), replace(key, target="other")
    for changed, reason in ((old, "older schedules"), (other, "another target")):
        path = tmp_path / "stale.tune"
        write_records([replace(r, key=changed) for r in load_records(whole)], path)
        model = pipeline.build(jobs.network(), HOST, tmp_path / "out", jobs=1, records=path)
        (remark,) = model.manifest["remarks"]
        assert remark.startswith("0 of 2 kernels")
        assert f"ignored: {len(load_records(path))} of {reason}" in remark
    with pytest.raises(RecordsError, match="cannot be read"):
        pipeline.build(jobs.network(), HOST, tmp_path / "none", records=tmp_path / "none.tune")


def test_records_that_come_with_qcc_are_used_unasked(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Key.of(HOST)
    shipped = tmp_path / "targets" / "records" / f"{HOST.name}.jsonl"
    shipped.parent.mkdir(parents=True)
    monkeypatch.setattr("qcc.tune.records.data_folder", lambda name: tmp_path / name)
    assert not pipeline.build(jobs.network(), HOST, tmp_path / "none", jobs=1).manifest["remarks"]
    write_records(load_records(whole).winners(), shipped)
    (remark,) = pipeline.build(jobs.network(), HOST, tmp_path / "out", jobs=1).manifest["remarks"]
    assert remark.endswith(" of 2 kernels are compiled as the records that come with qcc say")
    write_records([replace(r, key=replace(key, schedules="old")) for r in load_records(shipped)], shipped)
    (remark,) = pipeline.build(jobs.network(), HOST, tmp_path / "out", jobs=1).manifest["remarks"]
    assert remark.startswith("0 of 2 kernels are compiled as the records that come with qcc say; ignored: ")
    write_records([replace(r, kernel="other") for r in load_records(whole)], shipped)
    assert not pipeline.build(jobs.network(), HOST, tmp_path / "out", jobs=1).manifest["remarks"]


PLANTED = {"crash": "*(volatile int *)0 = 1;", "timeout": "for (;;) { __asm__ volatile(\"\"); }", "wrong": "y[3] ^= 1;"}


class Planted(Timed):
    """The first candidates are replaced by code that crashes, hangs and computes something else."""

    def __init__(self, folder: Path) -> None:
        super().__init__(HOST)
        self.folder, self.left = folder, dict(PLANTED)

    def run(self, candidates: Sequence[Candidate]) -> Outcome:
        if len(candidates) == 2 and self.left:
            name, body = self.left.popitem()
            first = candidates[0]
            text = "#include <stdint.h>\n" + prototype(first.call.kernel, first.built.symbol)[:-1] + "{" + body + "}\n"
            (self.folder / f"{name}.c").write_text(text)
            made = self.folder / f"{name}.o"
            subprocess.run(["cc", "-c", "-w", str(self.folder / f"{name}.c"), "-o", str(made)], check=True)
            candidates = [replace(first, built=replace(first.built, object=made)), *candidates[1:]]
        return super().run(candidates)


def test_what_crashes_hangs_or_is_wrong_is_never_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SECONDS", 2.0)
    monkeypatch.setattr(measure, "LONGEST", 0.02)
    path = tmp_path / "planted.tune"
    result = run_job(jobs.network(), HOST, path, trials=8, measure=Planted(tmp_path))
    records = list(load_records(path))
    failed = [r for r in records if r.value is None]
    assert result.failed == len(failed)
    planted = [r for r in failed if "threads would share" not in r.error]
    assert len(planted) == 3
    assert {r.status: bool(r.error) for r in planted} == dict.fromkeys(PLANTED, True)
    chosen = Records(records).chosen(Key.of(HOST), {r.kernel for r in records})
    assert not {(k, tuple(sorted(c.items()))) for k, c in chosen.items()} & {(r.kernel, r.decisions) for r in failed}


class Beside(jobs.Formula):
    """Values of a kernel alone, on what runs whole models too."""

    exact, whole = False, True

    def run(self, candidates: Sequence[Candidate]) -> Outcome:
        return Outcome("ok", values=tuple(super(Beside, self).run([c]).values[0] for c in candidates))


class Reversed:
    """A model in which a kernel's worst candidate is the best one, and the default is worse still."""

    asked: ClassVar[list[dict[str, Chosen]]] = []

    def __init__(self, graph: Graph, target: Target, tasks: Sequence[Task]) -> None:
        self.tasks = tasks

    def __enter__(self) -> Reversed:
        return self

    def __exit__(self, *failure: object) -> None: ...

    def times(self, chosen: dict[str, Chosen]) -> dict[str, tuple[float, float]]:
        rank = len(self.asked)
        self.asked.append(chosen)
        return {t.kernel.digest: (1.0, 0.95 - 0.01 * rank if rank < LEADING else 0.805) for t in self.tasks}


def test_the_model_has_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "ModelBench", Reversed)
    path = tmp_path / "model.tune"
    result = run_job(jobs.network(), HOST, path, trials=60, measure=Beside(), seed=3)
    known, key = load_records(path), Key.of(HOST)
    *rounds, last = Reversed.asked
    assert len(rounds) == LEADING
    rows = {row.what: row for row in result.rows}
    for task in find_tasks(jobs.network(), HOST):
        digest, row = task.kernel.digest, rows[task.what]
        tried = [r[digest] for r in rounds if digest in r]
        alone = [dict(r.decisions) for r in known.ranked(key, digest, "instructions")]
        assert tried == alone[: len(tried)], "the best ones alone"
        assert last[digest] == tried[-1] == row.decisions == known.chosen(key, [digest])[digest]
        first = 0.95 - 0.01 * (len(tried) - 1)
        assert (row.default, row.tuned) == (1.0, max(first, 0.805)), "of two results the worse one counts"
    again = run_job(jobs.network(), HOST, path, trials=60, measure=Beside(), seed=3)
    assert again.measured == 0
    assert again.rows == result.rows


def test_a_model_is_measured_layer_by_layer() -> None:
    graph = jobs.network()
    tasks = find_tasks(graph, HOST)
    with ModelBench(graph, HOST, tasks) as bench:
        name, decision = tasks[0].kernel.digest, tasks[0].space.decisions[0]
        other = next(c for c in decision.candidates if c != decision.default)
        times = bench.times({name: {decision.name: other}})
    assert times.keys() == {t.kernel.digest for t in tasks}
    assert all(default > 0 and tuned > 0 for default, tuned in times.values())


def test_a_default_that_fails_is_left_out(tmp_path: Path) -> None:
    class Broken(jobs.Formula):
        def run(self, candidates: Sequence[Candidate]) -> Outcome:
            return Outcome("crash", "exit code -4")

    with pytest.raises(TuningError, match="no kernel of the model could be measured"):
        run_job(jobs.network(), HOST, tmp_path / "r.tune", measure=Broken())


def test_a_job_ends_when_its_time_is_over(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.tune"
    path.write_text(whole.read_text())
    result = run_job(jobs.network(), HOST, path, trials=jobs.TRIALS, seconds=0.0, measure=jobs.Formula(), seed=3)
    assert (result.ended, result.measured) == ("the time is over", 0)


def test_progress_summary_and_plot(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shown.tune"
    path.write_text(whole.read_text())
    seen = []
    result = run_job(jobs.network(), HOST, path, trials=jobs.TRIALS, measure=jobs.Formula(), seed=3, watch=seen.append)
    assert result.measured == 0, "everything was known"
    assert report.status(seen[-1], jobs.TRIALS, 600.0).endswith("1 device")
    assert "x the default, " in report.status(seen[-1], jobs.TRIALS, None)
    report.summary(result)
    said = capsys.readouterr().out
    assert "conv_gemm 1x6x6x32" in said
    assert "tuned kernels: " in said
    drawn = report.plot(result.history, result.unit)
    assert drawn.startswith("<svg ")
    assert f">{result.history[-1][0]} candidates</text>" in drawn


def test_how_to_measure_is_chosen_by_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(choose_measure(HOST), Timed)
    elsewhere = HOST.model_copy(update={"arch": "vax"})
    assert missing_here(elsewhere.arch, [])
    with pytest.raises(TuningError, match="lacks architecture vax, and the target names no other"):
        choose_measure(elsewhere)
    command = elsewhere.run.model_copy(update={"command": ["ssh-to-board", "{runner}"]})
    assert isinstance(choose_measure(elsewhere.model_copy(update={"run": command})), Timed)
    with pytest.raises(TuningError, match="needs both --rpc and --key"):
        choose_measure(HOST, rpc="127.0.0.1:9190")
    with pytest.raises(TuningError, match="cannot run the C source of cortex-m4"):
        choose_measure(Target.load("cortex-m4"), "127.0.0.1:9190", "m4")
    with pytest.raises(TuningError, match=r"is no HOST:PORT"):
        choose_measure(HOST, "tracker", "key")
    with pytest.raises(TuningError, match="no tracker answers"):
        choose_measure(HOST, "127.0.0.1:9", "key")
    with pytest.raises(TuningError, match="LLVM's objects for microcontrollers cannot be measured"):
        choose_measure(Target.load("cortex-m4").with_emit("object"))
    with pytest.raises(TuningError, match="names no board of QEMU"):
        choose_measure(Target.load("c99"))


def test_what_tuning_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(TuningError, match=r"tuning needs the Python package xgboost") as caught:
        require_tuner()
    assert caught.value.hint == "pip install 'qcc[tune]'"
