"""One model on many variants of an accelerator: which of them no other beats."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qcc.errors import TargetError
from qcc.npu.compile import DoesNotFitError, compile_graph
from qcc.npu.cycles import analyse
from qcc.npu.description import Description
from qcc.npu.split import Split


@dataclass(frozen=True)
class Point:
    """One variant; ``fault`` says why it has no figures."""

    values: tuple[Any, ...]
    macs: int
    on_chip_bytes: int
    cycles: int = 0
    latency_ms: float = 0.0
    utilization: float = 0.0
    fault: str = ""
    front: bool = False


def parse_vary(text: str) -> tuple[str, list[Any]]:
    """``key=value,value…``; values are TOML. Raises TargetError."""
    key, _, values = text.partition("=")
    try:
        found = [tomllib.loads(f"v = {v}")["v"] for v in values.split(",")]
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"'{values}' are no values", where=f"--vary {text}",
                          hint='write --vary array.rows=32,64 or --vary array.dataflow="weight","output"') from error
    return key, found


def sweep(parts: Split, base: Description, vary: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Every combination. On the front are those that no other equals or betters in latency, array and memory at once.

    Raises TargetError for a combination that is no accelerator.
    """
    found = []
    for values in itertools.product(*vary.values()):
        d = base.vary(dict(zip(vary, values, strict=True)))
        m = d.memory
        size = m.act.bytes + m.weight.bytes + m.acc.bytes + m.param.bytes + d.cache.bytes
        try:
            t = analyse(compile_graph(parts, d))
        except DoesNotFitError as error:
            found.append(Point(values, d.array.macs, size, fault=error.what))
        else:
            found.append(Point(values, d.array.macs, size, t.total, t.latency_ms, t.utilization()))
    return [Point(**{**vars(p), "front": not p.fault and not any(_beats(q, p) for q in found)}) for p in found]


def _beats(a: Point, b: Point) -> bool:
    """Whether a is nowhere worse than b and somewhere better."""
    left, right = ((p.latency_ms, p.macs, p.on_chip_bytes) for p in (a, b))
    return not a.fault and left != right and all(x <= y for x, y in zip(left, right, strict=True))
