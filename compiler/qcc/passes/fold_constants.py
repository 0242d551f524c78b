"""Compute at compile time what depends on constants alone."""

from __future__ import annotations

from dataclasses import replace

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
            given = {graph.types[value].qparams for value in node.inputs.values()}
            if len(given) == 1 and OPS[node.op].scale_rule == "same":
                (q,) = given
                if q is not None and q.axis is None:
                    graph.types[node.output] = replace(graph.types[node.output], qparams=q)
    graph.nodes = kept
    graph.prune()
    return graph
