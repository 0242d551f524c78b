"""Compute at compile time what depends on constants alone."""

from __future__ import annotations

from qcc.ir.graph import Graph
from qcc.ops import OPS


def fold_constants(graph: Graph) -> Graph:
    """Replace nodes whose inputs are all constants by constants (a returned value stays a node).

    Before: a legal float graph. After: the same function; no node reads constants only,
    but for those that the graph returns.
    """
    graph = graph.copy()
    kept = []
    for node in graph.nodes:
        if node.output in graph.outputs or any(v not in graph.constants for v in node.inputs.values()):
            kept.append(node)
        else:
            arrays = {key: graph.constants[value] for key, value in node.inputs.items()}
            graph.constants[node.output] = OPS[node.op].real(node, arrays)
    graph.nodes = kept
    graph.prune()
    return graph
