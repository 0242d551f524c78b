"""The commands on a model with naive kernels: what they print, what they write, and how they fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import qcc
from integer_programs import Builder, random_inputs
from naive_kernels import naive_package
from onnx_net import Net
from qcc.cli import main
from qcc.emit.library import emit_library
from qcc.ir.evaluate import run_integer
from qcc.passes.rewrite import rename
from qcc.report import MAP_ROWS, arena_map
from qcc.runtime import Model
from qcc.target import Target, known_targets

Command = Callable[..., Result]


@pytest.fixture
def command() -> Command:
    return lambda *args: CliRunner().invoke(main, [str(a) for a in args])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    b = Builder("net", 6)
    x = b.quantize(b.input((1, 3, 8, 6), "float32", "image"), (0, 2, 3, 1))
    y = b.conv(x, 5)
    z = b.add(b.conv(y, 5), y)
    graph = b.output(b.dequantize(b.reshape(z, 1, 240)))
    graph.nodes[1].source = "Conv '[bold]first[/bold]'"
    made = tmp_path_factory.mktemp("net")
    emit_library(naive_package(graph, Target.load("x86-vnni"), made / "work"), made / "out")
    return made / "out"


@pytest.fixture
def sample(folder: Path, tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", image=np.concatenate([inputs(folder, s) for s in range(3)]))
    return tmp_path / "x.npz"


def inputs(folder: Path, seed: int) -> np.ndarray:
    return np.asarray(random_inputs(qcc.load(folder).program(), seed)["image"])


def fails(result: Result, message: str) -> None:
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, "one line"
    assert message in result.stderr


def test_run(command: Command, folder: Path, sample: Path, tmp_path: Path) -> None:
    result = command("run", folder, "--input", sample, "--output", tmp_path / "y.npz", "--threads", 2)
    assert (result.exit_code, result.stderr) == (0, "")
    model = qcc.load(folder)
    (name,) = model.outputs
    got = np.load(tmp_path / "y.npz")[name]
    assert got.shape == (3, 240)
    for seed in range(3):
        expected = run_integer(model.program(), {"image": inputs(folder, seed)})[name]
        np.testing.assert_array_equal(got[seed : seed + 1], expected)


def test_run_errors(command: Command, folder: Path, sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "y.npz"
    fails(command("run", tmp_path / "none", "--input", sample, "--output", out), "there is no such folder. Hint: ")
    fails(command("run", folder, "--input", tmp_path / "none.npz", "--output", out), "there is no such file. Hint:")
    fails(command("run", folder, "--input", sample, "--output", tmp_path / "no" / "y.npz"), "output cannot be written")
    np.save(tmp_path / "wrong.npy", np.zeros((1, 8, 6, 3), np.float32))
    fails(command("run", folder, "--input", tmp_path / "wrong.npy", "--output", out), "does not fit (1, 3, 8, 6)")
    np.save(tmp_path / "double.npy", np.zeros((1, 3, 8, 6)))
    fails(command("run", folder, "--input", tmp_path / "double.npy", "--output", out), "dtype float64")
    np.save(tmp_path / "nan.npy", np.full((1, 3, 8, 6), np.nan, np.float32))
    fails(command("run", folder, "--input", tmp_path / "nan.npy", "--output", out), "the array holds NaN. Hint:")
    assert not out.exists()


def test_verify(command: Command, folder: Path, sample: Path) -> None:
    result = command("verify", folder, "--input", sample)
    assert (result.exit_code, result.stdout) == (0, "byte-identical (3 inferences)\n")
    assert command("verify", folder, "--threads", 2).stdout == "byte-identical (4 inferences)\n"
    fails(command("verify", folder.parent), "holds no compiled model")


def test_verify_names_the_first_layer_that_differs(
    command: Command, folder: Path, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = qcc.load(folder).program()
    second = next(n for n in reversed(program.nodes) if n.op == "conv2d")
    bias = program.constants[second.inputs["b"]].copy()
    bias[2] += 40000
    program.constants[second.inputs["b"]] = bias
    monkeypatch.setattr(Model, "program", lambda self: program)
    result = command("verify", folder, "--input", sample)
    assert result.exit_code == 1
    assert result.stdout.startswith("differs: sample 0, output '")
    assert f"first in layer '{second.output}' (conv2d, from conv2d test): 48 of 240 elements" in result.stdout
    assert "first at (0, 0, 0, 2)" in result.stdout


def test_bench(command: Command, folder: Path) -> None:
    result = command("bench", folder, "--threads", 2, "--seconds", 0.01, "--layers")
    assert result.exit_code == 0, result.output
    header, row = (line.split() for line in result.stdout.splitlines()[:2])
    assert header == ["model", "threads", "runs", "median", "best", "90", "%", "GMAC/s"]
    assert row[:2] == ["net", "2"]
    assert {"conv2d", "quantize", "add"} <= set(result.stdout.split())


def test_inspect(command: Command, folder: Path) -> None:
    result = command("inspect", folder)
    assert result.exit_code == 0, result.output
    assert "Conv '[bold]first[/bold]'" in result.stdout, "names are not markup"
    assert "view of v" in result.stdout
    assert f"{8 * 6 * 5 * 9 * 3:,}" in result.stdout
    assert "image: float32 1x3x8x6  scale 0.05, zero point -3" in result.stdout
    assert "arena map: steps to the right, bytes downwards" in result.stdout
    fails(command("inspect", folder.parent), "holds no compiled model")
    fails(command("inspect", folder, "--svg", folder), "the picture cannot be written")


def test_inspect_works_for_other_machines(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcc.target.missing_here", lambda arch, requires: ["everything"])
    assert command("inspect", folder).exit_code == 0
    fails(command("bench", folder), "compiled for x86-vnni, but this machine lacks everything. Hint: compile with")


def test_the_arena_map() -> None:
    buffers = [
        {"name": "a", "offset": 0, "bytes": 128, "first": -1, "last": 0},
        {"name": "b", "offset": 128, "bytes": 128, "first": 0, "last": 1},
    ]
    manifest = {"arena": {"bytes": 256, "buffers": buffers}, "layers": [{}, {}]}
    lines = arena_map(manifest)
    assert lines[0] == "           0 |AA..|"
    assert lines[MAP_ROWS - 1].endswith("|.BB.|")
    assert lines[MAP_ROWS:] == ["A a: 128 bytes at 0, steps -1 to 0", "B b: 128 bytes at 128, steps 0 to 1"]
    assert arena_map({"arena": {"bytes": 0, "buffers": []}, "layers": []}) == ["(empty)"]


def test_targets(command: Command) -> None:
    result = command("targets")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in known_targets())


def test_compile_errors(command: Command, tmp_path: Path) -> None:
    model, out = tmp_path / "model.onnx", tmp_path / "out"
    model.write_bytes(b"not a model")
    fails(command("compile", model, "--target", "x86-vni", "-o", out), "unknown target 'x86-vni'. Hint: one of ")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("x")
    fails(command("compile", model, "-o", tmp_path / "taken"), "holds no compiled model. Hint: choose another folder")
    fails(command("compile", model, "-o", out), "model.onnx")
    fails(command("compile", tmp_path / "none.onnx", "-o", out), "none.onnx")
    for target in ("x86-avx2", "edge-npu"):
        said = command("compile", tmp_path / "m.onnx", "--target", target, "--emit", "object")
        fails(said, f"{target} has no form 'object'. Hint: ")
    assert not out.exists(), "nothing half-written"


def test_stopping_after_a_stage(command: Command, tmp_path: Path) -> None:
    """The printed graph is that of the stage, and so is the last file of --dump-ir; nothing is compiled."""
    net = Net(0)
    (tmp_path / "m.onnx").write_bytes(net.model(net("Relu", net.input(1, 4))).SerializeToString())
    options = ("--dump-ir", tmp_path / "ir", "-o", tmp_path / "out")
    result = command("compile", tmp_path / "m.onnx", "--stop-after", "simplify", *options)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "ir").iterdir()) == ["0-import.qir", "1-simplify.qir"]
    assert result.stdout == (tmp_path / "ir" / "1-simplify.qir").read_text()
    assert not (tmp_path / "out").exists()
    fails(command("compile", tmp_path / "m.onnx", "--stop-after", "quantize"), "needs calibration samples")


def test_an_output_that_cannot_be_written_is_known_before_the_work(command: Command, tmp_path: Path) -> None:
    """The model is not even looked for."""
    nowhere = tmp_path / "none" / "file"
    fails(command("tune", "none.onnx", "--records", tmp_path / "r", "--plot", nowhere), "the plot cannot be written")
    fails(command("sweep", "none.onnx", "--vary", "array.rows=8", "--plot", nowhere), "the plot cannot be written")
    fails(command("export", "none.onnx", "--format", "qdq", "-o", nowhere), "the model cannot be written")


def test_an_output_may_be_called_as_a_parameter_of_numpy(command: Command, tmp_path: Path) -> None:
    b = Builder("net")
    y = b.lut(b.input((1, 4), name="x"))
    graph = b.output(y)
    rename(graph, y, "file")
    emit_library(naive_package(graph, Target.load("x86-vnni"), tmp_path / "work"), tmp_path / "out")
    np.save(tmp_path / "x.npy", np.arange(4, dtype=np.int8)[None])
    result = command("run", tmp_path / "out", "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npz")
    assert result.exit_code == 0, result.output
    assert np.load(tmp_path / "y.npz").files == ["file"]


def test_help_and_version(command: Command) -> None:
    assert "byte for byte" in command("verify", "--help").output
    assert qcc.__version__ in command("--version").output


def test_the_command_is_installed(folder: Path) -> None:
    script = Path(sys.executable).parent / "qcc"
    done = subprocess.run([str(script), "run", str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Missing option '--input'" in done.stderr
