"""Running a graph in NumPy: the float meaning, and the integer reference that every target must match to the byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.errors import InputError
from qcc.ir.graph import Arrays, Graph, Node, runs_float
from qcc.ops import OPS


def run_float(graph: Graph, inputs: Mapping[str, NDArray[Any]], keep: Iterable[str] = ()) -> dict[str, NDArray[Any]]:
    """Outputs of a float graph, and the values named in ``keep``. Raises ``InputError`` on a wrong shape or dtype."""
    return _run(graph, inputs, keep, lambda node, x: OPS[node.op].real(node, x))


def run_integer(graph: Graph, inputs: Mapping[str, NDArray[Any]], keep: Iterable[str] = ()) -> dict[str, NDArray[Any]]:
    """Outputs of a program, and the values named in ``keep``: the reference that every target must match to the byte.

    Inputs are float32 where the program begins with a quantize node, else int8. In the modes that run float, nodes of
    float32 are evaluated by ``Op.single``. Raises ``InputError`` on a wrong shape or dtype.
    """

    return _run(graph, inputs, keep, lambda node, x: reference(graph, node, x))


def reference(graph: Graph, node: Node, x: Arrays) -> NDArray[Any]:
    """The bytes of one node of a program from its inputs by key."""
    if runs_float(graph, node):
        return OPS[node.op].single(node, x)
    return OPS[node.op].integer(node, x, graph.input_types(node), graph.types[node.output])


def check_inputs(graph: Graph, inputs: Mapping[str, NDArray[Any]]) -> None:
    """Raise ``InputError`` unless ``inputs`` holds exactly the graph's inputs, with their shapes and dtypes."""
    for name in inputs:
        if name not in graph.inputs:
            known = ", ".join(graph.inputs)
            raise InputError("the model has no such input", where=name, hint=f"its inputs are {known}")
    for name in graph.inputs:
        expected = graph.types[name]
        if name not in inputs:
            raise InputError("this input is missing", where=name, hint=f"give {expected.dtype}{list(expected.shape)}")
        found = np.asarray(inputs[name])
        if found.shape != expected.shape:
            raise InputError(f"shape {found.shape} was given, {expected.shape} is expected", where=name,
                             hint="reshape the array, or compile the model for that shape")
        if found.dtype != expected.dtype:
            raise InputError(f"dtype {found.dtype} was given, {expected.dtype} is expected", where=name,
                             hint=f"convert it: x.astype('{expected.dtype}')")


def _run(
    graph: Graph,
    inputs: Mapping[str, NDArray[Any]],
    keep: Iterable[str],
    step: Callable[[Node, Arrays], NDArray[Any]],
) -> dict[str, NDArray[Any]]:
    """Run the nodes in order; a value is dropped after its last reader unless it is asked for."""
    check_inputs(graph, inputs)
    wanted = [*graph.outputs, *keep]
    last = {value: i for i, node in enumerate(graph.nodes) for value in node.inputs.values()}
    values: dict[str, NDArray[Any]] = {**graph.constants, **{k: np.asarray(v) for k, v in inputs.items()}}
    for i, node in enumerate(graph.nodes):
        values[node.output] = step(node, {key: values[value] for key, value in node.inputs.items()})
        for value in {*node.inputs.values(), node.output}:
            if last.get(value, i) == i and value not in wanted:
                del values[value]
    return {value: values[value] for value in wanted}
