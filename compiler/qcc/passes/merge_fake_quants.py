"""Drop fake_quant nodes that change nothing: after moves of a quantized value, and between a layer and its clip."""

from __future__ import annotations

from qcc import numerics
from qcc.ir.graph import Graph, Node
from qcc.ops import OPS
from qcc.ops.fake_quant import mark
from qcc.passes.rewrite import bypass, clip_limits, sole_user


def merge_fake_quants(graph: Graph) -> Graph:
    """Remove fake_quant nodes that later ones, or earlier ones, make superfluous.

    Before: a legal float graph. After: the same function, exactly: no fake_quant reads a value that the same parameters
    have quantized before and that was only moved since; none stands alone between a value and a clip that the same
    parameters quantize again (rounding is monotonic, so that it commutes with clipping).
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        if node.op != "fake_quant":
            continue
        producers = graph.node_of()
        before = producers.get(node.inputs["x"])
        inner = producers.get(before.inputs["x"]) if before is not None and clip_limits(before) else None
        if inner is not None and inner.op == "fake_quant" and inner.attrs == node.attrs:
            if sole_user(graph, inner.output, graph.users()):
                bypass(graph, inner)
        elif _on_grid(graph, producers, node.inputs["x"], node):
            bypass(graph, node)
    return graph


def _on_grid(graph: Graph, producers: dict[str, Node], value: str, quantizer: Node) -> bool:
    """Every element of a value is one that the quantizer leaves as it is."""
    node = producers.get(value)
    if node is None or node.op == "fake_quant":
        return node is not None and node.attrs == quantizer.attrs
    if OPS[node.op].scale_rule != "same" or node.op == "resize_bilinear":
        return False
    padding, q = node.attrs.get("value", 0.0), mark(quantizer)
    exact = padding == float(numerics.dequantize(numerics.quantize(padding, q), q))
    return exact and all(_on_grid(graph, producers, v, quantizer) for v in node.inputs.values())
