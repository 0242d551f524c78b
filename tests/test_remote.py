"""Artifacts for machines that are emulated here: built, run, verified and measured through the target's command."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from emulators import emulator_is_here
from integer_programs import Builder, random_inputs
from qcc import pipeline
from qcc.cli import main
from qcc.data import data_folder
from qcc.errors import ArtifactError, InputError, ToolError
from qcc.ir.evaluate import run_integer
from qcc.ir.graph import Graph
from qcc.remote import RemoteModel
from qcc.runtime import Model
from qcc.target import Run, Target
from qcc.verify import random_samples, verify_model

NAMES = ("armv7-neon", "arm-neon", "arm-dotprod", "arm-i8mm")
DOTPROD = Target.load("arm-dotprod")


def emulated(name: str) -> Target:
    target = Target.load(name)
    if not emulator_is_here(target):
        pytest.skip(f"NOT TESTED: {name}; {target.link.cc[0]} or {target.run.command[0]} is missing")
    return target


@pytest.fixture(autouse=True)
def _emulator() -> None:
    emulated("arm-dotprod")


def small() -> Graph:
    b = Builder("small", 3)
    x = b.quantize(b.input((1, 3, 9, 7), "float32", "image"), (0, 2, 3, 1))
    y = b.conv(x, 20)
    z = b.concat(b.conv(y, 20, residual=y), b.max_pool(y), y)
    return b.output(b.dequantize(b.reshape(b.avg_pool(z), 1, 9 * 7 * 60)))


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return pipeline.build(small(), emulated(request.param), tmp_path_factory.mktemp("arm") / "out", jobs=1)


def test_bytes_are_those_of_the_reference(model: Model) -> None:
    assert isinstance(model, RemoteModel)
    for threads in (1, 2):
        assert model.set_threads(threads) == threads
        assert verify_model(model, random_samples(model, 3)) is None


def test_a_trace_shows_every_layer(model: Model) -> None:
    graph, inputs = model.program(), random_inputs(model.program(), 1)
    found = model.trace(inputs)
    expected = run_integer(graph, inputs, keep=found)
    assert {n.output for n in graph.nodes if n.op in ("conv2d", "max_pool", "avg_pool")} <= found.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])


def test_times(model: Model) -> None:
    assert len(model.measure(0.0, 3)) == 3
    layers = model.measure_layers(0.0)
    assert {layer["name"] for layer in model.manifest["layers"] if layer["kernels"]} <= layers.keys()


def test_commands(model: Model, tmp_path: Path) -> None:
    command = CliRunner()
    assert command.invoke(main, ["verify", str(model.folder)]).stdout == "byte-identical (4 inferences)\n"
    assert command.invoke(main, ["bench", str(model.folder), "--seconds", "0", "--layers"]).exit_code == 0
    inputs = random_inputs(model.program(), 5)
    np.savez(tmp_path / "x.npz", **inputs)
    run = ["run", str(model.folder), "--input", str(tmp_path / "x.npz"), "--output", str(tmp_path / "y.npz")]
    assert command.invoke(main, run).exit_code == 0
    for name, expected in run_integer(model.program(), inputs).items():
        np.testing.assert_array_equal(np.load(tmp_path / "y.npz")[name], expected)


def test_the_static_library_shows_only_its_functions(model: Model) -> None:
    tool = f"{Target.load(model.manifest['target']['name']).link.binutils}nm"
    listed = subprocess.run([tool, "--defined-only", "-g", str(model.folder / "libsmall.a")],
                            capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert set(re.findall(r" [A-Z] (\w+)", listed)) == {
        "small_run", "small_set_threads", "small_set_hook", "small_arena"}  # fmt: skip


def test_wrong_inputs(model: Model) -> None:
    with pytest.raises(InputError, match="0 threads"):
        model.set_threads(0)
    with pytest.raises(InputError, match="shape"):
        model(np.zeros((1, 3, 9, 8), np.float32))


def build(folder: Path, *command: str) -> Model:
    return pipeline.build(small(), DOTPROD.model_copy(update={"run": Run(command=list(command))}), folder, jobs=1)


def test_a_command_of_the_user(tmp_path: Path) -> None:
    model = build(tmp_path / "out", "sh", "-c", "exec qemu-aarch64 -cpu max {runner}")
    assert verify_model(model, random_samples(model, 1)) is None


def test_a_board_behind_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target file whose command copies the program to a board and runs it there, through every command.

    The board is a folder: ``scp`` copies into it, ``ssh`` runs what it is told in it, through the emulator.
    """
    board, tools = tmp_path / "board", tmp_path / "bin"
    board.mkdir()
    tools.mkdir()
    scripts = {"scp": f'cp "$2" "{board}/${{3#board:}}"', "ssh": f'cd "{board}" && exec qemu-aarch64 -cpu max "./$2"'}
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    text = (data_folder("targets") / "arm-dotprod.toml").read_text()
    mine = text[: text.index("[run]")].replace('name = "arm-dotprod"', 'name = "my-board"')
    command = '["sh", "-c", "scp -q {runner} board:run && exec ssh board run"]'
    (tmp_path / "board.toml").write_text(f"{mine}[run]\ncommand = {command}\n")
    folder = tmp_path / "out"
    pipeline.build(small(), Target.load(tmp_path / "board.toml"), folder, jobs=1)
    np.savez(tmp_path / "x.npz", **random_inputs(small(), 5))

    def call(*words: str) -> str:
        done = CliRunner().invoke(main, [words[0], str(folder), *words[1:]])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert call("verify") == "byte-identical (4 inferences)\n"
    assert (board / "run").read_bytes() == (folder / "run_small").read_bytes()
    assert "small" in call("bench", "--seconds", "0")
    call("run", "--input", str(tmp_path / "x.npz"), "--output", str(tmp_path / "y.npz"))
    for name, expected in run_integer(small(), random_inputs(small(), 5)).items():
        np.testing.assert_array_equal(np.load(tmp_path / "y.npz")[name], expected)


def test_commands_that_fail(tmp_path: Path) -> None:
    inputs = random_inputs(small(), 0)
    with pytest.raises(ToolError, match="'no-such-emulator' cannot be started"):
        build(tmp_path / "a", "no-such-emulator", "{runner}").run(inputs)
    with pytest.raises(ToolError, match=r"'sh' ended: no board\. Hint: is this the right machine"):
        build(tmp_path / "b", "sh", "-c", "echo no board >&2").run(inputs)


def test_a_runner_that_is_gone(tmp_path: Path) -> None:
    model = build(tmp_path / "out", "sh", "{runner}")
    (tmp_path / "out" / "run_small").unlink()
    with pytest.raises(ArtifactError, match=r"out: run_small is missing\. Hint: compile the model again"):
        model.run(random_inputs(small(), 0))


def test_a_target_without_a_command_is_compiled_but_cannot_run_here(tmp_path: Path) -> None:
    model = build(tmp_path / "out")
    assert not (tmp_path / "out" / "run_small").exists()
    with pytest.raises(ArtifactError, match="this machine lacks architecture aarch64"):
        model.run(random_inputs(small(), 0))
