"""The real TFLite models: reference and compiled library give TensorFlow Lite Micro's bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import qcc
from qcc.frontend.tflite import load
from qcc.ir.evaluate import run_integer
from qcc.ir.graph import TensorType
from qcc.verify import verify_model
from tflite_cases import CASES, inputs_of

HASHES = {"kws_int8": "f0b57151", "ad_int8": "1fd3ed06", "ic_int8": "e5b25901", "vww_int8": "6962079d"}
"""FNV-1a of the output for the pseudo-random input below, as measured with TensorFlow Lite Micro on four targets."""
LARGE = "tf2_mobilenet_v2_1.0_224_ptq"
RANDOM = {**dict.fromkeys(HASHES, 100), LARGE: 3}
REAL = 20
OFFSET = ("conv_2d", "depthwise_conv_2d", "transpose_conv", "fully_connected", "average_pool", "mul")
"""Operators that the first scheme makes others: weights have a zero point, or numbers count from 0."""
SEED = 7
Array = NDArray[Any]


def fnv(content: bytes) -> str:
    """FNV-1a, 32 bits."""
    value = 0x811C9DC5
    for byte in content:
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return f"{value:08x}"


def congruential(t: TensorType) -> Array:
    """The high bytes of a linear congruential generator seeded with 12345."""
    state, content = 12345, bytearray()
    for _ in range(t.size):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        content.append(state >> 24)
    return np.frombuffer(bytes(content), t.dtype).reshape(t.shape)


def real_samples(name: str, folder: Path, t: TensorType) -> list[Array]:
    """Labelled samples as the model takes them, where there are some."""
    if name == "kws_int8":
        return list(np.load(folder / "kws01.npz")["x"][:REAL].reshape(-1, *t.shape))
    if name == "ic_int8":
        images = np.load(folder / "cifar10_lossless.npz")["x"][:REAL].astype(np.int16)
        return list((images - 128).astype(np.int8)[:, None])
    if name == "ad_int8":
        frames, q = np.load(folder / "ad_normal_id01.npy"), t.qparams
        assert q is not None
        windows = np.stack([frames[i : i + 5].reshape(t.shape) for i in range(REAL)])
        return list(np.clip(np.rint(windows / q.step) + q.zero_point, -128, 127).astype(np.int8))
    return []


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_bytes_equal_tensorflow_lite_micro(name: str, data_dir: Path) -> None:
    runtime = pytest.importorskip("tflite_micro").runtime
    path = data_dir / "models" / f"{name}.tflite"
    graph = load(path)
    model = qcc.compile(path, jobs=1)
    value, result = graph.inputs[0], graph.outputs[0]
    t = graph.types[value]
    interpreter = runtime.Interpreter.from_file(str(path), arena_size=1 << 24)
    rng, low = np.random.default_rng(SEED), np.iinfo(t.dtype).min
    drawn = [rng.integers(low, low + 256, t.shape).astype(t.dtype) for _ in range(RANDOM[name])]
    for number, x in enumerate([congruential(t), *drawn, *real_samples(name, data_dir, t)]):
        interpreter.set_input(x, 0)
        interpreter.invoke()
        expected = np.array(interpreter.get_output(0))
        np.testing.assert_array_equal(run_integer(graph, {value: x})[result], expected, f"reference, input {number}")
        np.testing.assert_array_equal(model.run({value: x})[result], expected, f"compiled, input {number}")
        if number == 0 and name in HASHES:
            assert fnv(expected.tobytes()) == HASHES[name]


@pytest.mark.parametrize(("name", "dtype"), [*((n, "int8") for n in sorted(CASES)), *((n, "uint8") for n in OFFSET)])
def test_compiled_operators_equal_the_reference(name: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    content = CASES[name](rng, dtype)
    graph = load(content)
    inputs = [dict(zip(graph.inputs, inputs_of([graph.types[v] for v in graph.inputs], rng), strict=True))
              for _ in range(3)]  # fmt: skip
    assert verify_model(qcc.compile(content, jobs=1), inputs) is None
