"""Read a TFLite file into a ``Graph``: a float model as a float graph, an integer model as an integer program.

Integer programs keep TFLite's scales, zero points and arithmetic (``numerics_tflite``). What the file has as uint8 is
int8 inside (see ``tflite_node.Scope``); inputs and outputs keep the file's names, shapes and dtypes. Every operator
goes to its function in ``IMPORTERS`` (``tflite_layers``, ``tflite_elementwise``, ``tflite_layout``,
``tflite_spatial``); whatever cannot be imported is gathered into one ``UnsupportedError``.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import networkx as nx

from qcc.errors import ModelError, Unsupported, UnsupportedError
from qcc.frontend import tflite_elementwise, tflite_layers, tflite_layout, tflite_spatial  # noqa: F401 (registry)
from qcc.frontend.refused import REWRITE, Refused, read_model
from qcc.frontend.tflite_file import EXPORT_AGAIN, File, Operator, Tensor, read
from qcc.frontend.tflite_node import IMPORTERS, QUANTIZED, Scope, TfliteNode, qparams
from qcc.ir.graph import Graph, Node, TensorType
from qcc.numerics import QParams
from qcc.passes.rewrite import rename

__all__ = ["SUPPORTED", "load"]

SUPPORTED = tuple(sorted(IMPORTERS))
"""TFLite operators that can be imported."""

_SHAPE_FROM_RESULT = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "BROADCAST_TO", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
"""Operators of one data operand; the file says the shape of their result, whatever else they read."""

_HINTS = {
    **dict.fromkeys(("UNIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "SVDF", "RNN", "UNIDIRECTIONAL_SEQUENCE_RNN"),
                    "recurrent layers are not available: unroll them, or use convolutions"),
    **dict.fromkeys(("IF", "WHILE", "CALL_ONCE"), "convert the model without control flow"),
    **dict.fromkeys(("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"), "let the converter make dilated convolutions of them"),
}


def load(model: str | PathLike[str] | bytes, name: str | None = None) -> Graph:
    """Import a TFLite model (path or contents); ``name`` defaults to the file's stem, else the subgraph's name.

    Raises:
        ModelError: unreadable or broken file, impossible shapes, scales or zero points, dynamic shapes.
        UnsupportedError: lists every operator that cannot be imported.
    """
    where, stem = "TFLite model", ""
    if isinstance(model, str | PathLike):
        path = Path(model)
        where, stem = str(path), path.stem
        model = read_model(path)
    try:
        file = read(model)
        return _graph(file, name or stem or file.name or "model", where)
    except ModelError as error:
        error.where = error.where or where
        raise


def _graph(file: File, name: str, where: str) -> Graph:
    scope = Scope(file, Graph(name))
    operators = _live(file)
    for index in file.inputs:
        _add_input(scope, file.tensors[index])
    if not scope.graph.inputs or not file.outputs:
        raise ModelError(f"it has no {'output' if scope.graph.inputs else 'input'}", hint=EXPORT_AGAIN)
    refused = _import(scope, operators)
    if not refused:
        refused = _mixed(scope.graph)
    if refused:
        raise UnsupportedError(refused, where=where)
    _bind_outputs(scope)
    scope.graph.prune()
    return scope.graph


def _data_inputs(operator: Operator) -> tuple[int, ...]:
    """Operands whose values matter."""
    operands = operator.inputs
    if operator.name in _SHAPE_FROM_RESULT:
        operands = operands[:1]
    if operator.name == "TRANSPOSE_CONV":
        operands = operands[1:]
    return tuple(i for i in operands if i >= 0)


def _live(file: File) -> list[Operator]:
    """The operators that outputs depend on, in the file's order; raises ``ModelError`` on broken wiring."""
    producer: dict[int, Operator] = {}
    wiring: nx.DiGraph[int] = nx.DiGraph()
    for operator in file.operators:
        wiring.add_node(operator.index)
        if not operator.outputs or min(operator.outputs) < 0:
            raise ModelError(f"is corrupt: {operator.name} {operator.index} has no result", hint=EXPORT_AGAIN)
        for output in operator.outputs:
            if output in producer or output in file.inputs or file.tensors[output].data is not None:
                raise ModelError(f"tensor '{file.tensors[output].name}' is defined twice", hint=EXPORT_AGAIN)
            producer[output] = operator
    for operator in file.operators:
        for index in _data_inputs(operator):
            tensor = file.tensors[index]
            if index in producer:
                wiring.add_edge(producer[index].index, operator.index)
            elif tensor.data is None and index not in file.inputs:
                raise ModelError(
                    f"{operator.name} {operator.index} reads tensor '{tensor.name}', which nothing defines",
                    hint=EXPORT_AGAIN)
    live: set[int] = set()
    for index in file.outputs:
        if index in producer:
            live |= {producer[index].index} | nx.ancestors(wiring, producer[index].index)
        else:
            what = "an input" if index in file.inputs else "not computed"
            raise ModelError(f"output '{file.tensors[index].name}' is {what}", hint="remove this output")
    try:
        return [file.operators[i] for i in nx.lexicographical_topological_sort(wiring) if i in live]
    except nx.NetworkXUnfeasible as error:
        members = sorted({i for edge in nx.find_cycle(wiring) for i in edge[:2]})
        names = ", ".join(f"{file.operators[i].name} {i}" for i in members)
        raise ModelError(f"its graph has a cycle through {names}", hint=EXPORT_AGAIN) from error


