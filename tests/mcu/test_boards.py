"""C artifacts on emulated boards: bytes of the integer reference, and the sizes that README.md promised."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import board
import numpy as np
import pytest

from integer_programs import random_inputs, random_program
from qcc import pipeline
from qcc.errors import ArtifactError, TargetError
from qcc.ir.evaluate import run_integer
from qcc.ir.graph import Graph
from qcc.runtime import read_manifest
from qcc.target import Target
from random_graphs import random_model, random_samples

MODELS = {"digits": ["cortex-m0plus", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "riscv32"],
          "mnist_cnn": ["cortex-m0plus", "cortex-m4", "cortex-m55", "riscv32"],
          "resnet20_cifar10": ["cortex-m4", "cortex-m55", "riscv32"]}  # fmt: skip
LIBRARY_STACK = 32
"""Bytes that functions of the C library and the compiler (memcpy, 64-bit products) take beyond what README.md says."""
ROOT = Path(__file__).parents[2]


def check(graph: Graph, target: str, inputs: dict[str, np.ndarray], folder: Path, on: str = "") -> board.Run:
    lacking = board.missing(on or target)
    if lacking:
        pytest.skip(f"CANNOT RUN {target}: not installed: {', '.join(lacking)}")
    pipeline.build(graph, Target.load(target), folder / "out", jobs=1)
    result = board.run(folder / "out", inputs, board.BOARDS[on or target], folder / "work")
    for name, expected in run_integer(graph, inputs).items():
        np.testing.assert_array_equal(result.outputs[name], expected)
    return result


@pytest.mark.parametrize(("name", "target"), [(n, t) for n, targets in MODELS.items() for t in targets])
def test_models(name: str, target: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = ROOT / "examples" / "01_digits" / "digits.onnx"
    if name != "digits":
        path = request.getfixturevalue("data_dir") / "models" / f"{name}.onnx"
    graph = _quantized(path, name)
    rng = np.random.default_rng(7)
    inputs = {v: rng.integers(-128, 128, graph.types[v].shape).astype(np.int8) for v in graph.inputs}
    result = check(graph, target, inputs, tmp_path)
    manifest = read_manifest(tmp_path / "out")
    measured = manifest["measured"]
    print(f"{name} on {target}: {result.instructions} instructions, {result.stack} bytes of stack")
    promised = measured["stack_bytes"]
    assert promised - 16 < result.stack <= promised + LIBRARY_STACK, "a frame's last bytes may be there for alignment"
    linked = result.flash[f"{manifest['prefix']}.c"] + result.flash[f"{manifest['prefix']}_weights.c"]
    # Linkers leave out the padding at the end of a section; that of RISC-V makes calls shorter too.
    assert 0 <= measured["flash_bytes"] - linked <= (256 if target == "riscv32" else 8)


def _quantized(path: Path, name: str) -> Graph:
    from qcc.frontend import onnx

    graph = onnx.load(path, name)
    (value,) = graph.inputs
    samples = np.random.default_rng(1).uniform(0, 1, (8, *graph.types[value].shape)).astype(np.float32)
    return pipeline.quantize(path, calib=[{value: s} for s in samples], name=name, io="int8")


@pytest.mark.parametrize("seed", range(6))
def test_random_programs(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    graph = random_program(100 + seed)
    check(graph, ("cortex-m4", "cortex-m55", "riscv32")[seed % 3], random_inputs(graph, seed), tmp_path)


@pytest.mark.parametrize("seed", range(3, 63, 6))
def test_random_models(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    model = random_model(seed)
    graph = pipeline.quantize(model, calib=random_samples(model, 4, seed), name=f"g{seed}", io="int8")
    rng = np.random.default_rng(seed)
    inputs = {v: rng.integers(-128, 128, graph.types[v].shape).astype(np.int8) for v in graph.inputs}
    check(graph, ("cortex-m4", "cortex-m55", "riscv32", "cortex-m33")[seed // 6 % 4], inputs, tmp_path)


HASHES = {"kws": 0xF0B57151, "vww": 0x6962079D, "ic": 0xE5B25901, "ad": 0x1FD3ED06}
"""FNV-1a of the outputs of TensorFlow Lite Micro's interpreter on the inputs of ``generated``."""


@pytest.mark.parametrize(("name", "target"), [
    *((name, target) for name in HASHES for target in ("cortex-m4", "cortex-m55", "riscv32")), ("ad", "cortex-m7"),
    ("kws", "cortex-m33"), ("kws", "cortex-m0plus"),
])  # fmt: skip
def test_equal_to_tensorflow_lite_micro(name: str, target: str, data_dir: Path, tmp_path: Path) -> None:
    graph = pipeline.quantize(data_dir / "models" / f"{name}_int8.tflite", name=name, io="int8")
    (value,) = graph.inputs
    inputs = {value: generated(graph.types[value].size).reshape(graph.types[value].shape)}
    (output,) = check(graph, target, inputs, tmp_path).outputs.values()
    digest = 0x811C9DC5
    for byte in output.tobytes():
        digest = (digest ^ byte) * 0x01000193 & 0xFFFFFFFF
    assert digest == HASHES[name]


def generated(count: int) -> np.ndarray:
    """Bytes of a linear congruential generator."""
    state, found = 12345, bytearray()
    for _ in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        found.append(state >> 24)
    return np.frombuffer(bytes(found), np.int8)


@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m4", "cortex-m55", "riscv32"])
def test_objects(target: str, tmp_path: Path) -> None:
    """LLVM's kernels give the bytes of the C source, and show one function."""
    lacking = board.missing(target)
    if lacking:
        pytest.skip(f"CANNOT RUN {target}: not installed: {', '.join(lacking)}")
    chosen = Target.load(target).with_emit("object")
    for seed in (1, 3):
        graph = random_program(seed)
        model = pipeline.build(graph, chosen, tmp_path / "out", jobs=1)
        with pytest.raises(ArtifactError, match="this machine lacks"):
            model.run(random_inputs(graph, seed))
        result = board.run(tmp_path / "out", random_inputs(graph, seed), board.BOARDS[target], tmp_path / "work")
        for name, expected in run_integer(graph, random_inputs(graph, seed)).items():
            np.testing.assert_array_equal(result.outputs[name], expected)
    said = subprocess.run(["nm", "-g", "--defined-only", str(tmp_path / "out" / f"lib{graph.name}.a")], check=True,
                          capture_output=True, text=True).stdout  # fmt: skip
    assert re.findall(r" [A-Za-z] (\w+)", said) == [f"{graph.name}_run"]


def test_objects_are_for_microcontrollers_with_llvm() -> None:
    with pytest.raises(TargetError, match="x86-avx2 has no form 'object'"):
        Target.load("x86-avx2").with_emit("object")
    with pytest.raises(TargetError, match="no objects for c99"):
        Target.load("c99").with_emit("object")


def test_portable_code_on_a_board(tmp_path: Path) -> None:
    graph = random_program(5)
    check(graph, "c99", random_inputs(graph, 5), tmp_path, on="cortex-m3")
