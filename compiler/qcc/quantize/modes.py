"""Programs that run float: weights in int8 with activations quantized at run time, or weights in float16.

Both start from the simplified float graph and need no samples. A layer is a conv2d, conv_transpose2d or dense node;
every other node stays float32. docs/modes.md says what is computed.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from qcc import numerics
from qcc.errors import ModelError, QccError, Unsupported, UnsupportedError
from qcc.ir.graph import Graph, Node, TensorType
from qcc.numerics import QParams
from qcc.ops import OPS, Op
from qcc.ops.pointwise import Expr
from qcc.plan.layout import LAYERS, VIEW_OPS, keeps_order
from qcc.quantize.weights import cancelling

Mode = Literal["int8", "dynamic", "float16"]
SIGNED, UNSIGNED = (127, 0), (255, -128)
"""(levels, zero point) of values of either sign, and of values that are never negative."""
FLOAT16_MAX = float(np.finfo(np.float16).max)

Remarks = list[str]


def convert_mode(graph: Graph, mode: Mode, remarks: Remarks | None = None) -> Graph:
    """The program of a simplified float graph in mode "dynamic" or "float16".

    Appends to ``remarks`` what the user should read. Raises ``UnsupportedError`` that names every node which has no
    float form, ``ModelError`` if a constant is not finite, and ``QccError`` if the graph is quantized already.
    """
    check_float(graph)
    graph, found = graph.copy(), Remarks()
    (dynamic if mode == "dynamic" else float16)(graph, found)
    detach_inputs(graph)
    if remarks is not None:
        remarks += found
    graph.prune()
    return graph


def check_float(graph: Graph) -> None:
    """Refuse what cannot run in float32."""
    if any(node.op == "fake_quant" for node in graph.nodes):
        raise QccError("the model is quantized already", where=graph.name, hint="compile it with --mode int8")
    wild = [name for name, array in graph.constants.items() if not np.isfinite(array).all()]
    if wild:
        raise ModelError(f"constant '{wild[0]}' leaves float32 where batch norms and scales are folded into it",
                         where=graph.name, hint="check the model's weights and statistics")
    missing = [Unsupported(node.source or node.output, node.op, "it has no float32 form", "use --mode int8")
               for node in graph.nodes if type(OPS[node.op]).single is Op.single]  # fmt: skip
    if missing:
        raise UnsupportedError(missing, where=graph.name)


def detach_inputs(graph: Graph) -> None:
    """Copy the graph inputs that are read in whole vectors or with padding: they are the caller's memory.

    The copy is a pad node, which takes over the reader's own padding.
    """
    node_of, nodes = graph.node_of(), list[Node]()
    for node in graph.nodes:
        padded = node.op == "avg_pool" and node.attrs["count_include_pad"]
        for key in ("x", "residual") if padded or node.op in LAYERS else ():
            if key in node.inputs and (node.op, key) != ("dense", "x"):
                origin = _origin(graph, node_of, node.inputs[key])
                if origin in graph.inputs and graph.types[node.inputs[key]].dtype == "float32":
                    nodes.append(_copy(graph, node, key))
        nodes.append(node)
    graph.nodes = nodes


def _origin(graph: Graph, node_of: dict[str, Node], value: str) -> str:
    """The value whose buffer a view lies in."""
    node = node_of.get(value)
    if node is None or node.op not in VIEW_OPS or (node.op == "transpose" and not keeps_order(graph, node)):
        return value
    return _origin(graph, node_of, node.inputs["x"])


def _copy(graph: Graph, reader: Node, key: str) -> Node:
    """A pad node between a node and an input of it."""
    value = reader.inputs[key]
    pads = [(0, 0)] * len(graph.types[value].shape)
    if reader.op in ("conv2d", "avg_pool") and key == "x":
        top, left, bottom, right = reader.attrs["pad"]
        pads[1:3] = (top, bottom), (left, right)
        reader.attrs["pad"] = (0, 0, 0, 0)
    name = graph.fresh(f"{value}.copy")
    node = Node(name, "pad", {"x": value}, {"pads": tuple(pads), "mode": "constant", "value": 0.0}, reader.source)
    graph.types[name] = OPS["pad"].infer(node, graph.input_types(node))
    reader.inputs[key] = name
    return node


def float16(graph: Graph, remarks: Remarks) -> None:
    """Weights of layers become float16, where they fit."""
    for node in graph.nodes:
        if node.op in LAYERS:
            name = node.inputs["w"]
            weight = graph.constants[name]
            if np.abs(weight).max(initial=0.0) > FLOAT16_MAX:
                remarks.append(f"{node.output}: weights beyond {FLOAT16_MAX:g} stay float32")
            elif weight.dtype == np.float32:
                node.inputs["w"] = graph.add_constant(f"{name}.float16", weight.astype(np.float16))


def dynamic(graph: Graph, remarks: Remarks) -> None:
    """Layers read int8 and multiply by int8; what follows their sums is float32 (see ``ops.epilogue``)."""
    never_negative = nonnegative(graph)
    images: dict[str, tuple[str, str]] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op in LAYERS:
            weight = graph.constants[node.inputs["w"]].astype(np.float64)
            given = graph.types[node.inputs["w"]].qparams
            scales = numerics.weight_scales(weight, 0) if given is None else np.broadcast_to(given.scale, len(weight))
            params = QParams(tuple(float(np.float32(s)) for s in scales), 0, 0)
            quantized = cancelling(weight, params)
            if int(numerics.storage_bound(quantized, 0).max(initial=0)) > numerics.INT32_MAX:
                remarks.append(f"{node.output}: stays float32, as sums of int8 products might leave 32 bits")
            else:
                value = node.inputs["x"]
                if value not in images:
                    images[value] = _quantized(graph, value, UNSIGNED if value in never_negative else SIGNED, nodes)
                node.inputs["x"], node.inputs["step"] = images[value]
                node.inputs["w"] = graph.add_constant(f"{node.inputs['w']}.int8", quantized, params)
                if "b" not in node.inputs:
                    node.inputs["b"] = graph.add_constant(f"{node.output}.bias", np.zeros(len(weight), np.float32))
        nodes.append(node)
    graph.nodes = nodes


def _quantized(graph: Graph, value: str, kind: tuple[int, int], nodes: list[Node]) -> tuple[str, str]:
    """Append the nodes that quantize a value; returns (its int8 image, its steps)."""
    levels, zero_point = kind
    step, image = graph.fresh(f"{value}.step"), graph.fresh(f"{value}.int8")
    graph.types[step] = TensorType((2,))
    graph.types[image] = TensorType(graph.types[value].shape, "int8", QParams(1.0, zero_point))
    nodes.append(Node(step, "dynamic_steps", {"x": value}, {"levels": levels}))
    nodes.append(Node(image, "dynamic_quantize", {"x": value, "step": step}))
    return image, step


def nonnegative(graph: Graph) -> set[str]:
    """Values that can be seen to be never negative: they need no sign, and get twice as fine a step."""
    found = {value for value, array in graph.constants.items() if array.size and array.min() >= 0}
    for node in graph.nodes:
        limits = node.attrs.get("clamp")
        operands = [value in found for value in node.inputs.values()]
        if limits is not None:
            known = limits[0] >= 0
        elif node.op == "softmax":
            known = True
        elif node.op == "pointwise":
            known = _nonnegative(node.attrs["expr"], operands[0])
        else:
            known = node.op in KEEPING and all(operands)
        if known:
            found.add(node.output)
    return found


KEEPING = ("add", "mul", "minimum", "maximum", "max_pool", "avg_pool", "reduce_mean", "reduce_sum", "reduce_max",
           "concat", "slice", "reshape", "transpose", "expand", "take", "resize_bilinear", "matmul",
           "prelu")  # fmt: skip
"""Ops whose result is never negative where no operand is."""


def _nonnegative(expr: Expr, x: bool) -> bool:
    """Whether an expression of ``ops.pointwise`` is never negative, from whether x is."""
    if not isinstance(expr, tuple):
        return x if expr == "x" else expr >= 0
    match expr[0]:
        case "exp" | "sigmoid" | "abs" | "sqrt":
            return True
        case "clip":
            return bool(expr[2] >= 0)
        case "max":
            return _nonnegative(expr[1], x) or _nonnegative(expr[2], x)
        case "add" | "mul" | "div" | "min":
            return _nonnegative(expr[1], x) and _nonnegative(expr[2], x)
        case "where_ge0":
            return _nonnegative(expr[2], x) and _nonnegative(expr[3], x)
        case "leaky" | "elu" | "tanh" | "erf" | "floor" | "ceil":
            return _nonnegative(expr[1], x)
        case _:
            return False
