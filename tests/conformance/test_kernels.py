"""Every op on every target that runs here: compiled bytes are the reference's, and nothing else is written."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from compiled_source import SourceMachine
from draw import OPERATORS, Draw
from emulated import EmulatedMachine
from machine import Machine

from emulators import emulator_is_here
from integer_programs import random_inputs, random_program
from qcc.ir.graph import Graph
from qcc.target import Target, known_targets

CASES = 6
"""Programs for each op and target."""


def program(op: str, seed: int) -> Graph:
    draw = Draw(seed)
    draw.finish(OPERATORS[op](draw))
    draw.graph.outputs = list(dict.fromkeys(draw.graph.outputs))
    return draw.graph


def target_here(name: str) -> Target:
    target = Target.load(name)
    if target.missing() and not emulator_is_here(target):
        pytest.skip(f"CANNOT RUN {name} HERE: the CPU lacks {', '.join(target.missing())}, and there is no emulator")
    return target


def machine_for(programs: list[Graph], target: Target, folder: Path) -> Machine:
    if target.emit == "c":
        return SourceMachine(programs, target, folder)
    return (EmulatedMachine if target.missing() else Machine)(programs, target, folder)


@pytest.mark.parametrize("name", known_targets())
@pytest.mark.parametrize("op", OPERATORS)
def test_kernels_give_the_bytes_of_the_reference(op: str, name: str, tmp_path: Path) -> None:
    target, first = target_here(name), zlib.crc32(op.encode()) % 100_000
    print(f"seeds {first} … {first + CASES - 1}")
    programs = [program(op, first + case) for case in range(CASES)]
    machine = machine_for(programs, target, tmp_path)
    for case, graph in enumerate(programs):
        machine.check(case, random_inputs(graph, first + case))


@pytest.mark.parametrize("name", known_targets())
def test_programs_with_views_concats_and_writes_in_place(name: str, tmp_path: Path) -> None:
    target = target_here(name)
    print(f"seeds 0 … {CASES - 1}")
    programs = [random_program(seed) for seed in range(CASES)]
    machine = machine_for(programs, target, tmp_path)
    for seed, graph in enumerate(programs):
        machine.check(seed, random_inputs(graph, seed))
