"""The decisions of one kernel: found by scheduling it once with the defaults, and searched by MetaSchedule.

Schedules are Python and ask for decisions where they need them, so MetaSchedule cannot change a decision in the trace
of the real loops. It is given a stand-in: a block that samples every decision and carries it as an annotation. What is
built and measured is the kernel that takes these decisions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qcc.lower.kernel import Kernel
from qcc.lower.repack import weight_bytes
from qcc.schedule.decide import Decide
from qcc.target import Target

ANNOTATION = "qcc."
BLOCK = "kernel"

Chosen = dict[str, int]


@dataclass(frozen=True)
class Decision:
    """A named decision with its candidates."""

    name: str
    candidates: tuple[int, ...]
    default: int


@dataclass(frozen=True)
class Space:
    """All decisions of one kernel, in the order in which its schedule takes them."""

    decisions: tuple[Decision, ...]

    @property
    def size(self) -> int:
        """The number of candidates."""
        return math.prod(len(d.candidates) for d in self.decisions)

    def differing(self, chosen: Mapping[str, int]) -> Chosen:
        """What differs from the defaults: the name of a candidate in records, and of its object in the cache."""
        return {d.name: chosen[d.name] for d in self.decisions if chosen[d.name] != d.default}

    def sample(self, sch: Any, chosen: Mapping[str, int] | None = None) -> None:
        """Sample every decision in the schedule of a stand-in, or take those that are ``chosen``."""
        block = sch.get_sblock(BLOCK)
        for d in self.decisions:
            index = None if chosen is None else d.candidates.index(chosen.get(d.name, d.default))
            even = [1 / len(d.candidates)] * len(d.candidates)
            sch.annotate(block, ANNOTATION + d.name, sch.sample_categorical(list(d.candidates), even, index))


class _Recorder(Decide):
    """Takes every default and keeps what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Decision] = {}

    def __call__(self, name: str, candidates: Sequence[int], default: int) -> int:
        value = super().__call__(name, candidates, default)
        asked = Decision(name, tuple(candidates), default)
        assert self.found.setdefault(name, asked) == asked, f"two decisions are named '{name}'"
        return value


def find_space(kernel: Kernel, target: Target) -> Space:
    """What there is to decide when a kernel is compiled for a target; a decision with one candidate is none."""
    recorder = _Recorder()
    weight_bytes(kernel, target, recorder)
    if target.firmware:
        from qcc.lower.source import kernel_source

        kernel_source(kernel, target, recorder)
    else:
        from qcc.schedule import scheduled

        scheduled(kernel, target, recorder)
    return Space(tuple(d for d in recorder.found.values() if len(d.candidates) > 1))


def stand_in(kernel: Kernel) -> Any:
    """The module that MetaSchedule searches instead of a kernel: one block, named by the kernel's digest."""
    import tvm
    from tvm import tirx
    from tvm.script.ir_builder import IRBuilder
    from tvm.script.ir_builder import tirx as T

    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        result = T.arg("result", tirx.decl_buffer((1,), "int32"))
        with T.sblock(BLOCK):
            T.reads()
            T.writes(result[0:1])
            T.sblock_attr({"digest": kernel.digest})
            T.buffer_store(result, T.int32(0), [0])
    return tvm.IRModule({"main": builder.get()})


def read_stand_in(sch: Any) -> tuple[str, Chosen]:
    """(digest, decisions) of a scheduled stand-in."""
    found = {str(k): v for k, v in sch.get(sch.get_sblock(BLOCK)).annotations.items()}
    chosen = {k.removeprefix(ANNOTATION): int(v) for k, v in found.items() if k.startswith(ANNOTATION)}
    return str(found["digest"]), chosen