def _add_input(scope: Scope, tensor: Tensor) -> None:
    """Declare an input; a uint8 one is recentred by a node of its own."""
    if tensor.index in scope.values:
        raise ModelError(f"input '{tensor.name}' appears twice", hint=EXPORT_AGAIN)
    if tensor.dtype not in ("float32", *QUANTIZED):
        raise ModelError(f"input '{tensor.name}' is of type {tensor.dtype}", hint="use float32, int8 or uint8 inputs")
    if min(tensor.shape, default=1) < 1:
        raise ModelError(f"input '{tensor.name}' has the shape {list(tensor.shape)}", hint="give it a fixed shape")
    graph = scope.graph
    name = scope.name(tensor)
    graph.inputs.append(name)
    graph.types[name] = _edge_type(tensor)
    scope.values[tensor.index] = name
    if tensor.dtype == "uint8":
        inner = graph.fresh(f"{name}.int8")
        graph.nodes.append(Node(inner, "recentre", {"x": name}, {}, f"input '{name}'"))
        graph.types[inner] = TensorType(tensor.shape, "int8", qparams(tensor))
        scope.values[tensor.index] = inner


def _edge_type(tensor: Tensor) -> TensorType:
    """Type of an input or output as the file has it."""
    if tensor.dtype not in QUANTIZED:
        return TensorType(tensor.shape, tensor.dtype)
    try:
        q = qparams(tensor)
    except Refused as error:
        raise ModelError(error.what, hint=error.hint) from error
    moved = QParams(q.step, q.zero_point + 128) if tensor.dtype == "uint8" else q
    return TensorType(tensor.shape, tensor.dtype, moved)


def _import(scope: Scope, operators: Sequence[Operator]) -> list[Unsupported]:
    """Import all operators; returns those that were refused. Their results are taken as the file describes them."""
    refused = []
    for operator in operators:
        node = TfliteNode(operator, scope)
        try:
            if operator.name not in IMPORTERS:
                raise Refused("this operator is not supported", _HINTS.get(operator.name, REWRITE))
            _import_one(node)
        except Refused as error:
            refused.append(Unsupported(node.name, node.op, error.what, error.hint))
            for index in operator.outputs:
                _assume(scope, scope.file.tensors[index])
    return refused


def _import_one(node: TfliteNode) -> None:
    try:
        found = IMPORTERS[node.op](node)
    except OverflowError as error:
        raise Refused(f"its scales are not possible: {error}", "convert the model again") from error
    if found is None:
        return
    results = [found] if isinstance(found, str) else found
    graph = node.scope.graph
    for position, value in enumerate(results):
        tensor, made = node.result(position), graph.types[value]
        if made.shape != tensor.shape:
            raise Refused(f"its result has shape {list(made.shape)}, the file says {list(tensor.shape)}",
                          "give the model a fixed input shape and convert it again")
        if value in node.emitted and tensor.name not in graph.types:
            rename(graph, value, tensor.name)
            node.emitted.remove(value)
            value = tensor.name
        node.scope.values[tensor.index] = value


def _assume(scope: Scope, tensor: Tensor) -> None:
    """Let a refused operator's result be what the file says, so that the operators behind it are examined too."""
    try:
        kind = (TensorType(tensor.shape, "int8", qparams(tensor)) if tensor.dtype in QUANTIZED
                else TensorType(tensor.shape, tensor.dtype))
    except Refused:
        kind = TensorType(tensor.shape)
    value = scope.graph.fresh(tensor.name)
    scope.graph.types[value] = kind
    scope.values[tensor.index] = value


def _mixed(graph: Graph) -> list[Unsupported]:
    """Nodes of real numbers in a model that has integer ones: there is no float code in an integer program."""

    def integer(node: Node) -> bool:
        return node.op == "quantize" or any(graph.types[v].dtype in QUANTIZED for v in node.inputs.values())

    if not any(map(integer, graph.nodes)):
        return []
    hint = "convert the model with full integer quantization"
    return [Unsupported(node.output, node.op, f"it computes in float32 in an integer model, for {node.source}", hint)
            for node in graph.nodes if not integer(node)]


def _bind_outputs(scope: Scope) -> None:
    """Give the outputs their names in the file; uint8 ones are recentred."""
    graph = scope.graph
    for index in scope.file.outputs:
        tensor = scope.file.tensors[index]
        value = scope.values.get(index)
        if value is None:
            raise ModelError(f"output '{tensor.name}' does not depend on any input", hint="remove this output")
        if tensor.dtype == "uint8":
            value = _finish(graph, tensor, "recentre", {"x": value}, {})
        elif value in graph.outputs or value in graph.inputs or value in graph.constants:
            value = _finish(graph, tensor, "reshape", {"x": value}, {"shape": tensor.shape})
        graph.outputs.append(value)


def _finish(graph: Graph, tensor: Tensor, op: str, inputs: dict[str, str], attrs: dict[str, object]) -> str:
    """A last node that produces an output, under the tensor's name where an inner value has taken that."""
    if tensor.name in graph.node_of() and tensor.name not in graph.outputs:
        inner = graph.fresh(f"{tensor.name}.int8")
        rename(graph, tensor.name, inner)
        inputs = {k: inner if v == tensor.name else v for k, v in inputs.items()}
    value = graph.fresh(tensor.name)
    graph.nodes.append(Node(value, op, inputs, attrs, f"output '{tensor.name}'"))
    graph.types[value] = _edge_type(tensor)
    return value
