"""Let the layer in front of an addition add the other operand in its epilogue."""

from __future__ import annotations

from qcc.ir.graph import Graph, Node
from qcc.passes.rewrite import WEIGHTED, absorb, sole_user


def fuse_residual(graph: Graph) -> Graph:
    """Turn add(layer(…), other) of equal shapes into a layer with input ``residual``, clamped as the addition was.

    Before: a legal float graph. After: the same function; the layer stands where the addition stood. Where both
    operands are layers, the later one takes the addition, so that the other result exists when it runs.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        if node.op != "add":
            continue
        producers = graph.node_of()
        layers = [(producers.get(node.inputs[own]), node.inputs[other]) for own, other in (("a", "b"), ("b", "a"))]
        fit = [(layer, other) for layer, other in layers if layer is not None and _fits(graph, layer, other, node)]
        if fit:
            layer, other = max(fit, key=lambda pair: graph.nodes.index(pair[0]))
            layer.inputs["residual"], layer.attrs["clamp"] = other, node.attrs["clamp"]
            absorb(graph, layer, node)
    return graph


def _fits(graph: Graph, layer: Node, other: str, node: Node) -> bool:
    """The layer's result goes only to the addition and nothing was fused that comes before it."""
    return (
        layer.op in WEIGHTED
        and other not in (*graph.constants, layer.output)
        and sole_user(graph, layer.output, graph.users()) is not None
        and layer.attrs["clamp"] is None
        and "residual" not in layer.inputs
        and graph.types[layer.output].shape == graph.types[other].shape == graph.types[node.output].shape
    )
