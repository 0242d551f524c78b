"""Move per-channel multiplications and additions into the weights and the bias in front of them."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Graph, Node
from qcc.numerics import QParams
from qcc.passes.rewrite import WEIGHTED, absorb, channel_constant, float32, infer, sole_user


class Affine(NamedTuple):
    """``y = x * scale + shift`` along the last axis of the value ``x``."""

    x: str
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]


def fold_batch_norm(graph: Graph) -> Graph:
    """Fold batch norms, and mul, add, sub by a constant per channel, into a convolution or dense layer.

    Before: a legal float graph, no clamp or residual fused into the layers yet. After: the same function without
    batch_norm. One that no layer precedes becomes a depthwise 1x1 convolution, or mul and add where the rank is not 4.
    """
    graph = graph.copy()
    for node in list(graph.nodes):
        affine = _affine(graph, node)
        if affine is None:
            continue
        producer = graph.node_of().get(affine.x)
        if producer is not None and _can_fold(graph, producer):
            _fold(graph, producer, affine)
            absorb(graph, producer, node)
        elif node.op == "batch_norm":
            _replace(graph, node, affine)
    graph.prune()
    return graph


def _affine(graph: Graph, node: Node) -> Affine | None:
    """What a node does to each channel of its one operand that is not constant; None if it is anything else."""
    if node.op == "batch_norm":
        mean, variance, weight, bias = (
            np.asarray(graph.constants[node.inputs[k]], np.float64) for k in ("mean", "variance", "weight", "bias")
        )
        scale = weight / np.sqrt(variance + node.attrs["epsilon"])
        return Affine(node.inputs["x"], scale, bias - mean * scale)
    if node.op not in ("mul", "add", "sub") or node.attrs["clamp"] is not None:
        return None
    a, b = node.inputs["a"], node.inputs["b"]
    x, other = (b, a) if a in graph.constants else (a, b)
    shape = graph.types[node.output].shape
    values = channel_constant(graph, other, shape)
    if values is None or graph.types[x].shape != shape:
        return None
    one, zero = np.ones_like(values), np.zeros_like(values)
    if node.op == "mul":
        return Affine(x, values, zero)
    if node.op == "add":
        return Affine(x, one, values)
    return Affine(x, one, -values) if x == a else Affine(x, -one, values)


def _can_fold(graph: Graph, producer: Node) -> bool:
    """A layer with constant weights whose result only the affine node reads."""
    return (
        producer.op in WEIGHTED
        and sole_user(graph, producer.output, graph.users()) is not None
        and producer.attrs["clamp"] is None
        and "residual" not in producer.inputs
        and all(producer.inputs.get(k, producer.inputs["w"]) in graph.constants for k in ("w", "b"))
    )


def _fold(graph: Graph, producer: Node, affine: Affine) -> None:
    """Scale the output channels (axis 0 of w) and the bias, and add the shift."""
    weight = np.asarray(graph.constants[producer.inputs["w"]], np.float64)
    bias = np.asarray(graph.constants[producer.inputs["b"]], np.float64) if "b" in producer.inputs else 0.0
    scaled = weight * affine.scale.reshape(-1, *[1] * (weight.ndim - 1))
    name = producer.inputs["w"]
    given = graph.types[name].qparams
    _store(graph, producer, "w", float32(scaled))
    if given is not None:
        steps = np.asarray(given.scale) * np.where(affine.scale == 0, 1.0, np.abs(affine.scale))
        stored = producer.inputs["w"]
        graph.types[stored] = replace(graph.types[stored], qparams=QParams(tuple(steps.tolist()), 0, 0))
    _store(graph, producer, "b", float32(bias * affine.scale + affine.shift))


def _store(graph: Graph, node: Node, key: str, array: NDArray[np.float32]) -> None:
    """Give a node its own constant, under the name of the one it had if no other node reads that."""
    name = node.inputs.get(key)
    if name is not None and graph.users()[name] == [node]:
        graph.constants[name] = array
    else:
        node.inputs[key] = graph.add_constant(name or f"{node.output}.{key}", array)


def _replace(graph: Graph, node: Node, affine: Affine) -> None:
    """Write a batch norm as a depthwise 1x1 convolution (rank 4), or as mul and add."""
    if len(graph.types[affine.x].shape) == 4:
        node.op, channels = "conv2d", affine.scale.size
        node.attrs = {"stride": (1, 1), "pad": (0, 0, 0, 0), "dilation": (1, 1), "groups": channels, "clamp": None}
        weight = graph.add_constant(f"{node.output}.w", float32(affine.scale.reshape(-1, 1, 1, 1)))
        node.inputs = {"x": affine.x, "w": weight, "b": graph.add_constant(f"{node.output}.b", float32(affine.shift))}
        return
    scale = graph.add_constant(f"{node.output}.scale", float32(affine.scale))
    name = graph.fresh(f"{node.output}.scaled")
    scaled = Node(name, "mul", {"a": affine.x, "b": scale}, {"clamp": None}, node.source)
    graph.types[scaled.output] = infer(graph, scaled)
    graph.nodes.insert(graph.nodes.index(node), scaled)
    shift = graph.add_constant(f"{node.output}.shift", float32(affine.shift))
    node.op, node.inputs, node.attrs = "add", {"a": scaled.output, "b": shift}, {"clamp": None}
