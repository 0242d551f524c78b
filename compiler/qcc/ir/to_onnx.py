"""Float graph to ONNX, for ONNX Runtime: every value keeps its IR name.

ONNX images are NCHW. So that convolutions need no transposes between them, a value of rank 4 exists in one of two
orders or in both: as written in the IR, or with its last axis moved to place 1. Nodes that can work in either order
take the one in which their operands exist; a transpose is emitted where a node or an output asks for the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qcc import numerics
from qcc.errors import QccError
from qcc.ir.graph import Graph, Node
from qcc.numerics import QParams
from qcc.ops.fake_quant import mark
from qcc.ops.pointwise import FUNCTIONS, Expr, evaluate
from qcc.ops.pool import taps_inside

OPSET = 18
IR_VERSION = 8
"""Of the ONNX file format: what opset 18 came with."""

TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
ELEMENT = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}
BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "maximum": "Max", "minimum": "Min"}
POOL = {"max_pool": "MaxPool", "avg_pool": "AveragePool"}
REDUCE = {"reduce_mean": "ReduceMean", "reduce_sum": "ReduceSum", "reduce_max": "ReduceMax"}
FUNCTION = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "neg": "Neg", "abs": "Abs",
    "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "erf": "Erf", "tanh": "Tanh", "sigmoid": "Sigmoid", "floor": "Floor",
    "ceil": "Ceil",
}  # fmt: skip
"""ONNX operators of the expression functions without constants."""


def to_onnx(graph: Graph, outputs: Sequence[str] | None = None) -> onnx.ModelProto:
    """The float graph as an ONNX model; fused attributes become nodes.

    ``outputs`` names the activations to return, in that order (default: the graph's outputs). Raises ``QccError`` for a
    graph with integer nodes.
    """
    return _Export(graph).run(graph.outputs if outputs is None else outputs)


class _Export:
    """The ONNX nodes written so far, and under which names values exist in which order (``nchw``: images only)."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.names: dict[tuple[str, bool], str] = {(v, False): v for v in graph.inputs}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.used = set(graph.types)

    def run(self, outputs: Sequence[str]) -> onnx.ModelProto:
        """The model that returns ``outputs``."""
        for node in self.graph.nodes:
            if node.op not in WRITERS:
                raise QccError(f"{node.op} has no float form in ONNX", where=node.output, hint="export the float graph")
            WRITERS[node.op](self, node)
        for value in outputs:
            name = self.get(value)
            if name != value:
                self.emit("Identity", [name], value)
        declared = [[self._info(v) for v in values] for values in (self.graph.inputs, outputs)]
        body = helper.make_graph(self.nodes, self.graph.name, *declared, self.initializers)
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(body, opset_imports=opset, ir_version=IR_VERSION, producer_name="qcc")

    def _info(self, value: str) -> onnx.ValueInfoProto:
        """Declared type of an input or output."""
        kind = self.graph.types[value]
        return helper.make_tensor_value_info(value, ELEMENT[kind.dtype], list(kind.shape))

    def get(self, value: str, nchw: bool = False) -> str:
        """Name of a value in an order; emits what it takes."""
        if (value, nchw) not in self.names:
            if value in self.graph.constants:
                array, given = self.graph.constants[value], self.graph.types[value].qparams
                self.names[value, nchw] = self.given(_permuted_array(array, TO_NCHW) if nchw else array, given)
            else:
                source, perm = self.names[value, not nchw], TO_NCHW if nchw else TO_NHWC
                self.emit("Transpose", [source], self.define(value, nchw), perm=perm)
        return self.names[value, nchw]

    def define(self, value: str, nchw: bool = False) -> str:
        """Name of the tensor that will hold a value in an order."""
        self.names[value, nchw] = self.fresh(f"{value}/nchw") if nchw else value
        return self.names[value, nchw]

    def fresh(self, hint: str) -> str:
        """An unused name."""
        name, count = hint, 1
        while name in self.used:
            name, count = f"{hint}_{count}", count + 1
        self.used.add(name)
        return name

    def constant(self, array: Any) -> str:
        """Name of a new initializer."""
        name = self.fresh(f"c{len(self.initializers)}")
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def given(self, array: Any, q: QParams | None) -> str:
        """Name of a constant; one with given parameters is stored as integers (a bias as int32) and dequantized."""
        if q is None:
            return self.constant(array)
        scale: Any = np.asarray(q.scale, np.float32)
        wide = np.asarray(q.scale) if q.axis is None else np.reshape(q.scale, [-1 if i == q.axis else 1
                                                                             for i in range(array.ndim)])
        levels = np.rint(array / wide) + q.zero_point
        bias = q.axis is not None and array.ndim == 1
        fits = not bias and levels.min(initial=0) >= numerics.INT8_MIN and levels.max(initial=0) <= numerics.INT8_MAX
        stored = levels.astype(np.int8 if fits else np.int32)
        zeros = np.full(scale.shape, q.zero_point, stored.dtype)
        inputs = [self.constant(item) for item in (stored, scale, *([] if bias else [zeros]))]
        axis = {} if q.axis is None else {"axis": q.axis}
        return self.emit("DequantizeLinear", inputs, None, **axis)

    def emit(self, op: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """Append a node; an output without a name gets a fresh one."""
        name = output or self.fresh(f"t{len(self.nodes)}")
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def order(self, node: Node) -> bool:
        """Whether a node that can work in either order runs in NCHW: an operand exists in it, and all operands can."""
        operands = [v for v in node.inputs.values() if v not in self.graph.constants]
        ranks = {len(self.graph.types[v].shape) for v in operands}
        widest = max(len(self.graph.types[v].shape) for v in node.inputs.values())
        return ranks == {4} and widest == 4 and any((v, True) in self.names for v in operands)

    def write(self, node: Node, nchw: bool, op: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Append the ONNX node whose result, clipped as the IR node says, is the IR node's value."""
        clamp = node.attrs.get("clamp")
        if clamp is None:
            self.emit(op, inputs, self.define(node.output, nchw), **attributes)
        else:
            low, high = clamp
            self.clip(self.emit(op, inputs, **attributes), low, high, self.define(node.output, nchw))

    def clip(self, x: str, low: float, high: float, output: str | None = None) -> str:
        """Relu or Clip."""
        if (low, high) == (0.0, math.inf):
            return self.emit("Relu", [x], output)
        bounds = ["" if math.isinf(v) else self.constant(np.float32(v)) for v in (low, high)]
        return self.emit("Clip", [x, *bounds], output)

    def fake_quant(self, x: str, scale: float, zero_point: int, output: str | None = None) -> str:
        """Quantized to int8 and back."""
        parameters = [self.constant(np.float32(scale)), self.constant(np.asarray(zero_point, np.int8))]
        return self.emit("DequantizeLinear", [self.emit("QuantizeLinear", [x, *parameters]), *parameters], output)

    def expression(self, expr: Expr, x: str, output: str | None = None) -> str:
        """Nodes that compute an expression of the tensor ``x``."""
        if not isinstance(expr, tuple):
            return x if expr == "x" else self.constant(np.float32(expr))
        name, count = expr[0], FUNCTIONS[expr[0]].operands
        operands = [self.expression(e, x) for e in expr[1 : 1 + count]]
        match name:
            case "clip":
                return self.clip(operands[0], expr[2], expr[3], output)
            case "pow":
                return self.emit("Pow", [operands[0], self.constant(np.float32(expr[2]))], output)
            case "elu" | "leaky":
                return self.emit({"elu": "Elu", "leaky": "LeakyRelu"}[name], operands, output, alpha=float(expr[2]))
            case "grid":
                return self.fake_quant(operands[0], expr[2], int(expr[3]), output)
            case "where_ge0":
                positive = self.emit("GreaterOrEqual", [operands[0], self.constant(np.float32(0))])
                return self.emit("Where", [positive, *operands[1:]], output)
        return self.emit(FUNCTION[name], operands, output)


def _permuted(items: Sequence[Any], perm: Sequence[int]) -> list[Any]:
    """Per-axis items in another order of axes."""
    return [items[i] for i in perm]


def _permuted_array(array: NDArray[Any], perm: Sequence[int]) -> NDArray[Any]:
    """A constant in NCHW, with the leading axes of size 1 that broadcasting implies."""
    return array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(perm)


def _axis(axis: int, nchw: bool) -> int:
    """Where an axis of a value is in the given order."""
    return TO_NHWC[axis] if nchw else axis


def _dense(e: _Export, node: Node) -> None:
    w, q = e.graph.constants[node.inputs["w"]].T, e.graph.types[node.inputs["w"]].qparams
    product = "MatMul", [e.get(node.inputs["x"]), e.given(w, q and QParams(q.scale, 0, 1))]
    _epilogue(e, node, False, *product)


def _epilogue(e: _Export, node: Node, nchw: bool, op: str, inputs: list[str], **attributes: Any) -> None:
    """Sums of products, then bias (part of a convolution) and residual."""
    addends = [e.get(node.inputs["b"])] if "b" in node.inputs and not nchw else []
    addends += [e.get(node.inputs["residual"], nchw)] if "residual" in node.inputs else []
    for addend in addends:
        op, inputs, attributes = "Add", [e.emit(op, inputs, **attributes), addend], {}
    e.write(node, nchw, op, inputs, **attributes)


def _convolution(e: _Export, node: Node) -> None:
    a, w = node.attrs, e.graph.constants[node.inputs["w"]]
    q = e.graph.types[node.inputs["w"]].qparams
    geometry = {"kernel_shape": w.shape[1:3], "strides": a["stride"], "pads": a["pad"], "dilations": a["dilation"],
                "group": a["groups"]}
    if node.op == "conv2d":
        op, taps = "Conv", w.transpose(TO_NCHW)
    else:
        groups = w.reshape(a["groups"], -1, *w.shape[1:]).transpose(0, 4, 1, 2, 3)
        q = q and _shared(q, a["groups"])
        op, taps, geometry["output_padding"] = "ConvTranspose", groups.reshape(-1, *groups.shape[2:]), a["output_pad"]
    bias = [e.get(node.inputs["b"])] if "b" in node.inputs else []
    _epilogue(e, node, True, op, [e.get(node.inputs["x"], nchw=True), e.given(taps, q), *bias], **geometry)


def _shared(q: QParams, groups: int) -> QParams | None:
    """Scales along axis 1 of ONNX's transposed convolution, whose groups must share them; None if they do not."""
    each = np.reshape(q.scale, (groups, -1))
    return QParams(tuple(each[0].tolist()), 0, 1) if (each == each[0]).all() else None


def _matmul(e: _Export, node: Node) -> None:
    a, b = (e.get(node.inputs[key]) for key in ("a", "b"))
    if node.attrs["transpose_b"]:
        rank = len(e.graph.types[node.inputs["b"]].shape)
        b = e.emit("Transpose", [b], perm=[*range(rank - 2), rank - 1, rank - 2])
    e.write(node, False, "MatMul", [a, b])


def _batch_norm(e: _Export, node: Node) -> None:
    nchw = e.order(node)
    mean, variance, weight, bias = (
        e.graph.constants[node.inputs[key]].astype(np.float64) for key in ("mean", "variance", "weight", "bias")
    )
    scale = weight / np.sqrt(variance + node.attrs["epsilon"])
    shape = (-1, 1, 1) if nchw else (-1,)
    factor, shift = (e.constant(v.astype(np.float32).reshape(shape)) for v in (scale, bias - mean * scale))
    e.write(node, nchw, "Add", [e.emit("Mul", [e.get(node.inputs["x"], nchw), factor]), shift])


def _binary(e: _Export, node: Node) -> None:
    nchw = e.order(node)
    e.write(node, nchw, BINARY[node.op], [e.get(node.inputs[key], nchw) for key in ("a", "b")])


def _pointwise(e: _Export, node: Node) -> None:
    nchw, expr, shape = e.order(node), node.attrs["expr"], e.graph.types[node.output].shape
    x = e.get(node.inputs["x"], nchw)
    if not _depends(expr):
        e.names[node.output, False] = e.constant(evaluate(expr, np.zeros(shape, np.float32)))
    elif expr == "x":
        e.write(node, nchw, "Identity", [x])
    else:
        e.expression(expr, x, e.define(node.output, nchw))


def _fake_quant(e: _Export, node: Node) -> None:
    nchw, q = e.order(node), mark(node)
    e.fake_quant(e.get(node.inputs["x"], nchw), q.step, q.zero_point, e.define(node.output, nchw))


def _depends(expr: Expr) -> bool:
    """The variable occurs in the expression."""
    if isinstance(expr, tuple):
        return any(_depends(e) for e in expr[1 : 1 + FUNCTIONS[expr[0]].operands])
    return bool(expr == "x")


def _prelu(e: _Export, node: Node) -> None:
    nchw, slope = e.order(node), e.graph.constants[node.inputs["slope"]]
    x = e.get(node.inputs["x"], nchw)
    e.write(node, nchw, "PRelu", [x, e.constant(slope.reshape(-1, 1, 1) if nchw else slope)])


def _softmax(e: _Export, node: Node) -> None:
    nchw, last = e.order(node), len(e.graph.types[node.output].shape) - 1
    e.write(node, nchw, "Softmax", [e.get(node.inputs["x"], nchw)], axis=_axis(last, nchw))


def _pool(e: _Export, node: Node) -> None:
    a, x, op = node.attrs, e.get(node.inputs["x"], nchw=True), POOL[node.op]
    pads, attributes = a["pad"], {"kernel_shape": a["kernel"], "strides": a["stride"]}
    if op == "MaxPool":
        attributes["dilations"] = a["dilation"]
    else:
        attributes["count_include_pad"] = int(a["count_include_pad"])
    if all(p < k for p, k in zip(pads, a["kernel"] * 2, strict=True)):
        e.write(node, True, op, [x], pads=pads, **attributes)
        return
    # ONNX wants pads smaller than the kernel. ONNX Runtime fuses a Pad with zeros into a pool, and then refuses it.
    if op == "MaxPool":
        around = e.constant(np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64))
        e.write(node, True, op, [e.emit("Pad", [x, around, e.constant(np.float32(-np.inf))])], **attributes)
        return
    shape = e.graph.types[node.inputs["x"]].shape
    ones = e.constant(np.ones((shape[3], 1, *a["kernel"]), np.float32))
    sums = e.emit("Conv", [x, ones], group=shape[3], pads=pads, strides=a["stride"])
    counts = np.full(1, math.prod(a["kernel"])) if a["count_include_pad"] else taps_inside(node, shape)
    e.write(node, True, "Div", [sums, e.constant(counts.astype(np.float32))])


def _reduce(e: _Export, node: Node) -> None:
    a = node.attrs
    reduced = (a["axis"],) if node.op == "argmax" else a["axes"]
    kept = [TO_NHWC[i] for i in range(4) if i not in reduced]
    nchw = e.order(node) and (a["keepdims"] or kept == sorted(kept))
    x, keepdims, axes = e.get(node.inputs["x"], nchw), int(a["keepdims"]), [_axis(i, nchw) for i in reduced]
    after = nchw and a["keepdims"]
    if node.op == "argmax":
        place = e.emit("ArgMax", [x], axis=axes[0], keepdims=keepdims)
        e.write(node, after, "Cast", [place], to=TensorProto.INT32)
    else:
        e.write(node, after, REDUCE[node.op], [x, e.constant(np.array(axes, np.int64))], keepdims=keepdims)


def _concat(e: _Export, node: Node) -> None:
    nchw = e.order(node)
    e.write(node, nchw, "Concat", [e.get(v, nchw) for v in node.inputs.values()], axis=_axis(node.attrs["axis"], nchw))


def _move(e: _Export, node: Node) -> None:
    """Slice, pad, take, expand."""
    nchw, a = e.order(node), node.attrs

    def per_axis(items: Sequence[Any]) -> str:
        return e.constant(np.array(_permuted(items, TO_NCHW) if nchw else list(items), np.int64))

    x = e.get(node.inputs["x"], nchw)
    match node.op:
        case "slice":
            axes = e.constant(np.arange(len(a["step"]), dtype=np.int64))
            e.write(node, nchw, "Slice", [x, per_axis(a["begin"]), per_axis(a["end"]), axes, per_axis(a["step"])])
        case "pad":
            pads = _permuted(a["pads"], TO_NCHW) if nchw else a["pads"]
            amounts = e.constant(np.array(pads, np.int64).T.reshape(-1))
            e.write(node, nchw, "Pad", [x, amounts, e.constant(np.float32(a["value"]))], mode=a["mode"])
        case "take":
            places = e.constant(np.array(a["indices"], np.int64))
            e.write(node, nchw, "Gather", [x, places], axis=_axis(a["axis"], nchw))
        case "expand":
            e.write(node, nchw, "Expand", [x, per_axis(a["shape"])])


def _reshape(e: _Export, node: Node) -> None:
    shape = e.constant(np.array(node.attrs["shape"], np.int64))
    e.write(node, False, "Reshape", [e.get(node.inputs["x"]), shape])


def _transpose(e: _Export, node: Node) -> None:
    x, perm = node.inputs["x"], node.attrs["perm"]
    if perm == TO_NHWC:
        e.names[node.output, True] = e.get(x)
    elif perm == TO_NCHW:
        e.names[node.output, False] = e.get(x, nchw=True)
    else:
        e.write(node, False, "Transpose", [e.get(x)], perm=perm)


def _resize(e: _Export, node: Node) -> None:
    nchw = e.order(node)
    y = e.get(node.inputs["x"], nchw)
    for axis, key in ((1, "rows"), (2, "cols")):
        place, (low, high, weight) = _axis(axis, nchw), node.attrs[key]
        share = (np.array(weight) / numerics.BILINEAR_ONE).astype(np.float32).reshape([-1] + [1] * (3 - place))
        ends = (e.emit("Gather", [y, e.constant(np.array(i, np.int64))], axis=place) for i in (low, high))
        parts = [e.emit("Mul", [v, e.constant(s)]) for v, s in zip(ends, (1 - share, share), strict=True)]
        if key == "rows":
            y = e.emit("Add", parts)
        else:
            e.write(node, nchw, "Add", parts)


WRITERS: dict[str, Callable[[_Export, Node], None]] = {
    **dict.fromkeys(("conv2d", "conv_transpose2d"), _convolution),
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys((*REDUCE, "argmax"), _reduce),
    **dict.fromkeys(POOL, _pool),
    **dict.fromkeys(("slice", "pad", "take", "expand"), _move),
    "dense": _dense,
    "matmul": _matmul,
    "batch_norm": _batch_norm,
    "pointwise": _pointwise,
    "fake_quant": _fake_quant,
    "prelu": _prelu,
    "softmax": _softmax,
    "concat": _concat,
    "reshape": _reshape,
    "transpose": _transpose,
    "resize_bilinear": _resize,
}
"""Export of each op of float graphs."""
