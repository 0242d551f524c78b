"""A TFLite flatbuffer → plain records. Whatever is wrong with the bytes ends here in a ``ModelError``."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import tflite
from numpy.typing import NDArray

from qcc.errors import ModelError
from qcc.frontend.detect import TFLITE_IDENTIFIER
from qcc.frontend.refused import MAX_ELEMENTS

EXPORT_AGAIN = "convert the model again"
ACTIVATION_TYPES = ("float32", "int8", "uint8", "int32", "int64", "bool")
_BROKEN = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError, KeyError, MemoryError)
_MAX_RANK = 8

T = TypeVar("T")


def _enum(kind: type) -> dict[int, str]:
    return {v: k for k, v in vars(kind).items() if isinstance(v, int)}


TYPE_NAMES = {code: name.lower() for code, name in _enum(tflite.TensorType).items()}
OP_NAMES = _enum(tflite.BuiltinOperator)
_OPTION_KINDS = _enum(tflite.BuiltinOptions)


@dataclass(frozen=True)
class Quantization:
    """``real = scale[i] * (q - zero_point[i])`` along ``axis`` (one entry: the whole tensor)."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int


@dataclass(frozen=True)
class Tensor:
    """``data`` is the contents of a constant; ``dtype`` a name of ``TYPE_NAMES``."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None
    data: NDArray[Any] | None


@dataclass(frozen=True)
class Operator:
    """Operands are tensor indices, -1 where an optional one is missing; ``options`` is a reader of ``tflite``."""

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


@dataclass(frozen=True)
class File:
    """The one subgraph of a model."""

    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn what a flatbuffer reader raises on broken bytes into a ``ModelError``."""
    try:
        yield
    except _BROKEN as error:
        raise ModelError(f"is truncated or corrupt ({what} cannot be read)", hint=EXPORT_AGAIN) from error


def read(content: bytes) -> File:
    """Decode a file. Raises ``ModelError``."""
    if content[4:8] != TFLITE_IDENTIFIER:
        raise ModelError("is not a TFLite file", hint="its bytes 4 to 8 must be 'TFL3'")
    with reading("its header"):
        model = tflite.Model.GetRootAs(content, 0)
        subgraphs = model.SubgraphsLength()
        if subgraphs == 1:
            return _subgraph(model, model.Subgraphs(0), content)
    raise ModelError(f"holds {subgraphs} subgraphs", hint="convert the model without control flow, with one signature")


def _subgraph(model: Any, graph: Any, content: bytes) -> File:
    limit = len(content)  # no vector has more entries than the file bytes

    def vector(count: int, get: Callable[[int], T]) -> tuple[T, ...]:
        if count > limit:
            raise ValueError("a vector is longer than the file")
        return tuple(get(i) for i in range(count))

    codes = vector(model.OperatorCodesLength(), lambda i: _operator_name(model.OperatorCodes(i)))
    tensors = vector(graph.TensorsLength(), lambda i: _tensor(model, graph.Tensors(i), i, content))
    operators = vector(graph.OperatorsLength(), lambda i: _operator(graph.Operators(i), i, codes, limit))
    inputs = vector(graph.InputsLength(), graph.Inputs)
    outputs = vector(graph.OutputsLength(), graph.Outputs)
    for operator in operators:
        for index in (*operator.inputs, *operator.outputs):
            _check_index(index, len(tensors), f"{operator.name} {operator.index}", lowest=-1)
    for index in (*inputs, *outputs):
        _check_index(index, len(tensors), "the list of inputs and outputs")
    name = graph.Name()
    return File(name.decode("utf-8", "replace") if name else "", tensors, operators, inputs, outputs)


def _check_index(index: int, count: int, where: str, lowest: int = 0) -> None:
    if not lowest <= index < count:
        raise ModelError(f"is corrupt: {where} names tensor {index} of {count}", hint=EXPORT_AGAIN)


def _operator_name(code: Any) -> str:
    """Builtin name; ``CUSTOM name`` for a custom operator."""
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = OP_NAMES.get(number, f"operator {number}")
    custom = code.CustomCode()
    return f"CUSTOM {custom.decode('utf-8', 'replace')}" if name == "CUSTOM" and custom else name


def _operator(operator: Any, index: int, codes: tuple[str, ...], limit: int) -> Operator:
    if operator.InputsLength() > limit or operator.OutputsLength() > limit:
        raise ValueError("a vector is longer than the file")
    name = codes[operator.OpcodeIndex()]
    inputs = tuple(operator.Inputs(i) for i in range(operator.InputsLength()))
    outputs = tuple(operator.Outputs(i) for i in range(operator.OutputsLength()))
    kind, table = _OPTION_KINDS.get(operator.BuiltinOptionsType(), "NONE"), operator.BuiltinOptions()
    options = None
    if table is not None and kind != "NONE":
        options = getattr(tflite, kind)()
        options.Init(table.Bytes, table.Pos)
    return Operator(index, name, inputs, outputs, options)


