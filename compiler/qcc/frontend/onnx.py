"""Read an ONNX file into a float ``Graph``: opset 7 and later, static shapes, NHWC around spatial operators.

Parts that do not depend on the inputs are evaluated (``onnx_fold``); every other node goes to its function in
``IMPORTERS`` (``onnx_spatial``, ``onnx_resize``, ``onnx_elementwise``, ``onnx_linear``, ``onnx_layout``,
``onnx_quant``). Whatever cannot be imported is gathered into one ``UnsupportedError``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import networkx as nx
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from qcc.errors import ModelError, Unsupported, UnsupportedError
from qcc.frontend import (  # noqa: F401 (registry)
    onnx_elementwise,
    onnx_layout,
    onnx_linear,
    onnx_quant,
    onnx_resize,
    onnx_spatial,
)
from qcc.frontend.onnx_fold import fold
from qcc.frontend.onnx_node import IMPORTERS, OnnxNode, Scope, label
from qcc.frontend.refused import MAX_ELEMENTS, REWRITE, Refused, read_model
from qcc.ir.graph import Graph, Node, TensorType

__all__ = ["SUPPORTED", "load"]

OLDEST_OPSET = 7
SUPPORTED = tuple(sorted([*IMPORTERS, *onnx_quant.FORMS]))
"""ONNX operators that may depend on an input; constant subgraphs may use any standard operator."""

FIX_SHAPE = ("fix the shape with onnx.tools.update_model_dims or "
             "`python -m onnxruntime.tools.make_dynamic_shape_fixed`, then compile the new file")
EXPORT_AGAIN = "export the model again"
_FOREIGN = {
    b"PK\x03\x04": ("but an archive, as torch.save and torch.export.save write them",
                    "load it in Python, and give the module (with example_inputs) to qcc.compile"),
    b"\x89HDF": ("but HDF5, as Keras writes it", "convert it to TFLite or ONNX"),
}
"""First bytes of files that are taken for models: what they are, and what to do."""
_QUANTIZED = "quantize with QuantizeLinear and DequantizeLinear (QuantFormat.QDQ)"
_FLOAT_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)

_HINTS = {
    **dict.fromkeys(("QLinearWhere", "QLinearReduceMean", "QAttention", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
                     "DynamicQuantizeLSTM", "QLinearConvTranspose", "MatMulNBits"), _QUANTIZED),
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"),
                    "normalizations that need statistics at run time are not available: use batch normalization"),
    "LogSoftmax": "export the logits, or Softmax, and take the logarithm outside the model",
    **dict.fromkeys(("If", "Loop", "Scan"), "export the model without control flow"),
}


def load(model: str | PathLike[str] | bytes | onnx.ModelProto, name: str | None = None) -> Graph:
    """Import an ONNX model.

    Inputs keep their ONNX names and layout and are float32 (float16 and float64 ones are read as float32, weights too);
    outputs keep theirs, ArgMax results being int32. ``name`` defaults to the file's stem, else the graph's name.

    Raises:
        ModelError: unreadable or broken file, opset below 7, dynamic or non-float inputs.
        UnsupportedError: lists every node that cannot be imported.
    """
    proto, where = _read(model)
    stem = Path(model).stem if isinstance(model, str | PathLike) else ""
    graph = Graph(name or stem or proto.graph.name or "model")
    try:
        scope = _scope(proto, graph)
        nodes = _ordered(proto.graph, scope)
        refused = _import_nodes(nodes, scope, proto)
        if refused:
            raise UnsupportedError(refused, where=where)
        _bind_outputs(proto.graph, scope)
    except ModelError as error:
        error.where = error.where or where
        raise
    graph.prune()
    return graph


def _read(model: str | PathLike[str] | bytes | onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """The model with its external weights and without local functions, and how to call it in messages."""
    where, folder = "ONNX model", None
    if isinstance(model, str | PathLike):
        path = Path(model)
        where, folder = str(path), path.parent
        model = read_model(path)
    proto = model
    if isinstance(model, bytes):
        try:
            proto = onnx.load_model_from_string(model)
        except DecodeError as error:
            kind, hint = next((v for k, v in _FOREIGN.items() if model.startswith(k)), ("", EXPORT_AGAIN))
            raise ModelError(f"is not an ONNX file, {kind or 'or is truncated or corrupt'}", where=where,
                             hint=hint) from error
    if not isinstance(proto, onnx.ModelProto):
        raise ModelError(f"a model cannot be of type {type(model).__name__}",
                         hint="give a path, bytes, an onnx.ModelProto, a torch.nn.Module or an ExportedProgram")
    names = [n for node in proto.graph.node for n in (node.op_type, node.domain, node.name, *node.input, *node.output)]
    names += [v.name for v in (proto.graph, *proto.graph.initializer, *proto.graph.input, *proto.graph.output)]
    if not all(isinstance(n, str) for n in names):
        raise ModelError("is corrupt: it holds names that are not text", where=where, hint=EXPORT_AGAIN)
    if not proto.graph.node and not proto.graph.output:
        raise ModelError("is not an ONNX file: it holds no graph", where=where, hint=EXPORT_AGAIN)
    if any(uses_external_data(t) for t in proto.graph.initializer):
        if folder is None:
            raise ModelError("its weights are in another file", where=where, hint="give the path of the model instead")
        try:
            load_external_data_for_model(proto, str(folder))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"its external weights cannot be read ({reason})", where=where,
                             hint="keep the weight file beside the model file") from error
    if proto.functions:
        try:
            proto = onnx.inliner.inline_local_functions(proto)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"its local functions cannot be inlined ({reason})", where=where,
                             hint=EXPORT_AGAIN) from error
    return proto, where


def _scope(proto: onnx.ModelProto, graph: Graph) -> Scope:
    """Inputs and initializers."""
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise ModelError(f"is of opset {opset}, the oldest that can be read is {OLDEST_OPSET}",
                         hint="convert it with onnx.version_converter.convert_version")
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise ModelError(f"is of opset {opset}, the installed onnx {onnx.__version__} knows those up to {newest}",
                         hint="upgrade onnx, or export the model with an older opset")
    names = [n for node in proto.graph.node for n in (*node.input, *node.output)]
    reserved = {*names, *(t.name for t in (*proto.graph.initializer, *proto.graph.input))}
    scope = Scope(graph, opset, frozenset(reserved))
    if proto.graph.sparse_initializer:
        raise ModelError("it holds sparse weights", hint="store the weights as dense tensors")
    for tensor in proto.graph.initializer:
        if tensor.name in scope.known:
            raise ModelError(f"initializer '{tensor.name}' appears twice", hint=EXPORT_AGAIN)
        try:
            if min(tensor.dims, default=0) < 0:
                raise ValueError("negative size")
            scope.known[tensor.name] = onnx.numpy_helper.to_array(tensor)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"initializer '{tensor.name}' cannot be read ({reason})", hint=EXPORT_AGAIN) from error
    for info in proto.graph.input:
        if info.name not in scope.known:
            _add_input(info, scope)
    if not graph.inputs:
        raise ModelError("it has no input", hint="export it with at least one float32 input")
    return scope


def _add_input(info: onnx.ValueInfoProto, scope: Scope) -> None:
    if info.name in scope.values:
        raise ModelError(f"input '{info.name}' appears twice", hint=EXPORT_AGAIN)
    tensor = info.type.tensor_type
    if info.type.WhichOneof("value") != "tensor_type" or tensor.elem_type not in _FLOAT_TYPES:
        known = tensor.elem_type in onnx.TensorProto.DataType.values()
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower() if known else "unknown"
        raise ModelError(f"input '{info.name}' is of type {kind}; inputs are float32",
                         hint="export the model with a float32 input")
    if not tensor.HasField("shape"):
        raise ModelError(f"input '{info.name}' has no shape", hint=FIX_SHAPE)
    loose = [f"axis {i} ('{d.dim_param or '?'}')" for i, d in enumerate(tensor.shape.dim) if not d.dim_value]
    if loose:
        raise ModelError(f"input '{info.name}' has no fixed size along {', '.join(loose)}", hint=FIX_SHAPE)
    shape = tuple(int(d.dim_value) for d in tensor.shape.dim)
    if min(shape, default=1) < 1 or math.prod(shape) > MAX_ELEMENTS:
        raise ModelError(f"input '{info.name}' has the impossible shape {list(shape)}", hint=FIX_SHAPE)
    scope.graph.inputs.append(info.name)
    scope.graph.types[info.name] = TensorType(shape)
    scope.values[info.name] = info.name


def _ordered(graph: onnx.GraphProto, scope: Scope) -> list[onnx.NodeProto]:
    """The nodes that outputs depend on, in topological order; raises ``ModelError`` on broken wiring."""
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for output in filter(None, node.output):
            if output in producer or output in scope.known or output in scope.values:
                raise ModelError(f"value '{output}' is defined twice", hint=EXPORT_AGAIN)
            producer[output] = index
    order: nx.DiGraph[int] = nx.DiGraph()
    order.add_nodes_from(range(len(graph.node)))
    for index, node in enumerate(graph.node):
        for name in filter(None, node.input):
            if name in producer:
                order.add_edge(producer[name], index)
            elif name not in scope.known and name not in scope.values:
                raise ModelError(f"{node.op_type} '{label(node)}' reads '{name}', which nothing defines",
                                 hint=EXPORT_AGAIN)
    live: set[int] = set()
    for info in graph.output:
        if info.name in producer:
            live |= {producer[info.name]} | nx.ancestors(order, producer[info.name])
        elif info.name not in scope.known and info.name not in scope.values:
            raise ModelError(f"output '{info.name}' is not defined by any node", hint=EXPORT_AGAIN)
    try:
        return [graph.node[i] for i in nx.lexicographical_topological_sort(order) if i in live]
    except nx.NetworkXUnfeasible as error:
        members = {i for edge in nx.find_cycle(order) for i in edge[:2]}
        names = ", ".join(f"'{label(graph.node[i])}'" for i in sorted(members))
        raise ModelError(f"its graph has a cycle through {names}", hint=EXPORT_AGAIN) from error


def _import_nodes(nodes: Iterable[onnx.NodeProto], scope: Scope, model: onnx.ModelProto) -> list[Unsupported]:
    """Import all nodes; returns those that were refused."""
    nodes = list(nodes)
    used = {name for node in nodes for name in node.input} | {info.name for info in model.graph.output}
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version or onnx.IR_VERSION
    context.opset_imports = {"": scope.opset}
    refused: list[Unsupported] = []
    for proto in nodes:
        try:
            _check_node(proto, context)
            for part in onnx_quant.expand(proto):
                _check_node(part, context)
                _import_node(part, scope, used)
        except Refused as error:
            domain = "" if proto.domain in ("", "ai.onnx") else f"{proto.domain}."
            refused.append(Unsupported(label(proto), domain + proto.op_type, error.what, error.hint))
            _assume_outputs(proto, scope)
    return refused


def _check_node(proto: onnx.NodeProto, context: object) -> None:
    """Refuse a standard operator with inputs or attributes that it cannot have."""
    if proto.domain not in ("", "ai.onnx") or not onnx.defs.has(proto.op_type):
        return
    try:
        onnx.checker.check_node(proto, context)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split("==>")[0].split())
        raise Refused(reason, "check this node's inputs and attributes") from error


def _import_node(proto: onnx.NodeProto, scope: Scope, used: set[str]) -> None:
    standard = proto.domain in ("", "ai.onnx") or (
        proto.domain == onnx_quant.MICROSOFT and proto.op_type in ("QuantizeLinear", "DequantizeLinear"))
    if standard and onnx.defs.has(proto.op_type) and not scope.unknown.intersection(proto.input) and fold(proto, scope):
        return
    if not standard or proto.op_type not in IMPORTERS:
        raise Refused("this operator is not supported", _HINTS.get(proto.op_type, REWRITE))
    if scope.unknown.intersection(proto.input):
        scope.unknown.update(filter(None, proto.output))
        return
    node = OnnxNode(proto, scope)
    onnx_quant.carry(node)
    found = IMPORTERS[proto.op_type](node)
    results = [found] if isinstance(found, str) else found
    for position, output in enumerate(proto.output):
        if position < len(results):
            node.bind(output, results[position])
        elif output in used and output not in scope.known:
            raise Refused(f"its output '{output}' is not supported")


def _assume_outputs(proto: onnx.NodeProto, scope: Scope) -> None:
    """Type a refused node's outputs where onnx can tell their shapes, so that the nodes behind it are examined too."""
    shapes = _output_shapes(proto, scope)
    for name in filter(None, proto.output):
        if min(shapes.get(name, (0,)), default=1) > 0 and math.prod(shapes[name]) <= MAX_ELEMENTS:
            scope.graph.types[name] = TensorType(shapes[name])
            scope.values[name] = name
        else:
            scope.unknown.add(name)


