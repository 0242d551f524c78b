"""A whole model: the device's part in the simulator, the host's compiled for it, or in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qcc.ir.evaluate import check_inputs
from qcc.ir.graph import Graph, Node, TensorType
from qcc.npu.compile import compile_graph
from qcc.npu.description import Description
from qcc.npu.program import Program
from qcc.npu.simulate import Machine
from qcc.npu.split import Split, split
from qcc.ops import OPS

Arrays = Mapping[str, NDArray[Any]]


class Runner(Protocol):
    """A compiled model: ``qcc.runtime.Model``."""

    inputs: dict[str, TensorType]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs by name."""
        ...


class Device:
    """An integer program on the simulated accelerator."""

    def __init__(self, parts: Split, program: Program, host: Runner | None = None) -> None:
        """``program`` is the device's part of ``parts``, ``host`` what follows it (None: in NumPy)."""
        self.parts, self.program, self.machine, self.host = parts, program, Machine(program), host

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs of the integer program: what ``ir.evaluate.run_integer`` gives."""
        graph = self.parts.graph
        check_inputs(graph, inputs)
        values: dict[str, NDArray[Any]] = {**graph.constants, **inputs}
        self._host(self.parts.before, values)
        found = self.machine.run({name: values[name] for name in self.parts.inputs})
        values |= {name: found[name].reshape(graph.types[name].shape) for name in self.parts.outputs}
        if self.host is None:
            self._host(self.parts.after, values)
        else:
            values |= self.host.run({name: np.asarray(values[name], order="C") for name in self.host.inputs})
        return {name: np.asarray(values[name]) for name in graph.outputs}

    def _host(self, nodes: list[Node], values: dict[str, NDArray[Any]]) -> None:
        graph = self.parts.graph
        for node in nodes:
            x = {key: values[value] for key, value in node.inputs.items()}
            values[node.output] = OPS[node.op].integer(node, x, graph.input_types(node), graph.types[node.output])


def build(graph: Graph, d: Description, host: bool = False) -> Device:
    """Split, compile, power on. Raises UnsupportedError, DoesNotFitError."""
    parts = split(graph, d, host)
    return Device(parts, compile_graph(parts, d))
