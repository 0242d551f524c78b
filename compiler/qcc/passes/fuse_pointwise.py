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
    another. A clip that the node before it can do stays apart (``fuse_clamp``). A quantization in between becomes
    part of the expression (``grid``): a table of 256 entries rounds as exactly as two would.
    """
    graph = graph.copy()
    producers = graph.node_of()
    for node in graph.nodes:
        _to_pointwise(graph, producers, node)
    graph.prune()
    for node in list(graph.nodes):
        if node.op == "pointwise":
            _fuse_producer(graph, node)
    return graph


def _fuse_producer(graph: Graph, node: Node) -> None:
    """Let a pointwise node do what the pointwise node before it does, and the quantization between them."""
    producers, users = graph.node_of(), graph.users()
    chain: list[Node] = []
    expr, value = node.attrs["expr"], node.inputs["x"]
    while step := _function(producers, value):
        chain.append(producers[value])
        expr, value = compose(expr, step[0]), step[1]
        if chain[-1].op == "pointwise":
            break
    expr = tidy(expr)
    if not chain or functions(expr) > LARGEST or not all(sole_user(graph, n.output, users) for n in chain):
        return
    if clip_limits(chain[-1]) is not None and clamp_carrier(graph, value) is not None:
        return
    node.attrs["expr"], node.inputs["x"] = expr, value
    node.source = join_sources(*(n.source for n in reversed(chain)), node.source)
    for n in chain:
        graph.nodes.remove(n)
        del graph.types[n.output]


def _function(producers: dict[str, Node], value: str) -> tuple[Expr, str] | None:
    """A value as an expression of another: its pointwise producer's, or that of the quantization behind one."""
    node = producers.get(value)
    if node is not None and node.op == "pointwise":
        return node.attrs["expr"], node.inputs["x"]
    before = producers.get(node.inputs["x"]) if node is not None and node.op == "fake_quant" else None
    if node is None or before is None or before.op != "pointwise":
        return None
    return ("grid", "x", float(node.attrs["scale"]), float(node.attrs["zero_point"])), before.output


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
    """The value, what it is a function of (``_function``) and so on, each with the value as its expression.

    Empty for a constant.
    """
    if value in graph.constants:
        return {}
    found: dict[str, Expr] = {value: "x"}
    expr: Expr = "x"
    while step := _function(producers, value):
        expr, value = compose(expr, step[0]), step[1]
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
