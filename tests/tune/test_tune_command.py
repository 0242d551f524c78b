from __future__ import annotations

from pathlib import Path

import jobs
import numpy as np
import pytest
from click.testing import CliRunner, Result

from qcc.cli import main
from qcc.target import Target
from qcc.tune.records import Key, Record, load_records, write_records

DIGITS = Path(__file__).parents[2] / "examples" / "01_digits" / "digits.onnx"


def command(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


def record(value: float, kernel: str = "k", schedules: str | None = None, **decisions: int) -> Record:
    key = Key.of(Target.load("x86-vnni"))
    key = key if schedules is None else Key(key.target, schedules)
    return Record(kernel, f"conv {kernel}", "x86-vnni", key, tuple(decisions.items()), "ok", "s", value)


def test_show_merge_prune(tmp_path: Path) -> None:
    a, b, c = (tmp_path / f"{name}.tune" for name in "abc")
    write_records([record(4e-6), record(2e-6, rows=4), record(3e-6, rows=2)], a)
    write_records([record(1e-6, rows=8), record(4e-6, "old", "old")], b)
    result = command("records", "merge", a, b, "-o", c)
    assert (result.exit_code, result.output) == (0, f"{c}: 5 records\n")
    shown = command("records", "show", c)
    assert shown.exit_code == 0
    row = next(line for line in shown.output.splitlines() if line.startswith("k "))
    assert all(text in row for text in ("conv k", "x86-vnni", "4.0 µs", "1.0 µs", "4.000", "rows 8"))
    assert "older schedules" in next(line for line in shown.output.splitlines() if line.startswith("old "))
    with c.open("a") as file:
        file.write('{"qcc": 1')
    assert "1 damaged line ignored" in command("records", "show", c).output
    assert command("records", "prune", c).output == f"{c}: 2 of 5 records kept\n"
    assert {r.decisions for r in load_records(c)} == {(), (("rows", 8),)}


def test_errors(tmp_path: Path) -> None:
    samples = tmp_path / "x.npy"
    np.save(samples, np.zeros((2, 1, 8, 8), np.float32))
    known = (DIGITS, "--calib", samples, "--records", tmp_path / "r.tune")
    for args, message in (
        (("records", "show", tmp_path / "none"), "cannot be read (No such file or directory). Hint: name a file that"),
        (("records", "merge", DIGITS, "-o", tmp_path / "m"), "holds no tuning records"),
        (("tune", *known, "--target", "edge-npu"), "tries every tiling on the cycle model by itself. Hint: compile"),
        (("tune", *known, "--rpc", "127.0.0.1:9190"), "a farm needs both --rpc and --key. Hint: give the tracker's"),
        (("tune", *known, "--target", "x86-vni"), "unknown target 'x86-vni'"),
        (("compile", *known[:3], "--records", DIGITS, "-o", tmp_path / "out"), "holds no tuning records"),
    ):
        result = command(*args)
        assert (result.exit_code, result.stdout) == (1, ""), args
        assert message in result.stderr
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "r.tune").exists()
    wrong = command("tune", *known, "--time", "soon")
    assert wrong.exit_code == 2
    assert "'soon' is no duration: write 90s, 10m or 2h" in wrong.output


def test_tune_then_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xgboost", reason="tuning needs qcc[tune]")
    monkeypatch.setattr("qcc.tune.measure.choose_measure", lambda target, rpc, key: jobs.Formula())
    samples, records, drawn = tmp_path / "x.npy", tmp_path / "r.tune", tmp_path / "tune.svg"
    np.save(samples, np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32))
    tuned = command("tune", DIGITS, "--calib", samples, "--records", records, "--trials", 16, "--time", "10m", "--plot",
                    drawn)  # fmt: skip
    assert tuned.exit_code == 0, tuned.output
    assert "tuned kernels: " in tuned.stdout
    assert drawn.read_text().startswith("<svg ")
    made = command("compile", DIGITS, "--calib", samples, "--records", records, "-o", tmp_path / "out", "--jobs", 1)
    assert made.exit_code == 0, made.output
    assert f"kernels are compiled as {records} say" in made.stdout
