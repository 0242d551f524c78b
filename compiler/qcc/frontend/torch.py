"""Read a PyTorch model, float or quantized by PT2E: the graph of ``torch.export``, operator by operator.

Every ATen operator is written as the ONNX operators of the same meaning (``torch_elementwise``, ``torch_layers``,
``torch_layout``, ``torch_quant``), in memory, and imported by ``frontend.onnx``. Nothing is lost on the way: scales,
zero points and limits of quantized programs are literal arguments there, weights are their integers. Values keep the
names of the exported graph, layers those of the module.
"""

from __future__ import annotations

from typing import Any

import torch
from onnx import TensorProto, helper
from torch.export import ExportedProgram

from qcc.errors import ModelError, Unsupported, UnsupportedError
from qcc.frontend import (  # noqa: F401 (registry)
    onnx,
    torch_elementwise,
    torch_layers,
    torch_layout,
    torch_quant,
)
from qcc.frontend.refused import REWRITE, Refused
from qcc.frontend.torch_node import OPERATORS, Writer
from qcc.ir.graph import Graph
from qcc.passes.rewrite import rename

OPSET = 20
STATIC = "export the model with fixed shapes (without dynamic_shapes)"


def load(model: torch.nn.Module | ExportedProgram, example_inputs: Any = None, name: str | None = None) -> Graph:
    """Import a module (exported with ``example_inputs``, a tuple of tensors) or an exported program.

    Inputs keep the names of the exported program (the parameters of ``forward``), outputs those of its nodes. A module
    is imported in eval mode. Raises ``ModelError``; ``UnsupportedError`` lists every operator that cannot be imported.
    """
    program = model if isinstance(model, ExportedProgram) else exported(model, example_inputs)
    name = name or (type(model).__name__ if isinstance(model, torch.nn.Module) else "model")
    where = f"PyTorch model '{name}'"
    program = _decomposed(program)
    writer = Writer()
    _add_arrays(program, writer, where)
    inputs = [_input(program, node, where) for node in _user_inputs(program)]
    refused: list[Unsupported] = []
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        try:
            _write(node, writer)
        except Refused as error:
            refused.append(Unsupported(writer.label(node), _operator(node), error.what, error.hint))
            writer.names[node] = node.name
            value = node.meta.get("val")
            writer.lists[node] = [node.name] * (len(value) if isinstance(value, list | tuple) else 1)
    if refused:
        raise UnsupportedError(refused, where=where)
    outputs = [helper.make_tensor_value_info(v, TensorProto.FLOAT, None) for v in _outputs(program, writer, where)]
    graph = helper.make_graph(writer.nodes, name, inputs, outputs, writer.initializers)
    try:
        made = onnx.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)]), name)
    except ModelError as error:
        error.where = where
        raise
    for value in list(made.outputs):
        _name_output(made, value)
    return made


def exported(model: torch.nn.Module, example_inputs: Any) -> ExportedProgram:
    """The module's graph in eval mode; its own mode is kept. Raises ``ModelError``."""
    if example_inputs is None:
        raise ModelError("a PyTorch module needs example_inputs", where=type(model).__name__,
                         hint="give a tuple of tensors of the shapes that the compiled model shall take")
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
    training = [m for m in model.modules() if m.training]
    exported_before = isinstance(model, torch.fx.GraphModule)  # those have no eval()
    try:
        if not exported_before:
            model.eval()
        with torch.no_grad():
            return torch.export.export(model, inputs)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"torch.export cannot trace it ({reason})", where=type(model).__name__,
                         hint="make torch.export.export(model, example_inputs) work first") from error
    finally:
        if not exported_before:
            for module in training:
                module.training = True


def _decomposed(program: ExportedProgram) -> ExportedProgram:
    """The program with operators that have no entry in ``OPERATORS`` taken apart where PyTorch can do that."""
    called = {str(n.target) for n in program.graph.nodes if isinstance(n.target, torch._ops.OpOverload)}
    if called <= OPERATORS.keys():
        return program
    table = torch.export.default_decompositions()
    for operator in [key for key in table if str(key) in OPERATORS]:
        table.pop(operator)
    return program.run_decompositions(table)


def _user_inputs(program: ExportedProgram) -> list[torch.fx.Node]:
    wanted = set(program.graph_signature.user_inputs)
    return [n for n in program.graph.nodes if n.op == "placeholder" and n.name in wanted]


def _input(program: ExportedProgram, node: torch.fx.Node, where: str) -> Any:
    """Declared type of an input."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or not value.dtype.is_floating_point:
        kind = str(value.dtype).removeprefix("torch.") if isinstance(value, torch.Tensor) else type(value).__name__
        raise ModelError(f"input '{node.name}' is of type {kind}; inputs are float tensors", where=where,
                         hint="make it a constant, or compute it outside the model")
    if not all(isinstance(d, int) for d in value.shape):
        raise ModelError(f"input '{node.name}' has the dynamic shape {tuple(map(str, value.shape))}", where=where,
                         hint=STATIC)
    return helper.make_tensor_value_info(node.name, TensorProto.FLOAT, list(value.shape))


def _name_output(graph: Graph, value: str) -> None:
    """Call an output that is only quantized after it was computed by the name of what was computed."""
    producers = graph.node_of()
    node = producers.get(value)
    if node is None or node.op != "fake_quant" or node.inputs["x"] not in producers:
        return
    computed = node.inputs["x"]
    if computed not in graph.outputs:
        rename(graph, computed, graph.fresh(f"{computed}.real"))
        rename(graph, value, computed)


def _add_arrays(program: ExportedProgram, writer: Writer, where: str) -> None:
    """Parameters, buffers and constants that are used."""
    for spec in program.graph_signature.input_specs:
        target, name = spec.target, getattr(spec.arg, "name", "")
        tensor = program.state_dict.get(target, program.constants.get(target)) if target is not None else None
        if isinstance(tensor, torch.Tensor):
            writer.add(name, tensor.detach())
    for node in program.graph.nodes:
        if node.op in ("placeholder", "get_attr"):
            writer.names[node] = node.name
        if node.op == "get_attr":
            tensor = getattr(program.graph_module, str(node.target), None)
            if not isinstance(tensor, torch.Tensor):
                raise ModelError(f"'{node.target}' is not a tensor", where=where, hint="export it without control flow")
            writer.add(node.name, tensor.detach())


def _write(node: torch.fx.Node, writer: Writer) -> None:
    operator = _operator(node)
    if operator not in OPERATORS:
        raise Refused("this operator is not supported", REWRITE)
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor) and not all(isinstance(d, int) for d in value.shape):
        raise Refused("its shape is dynamic", STATIC)
    writer.current = node
    OPERATORS[operator](writer, node)


def _operator(node: torch.fx.Node) -> str:
    return str(node.target) if isinstance(node.target, torch._ops.OpOverload) else getattr(
        node.target, "__name__", str(node.target))


def _outputs(program: ExportedProgram, writer: Writer, where: str) -> list[str]:
    (output,) = [n for n in program.graph.nodes if n.op == "output"]
    returned = [v for v in output.args[0] if isinstance(v, torch.fx.Node)]
    if len(returned) != len(program.graph_signature.user_outputs) or not returned:
        raise ModelError("it changes its buffers, or returns something that is not a tensor", where=where,
                         hint="export it in eval mode, with tensors as outputs")
    return [writer.names[v] for v in returned]
