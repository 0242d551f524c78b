"""Let the node that computes a value also clip it."""

from __future__ import annotations

from qcc.ir.graph import Graph
from qcc.passes.rewrite import absorb, bypass, clamp_carrier, clip_limits, join_sources, narrow


def fuse_clamp(graph: Graph) -> Graph:
    """Fold pointwise clips into the ``clamp`` of the node before, also across pools, reshapes and slices.

    Before: a legal float graph. After: the same function; no pointwise clip is the sole reader of a node that
    can clamp.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        limits = clip_limits(node)
        carrier = clamp_carrier(graph, node.inputs["x"]) if limits else None
        if limits and carrier:
            carrier.attrs["clamp"] = narrow(carrier.attrs["clamp"], limits)
            if carrier.output == node.inputs["x"]:
                absorb(graph, carrier, node)
            else:
                carrier.source = join_sources(carrier.source, node.source)
                bypass(graph, node)
    return graph
