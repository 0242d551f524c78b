"""What a broken or unsupported TFLite file says."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest

from qcc.errors import ModelError, QccError, UnsupportedError
from qcc.frontend.tflite import load
from qcc.ir.verify import verify
from tflite_writer import Tensor, Writer


def layer(change: Callable[[Writer], None] = lambda w: None) -> bytes:
    """A small convolution; ``change`` edits its tensors (x, w, b, y) and operators before they are written."""
    rng = np.random.default_rng(0)
    w = Writer()
    x = w.tensor("x", (1, 4, 4, 2), scale=0.1, zero_point=3)
    weights = w.constant("w", rng.integers(-127, 128, (3, 1, 1, 2)).astype(np.int8), [0.1, 0.2, 0.3], [0, 0, 0], 0)
    bias = w.constant("b", np.arange(3, dtype=np.int32), 0.01)
    y = w.tensor("y", (1, 4, 4, 3), scale=0.5, zero_point=-1)
    w.op("CONV_2D", [x, weights, bias], [y], "Conv2DOptions", StrideW=1, StrideH=1, DilationWFactor=1,
         DilationHFactor=1)
    change(w)
    return w.finish([x], [y])


def put(index: int, **fields: object) -> Callable[[Writer], None]:
    def change(w: Writer) -> None:
        for key, value in fields.items():
            setattr(w.tensors[index], key, value)

    return change


def rewire(inputs: list[int], outputs: list[int]) -> Callable[[Writer], None]:
    def change(w: Writer) -> None:
        name, _, _, kind, options = w.operators[0]
        w.operators[0] = (name, inputs, outputs, kind, options)

    return change


def add_cycle(w: Writer) -> None:
    w.tensors.append(Tensor("c", (1, 4, 4, 2), "int8", (0.1,), (3,)))
    rewire([4, 1, 2], [3])(w)
    w.operators.append(("RELU", [3], [4], "", {}))


BROKEN: list[tuple[str, Callable[[Writer], None], str]] = [
    ("scale 0", put(0, scale=(0.0,)), "tensor 'x' has the scale 0"),
    ("scale nan", put(1, scale=(0.1, math.nan, 0.1)), "tensor 'w' has the scale nan"),
    ("scale negative", put(3, scale=(-1.0,)), "tensor 'y' has the scale -1"),
    ("scales miss the axis", put(1, axis=3), "has 3 scales along axis 3"),
    ("axis beyond the rank", put(1, axis=7), "has 3 scales along axis 7"),
    ("zero points", put(1, zero_point=(0, 0)), "3 scales and 2 zero points"),
    ("zero point range", put(0, zero_point=(200,)), "zero point 200, which leaves int8"),
    ("huge", put(0, shape=(1, 2**20, 2**20, 2)), "impossible shape"),
    ("negative extent", put(0, shape=(1, -4, 4, 2)), "impossible shape"),
    ("rank", put(0, shape=(1,) * 9), "has 9 axes"),
    ("data size", put(1, shape=(3, 1, 1, 4)), "has 6 bytes instead of 12"),
    ("tensor index", rewire([0, 9, 2], [3]), "names tensor 9 of 4"),
    ("no producer", rewire([3, 1, 2], [0]), "defined twice"),
    ("self loop", rewire([3, 1, 2], [3]), "cycle through CONV_2D 0"),
    ("cycle", add_cycle, "cycle through CONV_2D 0, RELU 1"),
    ("input type", put(0, dtype="int16"), "input 'x' is of type int16"),
]

def resize(w: Writer) -> None:
    """The layer as a resize to more rows than can be written down."""
    w.tensors[3] = Tensor("y", (1, 2**20 + 1, 1, 2), "int8", w.tensors[0].scale, w.tensors[0].zero_point)
    w.operators[0] = ("RESIZE_NEAREST_NEIGHBOR", [0, 2], [3], "ResizeNearestNeighborOptions", {})


REFUSED: list[tuple[str, Callable[[Writer], None], str]] = [
    ("per-axis on the input channels", put(1, shape=(2, 1, 1, 3), axis=3), "scales along axis 3"),
    ("weights not constant", lambda w: put(1, data=None)(w), "nothing defines|not constant"),
    ("per-axis activation", put(3, scale=(0.1,) * 3, zero_point=(0,) * 3, axis=3), "a scale for each channel"),
    ("no parameters", put(3, scale=()), "has no quantization parameters"),
    ("rows of a resize", resize, "resizes an axis to 1048577 elements"),
    ("bias type", put(2, data=np.zeros(3, np.int64), dtype="int64"), r"bias is int64\[3\]"),
    ("finest result", put(3, scale=(1e-38,)), "its scales are not possible: a ratio of .* does not fit 32 bits"),
    ("no reciprocal", put(0, scale=(1e-40,)), "scale 9.99995e-41, which has no reciprocal in float32"),
    ("result shape", put(3, shape=(1, 4, 4, 5)), "the file says"),
]


@pytest.mark.parametrize(("name", "change", "message"), BROKEN)
def test_broken(name: str, change: Callable[[Writer], None], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(layer(change))


@pytest.mark.parametrize(("name", "change", "message"), REFUSED)
def test_refused(name: str, change: Callable[[Writer], None], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(layer(change))


def test_all_unsupported_operators_are_listed_at_once() -> None:
    w = Writer()
    values = [w.tensor(f"v{i}", (1, 4), scale=0.1) for i in range(4)]
    w.op("COS", [values[0]], [values[1]])
    w.op("RELU", [values[1]], [values[2]])
    w.op("SVDF", [values[2]], [values[3]])
    with pytest.raises(UnsupportedError) as caught:
        load(w.finish(values[:1], values[3:]))
    assert [(i.op, i.node) for i in caught.value.items] == [("COS", "v1"), ("SVDF", "v3")]


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\x1c\0\0\0TFL3", b"\x1c\0\0\0ONNX" + b"\0" * 50])
def test_not_a_model(content: bytes) -> None:
    with pytest.raises(ModelError):
        load(content)


def test_a_model_without_outputs() -> None:
    w = Writer()
    x, y = w.tensor("x", (1, 4), scale=0.1), w.tensor("y", (1, 4), scale=0.1)
    w.op("RELU", [x], [y])
    with pytest.raises(ModelError, match="it has no output"):
        load(w.finish([x], []))


def test_missing_file_names_the_path() -> None:
    with pytest.raises(ModelError, match="No such file"):
        load("absent.tflite")


def test_every_truncation_ends_in_an_error_or_a_model() -> None:
    content = layer()
    for length in range(0, len(content), 7):
        with suppress(QccError):
            verify(load(content[:length]))
