"""Quantized ONNX: QuantizeLinear and DequantizeLinear, and the operator form, which is written with them.

A tensor of int8 or uint8 is imported as the real value that it stands for: QuantizeLinear becomes ``fake_quant``,
DequantizeLinear nothing. Zero points of uint8 move by 128, which changes no real value. Integers of constants are kept
through the parameters of the float constant (``Scope.grids``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from qcc.frontend.onnx_node import OnnxNode, importer
from qcc.frontend.refused import Refused, normal_axis
from qcc.numerics import SMALLEST_STEP, QParams

MICROSOFT = "com.microsoft"
MOVES = (
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Concat", "Split", "Slice", "Gather", "Tile",
    "Expand", "Pad", "MaxPool", "DepthToSpace", "SpaceToDepth", "Resize", "DequantizeLinear",
)  # fmt: skip
"""Operators that may read int8 or uint8 tensors."""
QDQ_HINT = "quantize it to int8 or uint8, as onnxruntime.quantization.quantize_static does"
OFFSETS = {"int8": 0, "uint8": 128}
"""What to subtract from a stored integer to make it int8."""


def parameters(n: OnnxNode, scale: int, zero: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Scale (float32) and zero point (any integer dtype; uint8 if absent) of a node, of equal sizes; refuses bad ones.

    ``scale`` and ``zero`` are input positions.
    """
    with np.errstate(over="ignore"):
        scales = np.asarray(n.floats(scale, "scale"), np.float32)
    if scales.ndim > 1:
        raise Refused("quantization in blocks is not supported", QDQ_HINT)
    if not (np.isfinite(scales).all() and (scales > 0).all() and scales.size):
        bad = next(iter(scales[~(np.isfinite(scales) & (scales > 0))].tolist()), "missing")
        raise Refused(f"its scale is {bad}; scales are positive and finite", "quantize the model again")
    zeros = n.array(zero, "zero point") if n.has(zero) else np.zeros(scales.shape, np.uint8)
    if scales.size == 1:
        scales = np.full(zeros.shape, scales.reshape(-1)[0])
    if zeros.size != scales.size:
        raise Refused(f"it has {scales.size} scales and {zeros.size} zero points", "quantize the model again")
    return scales, zeros


def per_tensor(n: OnnxNode, scale: int, zero: int) -> tuple[QParams, str]:
    """Parameters of an activation in int8, and the dtype in the file."""
    scales, zeros = parameters(n, scale, zero)
    kind = str(zeros.dtype)
    if not n.has(zero) and int(n.attrs.get("output_dtype", 0)):
        kind = str(helper.tensor_dtype_to_np_dtype(int(n.attrs["output_dtype"])))
    if kind not in OFFSETS:
        raise Refused(f"it quantizes to {kind}", QDQ_HINT)
    if scales.size != 1:
        raise Refused("it quantizes an activation per channel", "quantize activations per tensor")
    step = float(scales.reshape(-1)[0])
    if step < SMALLEST_STEP:
        raise Refused(f"its scale {step:g} has no reciprocal in float32", "quantize the model again")
    return QParams(step, int(zeros.reshape(-1)[0]) - OFFSETS[kind]), kind


@importer("QuantizeLinear")
def quantize_linear(n: OnnxNode) -> list[str]:
    """A mark on an activation; constants are quantized here."""
    if n.is_known(0):
        _quantize_constant(n)
        return []
    q, kind = per_tensor(n, 1, 2)
    n.scope.quantized[n.outputs[0]] = q, kind
    return [n.emit("fake_quant", {"x": n.value(0)}, scale=q.step, zero_point=q.zero_point)]


def _quantize_constant(n: OnnxNode) -> None:
    scales, zeros = parameters(n, 1, 2)
    if zeros.dtype.kind not in "iu":
        raise Refused(f"it quantizes to {zeros.dtype}", QDQ_HINT)
    x = n.floats(0, "operand")
    if np.isnan(x).any():
        raise Refused("its operand holds NaN", "export the model again from finite weights")
    shape = _along(n, scales, x.shape)
    limits = np.iinfo(zeros.dtype)
    levels = np.rint(x.astype(np.float32) / scales.reshape(shape)) + zeros.reshape(shape)
    n.scope.known[n.outputs[0]] = np.clip(levels, limits.min, limits.max).astype(zeros.dtype)


