"""Quantized ONNX and TFLite files with something broken in them: an error that says what, or a program that runs.

QCC_FUZZ multiplies the number of mutations, for longer runs by hand.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from qcc import pipeline
from qcc.errors import QccError
from qcc.ir.evaluate import run_integer
from qcc.ir.graph import Graph
from tflite_cases import CASES

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "frontend"))
from onnx_support import floats, model, op
from qdq_support import quantized

ROUNDS = int(os.environ.get("QCC_FUZZ", "1"))
SECONDS, MEGABYTES = 20, 1024
"""What one file may take, of the processor's time and in addition to the memory before."""
RUN = 1 << 18
"""Programs with fewer elements are run too."""
Rng = np.random.Generator


@cache
def network(operators: bool) -> bytes:
    """Convolutions with clip, residual and table, pools, concatenation and a dense layer, quantized by ONNX Runtime."""
    nodes = [
        op("Conv", "x w0 b0", "c0", pads=[1] * 4), op("Clip", "c0 lo hi", "r0"),
        op("Conv", "r0 w1 b1", "c1", pads=[1] * 4, group=4), op("Add", "c1 r0", "s"), op("Sigmoid", "s", "g"),
        op("MaxPool", "g", "m", kernel_shape=[2, 2], strides=[2, 2]), op("AveragePool", "s", "a", kernel_shape=[2, 2],
                                                                        strides=[2, 2]),
        op("Concat", "m a", "k", axis=1), op("Reshape", "k shape", "f"), op("Gemm", "f w2 b2", "d", transB=1),
        op("Softmax", "d"),
    ]  # fmt: skip
    constants = {"w0": floats(4, 3, 3, 3), "b0": floats(4), "w1": floats(4, 1, 3, 3), "b1": floats(4),
                 "w2": floats(5, 72), "b2": floats(5), "lo": np.float32(0), "hi": np.float32(6),
                 "shape": np.array([1, 72])}  # fmt: skip
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        proto = model(nodes, {"x": (1, 3, 6, 6)}, constants)
        return quantized(proto, Path(folder), operators=operators).SerializeToString()


@cache
def dynamic() -> bytes:
    """A layer that is quantized as it runs."""
    nodes = [op("DynamicQuantizeLinear", "x", "q xs xz"), op("ConvInteger", "q w xz wz", "i"),
             op("Cast", "i", "f", to=1), op("Mul", "xs ws", "m"), op("Mul", "f m")]
    constants = {"w": np.ones((4, 3, 3, 3), np.int8), "wz": np.int8(0), "ws": np.array([0.01], np.float32)}
    return model(nodes, {"x": (1, 3, 6, 6)}, constants).SerializeToString()


ONNX: dict[str, Callable[[], bytes]] = {
    "qdq": lambda: network(False), "operators": lambda: network(True), "dynamic": dynamic,
}  # fmt: skip
TFLITE = ("conv_2d", "depthwise_conv_2d", "fully_connected", "add", "softmax", "average_pool", "strided_slice",
          "concatenation", "resize_bilinear", "prelu", "mean", "quantize_float")
NUMBERS = (0.0, -0.5, np.nan, np.inf, 1e-45, 1e-30, 3e38, 1.0)


def change_bytes(content: bytes, rng: Rng) -> bytes:
    """A few bytes replaced, often by extreme ones; sometimes the end is cut off."""
    mutated = bytearray(content)
    for position in rng.integers(0, len(content), int(rng.integers(1, 5))):
        mutated[position] = int(rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))]))
    return bytes(mutated[: int(rng.integers(len(mutated)))] if rng.random() < 0.05 else mutated)


