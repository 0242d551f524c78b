"""The file of records: what was measured, one JSON object a line, appended and never changed.

A record is keyed by kernel, target (what its code depends on) and the version of the schedules that made it. A later
record of the same decisions replaces an earlier one, so that files are merged by putting one behind the other. A last
line that was torn by a crash is left alone.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from qcc.data import data_folder
from qcc.errors import RecordsError
from qcc.output import new_file

if TYPE_CHECKING:
    from qcc.target import Target

FORMAT = 1
LEAST_GAIN = 0.99
"""Decisions are used if they take at most this part of the default's time."""

IN_MODEL = "s in model"
"""The unit of seconds that a kernel's layers take in a model; "s" are those of the kernel alone."""
UNITS = (IN_MODEL, "s", "instructions", "cycles")
"""What says most about a device comes first."""

Status = Literal["ok", "unbuildable", "crash", "timeout", "wrong"]
Chosen = Mapping[str, int]


@dataclass(frozen=True)
class Key:
    """What a record holds for: kernels of one target, by one version of its schedules."""

    target: str
    schedules: str

    @staticmethod
    def of(target: Target) -> Key:
        """The key of records that are made now."""
        text = json.dumps(target.codegen_key(), sort_keys=True)
        return Key(hashlib.sha256(text.encode()).hexdigest()[:12], schedule_version(target.family))


@dataclass(frozen=True)
class Record:
    """One candidate of one kernel. ``value`` in ``unit``, one of ``UNITS``, is None unless it is "ok";
    ``error`` says what went wrong. ``kernel``: digest; ``what`` and ``machine`` are for people.
    """

    kernel: str
    what: str
    machine: str
    key: Key
    decisions: tuple[tuple[str, int], ...]
    status: Status
    unit: str
    value: float | None = None
    error: str = ""

    def line(self) -> str:
        """One line of a file."""
        fields = {"qcc": FORMAT, **asdict(self), **asdict(self.key), "decisions": dict(self.decisions)}
        del fields["key"]
        return json.dumps({k: v for k, v in fields.items() if v not in (None, "")}) + "\n"

    @staticmethod
    def parse(line: str) -> Record:
        """The record of a line. Raises ValueError."""
        fields: Any = json.loads(line)
        try:
            if fields["qcc"] != FORMAT or fields["status"] not in get_args(Status):
                raise ValueError("of another format")
            decisions = tuple((str(k), int(v)) for k, v in fields["decisions"].items())
            value = float(fields["value"]) if fields["status"] == "ok" else None
            texts = {k: str(fields.get(k, "")) for k in ("kernel", "what", "machine", "unit", "error")}
            return Record(key=Key(str(fields["target"]), str(fields["schedules"])), decisions=decisions,
                          status=fields["status"], value=value, **texts)  # fmt: skip
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no record: {error}") from error


class Records:
    """Records in the order of their file; ``damaged`` are lines that are none."""

    def __init__(self, records: Iterable[Record] = (), damaged: int = 0) -> None:
        self.damaged = damaged
        self._of: dict[tuple[Key, str], dict[tuple[str, tuple[tuple[str, int], ...]], Record]] = {}
        for record in records:
            self.add(record)

    def __iter__(self) -> Iterator[Record]:
        """All that count."""
        return (r for group in self._of.values() for r in group.values())

    def __len__(self) -> int:
        """How many count."""
        return sum(map(len, self._of.values()))

    def add(self, record: Record) -> None:
        """Add one; it replaces an earlier one of the same decisions."""
        group = self._of.setdefault((record.key, record.kernel), {})
        group.pop((record.unit, record.decisions), None)
        group[record.unit, record.decisions] = record

    def find(self, key: Key, kernel: str, unit: str, decisions: tuple[tuple[str, int], ...]) -> Record | None:
        """The record of a candidate."""
        return self._of.get((key, kernel), {}).get((unit, decisions))

    def ranked(self, key: Key, kernel: str, unit: str) -> list[Record]:
        """The correct candidates of a kernel, the fastest first."""
        found = (r for r in self._of.get((key, kernel), {}).values() if r.unit == unit)
        return sorted((r for r in found if r.value is not None), key=lambda r: r.value or 0.0)

    def best(self, key: Key, kernel: str, unit: str | None = None) -> Record | None:
        """The fastest correct candidate of a kernel, in the first of ``UNITS`` in which there is one."""
        for wanted in UNITS if unit is None else (unit,):
            fitting = self.ranked(key, kernel, wanted)
            if fitting:
                return fitting[0]
        return None

    def chosen(self, key: Key, kernels: Iterable[str]) -> dict[str, dict[str, int]]:
        """Decisions by kernel, where there are better ones than the defaults (which the records name ``{}``)."""
        found = {}
        for kernel in kernels:
            best = self.best(key, kernel)
            default = best and self.find(key, kernel, best.unit, ())
            if best and best.decisions and (not default or (best.value or 0) <= LEAST_GAIN * (default.value or 0)):
                found[kernel] = dict(best.decisions)
        return found

    def winners(self) -> Records:
        """Of each kernel the best candidate and the default, of each unit: what a compiler needs."""
        kept = []
        for (key, kernel), group in self._of.items():
            for unit in dict.fromkeys(r.unit for r in group.values()):
                default, best = self.find(key, kernel, unit, ()), self.best(key, kernel, unit)
                kept += [r for r in dict.fromkeys((default, best)) if r is not None]
        return Records(kept)

    def stale(self, key: Key) -> str | None:
        """Why records are not used, in one line; None where all hold for ``key``."""
        reasons = Counter("another target" if r.key.target != key.target else "older schedules"
                          for r in self if r.key != key)  # fmt: skip
        return ", ".join(f"{n} of {reason}" for reason, n in reasons.items()) or None