@importer("DequantizeLinear")
def dequantize_linear(n: OnnxNode) -> list[str]:
    """An activation is the real value already; a constant becomes float32, and its grid is kept."""
    if n.is_known(0):
        _dequantize_constant(n)
        return []
    name = n.inputs[0]
    if name not in n.scope.quantized:
        raise Refused(f"its input '{name}' is not the result of QuantizeLinear",
                      "quantize statically, with QuantizeLinear in front of every DequantizeLinear")
    made, kind = n.scope.quantized[name]
    scales, zeros = parameters(n, 1, 2)
    read = QParams(float(scales.reshape(-1)[0]), int(zeros.reshape(-1)[0]) - OFFSETS[kind])
    if scales.size != 1 or read != made:
        raise Refused("its parameters are not those that its input was quantized with", "quantize the model again")
    return [n.value(0)]


def _dequantize_constant(n: OnnxNode) -> None:
    stored, (scales, zeros) = n.array(0, "operand"), parameters(n, 1, 2)
    kind = str(stored.dtype)
    if not kind.lstrip("u").startswith("int"):
        raise Refused(f"its operand is of type {kind}", QDQ_HINT)
    if kind.endswith("int4"):
        stored = stored.astype(np.int8)
    shape = _along(n, scales, stored.shape)
    real = (stored.astype(np.int64) - zeros.astype(np.int64).reshape(shape)) * scales.astype(np.float64).reshape(shape)
    n.scope.known[n.outputs[0]] = real.astype(np.float32)
    if stored.dtype.itemsize > 1:  # biases have a scale of their own in the integer program
        return
    if scales.size == 1:
        zero = int(zeros.reshape(-1)[0]) - OFFSETS[kind] if kind in OFFSETS else 0
        grid = QParams(float(scales.reshape(-1)[0]), zero)
    else:
        axis = normal_axis(int(n.attrs.get("axis", 1)), stored.ndim)
        grid = QParams(tuple(float(s) for s in scales), 0, axis)
    n.scope.grids[n.outputs[0]] = grid


def _along(n: OnnxNode, scales: NDArray[np.float32], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which scales broadcast to a tensor; refuses a wrong axis."""
    if scales.size == 1:
        return (1,) * len(shape)
    axis = normal_axis(int(n.attrs.get("axis", 1)), len(shape))
    if shape[axis] != scales.size:
        raise Refused(f"it has {scales.size} scales, but axis {axis} of {list(shape)} has {shape[axis]} elements",
                      "check the axis of its quantization")
    return tuple(-1 if i == axis else 1 for i in range(len(shape)))


@importer("DynamicQuantizeLinear")
def dynamic_quantize_linear(n: OnnxNode) -> list[str]:
    """The value itself, in steps of 1: its range comes from calibration instead of from each input."""
    for output, constant in zip(n.outputs[1:], (np.float32(1), np.uint8(0)), strict=False):
        n.scope.known[output] = np.asarray(constant)
    n.scope.quantized[n.outputs[0]] = QParams(1.0, -OFFSETS["uint8"]), "uint8"
    return [n.scope.values[n.inputs[0]]]


def carry(n: OnnxNode) -> None:
    """Let the results of a node that moves quantized data be known as quantized like its operands, or refuse it."""
    kinds = {n.scope.quantized[name] for name in n.inputs if name in n.scope.quantized}
    if not kinds:
        return
    if n.op not in MOVES or len(kinds) > 1:
        raise Refused("it computes with quantized integers", "use the QLinear operators, or DequantizeLinear before it")
    if n.op != "DequantizeLinear":
        n.scope.quantized.update(dict.fromkeys(filter(None, n.outputs), kinds.pop()))


def expand(proto: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A node of the operator form as DequantizeLinear, the float operator, QuantizeLinear; any other node as it is."""
    form = FORMS.get(proto.op_type)
    if form is None or proto.domain not in ("", "ai.onnx", MICROSOFT):
        return [proto]
    return list(form(_Form(proto)))


Nodes = Iterator[onnx.NodeProto]


class _Form:
    """A node of the operator form; makes the nodes that it stands for."""

    def __init__(self, proto: onnx.NodeProto) -> None:
        self.proto = proto
        self.inputs = list(proto.input)

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and bool(self.inputs[index])

    def number(self, name: str, default: float) -> float:
        """An attribute; ONNX does not check those of other domains."""
        found = next((helper.get_attribute_value(a) for a in self.proto.attribute if a.name == name), default)
        if not isinstance(found, int | float):
            raise Refused(f"its attribute {name} is not a number", "check this node's attributes")
        return found

    def name(self, what: str) -> str:
        """A new ONNX value name."""
        return f"{self.proto.output[0]}/{what}"

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op, inputs, [output], self.proto.name or self.proto.output[0], **attributes)

    def dequantize(self, index: int, scale: int, zero: int, **axis: int) -> onnx.NodeProto:
        parameters = [self.inputs[i] if self.has(i) else "" for i in (index, scale, zero)]
        return self.node("DequantizeLinear", parameters, self.name(f"real{index}"), **axis)

    def main(self, op: str, operands: list[int | str], output: str, *dropped: str, **more: Any) -> onnx.NodeProto:
        """The float operator, with the node's own attributes but for the ``dropped``."""
        names = [self.name(f"real{i}") if isinstance(i, int) else i for i in operands]
        node = self.node(op, names, output, **more)
        node.attribute.extend(a for a in self.proto.attribute if a.name not in (*dropped, "channels_last"))
        if self.number("channels_last", 0):
            raise Refused("channels_last is not supported", "quantize the model before its layout is optimized")
        return node

    def through(self, op: str, operands: list[int | str], scale: int, zero: int, *dropped: str, **more: Any) -> Nodes:
        """The float operator and the quantization of its result; none where the node returns reals."""
        if not self.has(scale):
            yield self.main(op, operands, self.proto.output[0], *dropped, **more)
            return
        yield self.main(op, operands, self.name("real"), *dropped, **more)
        parameters = [self.inputs[scale], self.inputs[zero] if self.has(zero) else ""]
        yield self.node("QuantizeLinear", [self.name("real"), *parameters], self.proto.output[0])

    def bias(self, index: int, scales: tuple[int, int], factor: float = 1.0) -> Nodes:
        """A bias in steps of the product of two scales."""
        step, first = self.name("step"), self.inputs[scales[0]]
        if factor != 1.0:
            yield self.node("Constant", [], self.name("factor"), value_float=factor)
            yield self.node("Mul", [first, self.name("factor")], self.name("scaled"))
            first = self.name("scaled")
        yield self.node("Mul", [first, self.inputs[scales[1]]], step)
        yield self.node("DequantizeLinear", [self.inputs[index], step], self.name(f"real{index}"), axis=0)


