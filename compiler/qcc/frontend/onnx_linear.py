"""Importers of matrix products, normalization, softmax and reductions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qcc.frontend.onnx_elementwise import full_rank, operand
from qcc.frontend.onnx_node import OnnxNode, importer, normal_axes
from qcc.frontend.refused import Refused, normal_axis
from qcc.numerics import QParams

Floats = NDArray[np.float64]


def _swapped(rank: int) -> tuple[int, ...]:
    """Permutation that exchanges the last two axes."""
    return (*range(rank - 2), rank - 1, rank - 2)


@importer("Gemm")
def gemm(n: OnnxNode) -> str:
    """``alpha * A' B' + beta * C``; one constant factor makes it a dense layer."""
    alpha, beta = float(n.attrs.get("alpha", 1.0)), float(n.attrs.get("beta", 1.0))
    turned = [bool(n.attrs.get("transA", 0)), bool(n.attrs.get("transB", 0))]
    shapes = [n.shape(i)[:: -1 if turned[i] else 1] for i in (0, 1)]
    if any(len(s) != 2 for s in shapes) or shapes[0][1] != shapes[1][0]:
        raise Refused(f"factors of shape {list(n.shape(0))} and {list(n.shape(1))} do not fit")
    (rows, _), (_, columns) = shapes
    bias: Floats | None = None
    if n.is_known(2):
        bias = np.atleast_2d(beta * n.floats(2, "bias").astype(np.float64))
        if bias.ndim > 2 or bias.shape[0] not in (1, rows) or bias.shape[1] not in (1, columns):
            raise Refused(f"its bias of shape {list(n.shape(2))} does not broadcast to {[rows, columns]}")
    if n.is_known(1):
        w = alpha * n.floats(1, "weights").astype(np.float64)
        grid = n.weight_grid(1, 0 if turned[1] else 1, factor=alpha)
        y = _dense(n, _maybe_turned(n, 0, turned[0]), w if turned[1] else w.T, 1, grid, bias)
        return _add_gemm_bias(n, y, beta)
    if n.is_known(0):
        w = alpha * n.floats(0, "weights").astype(np.float64)
        grid = n.weight_grid(0, 1 if turned[0] else 0, factor=alpha)
        x = _maybe_turned(n, 1, not turned[1])
        y = _dense(n, x, w.T if turned[0] else w, 0, grid, None if bias is None else bias.T)
        return _add_gemm_bias(n, n.transpose(y, (1, 0)), beta)
    y = n.emit("matmul", {"a": _maybe_turned(n, 0, turned[0]), "b": _maybe_turned(n, 1, turned[1])}, transpose_b=False)
    if alpha != 1:
        y = _scaled(n, y, alpha)
    if bias is not None:
        y = _added(n, y, bias)
    return _add_gemm_bias(n, y, beta)


def _maybe_turned(n: OnnxNode, index: int, turn: bool) -> str:
    return n.transpose(n.value(index), (1, 0) if turn else (0, 1))


def _dense(n: OnnxNode, x: str, w: Floats, weight_input: int, grid: QParams | None, bias: Floats | None) -> str:
    """x [..., K] times w [O, K], which is on the ``grid`` if any.

    ``bias`` [1, O] belongs to the layer; [rows, O] is added behind, and its O may be one.
    """
    inputs = {"x": x, "w": n.constant(n.inputs[weight_input], w, grid)}
    if bias is not None and len(bias) == 1:
        inputs["b"] = n.constant(n.inputs[2], np.broadcast_to(bias[0], (len(w),)))
    y = n.emit("dense", inputs, clamp=None)
    return y if bias is None or len(bias) == 1 else _added(n, y, bias)


def _added(n: OnnxNode, x: str, bias: Floats) -> str:
    return n.emit("add", {"a": x, "b": n.constant(n.inputs[2], bias)}, clamp=None)


def _scaled(n: OnnxNode, x: str, factor: float) -> str:
    ones = np.ones((1,) * len(n.shape_of(x)))
    return n.emit("mul", {"a": x, "b": n.constant(f"{n.outputs[0]}.factor", factor * ones)}, clamp=None)


def _add_gemm_bias(n: OnnxNode, y: str, beta: float) -> str:
    """Add C where it is not constant."""
    if not n.has(2) or n.is_known(2) or beta == 0:
        return y
    c = operand(n, 2, 2)
    return n.emit("add", {"a": y, "b": _scaled(n, c, beta) if beta != 1 else c}, clamp=None)


@importer("MatMul")
def matmul(n: OnnxNode) -> str:
    """A constant matrix makes it a dense layer; vectors are matrices with one row or column."""
    ranks = [len(n.shape(0)), len(n.shape(1))]
    if min(ranks) == 0:
        raise Refused("a factor is a scalar")
    known = [i for i in (0, 1) if n.is_known(i) and math.prod(n.shape(i)[:-2]) == 1]
    if not known:
        return _squeezed(n, n.emit("matmul", {"a": _matrix(n, 0), "b": _matrix(n, 1)}, transpose_b=False), ranks)
    side = known[0]
    w = n.floats(side, "weights").astype(np.float64)
    grid = n.weight_grid(side, -1 if side == 1 else -2) if w.ndim > 1 else None
    if w.ndim == 1:
        w = w[:, None] if side == 1 else w[None]
    x = _matrix(n, 1 - side)
    rank = max(*ranks, 2)
    x = n.reshape(x, full_rank(n.shape_of(x), rank))
    w = w.reshape(w.shape[-2:])
    if side == 1:
        y = _dense(n, x, w.T, 1, grid, None)
    else:
        y = n.transpose(_dense(n, n.transpose(x, _swapped(rank)), w, 0, grid, None), _swapped(rank))
    return _squeezed(n, y, ranks)


def _matrix(n: OnnxNode, index: int) -> str:
    """An activation; a vector becomes a row (left) or a column (right)."""
    shape = n.shape(index)
    return n.reshape(n.value(index), shape if len(shape) > 1 else ((1, *shape) if index == 0 else (*shape, 1)))


def _squeezed(n: OnnxNode, y: str, ranks: list[int]) -> str:
    """Drop the row or column that a vector became."""
    shape = list(n.shape_of(y))
    if ranks[1] == 1:
        del shape[-1]
    if ranks[0] == 1:
        del shape[-1 if ranks[1] == 1 else -2]
    return n.reshape(y, shape)


@importer("BatchNormalization")
def batch_normalization(n: OnnxNode) -> str:
    """Channels (axis 1) go last."""
    if n.attrs.get("training_mode", 0) or not n.attrs.get("spatial", 1):
        raise Refused("training_mode, or spatial = 0, is not supported", "export the model for inference")
    shape = n.shape(0)
    if len(shape) < 2:
        raise Refused(f"its input has shape {list(shape)}, without channels")
    keys = ("weight", "bias", "mean", "variance")
    statistics = {key: n.floats(i, key) for i, key in enumerate(keys, start=1)}
    if any(array.shape != (shape[1],) for array in statistics.values()):
        raise Refused(f"its statistics do not fit {shape[1]} channels")
    epsilon = float(n.attrs.get("epsilon", 1e-5))
    lowest = float(statistics["variance"].min(initial=np.inf))
    if not lowest + epsilon > 0:
        raise Refused(f"its variance {lowest:g} with epsilon {epsilon:g} is not positive", "train the model again")
    inputs = {key: n.value(i) for i, key in enumerate(keys, start=1)}
    order = (0, *range(2, len(shape)), 1)
    x = n.transpose(n.value(0), order)
    y = n.emit("batch_norm", {"x": x, **inputs}, epsilon=epsilon)
    return n.transpose(y, (0, len(shape) - 1, *range(1, len(shape) - 1)))


@importer("Softmax")
def softmax(n: OnnxNode) -> str:
    """Along one axis; before opset 13 over all axes from ``axis`` on, together."""
    x, shape = n.value(0), n.shape(0)
    axis = normal_axis(int(n.attrs.get("axis", 1 if n.opset < 13 else -1)), max(len(shape), 1))
    if not shape:
        raise Refused("its input is a scalar")
    if n.opset < 13:
        flat = n.reshape(x, (*shape[:axis], math.prod(shape[axis:])))
        return n.reshape(n.emit("softmax", {"x": flat}), shape)
    order = [*(i for i in range(len(shape)) if i != axis), axis]
    y = n.emit("softmax", {"x": n.transpose(x, order)})
    return n.transpose(y, tuple(int(i) for i in np.argsort(order)))


@importer("ReduceMean", "ReduceSum", "ReduceMax")
def reduction(n: OnnxNode) -> str:
    """Axes are an attribute or, later, an input; none means all. The spatial ones are reduced with channels last."""
    x, shape = n.value(0), n.shape(0)
    given = n.integers(1, "axes") if n.has(1) else n.ints("axes", ())
    if not given and n.attrs.get("noop_with_empty_axes", 0):
        return x
    axes = normal_axes(given or range(len(shape)), len(shape))
    if not axes:  # of a scalar
        return x
    keep = bool(n.attrs.get("keepdims", 1))
    op = {"ReduceMean": "reduce_mean", "ReduceSum": "reduce_sum", "ReduceMax": "reduce_max"}[n.op]
    if len(shape) == 4 and axes == (2, 3):
        y = n.emit(op, {"x": n.transpose(x, (0, 2, 3, 1))}, axes=(1, 2), keepdims=keep)
        return n.transpose(y, (0, 3, 1, 2)) if keep else y
    return n.emit(op, {"x": x}, axes=axes, keepdims=keep)


@importer("ArgMax")
def argmax(n: OnnxNode) -> str:
    """The first maximum wins; the result is int32."""
    if n.attrs.get("select_last_index", 0):
        raise Refused("select_last_index is not supported", "export it with select_last_index = 0")
    x, shape = n.value(0), n.shape(0)
    axis = normal_axis(int(n.attrs.get("axis", 0)), len(shape))
    return n.emit("argmax", {"x": x}, axis=axis, keepdims=bool(n.attrs.get("keepdims", 1)))
