"""Small steps that passes share. They change the graph they are given: a pass copies first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Graph, Node, TensorType
from qcc.ops import OPS
from qcc.ops.pointwise import is_clip

WEIGHTED = ("conv2d", "conv_transpose2d", "dense")
"""Layers: ops with weights, whose output channels are axis 0 of ``w``, and an epilogue (``ops.epilogue``)."""

Limits = tuple[float, float]
UNBOUNDED: Limits = (-math.inf, math.inf)


def infer(graph: Graph, node: Node) -> TensorType:
    """Type of a node's output by its op's rule."""
    return OPS[node.op].infer(node, graph.input_types(node))


def sole_user(graph: Graph, value: str, users: dict[str, list[Node]]) -> Node | None:
    """The one node that reads ``value``; None where there are more or fewer, or the graph returns it."""
    readers = users[value]
    return readers[0] if len(readers) == 1 and value not in graph.outputs else None


def rename(graph: Graph, old: str, new: str) -> None:
    """Let the node that produces ``old``, and all its readers, call it ``new``."""
    for node in graph.nodes:
        if node.output == old:
            node.output = new
    graph.replace_uses(old, new)
    graph.types[new] = graph.types.pop(old)


def bypass(graph: Graph, node: Node) -> None:
    """Drop a node whose output equals its first input ``x``.

    A returned value keeps its name: the producer of ``x`` takes it over, or, where ``x`` keeps its own, the node stays.
    """
    x, y = next(iter(node.inputs.values())), node.output
    if y in graph.outputs and (x in graph.inputs or x in graph.constants or x in graph.outputs):
        return
    graph.nodes.remove(node)
    del graph.types[y]
    if y in graph.outputs:
        rename(graph, x, y)
    else:
        graph.replace_uses(y, x)


def absorb(graph: Graph, producer: Node, follower: Node) -> None:
    """Drop ``follower``, whose work ``producer`` now does: the producer takes its output name, type and provenance.

    ``follower`` must be the producer's sole user. The producer moves to the follower's place, where all inputs exist.
    """
    graph.nodes.remove(producer)
    graph.nodes[graph.nodes.index(follower)] = producer
    del graph.types[producer.output]
    producer.output = follower.output
    producer.source = join_sources(producer.source, follower.source)


def join_sources(*sources: str) -> str:
    """Provenance of a node made of several: the distinct parts in order."""
    parts = dict.fromkeys(part for source in sources for part in source.split(", ") if part)
    return ", ".join(parts)


def scalar_constant(graph: Graph, value: str) -> float | None:
    """The number in a constant of one element."""
    array = graph.constants.get(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def channel_constant(graph: Graph, value: str, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """A constant that holds a number for each channel (last axis) of a tensor of this shape, or one for all.

    float64 [C]; None for every other value.
    """
    array = graph.constants.get(value)
    if array is None or array.ndim > len(shape) or not shape:
        return None
    wide = np.asarray(array, np.float64)
    if wide.size == 1:
        return np.full(shape[-1], wide.reshape(()))
    return wide.reshape(-1) if wide.shape[-1] == wide.size == shape[-1] else None


def clip_limits(node: Node) -> Limits | None:
    """Limits of a node that only clips."""
    return is_clip(node.attrs["expr"]) if node.op == "pointwise" else None


MONOTONIC = ("max_pool", "reduce_max", "reshape", "transpose", "slice", "take", "expand")
"""Ops of one operand that commute with clipping."""


def clamp_carrier(graph: Graph, value: str) -> Node | None:
    """The node that can clip ``value`` for its sole reader: its producer, or one before it that it commutes with."""
    producers, users = graph.node_of(), graph.users()
    node = producers.get(value)
    while node is not None and sole_user(graph, node.output, users):
        if node.op not in MONOTONIC:
            return node if "clamp" in OPS[node.op].attributes else None
        node = producers.get(node.inputs["x"])
    return None


def narrow(inner: Limits | None, outer: Limits) -> Limits:
    """Limits of clipping to ``inner`` and then to ``outer``."""
    low, high = (min(max(v, outer[0]), outer[1]) for v in inner or UNBOUNDED)
    return low, high


def inverse(perm: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes ``perm``."""
    return tuple(sorted(range(len(perm)), key=perm.__getitem__))


def is_identity(perm: tuple[int, ...]) -> bool:
    """Nothing moves."""
    return perm == tuple(range(len(perm)))


def moves_nothing(shape: tuple[int, ...], perm: tuple[int, ...]) -> bool:
    """Transposing a tensor of this shape leaves its elements in order: only axes of size 1 move."""
    kept = [axis for axis in perm if shape[axis] != 1]
    return kept == sorted(kept)


def float32(array: Any) -> NDArray[np.float32]:
    """A contiguous float32 array: what float graphs store."""
    return np.ascontiguousarray(array, np.float32)