def _tensor(model: Any, tensor: Any, index: int, content: bytes) -> Tensor:
    raw = tensor.Name()
    name = raw.decode("utf-8", "replace") if raw else f"tensor{index}"
    if tensor.ShapeLength() > _MAX_RANK:
        raise ModelError(f"tensor '{name}' has {tensor.ShapeLength()} axes", hint=f"at most {_MAX_RANK} are possible")
    shape = tuple(int(tensor.Shape(i)) for i in range(tensor.ShapeLength()))
    if min(shape, default=1) < 0 or math.prod(shape) > MAX_ELEMENTS:
        raise ModelError(f"tensor '{name}' has the impossible shape {list(shape)}", hint=EXPORT_AGAIN)
    dtype = TYPE_NAMES.get(tensor.Type(), f"type {tensor.Type()}")
    data = _data(model, tensor, name, shape, dtype, content)
    return Tensor(index, name, shape, dtype, _quantization(tensor, name, shape), data)


def _data(
    model: Any, tensor: Any, name: str, shape: tuple[int, ...], dtype: str, content: bytes
) -> NDArray[Any] | None:
    """Contents of the tensor's buffer; None if that is empty (an activation)."""
    number = tensor.Buffer()
    if number >= model.BuffersLength():
        raise ModelError(f"tensor '{name}' names buffer {number} of {model.BuffersLength()}", hint=EXPORT_AGAIN)
    buffer = model.Buffers(number)
    if buffer.Size():  # data beyond the flatbuffer, in files over 2 GB
        held: Any = np.frombuffer(content, np.uint8, count=buffer.Size(), offset=buffer.Offset())
    elif buffer.DataLength() == 0:
        return None
    else:
        held = buffer.DataAsNumpy()
    if tensor.Sparsity() is not None:
        raise ModelError(f"tensor '{name}' is sparse", hint="convert the model without sparse weights")
    if dtype not in ("float16", "float32", "float64", "int4", *ACTIVATION_TYPES):
        raise ModelError(f"tensor '{name}' is of type {dtype}", hint="use float32 or int8")
    if dtype == "int4":
        return _unpack_int4(held, shape, name)
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if held.size != expected:
        raise ModelError(f"tensor '{name}' has {held.size} bytes instead of {expected}", hint=EXPORT_AGAIN)
    return np.ascontiguousarray(np.frombuffer(held.tobytes(), dtype)).reshape(shape)


def _unpack_int4(held: NDArray[np.uint8], shape: tuple[int, ...], name: str) -> NDArray[np.int8]:
    """Two values a byte, the low half first, sign extended to int8."""
    count = math.prod(shape)
    if held.size != (count + 1) // 2:
        raise ModelError(f"tensor '{name}' has {held.size} bytes for {count} int4 values", hint=EXPORT_AGAIN)
    halves = np.stack([held << 4, held & 0xF0], axis=-1).astype(np.uint8).reshape(-1)[:count]
    return np.asarray(halves.view(np.int8) >> 4, np.int8).reshape(shape)


def _quantization(tensor: Any, name: str, shape: tuple[int, ...]) -> Quantization | None:
    """Scales, zero points and axis; None without scales. Raises ``ModelError`` on impossible numbers."""
    q = tensor.Quantization()
    if q is None or q.ScaleLength() == 0:
        return None
    scales = tuple(float(v) for v in np.atleast_1d(q.ScaleAsNumpy()))
    zero_points = tuple(int(v) for v in np.atleast_1d(q.ZeroPointAsNumpy())) if q.ZeroPointLength() else (0,)
    bad = next((s for s in scales if not (math.isfinite(s) and s > 0)), None)
    if bad is not None:
        raise ModelError(f"tensor '{name}' has the scale {bad}", hint="scales must be positive and finite")
    if len(zero_points) == 1:
        zero_points *= len(scales)
    axis = q.QuantizedDimension()
    if len(zero_points) != len(scales):
        raise ModelError(f"tensor '{name}' has {len(scales)} scales and {len(zero_points)} zero points",
                         hint=EXPORT_AGAIN)
    if len(scales) > 1 and (not 0 <= axis < len(shape) or shape[axis] != len(scales)):
        raise ModelError(f"tensor '{name}', shape {list(shape)}, has {len(scales)} scales along axis {axis}",
                         hint="there must be one scale for each element of that axis")
    return Quantization(scales, zero_points, axis)
