"""C artifacts: their bytes on this machine, no warnings from any compiler, only what they promise inside."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import qcc
from integer_programs import Builder, random_inputs, random_program
from qcc import pipeline
from qcc.emit.csource import _numbers
from qcc.errors import ArtifactError
from qcc.ir.evaluate import run_integer
from qcc.ir.graph import Graph
from qcc.runtime import Model, read_manifest
from qcc.target import Target
from qcc.verify import verify_model
from random_graphs import random_model, random_samples

TARGETS = ["c99", "cortex-m4", "cortex-m55"]
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror"]


def compiled(graph: Graph, folder: Path, target: str = "c99") -> Model:
    return pipeline.build(graph, Target.load(target), folder / "out", jobs=1)


def check_warnings(folder: Path, prefix: str, work: Path) -> None:
    """Every C compiler here accepts the files, with the hook and without."""
    for cc in ("gcc", "clang"):
        if shutil.which(cc) is None:
            continue
        for extra in ([], ["-DQCC_PROFILE"]):
            files = [str(folder / f"{prefix}.c"), str(folder / f"{prefix}_weights.c")]
            command = [cc, *STRICT, *extra, "-O2", "-c", *files]
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("seed", range(9))
def test_random_programs(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    graph = random_program(seed)
    model = compiled(graph, tmp_path, TARGETS[seed % 3])
    assert verify_model(model, [random_inputs(graph, seed + i) for i in range(3)]) is None
    check_warnings(tmp_path / "out", graph.name, tmp_path)


@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_random_models(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    onnx_model = random_model(seed)
    io = "float" if seed % 8 else "int8"
    graph = pipeline.quantize(onnx_model, calib=random_samples(onnx_model, 4, seed), name=f"g{seed}", io=io)
    model = compiled(graph, tmp_path, TARGETS[seed // 4 % 3])
    assert verify_model(model, qcc.verify.random_samples(model, 2, seed)) is None
    check_warnings(tmp_path / "out", graph.name, tmp_path)


@pytest.mark.parametrize("level", ["-O0", "-Og", "-Os", "-O3"])
def test_every_level_of_optimization(level: str, tmp_path: Path) -> None:
    """Instructions of the processor want registers, which GCC has fewer of without optimization."""
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("CANNOT COMPILE: arm-none-eabi-gcc is not installed")
    model = qcc.compile(Path(__file__).parents[2] / "examples" / "01_digits" / "digits.onnx", target="cortex-m4",
                        calib=np.zeros((1, 1, 8, 8), np.float32), out=tmp_path / "out", jobs=1)
    source = str(tmp_path / "out" / f"{model.name}.c")
    cpu = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]
    subprocess.run(["arm-none-eabi-gcc", *STRICT, *cpu, level, "-c", source], cwd=tmp_path, check=True)
    headers = Path("/usr/lib/arm-none-eabi/include")
    if shutil.which("clang") and headers.is_dir():
        subprocess.run(["clang", "--target=thumbv7em-none-eabihf", "-mcpu=cortex-m4", f"-I{headers}", *STRICT, level,
                        "-c", source], cwd=tmp_path, check=True)  # fmt: skip


def small() -> Graph:
    b = Builder("small", 3)
    x = b.input((1, 8, 6, 8))
    y = b.conv(x, 8)
    return b.output(b.lut(b.conv(y, 8, residual=y)))


def test_the_folder(tmp_path: Path) -> None:
    graph = small()
    compiled(graph, tmp_path, "cortex-m4")
    folder = tmp_path / "out"
    assert sorted(p.name for p in folder.iterdir()) == [
        "CMakeLists.txt", "README.md", "manifest.json", "qcc.h", "qcc_dsp.h", "qcc_scalar.h", "reference", "small.c",
        "small.h", "small_weights.c", "small_weights.h"]  # fmt: skip
    model = (folder / "small.c").read_text()
    assert re.findall(r"#include [<\"](.*)[>\"]", model) == [
        "small.h", "stddef.h", "small_weights.h", "qcc_scalar.h", "qcc_dsp.h"]  # fmt: skip
    for forbidden in ("malloc", "printf", "math.h", "tvm", "TVM", "float", "#pragma"):
        assert forbidden not in model
    defined = re.findall(r"^static void (\w+)\(", model, re.M)
    assert defined
    assert len(defined) == len(set(defined))
    assert all(model.count(f"{name}(") > 1 for name in defined), "only kernels that are used"
    manifest = read_manifest(folder)
    readme = (folder / "README.md").read_text()
    assert f"| {manifest['arena']['bytes']} |" in readme
    assert manifest["arena"]["bytes"] == manifest["arena"]["lower_bound"]


@pytest.mark.parametrize("name", ["qcc", "string"])
def test_names_that_are_taken(name: str, tmp_path: Path) -> None:
    """Inputs called like variables of generated code, models like headers that it includes."""
    b = Builder(name)
    images = [b.quantize(b.input((1, 3, 5, 5), "float32", value), (0, 2, 3, 1)) for value in ("from", "to", "NULL")]
    total = b.add(b.add(b.conv(images[0], 4), b.conv(images[1], 4)), b.conv(images[2], 4))
    model = compiled(b.output(b.dequantize(total)), tmp_path)
    assert verify_model(model, [random_inputs(model.program(), 0)]) is None
    check_warnings(tmp_path / "out", f"model_{name}", tmp_path)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint32"])
def test_every_integer_has_a_literal(dtype: str, tmp_path: Path) -> None:
    limits = np.iinfo(dtype)
    values = np.array([limits.min, limits.min + 1, 0, -1 if limits.min else 1, limits.max], dtype)
    text = "\n".join(_numbers(values))
    source = f"#include <stdint.h>\nconst {dtype}_t values[] = {{\n{text}\n}};\n"
    (tmp_path / "a.c").write_text(source)
    command = ["cc", *STRICT, "-pedantic", "-shared", "a.c", "-o", "a.so"]
    subprocess.run(command, cwd=tmp_path, check=True)
    found = (ctypes.c_char * values.nbytes).in_dll(ctypes.CDLL(str(tmp_path / "a.so")), "values")
    np.testing.assert_array_equal(np.frombuffer(found, dtype), values)


def test_no_data_that_changes(tmp_path: Path) -> None:
    compiled(small(), tmp_path)
    for name in ("small", "small_weights"):
        subprocess.run(["cc", "-O2", "-c", str(tmp_path / f"out/{name}.c")], cwd=tmp_path, check=True)
        said = subprocess.run(["nm", f"{name}.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        kinds = {line.split()[-2] for line in said.splitlines()}
        assert kinds <= {"T", "t", "R", "r", "U"}, said
        needed = {line.split()[-1] for line in said.splitlines() if line.split()[-2] == "U"}
        assert {n for n in needed if not n.startswith("small_")} <= {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}


def test_two_contexts_at_a_time(tmp_path: Path) -> None:
    """The header from C++ too, and an arena for each of two instances."""
    graph = small()
    compiled(graph, tmp_path)
    inputs = [random_inputs(graph, seed) for seed in (1, 2)]
    arrays = [", ".join(map(str, x["x"].reshape(-1))) for x in inputs]
    (tmp_path / "main.cpp").write_text(f"""
