"""Stages, caches and artifacts: what is built, what is found again, and that the same input gives the same files."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import qcc
from onnx_net import Net
from qcc import numerics, pipeline
from qcc.emit import library
from qcc.errors import ArtifactError, CalibrationError, QccError, TargetError, ToolError
from qcc.frontend.onnx import load
from qcc.ir.evaluate import run_integer
from qcc.ir.text import parse, show
from qcc.lower import build
from qcc.target import Target, known_targets

HOST = Target.load("host")


def network(seed: int = 0) -> onnx.ModelProto:
    """Two convolutions, a pool, a dense layer."""
    net = Net(seed)
    x = net.input(1, 3, 8, 8)
    y = net("Relu", net("Conv", x, net.weights(8, 3, 3, 3), net.normal(8), pads=[1, 1, 1, 1]))
    y = net("Add", y, net("Conv", y, net.weights(8, 8, 1, 1)))
    return net.model(net("Gemm", net("Flatten", net("GlobalAveragePool", y)), net.weights(8, 5), net.normal(5)))


def samples(count: int = 8, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, 1, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("QCC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """A function that says how many kernels were built since it was called last."""
    names: list[str] = []
    real = build._compile_one
    monkeypatch.setattr(build, "_compile_one", lambda v, t, p: (names.append(v.kernel.compute), real(v, t, p)))

    def count() -> int:
        found = len(names)
        names.clear()
        return found

    return count


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


# ---- stages ---------------------------------------------------------------------------------------------------------


def test_stages() -> None:
    found = list(pipeline.stages(network(), calib=samples(), name="net"))
    assert tuple(stage for stage, _ in found) == pipeline.STAGES
    assert [node.op for node in found[1][1].nodes].count("conv2d") == 2
    assert {t.dtype for t in found[1][1].types.values()} == {"float32"}
    assert {node.op for node in found[2][1].nodes} >= {"quantize", "conv2d", "dequantize"}
    assert all(graph.name == "net" for _, graph in found)
    integer = found[2][1]
    assert list(pipeline.stages(integer)) == [("quantize", integer)]


def test_early_stages_need_no_samples() -> None:
    stages = pipeline.stages(network())
    assert [next(stages)[0], next(stages)[0]] == ["import", "simplify"]
    with pytest.raises(CalibrationError, match=r"needs calibration samples\. Hint: give some with --calib"):
        next(stages)


def test_forms_of_models_and_samples(tmp_path: Path) -> None:
    model, x = network(), samples()
    onnx.save(model, tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", x[:, 0])
    expected = pipeline.quantize(model, calib=x, name="net")
    for form in (tmp_path / "net.onnx", str(tmp_path / "net.onnx"), model.SerializeToString(), load(model, "net")):
        assert show(pipeline.quantize(form, calib=x, name="net")) == show(expected)
    for calib in (tmp_path / "x.npy", list(x), iter(x[:, 0]), x[:, 0]):
        assert show(pipeline.quantize(model, calib=calib, name="net")) == show(expected)


def test_a_graph_can_be_renamed() -> None:
    graph = load(network(), "net")
    assert pipeline.quantize(graph, calib=samples(), name="other net").name == "other_net"
    assert graph.name == "net"


def test_options_without_a_use_are_refused() -> None:
    with pytest.raises(TargetError, match=r"x86-avx2: it computes every node itself.*Hint: leave out --host"):
        qcc.compile(network(), calib=samples(), target="x86-avx2", host="x86-avx2")
    with pytest.raises(TargetError, match=r"edge-npu: an accelerator has no tuning records. Hint: leave out --records"):
        qcc.compile(network(), calib=samples(), target="edge-npu", records="r")
    with pytest.raises(TargetError, match=r"cortex-m4: mode dynamic needs a CPU that runs float32: its programs are"):
        qcc.compile(network(), target=pipeline.load_target("cortex-m4", "object"), mode="dynamic")
    wrong: dict[str, Any]
    for wrong in ({"mode": "int4"}, {"io": "int4"}, {"package": "maven", "target": "c99"}):
        with pytest.raises(QccError, match=rf"{next(iter(wrong))} cannot be '(int4|maven)'\. Hint: one of "):
            qcc.compile(network(), calib=samples(), **wrong)
    with pytest.raises(TargetError, match=r"cortex-m4 has no form 'library'\. Hint: choose"):
        pipeline.load_target("cortex-m4", "library")
    with pytest.raises(CalibrationError, match="mode dynamic takes no samples"):
        next(pipeline.stages(network(), calib=samples(), mode="dynamic"))


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QCC_CACHE", str(tmp_path / "file"))
    with pytest.raises(ArtifactError, match=r"file: the cache cannot be written \(.*\)\. Hint: set QCC_CACHE"):
        pipeline.quantize(network(), calib=samples())
    program = pipeline.quantize(network(), calib=iter(samples()))
    with pytest.raises(ArtifactError, match=r"file: the cache cannot be written \(.*\)\. Hint: set QCC_CACHE"):
        qcc.compile(program)


def test_names_become_identifiers(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "my model-2.onnx")
    assert pipeline.quantize(tmp_path / "my model-2.onnx", calib=samples()).name == "my_model_2"
    assert pipeline.quantize(network(), calib=samples(), name="!").name == "model"


def test_dump_ir(tmp_path: Path) -> None:
    dump = tmp_path / "deep" / "ir"
    model = qcc.compile(network(), calib=samples(), dump_ir=dump, jobs=1)
    assert [p.name for p in sorted(dump.iterdir())] == ["0-import.qir", "1-simplify.qir", "2-quantize.qir"]
    program = model.program()
    text = (dump / "2-quantize.qir").read_text()
    assert show(parse(text, program.constants)) == show(program) == text
    (tmp_path / "file").write_text("")
    with pytest.raises(QccError, match="the IR cannot be dumped"):
        qcc.compile(network(), calib=samples(), dump_ir=tmp_path / "file" / "ir")


def test_int8_edges() -> None:
    """The program behind the edges is the same."""
    x = samples(1)[0]
    real = qcc.compile(network(), calib=samples(), jobs=1)
    inner = qcc.compile(network(), calib=samples(), io="int8", jobs=1)
    (source,), (target,) = inner.inputs.items(), inner.outputs.items()
    assert (source[1].dtype, target[1].dtype) == ("int8", "int8")
    entry_in, entry_out = inner.manifest["inputs"][0], inner.manifest["outputs"][0]
    q = numerics.quantize_input(x, numerics.QParams(entry_in["scale"], entry_in["zero_point"]))
    y = inner(q)
    assert y.dtype == np.int8
    np.testing.assert_array_equal(y, run_integer(inner.program(), {source[0]: q})[target[0]])
    q_out = numerics.QParams(entry_out["scale"], entry_out["zero_point"])
    np.testing.assert_array_equal(numerics.dequantize(y, q_out).astype(np.float32), real(x))


def test_every_target_has_the_same_program(tmp_path: Path) -> None:
    program = pipeline.quantize(network(), calib=samples(), name="net")
    for name in known_targets():
        target = Target.load(name)
        if not target.missing():
            made = qcc.compile(network(), target=target, calib=samples(), name="net", io="float", jobs=1)
            assert show(made.program()) == show(program)
            x = samples(1, 1)[0]
            (expected,) = run_integer(program, {"in0": x}).values()
            np.testing.assert_array_equal(made(x), expected)


# ---- caches ---------------------------------------------------------------------------------------------------------


def test_kernels_are_built_once(cold: Path, built: Callable[[], int]) -> None:
    program = pipeline.quantize(network(), calib=samples())
    first = qcc.compile(program, jobs=1)
    distinct = {k for layer in first.manifest["layers"] for k in layer["kernels"]}
    assert built() == len(distinct) == len(list((cold / "objects").glob("*.o")))
    assert qcc.compile(program, jobs=1).manifest == first.manifest
    assert built() == 0
    other = pipeline.quantize(network(seed=1), calib=samples())
    qcc.compile(other, jobs=1)
    assert built() < len(distinct), "weights are not part of a kernel"
    assert not [p for p in (cold / "objects").iterdir() if "tmp" in p.name]


def test_what_a_kernel_depends_on(cold: Path, built: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    program = pipeline.quantize(network(), calib=samples())
    qcc.compile(program, target=HOST, jobs=1)
    count = built()
    linked = HOST.link.model_copy(update={"flags": ["-O1"]})
    qcc.compile(program, target=HOST.model_copy(update={"link": linked, "name": "mine"}), jobs=1)
    assert built() == 0, "the linker's flags and the name do not change objects"
    tuned = HOST.llvm.model_copy(update={"mattr": [*HOST.llvm.mattr, "+bmi2"]})
    qcc.compile(program, target=HOST.model_copy(update={"llvm": tuned}), jobs=1)
    assert built() == count
    monkeypatch.setattr(build, "_compiler_digest", lambda: "edited sources")
    qcc.compile(program, target=HOST, jobs=1)
    assert built() == count


def test_a_half_written_object_is_built_again(cold: Path, built: Callable[[], int]) -> None:
    program = pipeline.quantize(network(), calib=samples())
    qcc.compile(program, jobs=1)
    built()
    victim = next((cold / "objects").glob("*.json"))
    victim.unlink()
    victim.with_suffix(".o").write_bytes(b"half")
    x = samples(1)[0]
    model = qcc.compile(program, jobs=1)
    assert built() == 1
    np.testing.assert_array_equal(model(x), next(iter(run_integer(program, {"in0": x}).values())))


def test_ranges_are_measured_once(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = show(pipeline.quantize(network(), calib=samples()))

    def refuse(*_: Any) -> None:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr("qcc.quantize.calibrate._session", refuse)
        assert show(pipeline.quantize(network(), calib=samples())) == expected
        for changed in ({"calib": samples(seed=1)}, {"calib": samples(), "method": "minmax"}):
            with pytest.raises(AssertionError, match="measured again"):
                pipeline.quantize(network(), **changed)
        with pytest.raises(AssertionError, match="measured again"):
            pipeline.quantize(network(seed=1), calib=samples())


# ---- artifacts ------------------------------------------------------------------------------------------------------


def test_the_same_files_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from another cache, by other processes, and in another folder."""
    found = []
    for number, jobs in enumerate((1, 2)):
        monkeypatch.setenv("QCC_CACHE", str(tmp_path / f"cache{number}"))
        folder = tmp_path / f"made{number}" / "net"
        qcc.compile(network(), calib=samples(), name="net", out=folder, jobs=jobs)
        found.append(files(folder))
    assert list(found[0]) == ["constants.npz", "libnet.so", "manifest.json", "net.c", "net.h", "program.qir"]
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []


