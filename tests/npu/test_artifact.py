"""The command line, the artifact and its reports, the sweep, the generated documentation."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import pytest
from click.testing import CliRunner

import qcc
from integer_programs import Builder, random_inputs
from qcc.cli import main
from qcc.errors import ArtifactError, InputError, TargetError
from qcc.ir.evaluate import run_integer
from qcc.ir.graph import Graph
from qcc.npu import isa
from qcc.npu.artifact import NpuModel
from qcc.npu.description import Description
from qcc.npu.split import split
from qcc.npu.sweep import parse_vary, sweep
from qcc.target import Target
from qcc.verify import random_samples, verify_model

ROOT = Path(__file__).resolve().parents[2]


def graph() -> Graph:
    b = Builder("net", 6)
    x = b.quantize(b.input((1, 3, 8, 6), "float32", "image"), (0, 2, 3, 1))
    y = b.conv(x, 5)
    return b.output(b.dequantize(b.reshape(b.add(b.conv(y, 5), y), 1, 240)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> NpuModel:
    made = qcc.compile(graph(), target="edge-npu", out=tmp_path_factory.mktemp("npu") / "net")
    assert isinstance(made, NpuModel)
    return made


def test_runs_and_verifies(model: NpuModel, tmp_path: Path) -> None:
    sample = random_inputs(graph(), 1)
    (expected,) = run_integer(graph(), sample).values()
    np.testing.assert_array_equal(model(sample["image"]), expected)
    assert verify_model(model, random_samples(model)) is None
    loaded = qcc.load(model.folder)
    assert isinstance(loaded, NpuModel)
    with pytest.raises(InputError, match="shape"):
        model(np.zeros((1, 3, 8, 7), np.float32))
    with pytest.raises(InputError, match="the array holds NaN"):
        model(np.full((1, 3, 8, 6), np.nan, np.float32))
    np.savez(tmp_path / "x.npz", **sample)
    run = CliRunner().invoke(main, ["run", str(model.folder), "--input", str(tmp_path / "x.npz"), "--output",
                                    str(tmp_path / "y.npz")])
    assert run.exit_code == 0, run.output
    np.testing.assert_array_equal(next(iter(np.load(tmp_path / "y.npz").values())), expected)
    for command, text in (("verify", "byte-identical"), ("inspect", "edge-npu"), ("bench", "cycles")):
        done = CliRunner().invoke(main, [command, str(model.folder)])
        assert done.exit_code == 0, done.output
        assert text in done.stdout


def test_reports_agree(model: NpuModel) -> None:
    report = json.loads((model.folder / "report.json").read_text())
    t = model.timeline()
    assert report["cycles"] == t.total == sum(x["elapsed"] for x in report["layers"]) == model.manifest["cycles"]
    assert report["latency_ms"] == pytest.approx(0.51 + t.total / 500e3, abs=1e-3)
    assert {x["weights"] for x in report["layers"]} == {"cached", ""}
    trace = json.loads((model.folder / "trace.json").read_text())["traceEvents"]
    assert max(e["ts"] + e["dur"] for e in trace if e["ph"] == "X") <= t.total / 500
    assert Xml.parse(model.folder / "timeline.svg").getroot().tag.endswith("svg")
    assert f"{t.total:,}" in (model.folder / "report.txt").read_text()
    setup, body = (model.folder / "program.asm").read_text().removeprefix("setup:\n").split("body:\n")
    program = model._device.program
    assert (isa.assemble(setup), isa.assemble(body)) == (program.setup, program.body)


def test_a_damaged_or_foreign_program(model: NpuModel, tmp_path: Path) -> None:
    made = qcc.compile(graph(), target="ws16-mcu", out=tmp_path / "net")
    file = made.folder / "program.npu"
    data = file.read_bytes()
    file.write_bytes(data[:-64])
    with pytest.raises(ArtifactError, match=r"program\.npu: the file is cut off"):
        qcc.load(made.folder)
    b = Builder("other")
    other = qcc.compile(b.output(b.lut(b.input((1, 4)))), target="ws16-mcu", out=tmp_path / "other")
    file.write_bytes((other.folder / "program.npu").read_bytes())
    with pytest.raises(ArtifactError, match="belongs to another model"):
        qcc.load(made.folder)


def test_the_rest_runs_on_the_host(tmp_path: Path) -> None:
    if Target.load("x86-avx2").missing():
        pytest.skip("this machine cannot run the host's part")
    b = Builder("net")
    x = b.conv(b.input((1, 4, 4, 3)), 4)
    program = b.output(b.node("argmax", {"x": x}, None, axis=3, keepdims=False))
    made = qcc.compile(program, target="ws16-mcu", host="x86-avx2", out=tmp_path / "net", jobs=1)
    assert (made.folder / "host" / "manifest.json").exists()
    again = qcc.load(made.folder)
    assert verify_model(again, random_samples(again)) is None


def test_sweep_marks_what_no_other_beats() -> None:
    d = Description.load("ws16-mcu")
    keys = dict(map(parse_vary, ("array.rows=4,16", "memory.act.bytes=64,4096,65536")))
    points = sweep(split(graph(), d), d, keys)
    assert len(points) == 6
    assert [p.values for p in points if p.fault] == [(4, 64), (16, 64)]
    assert all("bytes short" in p.fault for p in points if p.fault)
    good = [p for p in points if not p.fault]
    assert min(good, key=lambda p: (p.latency_ms, p.on_chip_bytes)).front
    for p in good:
        beaten = any(q.latency_ms <= p.latency_ms and q.macs <= p.macs and q.on_chip_bytes <= p.on_chip_bytes
                     and q.values != p.values and (q.latency_ms, q.macs, q.on_chip_bytes) !=
                     (p.latency_ms, p.macs, p.on_chip_bytes) for q in good)
        assert p.front != beaten
    with pytest.raises(TargetError, match="are no values"):
        parse_vary("array.rows=,")


def test_the_sweep_command(tmp_path: Path) -> None:
    onnx = ROOT / "examples" / "01_digits" / "digits.onnx"
    if not onnx.exists():
        pytest.skip("no digits model")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(4, *_input_shape(onnx))).astype(np.float32))
    done = CliRunner().invoke(main, ["sweep", str(onnx), "--target", "ws64", "--vary", "array.rows=16,64", "--calib",
                                     str(tmp_path / "x.npy"), "--plot", str(tmp_path / "p.svg")])
    assert done.exit_code == 0, done.output
    assert "latency" in done.stdout
    assert Xml.parse(tmp_path / "p.svg").getroot().tag.endswith("svg")


def _input_shape(path: Path) -> tuple[int, ...]:
    from qcc.frontend import onnx

    loaded = onnx.load(path)
    return loaded.types[loaded.inputs[0]].shape