#include <cstdio>
#include <thread>
#include "small.h"
static int8_t in[2][SMALL_INPUT_SIZE] = {{{{{arrays[0]}}}, {{{arrays[1]}}}}}, out[2][SMALL_OUTPUT_SIZE];
alignas(4) static uint8_t arena[2][SMALL_ARENA_BYTES];
static void work(int i) {{
    const small_context context = {{arena[i], 0}};
    for (int n = 0; n < 200; ++n) small_run(&context, in[i], out[i]);
}}
int main() {{
    std::thread a(work, 0), b(work, 1);
    a.join(); b.join();
    for (auto &row : out) for (int8_t v : row) std::printf("%d ", v);
    return small_run(nullptr, in[0], out[0]) == -1 ? 0 : 1;
}}
""")
    subprocess.run(["cc", "-O1", "-c", "out/small.c", "out/small_weights.c"], cwd=tmp_path, check=True)
    subprocess.run(["c++", "-Wall", "-Wextra", "-Werror", "-Iout", "main.cpp", "small.o", "small_weights.o", "-pthread",
                    "-o", "main"], cwd=tmp_path, check=True)  # fmt: skip
    said = subprocess.run([str(tmp_path / "main")], check=True, capture_output=True, text=True).stdout
    expected = [v for x in inputs for v in next(iter(run_integer(graph, x).values())).reshape(-1)]
    assert [int(v) for v in said.split()] == expected


@pytest.mark.parametrize("seed", range(4))
def test_no_undefined_behaviour(seed: int, tmp_path: Path) -> None:
    """Under sanitizers, with arrays of the exact sizes on the heap."""
    graph = random_program(seed)
    model = compiled(graph, tmp_path)
    name, manifest = graph.name, model.manifest
    inputs = random_inputs(graph, seed)
    arrays, calls, prints = [], [], []
    for i, entry in enumerate(manifest["inputs"]):
        values = ", ".join(map(str, inputs[entry["name"]].reshape(-1).tolist()))
        c_type = {"int8": "int8_t", "float32": "float"}[entry["dtype"]]
        arrays.append(f"static const {c_type} in{i}[] = {{{values}}};")
        calls.append(f"heap(in{i}, sizeof in{i})")
    for i, entry in enumerate(manifest["outputs"]):
        size = int(np.prod(entry["shape"])) * np.dtype(entry["dtype"]).itemsize
        arrays.append(f"static void *out{i};")
        calls.append(f"(out{i} = malloc({size}))")
        prints.append(f"fwrite(out{i}, 1, {size}, stdout);")
    new_line = "\n"
    (tmp_path / "main.c").write_text(f"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "{name}.h"
{new_line.join(arrays)}
static void *heap(const void *from, size_t size) {{ return memcpy(malloc(size), from, size); }}
int main(void)
{{
    const {name}_context context = {{malloc({name.upper()}_ARENA_BYTES), 0}};
    if ({name}_run(&context, {', '.join(calls)}) != 0) return 1;
    {' '.join(prints)}
    return 0;
}}
""")
    sources = ["main.c", f"out/{name}.c", f"out/{name}_weights.c"]
    subprocess.run(["cc", "-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
                    "-Iout", *sources, "-o", "main"], cwd=tmp_path, check=True)  # fmt: skip
    done = subprocess.run([str(tmp_path / "main")], capture_output=True, check=False,
                          env={"ASAN_OPTIONS": "detect_leaks=0"})  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    expected = run_integer(graph, inputs)
    assert done.stdout == b"".join(np.ascontiguousarray(expected[v]).tobytes() for v in graph.outputs)


