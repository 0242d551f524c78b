"""Evaluate the parts of an ONNX graph that do not depend on its inputs: shapes, reshaped weights, constants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from qcc.frontend.onnx_node import Scope
from qcc.frontend.refused import MAX_ELEMENTS, Refused
from qcc.numerics import QParams

MOVED = ("Transpose", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "Expand")
"""Operators whose result holds only elements of their first operand."""
RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def fold(proto: onnx.NodeProto, scope: Scope) -> bool:
    """Evaluate a node if its inputs are known (or, for Shape and Size, their shapes); says whether it did."""
    if proto.op_type in ("Shape", "Size") and proto.input[0] in scope.values:
        shape = scope.graph.types[scope.values[proto.input[0]]].shape
        scope.known[proto.output[0]] = _shape(proto, shape)
        return True
    inputs = {name: scope.known.get(name) for name in proto.input if name}
    has_body = any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in proto.attribute)
    quantizes = proto.op_type in ("QuantizeLinear", "DequantizeLinear")  # their importers keep what they know
    if quantizes or has_body or proto.op_type in RANDOM or any(array is None for array in inputs.values()):
        return False
    scope.known.update(_evaluate(proto, {k: v for k, v in inputs.items() if v is not None}, scope.opset))
    _carry_grid(proto, scope)
    return True


def _carry_grid(proto: onnx.NodeProto, scope: Scope) -> None:
    """Let a dequantized constant that was only moved keep its parameters."""
    grid = scope.grids.get(proto.input[0]) if proto.input else None
    if grid is None or proto.op_type not in MOVED:
        return
    if grid.axis is not None:
        if proto.op_type not in ("Transpose", "Identity"):
            return
        rank = scope.known[proto.output[0]].ndim
        perm = next((list(a.ints) for a in proto.attribute if a.name == "perm"), list(range(rank))[::-1])
        axis = grid.axis if proto.op_type == "Identity" else perm.index(grid.axis)
        grid = QParams(grid.scale, 0, axis)
    scope.grids[proto.output[0]] = grid


def _shape(proto: onnx.NodeProto, shape: tuple[int, ...]) -> NDArray[Any]:
    if proto.op_type == "Size":
        return np.array(math.prod(shape), np.int64)
    bounds = {a.name: int(a.i) for a in proto.attribute}
    return np.array(shape[bounds.get("start", 0) : bounds.get("end", len(shape))], np.int64)


def _evaluate(proto: onnx.NodeProto, inputs: dict[str, NDArray[Any]], opset: int) -> dict[str, NDArray[Any]]:
    """Results by name; evaluated by onnx itself. Whatever it raises on wrong operands is a refusal."""
    arrays = [inputs[name] for name in proto.input if name]
    outputs = [name for name in proto.output if name]
    if _elements(proto.op_type, arrays) > MAX_ELEMENTS:
        raise Refused(f"its constant result has more than {MAX_ELEMENTS} elements")
    try:
        operands = [onnx.helper.make_tensor_value_info(k, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
                    for k, v in inputs.items()]
        graph = onnx.helper.make_graph([proto], "fold", operands, [onnx.ValueInfoProto(name=name) for name in outputs])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, inputs)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise Refused(f"its constant inputs cannot be evaluated: {reason}",
                      "check its inputs and attributes") from error
    if not all(isinstance(r, np.ndarray | np.generic) for r in results):
        raise Refused("its result is not a tensor")
    return {name: np.asarray(result) for name, result in zip(outputs, results, strict=True)}


def _elements(op: str, inputs: list[NDArray[Any]]) -> float:
    """Elements of the result of the ops that make large values out of small ones, else 0."""
    if op in ("ConstantOfShape", "Expand") and inputs[-1].dtype.kind == "i":
        return math.prod(float(max(d, 1)) for d in inputs[-1].reshape(-1))
    if op == "Tile" and len(inputs) == 2:
        return math.prod([float(inputs[0].size), *(float(r) for r in inputs[1].reshape(-1))])
    if op == "Range" and len(inputs) == 3 and all(a.size == 1 for a in inputs):
        start, limit, delta = (float(a.reshape(-1)[0]) for a in inputs)
        return abs(limit - start) / abs(delta) if delta else math.inf
    if op == "Pad" and len(inputs) > 1 and inputs[1].dtype.kind == "i":
        return _padded(inputs)
    return 0.0


def _padded(inputs: list[NDArray[Any]]) -> float:
    """Elements of a padded constant; operands are data, pads and perhaps a value and axes. 0 where they do not fit."""
    shape, pads = [float(d) for d in inputs[0].shape], np.maximum(inputs[1].reshape(-1).astype(np.float64), 0)
    count = len(pads) // 2
    named = next((a.reshape(-1) for a in inputs[2:] if a.dtype.kind == "i" and a.size == count), None)
    axes = np.arange(len(shape)) if named is None else named
    if len(axes) != count or not all(-len(shape) <= axis < len(shape) for axis in axes):
        return 0.0
    for i, axis in enumerate(axes):
        shape[axis] += float(pads[i] + pads[i + count])
    return math.prod(shape)
