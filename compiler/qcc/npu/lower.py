"""Nodes of the integer program to jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Graph, Node
from qcc.npu.element import ElementJob
from qcc.npu.isa import DIVIDE, DOUBLE
from qcc.npu.jobs import Job, dense, merge
from qcc.npu.move import Copy, MoveJob
from qcc.npu.window import ProductJob, WindowJob
from qcc.numerics import INT8_MIN
from qcc.ops.base import pair
from qcc.ops.pool import tap_counts
from qcc.ops.rounding import follows_tflite

Lowering = Callable[["Context", Node], Job]
LOWERINGS: dict[str, Lowering] = {}
"""By op; ``reshape`` has none: it is the same bytes."""


class Context:
    """The graph, and where in it we are."""

    def __init__(self, graph: Graph, roots: dict[str, str]) -> None:
        """``roots``: value → the value whose memory it shares."""
        self.graph, self.roots, self.layer = graph, roots, 0

    def shape(self, value: str) -> tuple[int, ...]:
        """Shape of a value."""
        return self.graph.types[value].shape

    def zero(self, value: str) -> int:
        """Zero point of a value."""
        return self.graph.types[value].zero_point

    def constant(self, node: Node, key: str) -> NDArray[Any]:
        """A constant operand."""
        return self.graph.constants[node.inputs[key]]

    def root(self, node: Node, key: str) -> str:
        """Memory of an operand."""
        return self.roots[node.inputs[key]]


def lowering(*ops: str) -> Callable[[Lowering], Lowering]:
    """Register a lowering."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(ops, function))
        return function

    return register


def _scaling(node: Node, residual_zero: int = 0) -> dict[str, int]:
    a = node.attrs
    low, high = a["clamp"]
    found = {"zero_point": a["zero_point"], "low": low, "high": high}
    if follows_tflite(node):
        return found | {"rounding": DOUBLE}
    found["shift"] = a["shift"]
    if "residual_multiplier" in a:
        found |= {"residual_multiplier": a["residual_multiplier"], "fraction": a["fraction"],
                  "residual_zero": residual_zero}  # fmt: skip
    return found


def _epilogue(c: Context, node: Node) -> dict[str, Any]:
    residual = node.inputs.get("residual")
    return {
        "requant": _scaling(node, c.zero(residual) if residual else 0),
        "bias": c.constant(node, "b"), "multiplier": c.constant(node, "multiplier"),
        "shifts": c.constant(node, "shift") if follows_tflite(node) else None,
        "table": c.constant(node, "table") if "table" in node.inputs else None,
        "residual": c.roots[residual] if residual else None,
    }  # fmt: skip


