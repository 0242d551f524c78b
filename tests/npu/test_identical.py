"""The simulated accelerator computes the bytes of the integer reference."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from integer_programs import Builder, random_inputs, random_program
from npu.support import check, random_description, smallest
from qcc import numerics, pipeline
from qcc.errors import UnsupportedError
from qcc.npu.compile import compile_graph
from qcc.npu.description import Description, known_npus
from qcc.npu.host import Device, build
from qcc.npu.program import Program
from qcc.npu.split import split
from random_graphs import FAMILIES, random_model, random_samples


@pytest.mark.parametrize("name", known_npus())
@pytest.mark.parametrize("seed", range(6))
def test_shipped_variants(name: str, seed: int) -> None:
    graph = random_program(seed)
    check(build(graph, Description.load(name)), graph, random_inputs(graph, seed))


@pytest.mark.parametrize("seed", range(25))
def test_random_descriptions_down_to_the_smallest_that_fits(seed: int) -> None:
    graph = random_program(seed)
    check(smallest(graph, random_description(seed)), graph, random_inputs(graph, seed))


@pytest.mark.parametrize("seed", range(len(FAMILIES)))
def test_every_family_of_layers(seed: int) -> None:
    model = random_model(seed)
    graph = pipeline.quantize(model, calib=random_samples(model, 2, seed))
    for d in (Description.load(known_npus()[seed % len(known_npus())]), random_description(seed)):
        try:
            device = smallest(graph, d)
        except UnsupportedError as error:
            print(error)
            device = smallest(graph, d, host=True)
        check(device, graph, random_samples(model, 1, seed)[0])


@pytest.mark.parametrize(("a", "b", "transposed"), [
    ((5, 7), (7, 6), False), ((2, 3, 5, 7), (2, 3, 6, 7), True), ((1, 9, 4), (3, 4, 5), False),
    ((2, 2, 3, 4), (4, 17), False),
])  # fmt: skip
def test_products_of_activations(a: tuple[int, ...], b: tuple[int, ...], transposed: bool) -> None:
    """Both zero points count; leading axes are equal, or one operand has none."""
    net = Builder("net", 5)
    left, right = net.lut(net.input(a)), net.input(b, name="b")
    m = net.graph.add_constant("m", numerics.requant_multipliers([0.01])[0])
    y = net.node("matmul", {"a": left, "b": right, "multiplier": m}, transpose_b=transposed, shift=31, zero_point=-3,
                 clamp=(-128, 127))  # fmt: skip
    graph = net.output(net.lut(y))
    for d in (*map(Description.load, known_npus()), *map(random_description, range(5))):
        check(smallest(graph, d), graph, random_inputs(graph, 1))


def test_the_second_inference_is_like_the_first() -> None:
    graph = random_program(3)
    device = build(graph, Description.load("ws16-mcu"))
    for seed in range(3):
        check(device, graph, random_inputs(graph, seed))


def test_the_file_holds_the_whole_program() -> None:
    graph = random_program(5)
    parts = split(graph, Description.load("edge-npu"))
    program = compile_graph(parts, Description.load("edge-npu"))
    again = Program.from_bytes(program.to_bytes())
    assert again == program
    check(Device(parts, again), graph, random_inputs(graph, 5))


@pytest.mark.parametrize("name", ["kws_int8", "vww_int8", "ic_int8", "ad_int8", "tf2_mobilenet_v2_1.0_224_ptq"])
def test_tflite_models(name: str, data_dir: Path) -> None:
    """The rounding of TFLite, in the same units."""
    graph = pipeline.quantize(data_dir / "models" / f"{name}.tflite")
    rng = np.random.default_rng(0)
    inputs = {}
    for value in graph.inputs:
        t = graph.types[value]
        drawn = rng.normal(size=t.shape) if t.dtype == "float32" else rng.integers(0, 128, t.shape)
        inputs[value] = drawn.astype(t.dtype)
    for target in ("edge-npu",) if name.startswith("tf2") else known_npus():
        check(build(graph, Description.load(target)), graph, inputs)


REAL = {"mnist_cnn": known_npus(), "resnet20_cifar10": known_npus(),
        "mobilenet_v1_0.75_224": ("edge-npu", "ws16-mcu"), "mobilenet_v2_1.0_224_deq": ("edge-npu", "ws64")}


@pytest.mark.parametrize("name", REAL)
def test_real_models(name: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(data_dir), *sys.path])
    evaluation = importlib.import_module("evaluate")
    samples = np.concatenate(evaluation.calibration(name, 4))
    graph = pipeline.quantize(data_dir / "models" / f"{name}.onnx", calib=samples)
    for target in REAL[name]:
        check(build(graph, Description.load(target)), graph, {graph.inputs[0]: samples[:1]})
