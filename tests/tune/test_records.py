from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from qcc.data import data_folder
from qcc.errors import ArtifactError, RecordsError
from qcc.target import Target
from qcc.tune import records as module
from qcc.tune.records import Journal, Key, Record, Records, load_records, schedule_version, write_records

KEY = Key.of(Target.load("x86-vnni"))


def record(value: float | None = 1.0, kernel: str = "a", key: Key = KEY, unit: str = "s", **decisions: int) -> Record:
    status = "ok" if value is not None else "crash"
    error = "" if value is not None else "exit code -11"
    return Record(kernel, "conv 1x2x3", "x86-vnni", key, tuple(sorted(decisions.items())), status, unit, value, error)


def test_a_line_is_a_record() -> None:
    for made in (record(), record(rows=4, cols=2), record(None, rows=1), record(5.0, unit="instructions")):
        line = made.line()
        assert line.endswith("}\n")
        assert line.count("\n") == 1
        assert Record.parse(line) == made


@pytest.mark.parametrize(
    "line", ["", "{}", "[]", "1", '{"qcc": 2}', record().line()[:-9], record().line().replace("ok", "k")]
)
def test_other_lines_are_none(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Record.parse(line)


def test_later_records_replace_earlier_ones_and_failures_never_win() -> None:
    foreign = record(0.1, key=Key("x", "y"))
    found = Records([record(), record(0.5, rows=4), record(0.7, rows=4), record(None, rows=8), foreign])
    assert len(found) == 4
    best = found.best(KEY, "a")
    assert best is not None
    assert (best.value, best.decisions) == (0.7, (("rows", 4),))
    assert found.chosen(KEY, ["a", "b"]) == {"a": {"rows": 4}}
    assert found.stale(KEY) == "1 of another target"
    assert Records([record(key=replace(KEY, schedules="old"))]).stale(KEY) == "1 of older schedules"
    assert Records([record()]).stale(KEY) is None
    assert {r.decisions for r in found.winners() if r.key == KEY} == {(), (("rows", 4),)}


def test_hardly_better_than_the_default_is_not_better() -> None:
    assert Records([record(), record(0.995, rows=4)]).chosen(KEY, ["a"]) == {}
    assert Records([record(), record(0.985, rows=4)]).chosen(KEY, ["a"]) == {"a": {"rows": 4}}


def test_times_count_before_instructions() -> None:
    counts = [record(9.0, unit="instructions"), record(1.0, unit="instructions", rows=2)]
    assert Records([record(), record(0.5, rows=4), *counts]).chosen(KEY, ["a"]) == {"a": {"rows": 4}}
    counted = Records(counts)
    assert counted.chosen(KEY, ["a"]) == {"a": {"rows": 2}}


def test_a_torn_line_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.tune"
    path.write_text(record().line() + record(0.5, rows=4).line()[:40])
    assert (len(load_records(path)), load_records(path).damaged) == (1, 1)
    journal = Journal(path)
    journal.append(record(0.25, rows=8))
    journal.close()
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert len(lines[1]) == 40
    assert Record.parse(lines[2]).value == 0.25
    assert len(load_records(path)) == 2


def test_one_job_writes_a_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "r.tune"
    journal = Journal(path)
    with pytest.raises(RecordsError, match="another job writes these records"):
        Journal(path)
    journal.close()
    Journal(path).close()


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match="cannot be read"):
        load_records(tmp_path / "none.tune")
    other = tmp_path / "other"
    for contents in (b"\xff\xfe\x00", b"a model\n"):
        other.write_bytes(contents)
        with pytest.raises(RecordsError, match="holds no tuning records"):
            Journal(other)
        assert other.read_bytes() == contents
    with pytest.raises(ArtifactError, match="the records cannot be written"):
        write_records([record()], tmp_path / "no" / "r.tune")
    other.unlink()
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordsError, match="cannot be written"):
        Journal(tmp_path / "file" / "r.tune")


def test_shipped_records() -> None:
    for file in (data_folder("targets") / "records").glob("*.jsonl"):
        found = load_records(file)
        assert found.damaged == 0
        assert file.stat().st_size < 500_000, "they are in every wheel"
        assert {r.key.target for r in found} == {Key.of(Target.load(file.stem)).target}


def test_schedule_versions_follow_the_code_alone() -> None:
    assert schedule_version("vnni") != schedule_version("avx2")
    before = ast.parse('"""A."""\ndef f(x):\n    """B."""\n    return x  # c\n')
    after = ast.parse('"""Other."""\ndef f(x):\n    return x\n')
    strip = module._without_docstrings
    assert ast.dump(strip(before)) == ast.dump(strip(after))
