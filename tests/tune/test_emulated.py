"""ARM kernels counted in QEMU's user mode."""

from __future__ import annotations

from pathlib import Path

import jobs
import pytest

from emulators import emulator_is_here
from qcc.target import Target
from qcc.tune.job import run_job
from qcc.tune.measure import Counted, choose_measure
from qcc.tune.records import Key, load_records

pytest.importorskip("xgboost", reason="tuning needs qcc[tune]")
NEON = Target.load("arm-neon")


@pytest.mark.skipif(not emulator_is_here(NEON), reason="needs gcc-aarch64-linux-gnu and qemu-user")
def test_counts_are_exact(tmp_path: Path) -> None:
    assert isinstance(choose_measure(NEON), Counted)
    for name in ("a", "b"):
        result = run_job(jobs.network(), NEON, tmp_path / f"{name}.tune", trials=8)
        assert result.unit == "instructions"
    assert (tmp_path / "a.tune").read_text() == (tmp_path / "b.tune").read_text()
    records = load_records(tmp_path / "a.tune")
    assert {r.status for r in records} <= {"ok", "unbuildable"}, "a tile may want more registers than there are"
    assert len({r.value for r in records if r.value is not None}) > 3
    assert {r.key for r in records} == {Key.of(NEON)}
