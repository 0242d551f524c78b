"""Graphs of one node, float and quantized, for the tests of ops."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics
from qcc.ir.evaluate import run_float
from qcc.ir.graph import Attr, Graph, Node, TensorType
from qcc.numerics import QParams
from qcc.ops import OPS
from qcc.quantize.convert import Converter

Arrays = Mapping[str, NDArray[Any]]

CONV = {"stride": (1, 1), "pad": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1, "clamp": None}


def generator(*key: object) -> np.random.Generator:
    """A generator seeded by the test's own parameters; prints the seed."""
    seed = zlib.crc32(repr(key).encode())
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def float_graph(op: str, inputs: Arrays, constants: Arrays, attrs: Mapping[str, Attr]) -> Graph:
    """``y = op(key=value, …)`` with each operand named after its key; constants are float32."""
    graph = Graph("single", list(inputs), ["y"])
    for name, array in inputs.items():
        graph.types[name] = TensorType(array.shape, str(array.dtype))
    for name, array in constants.items():
        graph.add_constant(name, array)
    keys = sorted([*inputs, *constants])
    node = Node("y", op, {key: key for key in keys}, dict(attrs), f"{op} 'y'")
    graph.types["y"] = OPS[op].infer(node, graph.input_types(node))
    graph.nodes.append(node)
    return graph


def quantized(graph: Graph, inputs: Arrays, converter: type[Converter] = Converter) -> tuple[Graph, Converter]:
    """The integer graph of a one-node float graph, with ranges taken from ``inputs`` themselves."""
    values = {**inputs, **run_float(graph, inputs)}
    params = {k: numerics.activation_qparams(float(v.min()), float(v.max())) for k, v in values.items()}
    rule = OPS[graph.nodes[0].op].scale_rule
    if rule == "same":
        whole = np.concatenate([values[v].ravel() for v in values])
        params = dict.fromkeys(params, numerics.activation_qparams(float(whole.min()), float(whole.max())))
    elif rule == "fixed":
        params["y"] = numerics.SOFTMAX_QPARAMS
    integer = Graph(graph.name, list(graph.inputs), list(graph.outputs))
    for name in graph.inputs:
        integer.types[name] = TensorType(graph.types[name].shape, "int8", params[name])
    convert = converter(graph, params, integer)
    OPS[graph.nodes[0].op].quantize(graph.nodes[0], convert)
    return integer, convert


def snapped(graph: Graph, integer: Graph) -> Graph:
    """The float graph with each constant replaced by the reals that its int8 form stands for."""
    copy = graph.copy()
    keys = {v: k for k, v in graph.nodes[0].inputs.items()}
    for name in graph.constants:
        stored = integer.nodes[0].inputs.get(keys[name], "")
        q = integer.types[stored].qparams if stored else None
        if q is not None:
            copy.constants[name] = numerics.dequantize(integer.constants[stored], q).astype(np.float32)
    return copy


def reals(values: NDArray[Any], q: QParams) -> NDArray[np.float32]:
    """What int8 values stand for."""
    return numerics.dequantize(values, q).astype(np.float32)
