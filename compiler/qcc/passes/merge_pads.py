"""Let convolutions and pools do the padding in front of them."""

from __future__ import annotations

from qcc.ir.graph import Graph, Node
from qcc.passes.rewrite import MONOTONIC, UNBOUNDED, clip_limits


def merge_pads(graph: Graph) -> Graph:
    """Move constant padding of height and width into the ``pad`` attribute of the conv2d and pools that read it.

    Before: a legal float graph. After: the same function. A convolution and an average that counts padding take
    zeros; a maximum takes what cannot win: minus infinity, or a value that no element is below.
    """
    graph = graph.copy()
    producers = graph.node_of()
    for node in graph.nodes:
        pad = producers.get(node.inputs.get("x", ""))
        if pad is None or pad.op != "pad" or pad.attrs["mode"] != "constant" or len(pad.attrs["pads"]) != 4:
            continue
        batch, (top, bottom), (left, right), channels = pad.attrs["pads"]
        extra = (top, left, bottom, right)
        if (batch, channels) == ((0, 0), (0, 0)) and _takes(graph, producers, node, pad, extra):
            node.inputs["x"] = pad.inputs["x"]
            node.attrs["pad"] = tuple(own + more for own, more in zip(node.attrs["pad"], extra, strict=True))
            if node.op == "avg_pool":
                node.attrs["count_include_pad"] = True
    graph.prune()
    return graph


def _takes(graph: Graph, producers: dict[str, Node], node: Node, pad: Node, extra: tuple[int, ...]) -> bool:
    """The node's own padding can stand for the pad node's values."""
    value = pad.attrs["value"]
    if node.op == "conv2d":
        return bool(value == 0)
    if node.op == "avg_pool":
        return bool(value == 0) and (node.attrs["count_include_pad"] or not any(node.attrs["pad"]))
    if node.op != "max_pool":
        return False
    (kh, kw), (dh, dw) = node.attrs["kernel"], node.attrs["dilation"]
    reach = ((kh - 1) * dh, (kw - 1) * dw) * 2
    covered = all(own + more <= most for own, more, most in zip(node.attrs["pad"], extra, reach, strict=True))
    return covered and value <= _lower_bound(producers, pad.inputs["x"])


def _lower_bound(producers: dict[str, Node], value: str) -> float:
    """A number that no element of a value is below."""
    node = producers.get(value)
    while node is not None and node.op in MONOTONIC:
        node = producers.get(node.inputs["x"])
    if node is None:
        return UNBOUNDED[0]
    low, _ = clip_limits(node) or node.attrs.get("clamp") or UNBOUNDED
    return float(low)