@lowering("conv2d")
def _conv2d(c: Context, node: Node) -> Job:
    x, out, a = c.shape(node.inputs["x"]), c.shape(node.output), node.attrs
    weight = c.constant(node, "w")
    o, kh, kw, ci = weight.shape
    groups = a["groups"]
    depthwise = ci == 1 and groups > 1
    packed = (weight.reshape(o, kh * kw).T if depthwise
              else weight.reshape(groups, o // groups, kh, kw, ci).transpose(0, 2, 3, 4, 1))
    top, left, *_ = a["pad"]
    return WindowJob(c.layer, node.output, "depthwise" if depthwise else "matmul", c.root(node, "x"),
                     c.roots[node.output], _image(x), _result(out), (kh, kw), pair(a["stride"]), pair(a["dilation"]),
                     (top, left), c.zero(node.inputs["x"]), weight=np.ascontiguousarray(packed),
                     **_epilogue(c, node))  # fmt: skip


@lowering("dense")
def _dense(c: Context, node: Node) -> Job:
    x, weight = c.shape(node.inputs["x"]), c.constant(node, "w")
    o, k = weight.shape
    rows = prod(x[:-1])
    return WindowJob(c.layer, node.output, "matmul", c.root(node, "x"), c.roots[node.output], (1, rows, 1, k),
                     (rows, 1, o), (1, 1), (1, 1), (1, 1), (0, 0), c.zero(node.inputs["x"]),
                     weight=np.ascontiguousarray(weight.T).reshape(1, 1, 1, k, o), **_epilogue(c, node))  # fmt: skip


@lowering("matmul")
def _matmul(c: Context, node: Node) -> Job:
    (*batch, rows, n), a, b = c.shape(node.output), c.shape(node.inputs["a"]), c.shape(node.inputs["b"])
    k, transposed = a[-1], node.attrs["transpose_b"]
    (groups,), leads = product_groups(batch, a, b)
    multiplier, shift = c.constant(node, "multiplier"), "shift" in node.inputs
    return ProductJob(c.layer, node.output, "matmul", c.root(node, "a"), c.roots[node.output], (1, rows, 1, groups * k),
                      (rows, 1, groups * n), (1, 1), (1, 1), (1, 1), (0, 0), c.zero(node.inputs["a"]), _scaling(node),
                      np.broadcast_to(np.int8(0), (groups, 1, 1, k, n)), np.zeros(groups * n, np.int32),
                      np.full(groups * n, multiplier[0], np.int32),
                      np.full(groups * n, c.constant(node, "shift")[0], np.int32) if shift else None,
                      weight_zero=c.zero(node.inputs["b"]), second=c.root(node, "b"), lead=leads,
                      second_strides=(1, k) if transposed else (n, 1))  # fmt: skip


def product_groups(batch: Sequence[int], a: Sequence[int], b: Sequence[int]) -> tuple[list[int], tuple[int, int]]:
    """Leading axes of a product as one, if that is possible, and the bytes between its entries in either operand."""
    steps = [[s * prod(v[-2:]) for s in _broadcast(tuple(v[:-2]), tuple(batch))] for v in (a, b)]
    dims, (left, right) = merge(batch, *steps)
    return dims or [1], ((left or [0])[0], (right or [0])[0])


@lowering("max_pool", "avg_pool")
def _pool(c: Context, node: Node) -> Job:
    x, out, a = c.shape(node.inputs["x"]), c.shape(node.output), node.attrs
    average = node.op == "avg_pool"
    top, left, *_ = a["pad"]
    zero = c.zero(node.inputs["x"]) if average else INT8_MIN
    scaling = {} if not average or follows_tflite(node) else _scaling(node)
    entries = c.constant(node, "multiplier") if average and not follows_tflite(node) else None
    if average and follows_tflite(node):
        low, high = a["clamp"]
        zero, entries = -a["offset"], tap_counts(node, x).astype(np.int32)
        scaling = {"zero_point": zero, "low": low, "high": high, "rounding": DIVIDE}
    return WindowJob(c.layer, node.output, "avg_pool" if average else "max_pool", c.root(node, "x"),
                     c.roots[node.output], _image(x), _result(out), pair(a["kernel"]), pair(a["stride"]),
                     pair(a.get("dilation", (1, 1))), (top, left), zero, scaling, multiplier=entries)  # fmt: skip


@lowering("reduce_mean", "reduce_sum", "reduce_max")
def _reduce(c: Context, node: Node) -> Job:
    """A pool over the reduced axes, which follow each other: x as [outer, reduced, 1, inner]."""
    x, axes = c.shape(node.inputs["x"]), node.attrs["axes"]
    before, count, inner = prod(x[: axes[0]]), prod(x[a] for a in axes), prod(x[axes[-1] + 1 :])
    average = node.op != "reduce_max"
    return WindowJob(c.layer, node.output, "avg_pool" if average else "max_pool", c.root(node, "x"),
                     c.roots[node.output], (before, count, 1, inner), (1, 1, inner), (count, 1), (1, 1), (1, 1),
                     (0, 0), c.zero(node.inputs["x"]) if average else INT8_MIN, _scaling(node) if average else {},
                     multiplier=c.constant(node, "multiplier") if average else None,
                     shifts=c.constant(node, "shift") if follows_tflite(node) else None)  # fmt: skip


def _image(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    n, h, w, ch = shape
    return n, h, w, ch


def _result(shape: tuple[int, ...]) -> tuple[int, int, int]:
    _, h, w, ch = shape
    return h, w, ch


def _broadcast(shape: tuple[int, ...], out: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a dense operand of ``shape`` along the axes of the result."""
    padded = (1,) * (len(out) - len(shape)) + shape
    return tuple(s if n > 1 else 0 for n, s in zip(padded, dense(padded), strict=True))


@lowering("add", "sub", "mul", "maximum", "minimum")
def _binary(c: Context, node: Node) -> Job:
    out, a = c.shape(node.output), node.attrs
    form = {"sub": "add", "maximum": "max", "minimum": "min"}.get(node.op, node.op)
    config: dict[str, int] = {}
    registers = "binary"
    if form == "add" and follows_tflite(node):
        form, registers = "add_double", "sum"
        low, high = a["clamp"]
        config = {"zero_a": c.zero(node.inputs["a"]), "zero_b": c.zero(node.inputs["b"]), "low": low, "high": high,
                  "zero_point": a["zero_point"], "sign": -1 if node.op == "sub" else 1}  # fmt: skip
        for i, key in enumerate(("a", "b", "out")):
            config |= {f"multiplier_{key}": a["multipliers"][i], f"shift_{key}": a["shifts"][i]}
    elif form in ("add", "mul"):
        low, high = a["clamp"]
        config = {"zero_a": c.zero(node.inputs["a"]), "zero_b": c.zero(node.inputs["b"]), "shift": a["shift"],
                  "zero_point": a["zero_point"], "low": low, "high": high}  # fmt: skip
        if form == "add":
            config |= {"multiplier_a": a["multiplier_a"], "multiplier_b": a["multiplier_b"]}
        else:
            config["multiplier_a"] = int(c.constant(node, "multiplier")[0])
    left, right = (_broadcast(c.shape(node.inputs[key]), out) for key in ("a", "b"))
    return ElementJob(c.layer, node.output, form, c.root(node, "a"), c.root(node, "b"), c.roots[node.output], out,
                      left, right, (registers, config) if config else None)  # fmt: skip


@lowering("lut")
def _lut(c: Context, node: Node) -> Job:
    shape = c.shape(node.output)
    return ElementJob(c.layer, node.output, "table", c.root(node, "x"), None, c.roots[node.output], shape,
                      tuple(dense(shape)), (0,) * len(shape), param=c.constant(node, "table"))  # fmt: skip


@lowering("prelu")
def _prelu(c: Context, node: Node) -> Job:
    shape, a = c.shape(node.output), node.attrs
    low, high = a["clamp"]
    config = {"multiplier_a": a["multiplier"], "zero_a": c.zero(node.inputs["x"]), "shift": a["shift"],
              "zero_point": a["zero_point"], "low": low, "high": high}  # fmt: skip
    by_channel = (0,) * (len(shape) - 1) + (1,)
    return ElementJob(c.layer, node.output, "prelu", c.root(node, "x"), None, c.roots[node.output], shape,
                      tuple(dense(shape)), by_channel, ("binary", config), c.constant(node, "multiplier"),
                      whole_last=True)  # fmt: skip


@lowering("softmax")
def _softmax(c: Context, node: Node) -> Job:
    shape = c.shape(node.output)
    form = "softmax_double" if follows_tflite(node) else "softmax"
    return ElementJob(c.layer, node.output, form, c.root(node, "x"), None, c.roots[node.output], shape,
                      tuple(dense(shape)), (0,) * len(shape), param=c.constant(node, "table"), whole_last=True,
                      passes=3)  # fmt: skip


# ---- moves ------------------------------------------------------------------------------------------------------


def _move(c: Context, node: Node, *copies: Copy) -> Job:
    return MoveJob(c.layer, node.output, c.roots[node.output], list(copies))


@lowering("slice")
def _slice(c: Context, node: Node) -> Job:
    strides, out = dense(c.shape(node.inputs["x"])), c.shape(node.output)
    begin, step = node.attrs["begin"], node.attrs["step"]
    offset = sum(b * s for b, s in zip(begin, strides, strict=True))
    stepped = tuple(k * s for k, s in zip(step, strides, strict=True))
    return _move(c, node, Copy(c.root(node, "x"), out, offset, stepped, 0, tuple(dense(out))))


@lowering("transpose")
def _transpose(c: Context, node: Node) -> Job:
    strides, out = dense(c.shape(node.inputs["x"])), c.shape(node.output)
    permuted = tuple(strides[i] for i in node.attrs["perm"])
    return _move(c, node, Copy(c.root(node, "x"), out, 0, permuted, 0, tuple(dense(out))))


@lowering("expand")
def _expand(c: Context, node: Node) -> Job:
    out = c.shape(node.output)
    strides = _broadcast(c.shape(node.inputs["x"]), out)
    return _move(c, node, Copy(c.root(node, "x"), out, 0, strides, 0, tuple(dense(out))))


@lowering("concat")
def _concat(c: Context, node: Node) -> Job:
    out, axis = dense(c.shape(node.output)), node.attrs["axis"]
    copies, position = [], 0
    for key in node.inputs:
        shape = c.shape(node.inputs[key])
        copies.append(Copy(c.root(node, key), shape, 0, tuple(dense(shape)), position * out[axis], tuple(out)))
        position += shape[axis]
    return _move(c, node, *copies)


@lowering("take")
def _take(c: Context, node: Node) -> Job:
    """One copy for each run of indices that follow each other."""
    x, out, axis = c.shape(node.inputs["x"]), c.shape(node.output), node.attrs["axis"]
    s, t, indices = dense(x), dense(out), node.attrs["indices"]
    copies, first = [], 0
    for i in range(1, len(indices) + 1):
        if i == len(indices) or indices[i] != indices[i - 1] + 1:
            shape = (*x[:axis], i - first, *x[axis + 1 :])
            copies.append(Copy(c.root(node, "x"), shape, indices[first] * s[axis], tuple(s), first * t[axis], tuple(t)))
            first = i
    return _move(c, node, *copies)


@lowering("pad")
def _pad(c: Context, node: Node) -> Job:
    """Fill, then copy (mode constant; the others are refused)."""
    from qcc import numerics

    x, out = c.shape(node.inputs["x"]), c.shape(node.output)
    strides, pads = tuple(dense(out)), node.attrs["pads"]
    q = c.graph.types[node.inputs["x"]].qparams
    value = int(numerics.quantize(node.attrs["value"], q)) if q else int(node.attrs["value"])
    offset = sum(before * s for (before, _), s in zip(pads, strides, strict=True))
    return _move(c, node, Copy(None, out, 0, (0,) * len(out), 0, strides, value),
                 Copy(c.root(node, "x"), x, 0, tuple(dense(x)), offset, strides))  # fmt: skip
