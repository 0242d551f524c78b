"""Let a layer of an integer program look its result up in the table that follows it."""

from __future__ import annotations

from qcc.ir.graph import Graph
from qcc.passes.rewrite import WEIGHTED, absorb, sole_user


def fuse_table(graph: Graph) -> Graph:
    """Turn lut(layer(…)) into a layer with input ``table``.

    Before: a legal integer program. After: the same bytes; no lut is the sole reader of a layer without a table.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        layer = graph.node_of().get(node.inputs.get("x", ""))
        if (
            node.op == "lut"
            and layer is not None
            and layer.op in WEIGHTED
            and "table" not in layer.inputs
            and sole_user(graph, layer.output, graph.users()) is not None
        ):
            layer.inputs["table"] = node.inputs["table"]
            absorb(graph, layer, node)
    return graph
