"""Writing small TFLite files, and running files in TensorFlow Lite Micro and LiteRT (the oracles)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

Array = NDArray[Any]
CODES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9, "int4": 17}


@dataclass
class Tensor:
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    axis: int = 0
    data: Array | None = None


@dataclass
class Writer:
    """Collects tensors and operators; ``finish`` gives the bytes of the file."""

    tensors: list[Tensor] = field(default_factory=list)
    operators: list[tuple[str, list[int], list[int], str, dict[str, Any]]] = field(default_factory=list)

    def tensor(self, name: str, shape: Sequence[int], dtype: str = "int8", scale: Any = (), zero_point: Any = (),
               axis: int = 0, data: Array | None = None) -> int:
        """Index of a new tensor; ``scale`` and ``zero_point`` are numbers or sequences."""
        scales = tuple(np.atleast_1d(scale).tolist())
        zeros = tuple(int(z) for z in np.atleast_1d(zero_point)) or (0,) * len(scales)
        self.tensors.append(Tensor(name, tuple(shape), dtype, scales, zeros, axis, data))
        return len(self.tensors) - 1

    def constant(self, name: str, data: Array, scale: Any = (), zero_point: Any = (), axis: int = 0) -> int:
        return self.tensor(name, data.shape, str(data.dtype), scale, zero_point, axis, np.ascontiguousarray(data))

    def op(self, name: str, inputs: Sequence[int], outputs: Sequence[int], kind: str = "", **options: Any) -> None:
        """``kind`` is the name of the options table; ``options`` are its fields as ``tflite`` spells them."""
        self.operators.append((name, list(inputs), list(outputs), kind, options))

    def finish(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        b = flatbuffers.Builder(1024)
        arrays = [t.data for t in self.tensors if t.data is not None]
        buffers = [self._buffer(b, None), *(self._buffer(b, a) for a in arrays)]
        numbers = iter(range(1, len(buffers)))
        tensors = [self._tensor(b, t, 0 if t.data is None else next(numbers)) for t in self.tensors]
        names = list(dict.fromkeys(op[0] for op in self.operators))
        codes = [self._code(b, name) for name in names]
        operators = [self._operator(b, names.index(op[0]), *op[1:]) for op in self.operators]
        tensor_list, op_list = _offsets(b, tensors), _offsets(b, operators)
        ins, outs = _ints(b, inputs), _ints(b, outputs)
        graph_name = b.CreateString("main")
        tflite.SubGraphStart(b)
        tflite.SubGraphAddTensors(b, tensor_list)
        tflite.SubGraphAddInputs(b, ins)
        tflite.SubGraphAddOutputs(b, outs)
        tflite.SubGraphAddOperators(b, op_list)
        tflite.SubGraphAddName(b, graph_name)
        graph = tflite.SubGraphEnd(b)
        graphs, code_list, buffer_list = _offsets(b, [graph]), _offsets(b, codes), _offsets(b, buffers)
        tflite.ModelStart(b)
        tflite.ModelAddVersion(b, 3)
        tflite.ModelAddOperatorCodes(b, code_list)
        tflite.ModelAddSubgraphs(b, graphs)
        tflite.ModelAddBuffers(b, buffer_list)
        b.Finish(tflite.ModelEnd(b), b"TFL3")
        return bytes(b.Output())

    def _buffer(self, b: Any, array: Array | None) -> int:
        data = None if array is None else b.CreateNumpyVector(np.frombuffer(array.tobytes(), np.uint8))
        tflite.BufferStart(b)
        if data is not None:
            tflite.BufferAddData(b, data)
        return int(tflite.BufferEnd(b))

    def _tensor(self, b: Any, t: Tensor, buffer: int) -> int:
        name, shape, q = b.CreateString(t.name), _ints(b, t.shape), None
        if t.scale:
            scales = b.CreateNumpyVector(np.array(t.scale, np.float32))
            zeros = b.CreateNumpyVector(np.array(t.zero_point, np.int64))
            tflite.QuantizationParametersStart(b)
            tflite.QuantizationParametersAddScale(b, scales)
            tflite.QuantizationParametersAddZeroPoint(b, zeros)
            tflite.QuantizationParametersAddQuantizedDimension(b, t.axis)
            q = tflite.QuantizationParametersEnd(b)
        tflite.TensorStart(b)
        tflite.TensorAddShape(b, shape)
        tflite.TensorAddType(b, CODES[t.dtype])
        tflite.TensorAddBuffer(b, buffer)
        tflite.TensorAddName(b, name)
        if q is not None:
            tflite.TensorAddQuantization(b, q)
        return int(tflite.TensorEnd(b))

    def _code(self, b: Any, name: str) -> int:
        number = getattr(tflite.BuiltinOperator, name)
        tflite.OperatorCodeStart(b)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(b, min(number, 127))
        tflite.OperatorCodeAddVersion(b, 1)
        tflite.OperatorCodeAddBuiltinCode(b, number)
        return int(tflite.OperatorCodeEnd(b))

    def _operator(self, b: Any, code: int, inputs: list[int], outputs: list[int], kind: str,
                  options: Mapping[str, Any]) -> int:
        values = {key: _ints(b, v) if isinstance(v, tuple) else v for key, v in options.items()}
        table = None
        if kind:
            getattr(tflite, f"{kind}Start")(b)
            for key, value in values.items():
                getattr(tflite, f"{kind}Add{key}")(b, value)
            table = getattr(tflite, f"{kind}End")(b)
        ins, outs = _ints(b, inputs), _ints(b, outputs)
        tflite.OperatorStart(b)
        tflite.OperatorAddOpcodeIndex(b, code)
        tflite.OperatorAddInputs(b, ins)
        tflite.OperatorAddOutputs(b, outs)
        if table is not None:
            tflite.OperatorAddBuiltinOptionsType(b, getattr(tflite.BuiltinOptions, kind))
            tflite.OperatorAddBuiltinOptions(b, table)
        return int(tflite.OperatorEnd(b))


def _ints(b: Any, values: Sequence[int]) -> int:
    return int(b.CreateNumpyVector(np.array(values, np.int32)))


def _offsets(b: Any, values: Sequence[int]) -> int:
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        b.PrependUOffsetTRelative(value)
    return int(b.EndVector())


def micro(model: bytes, inputs: Sequence[Array]) -> list[Array]:
    """Outputs of TensorFlow Lite Micro's reference kernels."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(model, arena_size=1 << 24)
    for index, x in enumerate(inputs):
        interpreter.set_input(x, index)
    interpreter.invoke()
    count = tflite.Model.GetRootAs(model, 0).Subgraphs(0).OutputsLength()
    return [np.array(interpreter.get_output(i)) for i in range(count)]


def litert(model: bytes, inputs: Sequence[Array]) -> list[Array]:
    """Outputs of LiteRT's reference resolver."""
    from ai_edge_litert import interpreter as module

    interpreter = module.Interpreter(
        model_content=model, experimental_op_resolver_type=module.OpResolverType.BUILTIN_REF, num_threads=1)
    interpreter.allocate_tensors()
    for detail, x in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]).copy() for d in interpreter.get_output_details()]
