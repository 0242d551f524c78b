"""Drop nodes that do nothing."""

from __future__ import annotations

from qcc.ir.graph import Attr, Graph, Node
from qcc.passes.rewrite import UNBOUNDED, bypass, clip_limits, is_identity, scalar_constant


def remove_identities(graph: Graph) -> Graph:
    """Remove nodes whose output equals their input, and merge reshapes and slices in a row.

    Before: a legal float graph. After: the same function with the same output names; no reshape reads a reshape, no
    slice a slice, and the constant operand of add and mul is ``b``.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        if node.op in ("add", "mul") and node.inputs["a"] in graph.constants:
            node.inputs = {"a": node.inputs["b"], "b": node.inputs["a"]}
        if _does_nothing(graph, node):
            bypass(graph, node)
    producers = graph.node_of()
    for node in graph.nodes:
        producer = producers.get(node.inputs.get("x", ""))
        if producer is None or producer.op != node.op:
            continue
        if node.op == "reshape":
            node.inputs["x"] = producer.inputs["x"]
        elif node.op == "slice":
            node.attrs = _merged_slice(producer.attrs, node.attrs)
            node.inputs["x"] = producer.inputs["x"]
    graph.prune()
    return graph


def _merged_slice(first: dict[str, Attr], then: dict[str, Attr]) -> dict[str, Attr]:
    """Attributes of the slice that equals two in a row."""
    axes = list(zip(first["begin"], first["step"], then["begin"], then["end"], then["step"], strict=True))
    return {
        "begin": tuple(b1 + b2 * s1 for b1, s1, b2, _, _ in axes),
        "end": tuple(b1 + (e2 - 1) * s1 + 1 for b1, s1, _, e2, _ in axes),
        "step": tuple(s1 * s2 for _, s1, _, _, s2 in axes),
    }


def _does_nothing(graph: Graph, node: Node) -> bool:
    """The output equals the first input, element for element and in shape."""
    a = node.attrs
    same = graph.types[next(iter(node.inputs.values()))].shape == graph.types[node.output].shape
    match node.op:
        case "reshape" | "expand":
            return same
        case "transpose":
            return is_identity(a["perm"])
        case "slice":
            return same and all(step == 1 for step in a["step"])
        case "pad":
            return same
        case "pointwise":
            return a["expr"] == "x" or clip_limits(node) == UNBOUNDED
        case "take":
            return a["indices"] == tuple(range(len(a["indices"]))) and same
        case "max_pool":
            return same and a["kernel"] == (1, 1)
        case "avg_pool":
            return same and a["kernel"] == (1, 1) and not any(a["pad"])
        case "reduce_mean" | "reduce_sum" | "reduce_max":
            return same
        case "concat":
            return len(node.inputs) == 1
        case "add" | "sub" | "mul":
            neutral = scalar_constant(graph, node.inputs["b"]) == (1.0 if node.op == "mul" else 0.0)
            return neutral and same and a.get("clamp") is None
    return False
