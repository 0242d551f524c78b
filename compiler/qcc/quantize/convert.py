"""Float graph and chosen parameters → integer graph; each op writes its own integer form through ``Converter``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qcc import numerics
from qcc.ir.graph import Attr, Graph, Node, TensorType
from qcc.numerics import QParams
from qcc.ops import OPS
from qcc.passes import FUSE_INTEGER
from qcc.passes.rewrite import absorb, sole_user
from qcc.quantize import weights

Io = Literal["float", "int8"]


def convert(
    graph: Graph,
    params: Mapping[str, QParams],
    io: Io = "float",
    means: Mapping[str, Sequence[float]] | None = None,
    remarks: list[str] | None = None,
) -> Graph:
    """The integer program of a float graph; ``params`` and ``graph`` as ``assign`` returned them.

    ``means`` (``Calibration.means``) let biases make up for what rounding the weights does to the mean of a layer.

    Inputs and outputs keep their names and shapes. With ``io`` "float" they are float32: quantize and dequantize nodes
    stand at the edges, and take in the transposition next to them. With "int8" they are int8 in their parameters.
    Integer results (argmax) stay what they are. Appends to ``remarks`` what the user should read.
    """
    converter = Converter(graph, params, Graph(graph.name, list(graph.inputs), list(graph.outputs)), means or {})
    for value in graph.inputs:
        converter.take_input(value, io)
    returned = [v for v in dict.fromkeys(graph.outputs) if v in params and v not in graph.inputs and io == "float"]
    converter.names.update({v: graph.fresh(f"{v}.int8") for v in returned})
    for node in graph.nodes:
        OPS[node.op].quantize(node, converter)
    for value in returned:
        converter.return_output(value)
    for value in graph.outputs:
        if value in graph.constants:
            converter.graph.constants[value], converter.graph.types[value] = graph.constants[value], graph.types[value]
    if remarks is not None:
        remarks += converter.remarks
    integer = merge_edge_transposes(converter.graph)
    for fuse in FUSE_INTEGER:
        integer = fuse(integer)
    integer.prune()
    return integer


@dataclass
class Converter:
    """What ``Op.quantize`` works with. Integer values keep the names of the float values they stand for.

    Where a float value of that name stays (inputs and outputs of the program), ``names`` says what stands for it.
    """

    source: Graph
    params: Mapping[str, QParams]
    graph: Graph
    means: Mapping[str, Sequence[float]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def qparams(self, value: str) -> QParams:
        """Parameters of a float value (activation, or a constant used as one)."""
        if value not in self.params and value in self.source.constants:
            array, given = self.source.constants[value], self.source.types[value].qparams
            if given is not None and given.axis is None:
                return given
            return numerics.activation_qparams(float(array.min()), float(array.max()))
        return self.params[value]

    def value(self, value: str) -> str:
        """The integer value that stands for a float value; a constant is quantized per tensor on first use."""
        if value in self.source.constants and value not in self.names:
            q = self.qparams(value)
            self.names[value] = self.emit_constant(value, numerics.quantize(self.source.constants[value], q), q)
        return self.names.get(value, value)

    def constant(self, value: str) -> NDArray[Any]:
        """Float array of a constant input."""
        return self.source.constants[value]

    def weight_scales(self, node: Node, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scale of each output channel (axis 0) of a weighted node: the given one where its integers fit a weight."""
        given = self.given_scales(node)
        if given is not None:
            peak = np.abs(weight).reshape(len(weight), -1).max(axis=1, initial=0.0)
            # -128 (which the file's int8 allows) is taken as -127: coarser weights would change the others too.
            return np.where(np.rint(peak / given) > numerics.WEIGHT_MAX + 1, peak / numerics.WEIGHT_MAX, given)
        return weights.scales(weight, self.qparams(node.inputs["x"]).step, self.qparams(node.output).step)

    def given_scales(self, node: Node) -> NDArray[np.float64] | None:
        """Scale of each output channel that the model itself gives the weights; None if it does not."""
        given = self.source.types[node.inputs["w"]].qparams
        return None if given is None else np.asarray(given.scale, np.float64)

    def mean_shift(self, node: Node, error: NDArray[np.float64]) -> NDArray[np.float64]:
        """What a layer's weight error adds to the mean of each output channel; 0 if the input's mean is unknown."""
        if node.inputs["x"] not in self.means:
            return np.zeros(len(error))
        return weights.mean_shift(self.source, node, error, self.means[node.inputs["x"]])

    def emit_constant(self, hint: str, array: NDArray[Any], q: QParams | None = None) -> str:
        """Add an integer constant; returns its name, which no activation has or will have."""
        reserved = self.source.types.keys() - self.source.constants.keys()
        return self.graph.add_constant(f"{hint}.constant" if hint in reserved else hint, array, q)

    def emit(self, node: Node, op: str, inputs: dict[str, str], attrs: dict[str, Attr]) -> str:
        """Append the integer node that produces ``node.output``, typed by its op's rule and the chosen parameters."""
        name = self.names.get(node.output, node.output)
        new = Node(name, op, inputs, attrs, node.source)
        inferred = OPS[op].infer(new, {key: self.graph.types[v] for key, v in inputs.items()})
        q = self.params[node.output] if inferred.dtype == "int8" else None
        self.graph.types[name] = TensorType(inferred.shape, inferred.dtype, q)
        self.graph.nodes.append(new)
        return name

    def remark(self, node: Node, text: str) -> None:
        """Something the user should read in the report."""
        self.remarks.append(f"{node.output}: {text}")

    def take_input(self, value: str, io: Io) -> None:
        """Declare a graph input and what stands for it: itself, or its quantized image."""
        shape = self.source.types[value].shape
        if value not in self.params or io == "int8":
            dtype = "int8" if value in self.params else self.source.types[value].dtype
            self.graph.types[value] = TensorType(shape, dtype, self.params.get(value))
            return
        self.graph.types[value] = TensorType(shape)
        self.names[value] = name = self.source.fresh(f"{value}.int8")
        self.graph.types[name] = TensorType(shape, "int8", self.params[value])
        self.graph.nodes.append(Node(name, "quantize", {"x": value}, {"perm": None}, f"input '{value}'"))

    def return_output(self, value: str) -> None:
        """Produce a float32 graph output from what stands for it."""
        self.graph.types[value] = TensorType(self.source.types[value].shape)
        inputs = {"x": self.names[value]}
        self.graph.nodes.append(Node(value, "dequantize", inputs, {"perm": None}, f"output '{value}'"))


def merge_edge_transposes(graph: Graph) -> Graph:
    """Let quantize take in the transpose that alone reads it, and dequantize the one that it alone reads; one each."""
    graph = graph.copy()
    for node in list(graph.nodes):
        before = graph.node_of().get(node.inputs.get("x", ""))
        if before is None or sole_user(graph, before.output, graph.users()) is None:
            continue
        if (before.op, node.op) == ("quantize", "transpose") and before.attrs["perm"] is None:
            before.attrs["perm"] = node.attrs["perm"]
            absorb(graph, before, node)
        elif (before.op, node.op) == ("transpose", "dequantize"):
            node.inputs["x"], node.attrs["perm"] = before.inputs["x"], before.attrs["perm"]
            graph.nodes.remove(before)
            del graph.types[before.output]
    return graph