def test_without_a_folder_the_files_live_as_long_as_the_model() -> None:
    model = qcc.compile(network(), calib=samples(), jobs=1)
    folder = model.folder
    assert (folder / "manifest.json").is_file()
    del model
    gc.collect()
    assert not folder.parent.exists()


def test_a_failure_leaves_the_earlier_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, x = tmp_path / "net", samples(1)[0]
    model = qcc.compile(network(), calib=samples(), name="net", out=out, jobs=1)
    before, expected = files(out), model(x)

    def fail(*_: Any) -> None:
        raise ToolError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(library, "_link", fail)
        with pytest.raises(ToolError):
            qcc.compile(network(seed=1), calib=samples(), name="net", out=out, jobs=1)
    with pytest.raises(CalibrationError):
        qcc.compile(network(seed=1), calib=samples() * np.nan, name="net", out=out, jobs=1)
    assert files(out) == before
    other = qcc.compile(network(seed=1), calib=samples(), name="net", out=out, jobs=1)
    assert files(out)["libnet.so"] != before["libnet.so"]
    np.testing.assert_array_equal(model(x), expected)
    assert not np.array_equal(other(x), expected)
    assert [p.name for p in tmp_path.iterdir()] == ["net"], "nothing is left behind"


def test_constant_activations_are_remarked() -> None:
    """A layer whose output is always the same works, and the report says so."""
    net = Net(0)
    x = net.input(1, 3, 4, 4)
    flat = net("Conv", x, np.zeros((2, 3, 1, 1), np.float32), np.full(2, 1.5, np.float32))
    model = net.model(net("Add", net("Conv", x, net.weights(2, 3, 1, 1)), flat))
    made = qcc.compile(model, calib=np.zeros((3, 1, 3, 4, 4), np.float32), jobs=1)
    assert any("every calibration sample gives the constant" in line for line in made.manifest["remarks"])
    for value in (0.0, 1.0):
        fed = np.full((1, 3, 4, 4), value, np.float32)
        np.testing.assert_array_equal(made(fed), next(iter(run_integer(made.program(), {"in0": fed}).values())))