def _conv(f: _Form) -> Nodes:
    yield f.dequantize(0, 1, 2)
    yield f.dequantize(3, 4, 5, axis=0)
    if f.has(8):
        yield from f.bias(8, (1, 4))
    yield from f.through("Conv", [0, 3, *([8] if f.has(8) else [])], 6, 7)


def _matmul(f: _Form) -> Nodes:
    yield f.dequantize(0, 1, 2)
    yield f.dequantize(3, 4, 5, axis=-1)
    yield from f.through("MatMul", [0, 3], 6, 7)


def _gemm(f: _Form) -> Nodes:
    yield f.dequantize(0, 1, 2)
    yield f.dequantize(3, 4, 5, axis=0 if f.number("transB", 0) else 1)
    if f.has(6):
        yield from f.bias(6, (1, 4), f.number("alpha", 1.0))
    yield from f.through("Gemm", [0, 3, *([6] if f.has(6) else [])], 7, 8)


def _binary(op: str) -> Callable[[_Form], Nodes]:
    def form(f: _Form) -> Nodes:
        yield f.dequantize(0, 1, 2)
        yield f.dequantize(3, 4, 5)
        yield from f.through(op, [0, 3], 6, 7)

    return form


def _unary(op: str) -> Callable[[_Form], Nodes]:
    def form(f: _Form) -> Nodes:
        yield f.dequantize(0, 1, 2)
        yield from f.through(op, [0], 3, 4)

    return form


def _softmax(f: _Form) -> Nodes:
    if f.number("opset", 13) < 13 and f.number("axis", -1) != -1:
        raise Refused("softmax over several axes is not supported", "use opset 13 or later")
    yield f.dequantize(0, 1, 2)
    yield from f.through("Softmax", [0], 3, 4, "opset")


def _concat(f: _Form) -> Nodes:
    operands = list(range(2, len(f.inputs), 3))
    for index in operands:
        yield f.dequantize(index, index + 1, index + 2)
    yield from f.through("Concat", [*operands], 0, 1)


def _integer(op: str, axis: int) -> Callable[[_Form], Nodes]:
    """Products of integers: a real product in steps of 1, which the multiplications behind it scale."""

    def form(f: _Form) -> Nodes:
        one = f.name("one")
        yield f.node("Constant", [], one, value_float=1.0)
        for index, zero in ((0, 2), (1, 3)):
            parameters = [f.inputs[index], one, *([f.inputs[zero]] if f.has(zero) else [])]
            yield f.node("DequantizeLinear", parameters, f.name(f"real{index}"), axis=axis)
        yield f.main(op, [0, 1], f.proto.output[0])

    return form


FORMS: dict[str, Callable[[_Form], Nodes]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearMul": _binary("Mul"),
    "QLinearAveragePool": _unary("AveragePool"),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QLinearSoftmax": _softmax,
    "QLinearConcat": _concat,
    "ConvInteger": _integer("Conv", 0),
    "MatMulInteger": _integer("MatMul", -1),
}
"""The operator form by operator: the nodes that it stands for."""
