"""Make one pointwise node of connected elementwise nodes that depend on one tensor."""

from __future__ import annotations

import math

from qcc.ir.graph import Graph, Node
from qcc.ops.pointwise import FUNCTIONS, Expr, compose
from qcc.passes.rewrite import clamp_carrier, clip_limits, join_sources, narrow, scalar_constant, sole_user

FUNCTION_OF = {"add": "add", "sub": "sub", "mul": "mul", "maximum": "max", "minimum": "min"}
LARGEST = 100
"""Functions in an expression; composing duplicates, so without a limit expressions could grow without bound."""


def fuse_pointwise(graph: Graph) -> Graph:
    """Fuse elementwise nodes of one tensor and scalar constants: ``x * sigmoid(x)``, GELU and hard-swish formulas.

    Before: a legal float graph. After: the same function; no add, sub, mul, maximum or minimum depends on one
    tensor alone (through pointwise nodes, up to ``LARGEST`` functions), and no pointwise node is the sole reader of
    another. A clip that the node before it can do stays apart (``fuse_clamp``).
    """
    graph = graph.copy()
    producers = graph.node_of()
    for node in graph.nodes:
        _to_pointwise(graph, producers, node)
    graph.prune()
    for node in list(graph.nodes):
        producer = graph.node_of().get(node.inputs.get("x", ""))
        if node.op != "pointwise" or producer is None or producer.op != "pointwise":
            continue
        apart = clip_limits(producer) is not None and clamp_carrier(graph, producer.inputs["x"]) is not None
        fused = tidy(compose(node.attrs["expr"], producer.attrs["expr"]))
        if not apart and sole_user(graph, producer.output, graph.users()) and functions(fused) <= LARGEST:
            node.attrs["expr"], node.inputs["x"] = fused, producer.inputs["x"]
            node.source = join_sources(producer.source, node.source)
            graph.nodes.remove(producer)
            del graph.types[producer.output]
    return graph


def _to_pointwise(graph: Graph, producers: dict[str, Node], node: Node) -> None:
    """Rewrite an elementwise node of one tensor as a pointwise node of the nearest tensor that determines it."""
    if node.op == "pointwise":
        node.attrs["expr"] = tidy(node.attrs["expr"])
    if node.op not in FUNCTION_OF:
        return
    chains = [_ancestry(graph, producers, node.inputs[key]) for key in ("a", "b")]
    roots = [value for value in chains[0] or chains[1] if all(value in chain for chain in chains if chain)]
    shape = graph.types[node.output].shape
    if not roots or graph.types[roots[0]].shape != shape:
        return
    operands = [
        chain[roots[0]] if chain else scalar_constant(graph, node.inputs[key])
        for key, chain in zip(("a", "b"), chains, strict=True)
    ]
    if None in operands:
        return
    expr = (FUNCTION_OF[node.op], *operands)
    if node.attrs.get("clamp") is not None:
        expr = ("clip", expr, *node.attrs["clamp"])
    if functions(expr) <= LARGEST:
        node.op, node.inputs, node.attrs = "pointwise", {"x": roots[0]}, {"expr": tidy(expr)}


def _ancestry(graph: Graph, producers: dict[str, Node], value: str) -> dict[str, Expr]:
    """The value, the operand of its pointwise producer and so on, each with the value as its expression.

    Empty for a constant.
    """
    if value in graph.constants:
        return {}
    found: dict[str, Expr] = {value: "x"}
    expr: Expr = "x"
    while (node := producers.get(value)) is not None and node.op == "pointwise":
        expr, value = compose(expr, node.attrs["expr"]), node.inputs["x"]
        if functions(expr) > LARGEST:
            break
        found[value] = expr
    return found


def functions(expr: Expr) -> int:
    """Number of functions in an expression."""
    if not isinstance(expr, tuple):
        return 0
    return 1 + sum(functions(e) for e in expr[1 : 1 + FUNCTIONS[expr[0]].operands])


def tidy(expr: Expr) -> Expr:
    """Write max and min with a number as clip, and merge nested clips."""
    if not isinstance(expr, tuple):
        return expr
    count = FUNCTIONS[expr[0]].operands
    expr = (expr[0], *(tidy(e) for e in expr[1 : 1 + count]), *expr[1 + count :])
    match expr:
        case ("max", e, float(limit)) | ("max", float(limit), e):
            expr = ("clip", e, limit, math.inf)
        case ("min", e, float(limit)) | ("min", float(limit), e):
            expr = ("clip", e, -math.inf, limit)
    match expr:
        case ("clip", ("clip", e, low, high), *outer):
            return ("clip", e, *narrow((low, high), (outer[0], outer[1])))
    return expr