def load_records(path: Path) -> Records:
    """The records of a file. Raises RecordsError: it cannot be read, or holds none."""
    where, hint = str(path), "name a file that `qcc tune --records` wrote"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise RecordsError(f"cannot be read ({error.strerror})", where=where, hint=hint) from error
    except UnicodeDecodeError as error:
        raise RecordsError("holds no tuning records", where=where, hint=hint) from error
    found, damaged = [], 0
    for line in lines:
        if line:
            try:
                found.append(Record.parse(line))
            except ValueError:
                damaged += 1
    if damaged and not found:
        raise RecordsError("holds no tuning records", where=where, hint=hint)
    return Records(found, damaged)


def shipped_records(target: Target) -> Records:
    """The records that come with qcc for a target of this name."""
    path = data_folder("targets") / "records" / f"{target.name}.jsonl"
    return load_records(path) if path.exists() else Records()


def write_records(records: Iterable[Record], path: Path) -> None:
    """Replace a file. Raises ArtifactError."""
    with new_file(path, "the records") as file:
        file.write("".join(r.line() for r in records).encode())


class Journal:
    """A file of records that is open for one job: a record is on the disk when ``append`` returns."""

    def __init__(self, path: Path) -> None:
        """Raises RecordsError: the file cannot be written, holds something else, or is another job's."""
        self.records = load_records(path) if path.exists() else Records()
        try:
            path.absolute().parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise RecordsError(f"cannot be written ({error.strerror})", where=str(path)) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise RecordsError("another job writes these records", where=str(path),
                               hint="wait for it, or name another file and merge them later") from error
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def append(self, record: Record) -> None:
        """Keep a record."""
        os.write(self._file, record.line().encode())
        os.fsync(self._file)
        self.records.add(record)

    def close(self) -> None:
        """Let other jobs write."""
        os.close(self._file)


@cache
def schedule_version(family: str) -> str:
    """Changes when the schedules of a family change what they do: their code, without comments, and TVM's version.

    A family is its module with those of ``qcc.schedule`` that it imports, and the C functions that its code calls.
    """
    folder = Path(__file__).parents[1] / "schedule"
    state, waiting, seen = hashlib.sha256(version("apache-tvm").encode()), ["decide", "simple", family], set[str]()
    while waiting:
        name = waiting.pop()
        source = folder / f"{name}.py"
        if name in seen or not source.exists():
            continue
        seen.add(name)
        tree = ast.parse(source.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qcc.schedule"):
                module = (node.module or "").removeprefix("qcc.schedule").removeprefix(".")
                waiting += [module] if module else [alias.name for alias in node.names]
    for name in sorted(seen):
        state.update(ast.dump(_without_docstrings(ast.parse((folder / f"{name}.py").read_bytes()))).encode())
    if "source" in seen:
        for header in sorted((data_folder("runtime") / "mcu").glob("*.h")):
            state.update(header.read_bytes())
    return state.hexdigest()[:12]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return tree
