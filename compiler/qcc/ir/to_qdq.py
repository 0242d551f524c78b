"""Quantized graph to QDQ ONNX: what other tools read, and what ``frontend.onnx`` reads back to the same program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from qcc import numerics
from qcc.ir.graph import Graph, Node, TensorType
from qcc.numerics import QParams
from qcc.ops import OPS
from qcc.quantize.convert import Converter

if TYPE_CHECKING:
    import onnx


def to_qdq(graph: Graph, params: Mapping[str, QParams], means: Mapping[str, Any] | None = None) -> onnx.ModelProto:
    """The float graph with QuantizeLinear and DequantizeLinear at every value, in the parameters it is quantized with.

    ``graph`` and ``params`` as ``quantize.assign`` returned them, ``means`` as for ``quantize.convert``. Weights are
    int8 per output channel, biases int32 in steps of input scale times weight scale.
    """
    from qcc.ir.to_onnx import to_onnx

    return to_onnx(marked(graph, params, means))


def marked(graph: Graph, params: Mapping[str, QParams], means: Mapping[str, Any] | None = None) -> Graph:
    """The float graph with a fake_quant behind every value and the integers of the program as its constants."""
    graph = graph.copy()
    for node in graph.nodes:
        if "w" in node.inputs:
            _store_integers(graph, node, params, means or {})
    _mark_values(graph, params)
    return graph


def _store_integers(graph: Graph, node: Node, params: Mapping[str, QParams], means: Mapping[str, Any]) -> None:
    """Replace weights and bias of a layer by the integers that its integer form has, times their scales."""
    converter = Converter(graph, params, Graph(""), means)
    converter.graph.types = {v: TensorType(graph.types[v].shape, "int8", q) for v, q in params.items()}
    OPS[node.op].quantize(node, converter)
    (layer,) = converter.graph.nodes
    weight, bias = (converter.graph.constants[layer.inputs[key]] for key in ("w", "b"))
    q = converter.graph.types[layer.inputs["w"]].qparams
    assert q is not None, "weights have parameters"
    steps = params[node.inputs["x"]].step * np.asarray(q.scale)
    bias_q = QParams(tuple(steps.tolist()), 0, 0)
    node.inputs["w"] = graph.add_constant(f"{node.output}.w", numerics.dequantize(weight, q).astype(np.float32), q)
    real = numerics.dequantize(bias, bias_q).astype(np.float32)
    node.inputs["b"] = graph.add_constant(f"{node.output}.b", real, bias_q)


def _mark_values(graph: Graph, params: Mapping[str, QParams]) -> None:
    """Insert the fake_quant nodes; graph inputs and outputs keep their names."""
    nodes: list[Node] = []

    def quantize(value: str, result: str) -> None:
        q = params[value]
        nodes.append(Node(result, "fake_quant", {"x": value}, {"scale": q.step, "zero_point": q.zero_point}))
        graph.types[result] = graph.types[value]

    stands: dict[str, str] = {}
    for value in [v for v in graph.inputs if v in params]:
        stands[value] = graph.fresh(f"{value}.q")
        quantize(value, stands[value])
    for node in graph.nodes:
        node.inputs = {key: stands.get(value, value) for key, value in node.inputs.items()}
        nodes.append(node)
        value = node.output
        if value not in params:
            continue
        stands[value] = value if value in graph.outputs else graph.fresh(f"{value}.q")
        if value in graph.outputs:
            node.output = graph.fresh(f"{value}.raw")
            graph.types[node.output] = graph.types[value]
            q = params[value]
            attrs = {"scale": q.step, "zero_point": q.zero_point}
            nodes.append(Node(value, "fake_quant", {"x": node.output}, attrs))
        else:
            quantize(value, stands[value])
    graph.nodes = nodes
