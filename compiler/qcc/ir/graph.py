"""The one intermediate representation: a graph of single-output nodes in topological order.

A value is a string; a node is known by the value it produces. The same graph holds a float model and, after
quantization, the integer program: the types of the values tell which. Images are NHWC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from qcc.numerics import QParams

Attr = Any
"""int, float, str, bool, None, or a (nested) tuple of those."""


@dataclass(frozen=True)
class TensorType:
    """Shape (static), dtype name (float32, int8, int32, int64) and, for quantized values, how to read them.

    A float32 constant may have parameters too: a quantized file gave them, and the elements are multiples of the scale.
    Converting keeps the file's integers.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    qparams: QParams | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of a dense copy."""
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def zero_point(self) -> int:
        """Zero point of a quantized value."""
        assert self.qparams is not None, "not a quantized value"
        return self.qparams.zero_point


@dataclass
class Node:
    """``output = op(key=value, …) {attributes}``; ``source`` says which nodes of the model file it came from."""

    output: str
    op: str
    inputs: dict[str, str]
    attrs: dict[str, Attr] = field(default_factory=dict)
    source: str = ""


@dataclass
class Graph:
    """Inputs and outputs are value names; ``types`` covers every value; ``constants`` are values with known contents.

    Invariants (``ir.verify``): names are unique, nodes are in topological order, each node's output type equals what
    its op infers, every name used is an input, a constant or an earlier node's output.
    """

    name: str
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)

    def copy(self) -> Graph:
        """A graph whose nodes and tables can be changed alone (constant arrays are shared: never write into them)."""
        nodes = [Node(n.output, n.op, dict(n.inputs), dict(n.attrs), n.source) for n in self.nodes]
        return Graph(self.name, list(self.inputs), list(self.outputs), dict(self.types), dict(self.constants), nodes)

    def node_of(self) -> dict[str, Node]:
        """Producer of each node output."""
        return {n.output: n for n in self.nodes}

    def users(self) -> dict[str, list[Node]]:
        """Nodes that read each value (once each), in order; a graph output counts through ``outputs`` only."""
        found: dict[str, list[Node]] = {v: [] for v in self.types}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs.values()):
                found[value].append(node)
        return found

    def input_types(self, node: Node) -> dict[str, TensorType]:
        """Types of a node's inputs by key."""
        return {key: self.types[value] for key, value in node.inputs.items()}

    def fresh(self, hint: str) -> str:
        """An unused value name that starts with ``hint``."""
        if hint not in self.types:
            return hint
        count = 1
        while f"{hint}_{count}" in self.types:
            count += 1
        return f"{hint}_{count}"

    def add_constant(self, hint: str, array: NDArray[Any], qparams: QParams | None = None) -> str:
        """Store an array; returns its value name."""
        name = self.fresh(hint)
        self.constants[name] = array
        self.types[name] = TensorType(tuple(int(d) for d in array.shape), str(array.dtype), qparams)
        return name

    def replace_uses(self, old: str, new: str) -> None:
        """Let every reader of ``old`` (and the graph's outputs) read ``new``."""
        for node in self.nodes:
            for key, value in node.inputs.items():
                if value == old:
                    node.inputs[key] = new
        self.outputs = [new if v == old else v for v in self.outputs]

    def prune(self) -> None:
        """Drop nodes, constants and types that no output needs."""
        live = set(self.outputs)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if node.output in live:
                kept.append(node)
                live.update(node.inputs.values())
        self.nodes = kept[::-1]
        self.constants = {k: v for k, v in self.constants.items() if k in live}
        self.types = {k: t for k, t in self.types.items() if k in live or k in self.inputs}

    def sort(self) -> None:
        """Put the nodes into topological order (stable); raises ``networkx.NetworkXUnfeasible`` on a cycle."""
        order = {n.output: i for i, n in enumerate(self.nodes)}
        self.nodes = [
            self.nodes[order[v]]
            for v in nx.lexicographical_topological_sort(self.digraph(), key=lambda v: order.get(v, -1))
            if v in order
        ]

    def digraph(self) -> nx.DiGraph[str]:
        """NetworkX view: values are vertices, an edge goes from an operand to the result."""
        view: nx.DiGraph[str] = nx.DiGraph()
        view.add_nodes_from(self.types)
        for node in self.nodes:
            view.add_node(node.output, op=node.op)
            view.add_edges_from((value, node.output) for value in node.inputs.values())
        return view

    def activations(self) -> Iterator[str]:
        """Inputs, then node outputs in order: every value that is not a constant."""
        yield from self.inputs
        yield from (n.output for n in self.nodes)


def runs_float(graph: Graph, node: Node) -> bool:
    """Whether a node computes float32 from float32 alone."""
    values = (*node.inputs.values(), node.output)
    dtypes = {graph.types[value].dtype for value in values}
    return "float32" in dtypes and "int8" not in dtypes


Arrays = Mapping[str, NDArray[Any]]
Types = Mapping[str, TensorType]