def _output_shapes(proto: onnx.NodeProto, scope: Scope) -> dict[str, tuple[int, ...]]:
    """Static shapes of a node's outputs; a shape function that aborts the process on wrong operands is not called."""
    if scope.unknown.intersection(proto.input) or proto.op_type == "Slice":
        return {}
    arrays = {name: scope.known[name] for name in proto.input if name in scope.known}
    shapes = {name: scope.graph.types[scope.values[name]].shape for name in proto.input if name in scope.values}
    try:
        types = {k: onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, v) for k, v in shapes.items()}
        types |= {k: onnx.helper.make_tensor_type_proto(onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
                  for k, v in arrays.items()}
        found = onnx.shape_inference.infer_node_outputs(
            onnx.defs.get_schema(proto.op_type, scope.opset, proto.domain), proto, types,
            {k: onnx.numpy_helper.from_array(v, k) for k, v in arrays.items()},
            opset_imports=[onnx.helper.make_opsetid("", scope.opset)])
    except Exception:
        return {}
    return {name: tuple(d.dim_value for d in kind.tensor_type.shape.dim)
            for name, kind in found.items() if kind.tensor_type.HasField("shape")}


def _bind_outputs(graph: onnx.GraphProto, scope: Scope) -> None:
    """Give the outputs their ONNX names, through a reshape that does nothing where a value has another name already."""
    if not graph.output:
        raise ModelError("it has no output", hint=EXPORT_AGAIN)
    for info in graph.output:
        if info.name in scope.known:
            raise ModelError(f"output '{info.name}' does not depend on any input", hint="remove this output")
        if info.name in scope.quantized:
            raise ModelError(f"output '{info.name}' is made of quantized integers",
                             hint="end the model with DequantizeLinear")
        if info.name in scope.graph.outputs:
            raise ModelError(f"output '{info.name}' appears twice", hint=EXPORT_AGAIN)
        if info.name in scope.graph.inputs:
            raise ModelError(f"output '{info.name}' is an input", hint="remove this output")
        if scope.values[info.name] != info.name:
            _rename(info.name, scope, {i.name for i in graph.output})
        scope.graph.outputs.append(info.name)


def _rename(output: str, scope: Scope, outputs: set[str]) -> None:
    """Rename the value behind an output that is an alias; where it must keep its name, copy it."""
    graph, value = scope.graph, scope.values[output]
    maker = graph.node_of().get(value)
    if maker is None or value in outputs:
        same = {"shape": graph.types[value].shape}
        graph.nodes.append(Node(output, "reshape", {"x": value}, same, f"output '{output}'"))
        graph.types[output] = graph.types[value]
        return
    maker.output = output
    graph.types[output] = graph.types.pop(value)
    graph.replace_uses(value, output)
    scope.values = {k: output if v == value else v for k, v in scope.values.items()}