def test_progress_is_on_stderr(cold: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    qcc.compile(network(), calib=samples(), jobs=1, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "calibrate" in err
    assert "build kernels" in err
    qcc.compile(network(), calib=samples(), jobs=1)
    assert capfd.readouterr() == ("", "")


# ---- compile time ---------------------------------------------------------------------------------------------------

MEASURE = """
import json, os, resource, sys, time
start = time.perf_counter()
import numpy as np
import qcc
model = qcc.compile(sys.argv[1], calib=np.load(sys.argv[2]), out=sys.argv[3])
seconds = time.perf_counter() - start
own, worker = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({"seconds": seconds, "kib": own + os.cpu_count() * worker, "tvm": "tvm" in sys.modules}))
"""
LIMIT_KIB = 4 << 20


def test_compiling_a_mobilenet(data_dir: Path, tmp_path: Path, cold: Path) -> None:
    """The second time, nothing is built: TVM is not even imported. Times are printed; they depend on the machine."""
    samples = np.random.default_rng(0).normal(size=(100, 1, 3, 224, 224)).astype(np.float32)
    np.save(tmp_path / "x.npy", samples)
    model = data_dir / "models" / "mobilenet_v2_1.0_224_deq.onnx"
    found, objects = [], []
    for out in ("cold", "warm"):
        command = [sys.executable, "-c", MEASURE, str(model), str(tmp_path / "x.npy"), str(tmp_path / out)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
        found.append(json.loads(done.stdout))
        objects.append({p.name: p.stat().st_mtime_ns for p in (cold / "objects").iterdir()})
        seconds, gib = found[-1]["seconds"], found[-1]["kib"] / 2**20
        print(f"{out}: {seconds:.1f} s, {gib:.2f} GiB, {len(objects[-1]) // 2} kernels")
        assert found[-1]["kib"] < LIMIT_KIB
    assert objects[0] == objects[1]
    assert not found[1]["tvm"]
    assert found[1]["seconds"] < found[0]["seconds"]
    assert files(tmp_path / "cold") == files(tmp_path / "warm")
