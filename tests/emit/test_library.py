"""Artifacts made with naive kernels: their bytes, their files, and what can go wrong on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcc
from integer_programs import Builder, random_inputs, random_program
from naive_kernels import naive_package
from qcc.emit import entry
from qcc.emit.header import header_source
from qcc.emit.library import check_output, emit_library
from qcc.emit.package import identifier, parameter_name
from qcc.errors import ArtifactError, ToolError
from qcc.ir.evaluate import run_integer
from qcc.ir.graph import Graph
from qcc.runtime import Model
from qcc.target import Target, cpu_flags

AVX2 = Target.load("x86-avx2")
ANY = [Target.load(name).model_copy(update={"requires": []}) for name in ("x86-vnni", "x86-avx2")]


def compiled(graph: Graph, folder: Path, target: Target = ANY[0], name: str = "net") -> Model:
    emit_library(naive_package(graph, target, folder / "work", name), folder / "out")
    return qcc.load(folder / "out")


def small(seed: int = 0) -> Graph:
    """Views, a concat, a residual, a pool; float edges."""
    b = Builder("small", seed)
    x = b.quantize(b.input((1, 3, 9, 7), "float32", "image"), (0, 2, 3, 1))
    y = b.conv(x, 8)
    z = b.concat(b.conv(y, 8, residual=y), b.max_pool(y), y)
    return b.output(b.dequantize(b.reshape(b.avg_pool(z), 1, 9 * 7 * 24)))


def test_a_system_that_refuses_tile_registers(tmp_path: Path) -> None:
    refusal = tmp_path / "refusal.h"
    refusal.write_text("static long refused(long number, ...) { return (void)number, -1; }")
    amx = Target.load("x86-amx")
    link = amx.link.model_copy(update={"flags": ["-O2", "-Dsyscall=refused", "-include", str(refusal)]})
    model = compiled(small(), tmp_path, amx.model_copy(update={"requires": [], "link": link}))
    with pytest.raises(ArtifactError, match=r"out: the system refuses AMX to this process. Hint: it needs Linux 5.16"):
        model.run(random_inputs(small(), 0))
    assert "-2 if the system refuses AMX" in (tmp_path / "out" / "net.h").read_text()


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_are_byte_identical(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"seed {seed}")
    monkeypatch.setattr(entry, "PARALLEL_BYTES", 64)
    graph = random_program(seed)
    model = compiled(graph, tmp_path, ANY[seed % 2])
    for threads in (1, 3):
        model.set_threads(threads)
        inputs = random_inputs(graph, seed + threads)
        expected = run_integer(graph, inputs)
        for name, got in model.run(inputs).items():
            np.testing.assert_array_equal(got, expected[name])
    model.set_threads(1)


def test_trace_shows_every_value(tmp_path: Path) -> None:
    graph = small()
    model = compiled(graph, tmp_path)
    inputs = random_inputs(graph, 3)
    found = model.trace(inputs)
    expected = run_integer(graph, inputs, keep=found)
    kept = {n.output for n in graph.nodes if n.op not in ("dequantize", "reshape")}
    assert kept <= found.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])


def test_the_folder(tmp_path: Path) -> None:
    graph = small()
    model = compiled(graph, tmp_path)
    folder = tmp_path / "out"
    assert sorted(p.name for p in folder.iterdir()) == [
        "constants.npz", "libnet.so", "manifest.json", "net.c", "net.h", "program.qir"]  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "work"], "nothing is left behind"
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = {"name": "image", "shape": [1, 3, 9, 7], "dtype": "float32"}
    assert manifest["inputs"] == [entry | {"scale": 0.05, "zero_point": -3}]
    assert manifest["arena"]["lower_bound"] <= manifest["arena"]["bytes"]
    assert [layer["name"] for layer in manifest["layers"]] == [n.output for n in graph.nodes]
    assert manifest["macs"] == sum(layer["macs"] for layer in manifest["layers"]) == 9 * 7 * 8 * 9 * (3 + 8)
    assert model.program().nodes == graph.nodes


def test_only_libc_is_needed_and_only_the_api_is_visible(tmp_path: Path) -> None:
    compiled(small(), tmp_path)
    library = str(tmp_path / "out" / "libnet.so")
    needed = [line for line in run("readelf", "-d", library).splitlines() if "NEEDED" in line]
    assert len(needed) == 1
    assert "libc.so.6" in needed[0]
    symbols = {line.split()[-1] for line in run("nm", "-D", "--defined-only", library).splitlines()}
    assert symbols == {"net_run", "net_set_threads", "net_set_hook", "net_arena"}


def test_generated_c_has_no_warnings(tmp_path: Path) -> None:
    for seed in (1, 2):
        package = naive_package(random_program(seed), ANY[0], tmp_path)
        (tmp_path / "net.h").write_text(header_source(package))
        (tmp_path / "net.c").write_text(entry.entry_source(package))
        (tmp_path / "weights.bin").write_bytes(package.weights.blob())
        run("cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-O2", "-c", "net.c", "-o", "net.o", "-I",
            str(runtime() / "include"), cwd=tmp_path)  # fmt: skip


def test_equal_constants_are_stored_once(tmp_path: Path) -> None:
    b = Builder()
    x = b.input((1, 4, 4, 3))
    first = b.lut(x)
    node = b.node("lut", {"x": first, "table": b.graph.nodes[-1].inputs["table"]})
    same = naive_package(b.output(first, node), ANY[0], tmp_path)
    assert same.weights.nbytes == 256


def test_large_calls_are_split_among_threads(tmp_path: Path) -> None:
    b = Builder()
    x = b.input((4, 40, 40, 16))
    package = naive_package(b.output(b.lut(b.max_pool(x)), b.slice(x, (0, 0, 0, 0), (1, 2, 2, 1))), ANY[0], tmp_path)
    source = entry.entry_source(package)
    assert "qcc_parallel(task_0_0, &io_, 4);" in source
    single = package.target.model_copy(update={"link": package.target.link.model_copy(update={"threads": False})})
    assert "qcc_parallel" not in entry.entry_source(naive_package(package.graph, single, tmp_path))


def test_outputs_of_every_kind(tmp_path: Path) -> None:
    """An input, a constant, a value twice, a strided view."""
    b = Builder()
    x = b.input((1, 4, 4, 6))
    y = b.lut(x)
    constant = b.graph.add_constant("k", np.arange(5, dtype=np.int8))
    graph = b.output(x, constant, y, b.slice(y, (0, 1, 0, 2), (1, 3, 4, 4)))
    model = compiled(graph, tmp_path)
    inputs = random_inputs(graph, 1)
    for name, expected in run_integer(graph, inputs).items():
        np.testing.assert_array_equal(model.run(inputs)[name], expected)


def test_names_that_c_does_not_allow(tmp_path: Path) -> None:
    b = Builder("double")
    x = b.input((1, 2, 2, 1), name="int")
    graph = b.output(b.node("lut", {"x": x, "table": b.graph.add_constant("t", np.arange(-128, 128).astype(np.int8))},
                            name='a "b" */ \\ é'))  # fmt: skip
    model = compiled(graph, tmp_path, name="double")
    value = np.arange(4, dtype=np.int8).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(model(value), value)
    run("cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-xc", str(tmp_path / "out/model_double.h"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("net", "net"), ("a-b.c", "a_b_c"), ("3d", "model_3d"), ("while", "model_while"), ("--", "model"), ("é", "model")],
)
def test_identifier(name: str, expected: str) -> None:
    assert identifier(name) == expected


@pytest.mark.parametrize("name", ["arena", "qcc", "weights", "memcpy", "stdint", "Time"])
def test_names_that_are_taken(name: str, tmp_path: Path) -> None:
    """The files of a model include headers, declare names and call functions of their own."""
    graph = small()
    inputs = random_inputs(graph, 0)
    ((output, expected),) = run_integer(graph, inputs).items()
    np.testing.assert_array_equal(compiled(graph, tmp_path, name=name).run(inputs)[output], expected)
    assert (tmp_path / "out" / f"model_{name}.h").exists()


def test_parameters_have_names_of_their_own() -> None:
    taken = {"to", "from"}
    found = [parameter_name(name, f"input{i}", taken) for i, name in enumerate(["to", "input1", "input1", "from"])]
    assert found == ["input0", "input1", "input2", "input3"]
    assert [parameter_name("to", "input0", taken) for _ in range(2)] == ["input0_", "input0__"]


def test_an_earlier_artifact_is_replaced(tmp_path: Path) -> None:
    first = compiled(small(1), tmp_path)
    (tmp_path / "out" / "stale").write_text("x")
    second = compiled(small(2), tmp_path)
    assert not (tmp_path / "out" / "stale").exists()
    x = random_inputs(second.program(), 0)["image"]
    assert not np.array_equal(first(x), second(x)), "the loaded library goes on working"


def test_a_failed_link_leaves_the_earlier_artifact(tmp_path: Path) -> None:
    compiled(small(1), tmp_path)
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    broken = AVX2.model_copy(update={"link": AVX2.link.model_copy(update={"flags": ["-no-such-flag"]})})
    package = naive_package(small(2), broken, tmp_path / "work")
    with pytest.raises(ToolError, match=r"failed: .*no-such-flag.* Hint: check \[link\] flags") as caught:
        emit_library(package, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "work"]


def test_no_compiler(tmp_path: Path) -> None:
    lacking = AVX2.model_copy(update={"link": AVX2.link.model_copy(update={"cc": ["no-such-cc"]})})
    with pytest.raises(ToolError, match=r"no C compiler was found \(tried no-such-cc\)\. Hint: install gcc or clang"):
        emit_library(naive_package(small(), lacking, tmp_path / "work"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="exists and is not a folder"):
        check_output(tmp_path / "file")
    (tmp_path / "mine").mkdir()
    check_output(tmp_path / "mine")
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ArtifactError, match="not empty and holds no compiled model"):
        check_output(tmp_path / "mine")
    with pytest.raises(ArtifactError, match="cannot be written"):
        check_output(tmp_path / "file" / "below")
    check_output(tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ArtifactError, match="no permission"):
        check_output(tmp_path / "out")
    tmp_path.chmod(0o700)


def test_load_errors(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no such folder"):
        qcc.load(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match="holds no compiled model"):
        qcc.load(tmp_path)
    compiled(small(), tmp_path)
    path = tmp_path / "out" / "manifest.json"
    good: dict[str, Any] = json.loads(path.read_text())
    for text, message in [("{", "cannot be read"), ("[]", "another version"), ('{"format": 99}', "another version"),
                          (json.dumps({k: v for k, v in good.items() if k != "arena"}), "manifest.json lacks arena")]:
        path.write_text(text)
        with pytest.raises(ArtifactError, match=message):
            qcc.load(tmp_path / "out")
    path.write_text(json.dumps(good | {"target": {"name": "x86-next", "arch": "x86_64", "requires": ["no_such_flag"]}}))
    with pytest.raises(ArtifactError, match="compiled for x86-next, but this machine lacks no_such_flag"):
        qcc.load(tmp_path / "out")
    path.write_text(json.dumps(good | {"prefix": "other"}))
    (tmp_path / "out" / "libother.so").write_bytes((tmp_path / "out" / "libnet.so").read_bytes())
    with pytest.raises(ArtifactError, match=r"the library is not that of 'other'.*Hint: compile the model again"):
        qcc.load(tmp_path / "out")
    path.write_text(json.dumps(good))
    (tmp_path / "out" / "libnet.so").unlink()  # a loaded library must not be written over
    (tmp_path / "out" / "libnet.so").write_text("not a library")
    with pytest.raises(ArtifactError, match=r"libnet\.so cannot be loaded"):
        qcc.load(tmp_path / "out")


def run(*command: str, cwd: Path | None = None) -> str:
    assert shutil.which(command[0]), command[0]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout


def runtime() -> Path:
    from qcc.data import data_folder

    return data_folder("runtime")


def test_this_machine_has_flags() -> None:
    assert not cpu_flags() or "sse2" in cpu_flags() or "asimd" in cpu_flags()