def change_tensor(proto: onnx.ModelProto, rng: Rng) -> None:
    """Another number, dtype or shape in an initializer."""
    tensor = proto.graph.initializer[int(rng.integers(len(proto.graph.initializer)))]
    array = np.array(numpy_helper.to_array(tensor))
    match rng.integers(4):
        case 0 if array.size and array.dtype.kind == "f":
            array.reshape(-1)[int(rng.integers(array.size))] = rng.choice(NUMBERS)
        case 1:
            array = array.astype(rng.choice(["int8", "uint8", "int32", "float32", "int64", "float16"]))
        case 2:
            array = array.reshape(-1, 1) if rng.random() < 0.5 else array[..., None]
        case _:
            array = np.repeat(array.reshape(-1), int(rng.integers(4)))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def change_node(proto: onnx.ModelProto, rng: Rng) -> None:
    """Another operand, operator or attribute."""
    node = proto.graph.node[int(rng.integers(len(proto.graph.node)))]
    names = [n for other in proto.graph.node for n in (*other.input, *other.output)]
    match rng.integers(5):
        case 0 if node.input:
            node.input[int(rng.integers(len(node.input)))] = str(rng.choice([*names, ""]))
        case 1 if node.input:
            node.input.pop()
        case 2:
            node.op_type = proto.graph.node[int(rng.integers(len(proto.graph.node)))].op_type
        case 3 if node.attribute:
            attribute = node.attribute[int(rng.integers(len(node.attribute)))]
            attribute.i = int(rng.choice([-1, 0, 1, 3, 7, 2**31, -(2**62)]))
            for index in range(len(attribute.ints)):
                attribute.ints[index] = int(rng.choice([-1, 0, 1, 2, 2**20, 2**40]))
        case _:
            node.attribute.append(onnx.helper.make_attribute("axis", int(rng.integers(-5, 6))))


def change_shape(proto: onnx.ModelProto, rng: Rng) -> None:
    """Another extent of the input."""
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    dims[int(rng.integers(len(dims)))].dim_value = int(rng.choice([-1, 0, 1, 2, 5, 2**14, 2**31, 2**62]))


def change_model(content: bytes, rng: Rng) -> bytes:
    """One or two parts of an ONNX file replaced, so that it still is one."""
    proto = onnx.load_model_from_string(content)
    for _ in range(int(rng.integers(1, 3))):
        (change_tensor, change_tensor, change_node, change_node, change_shape)[int(rng.integers(5))](proto, rng)
    return proto.SerializeToString()


@contextmanager
def bounded(what: str) -> Iterator[None]:
    """Fails where the body takes too long or too much memory."""

    def stop(*_: Any) -> None:
        raise AssertionError(f"{what} took more than {SECONDS} s")

    before, previous = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    assert taken < MEGABYTES, f"{what} took {taken} MB"


def check(content: bytes, what: str, calib: Any = None) -> bool:
    """Whether a file was accepted; then its program runs. Any error but a ``QccError`` with a hint fails the test."""
    with bounded(what):
        try:
            program = pipeline.quantize(content, calib=calib)
        except QccError as error:
            if "Hint: " in str(error):
                return False
            raise AssertionError(f"{what} has no hint: {error}") from error
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        if sum(t.size for t in program.types.values()) < RUN:
            run_integer(program, zeros(program))
    return True


def zeros(program: Graph) -> dict[str, Any]:
    return {v: np.zeros(program.types[v].shape, program.types[v].dtype) for v in program.inputs}


def attack(
    content: bytes, change: Callable[[bytes, Rng], bytes], rounds: int, seed: int, calib: Any = None
) -> None:
    """Check so many mutations of a file; prints the seed, from which a round can be repeated alone."""
    accepted = 0
    for number in range(rounds * ROUNDS):
        print(f"seed [{seed}, {number}]", end="\r")
        accepted += check(change(content, np.random.default_rng([seed, number])), f"seed [{seed}, {number}]", calib)
    print(f"seed {seed}: {accepted} of {rounds * ROUNDS} accepted")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", [change_bytes, change_model])
@pytest.mark.parametrize("name", ONNX)
def test_onnx(name: str, change: Callable[[bytes, Rng], bytes]) -> None:
    calib = np.random.default_rng(0).normal(size=(2, 1, 3, 6, 6)).astype(np.float32) if name == "dynamic" else None
    attack(ONNX[name](), change, 120 if calib is None else 30, sum(map(ord, name)), calib)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("name", TFLITE)
def test_tflite(name: str, dtype: str) -> None:
    seed = sum(map(ord, name))
    attack(CASES[name](np.random.default_rng(1), dtype), change_bytes, 300, seed)