def test_cmake(tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("there is no cmake")
    compiled(small(), tmp_path)
    (tmp_path / "CMakeLists.txt").write_text("""cmake_minimum_required(VERSION 3.13)
project(firmware LANGUAGES C)
add_subdirectory(out)
add_executable(firmware main.c)
target_link_libraries(firmware PRIVATE small)
""")
    (tmp_path / "main.c").write_text('#include "small.h"\n'
                                     "int main(void) { return small_quantize_input(SMALL_INPUT_SCALE) != "
                                     "SMALL_INPUT_ZERO_POINT + 1; }\n")
    subprocess.run(["cmake", "-S", ".", "-B", "build"], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", "build"], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run([str(tmp_path / "build" / "firmware")], check=True)


def test_headers_agree_with_the_model(tmp_path: Path) -> None:
    model = compiled(small(), tmp_path)
    text = (tmp_path / "out" / "small.h").read_text()
    entry = model.manifest["inputs"][0]
    assert f"#define SMALL_INPUT_SIZE {int(np.prod(entry['shape']))}" in text
    assert f"#define SMALL_INPUT_SCALE {entry['scale']!r}F" in text
    assert f"#define SMALL_INPUT_ZERO_POINT ({entry['zero_point']})" in text


def test_an_artifact_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    compiled(small(), tmp_path)
    compiled(small(), tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "main.c").write_text("")
    with pytest.raises(ArtifactError, match="holds no compiled model"):
        pipeline.build(small(), Target.load("c99"), tmp_path / "mine", jobs=1)
