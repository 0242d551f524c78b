"""Matrix products, normalization, softmax, reductions: imported models compute what ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_support import check, floats, model, op

from qcc.frontend.onnx import load
from qcc.ir.evaluate import run_float


@pytest.mark.parametrize("a_turned", [0, 1])
@pytest.mark.parametrize("b_turned", [0, 1])
@pytest.mark.parametrize("known", ["a", "b", ""])
@pytest.mark.parametrize("bias", [None, (), (1,), (5,), (1, 5), (3, 1), (3, 5)])
def test_gemm(a_turned: int, b_turned: int, known: str, bias: tuple[int, ...] | None) -> None:
    shapes = {"a": (4, 3) if a_turned else (3, 4), "b": (5, 4) if b_turned else (4, 5)}
    constants = {k: floats(*shapes.pop(k)) for k in known}
    node = op("Gemm", "a b" if bias is None else "a b c", transA=a_turned, transB=b_turned, alpha=0.5, beta=1.5)
    check(model(node, shapes, constants | ({} if bias is None else {"c": floats(*bias)})))
    if bias is not None:
        check(model(node, {**shapes, "c": bias}, constants))


def test_gemm_becomes_dense_with_bias() -> None:
    graph = load(model(op("Gemm", "x w b"), {"x": (2, 3)}, {"w": floats(3, 4), "b": floats(4)}))
    assert [(n.op, n.inputs) for n in graph.nodes] == [("dense", {"x": "x", "w": "w", "b": "b"})]
    assert graph.constants["w"].shape == (4, 3)


@pytest.mark.parametrize(("a", "b"), [
    ((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 6, 3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)),
    ((2, 3, 4), (4,)), ((3, 4), (1, 4, 5)), ((1, 3, 4), (1, 1, 4, 5)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (6, 4, 5)),
    ((4,), (2, 4, 5)),
])
@pytest.mark.parametrize("known", ["a", "b", ""])
def test_matmul(a: tuple[int, ...], b: tuple[int, ...], known: str) -> None:
    shapes = {"a": a, "b": b}
    constants = {k: floats(*shapes.pop(k)) for k in known}
    check(model(op("MatMul", "a b"), shapes, constants))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4), (2, 3)])
@pytest.mark.parametrize("opset", [7, 9, 15])
def test_batch_normalization(shape: tuple[int, ...], opset: int) -> None:
    constants = {"s": floats(3), "b": floats(3), "m": floats(3), "v": floats(3, low=0.5)}
    check(model(op("BatchNormalization", "x s b m v", epsilon=0.01), {"x": shape}, constants, opset=opset))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, None])
@pytest.mark.parametrize("opset", [11, 13])
def test_softmax(axis: int | None, opset: int) -> None:
    attributes = {} if axis is None else {"axis": axis}
    check(model(op("Softmax", "x", **attributes), {"x": (2, 3, 4)}, opset=opset))


@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceSum", "ReduceMax"])
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", [None, [2, 3], [1], [-1, 0], [3, 2]])
def test_reduction(kind: str, keep: int, axes: list[int] | None) -> None:
    shape = {"x": (2, 3, 4, 5)}
    attributes: dict[str, Any] = {} if axes is None else {"axes": axes}
    check(model(op(kind, "x", keepdims=keep, **attributes), shape, opset=11))
    constants = {} if axes is None else {"a": axes}
    check(model(op(kind, "x" if axes is None else "x a", keepdims=keep), shape, constants, opset=18))


def test_reduction_over_no_axes() -> None:
    nodes = [op("ReduceSum", "x a", "r", noop_with_empty_axes=1), op("Neg", "r")]
    check(model(nodes, {"x": (2, 3)}, {"a": np.zeros(0, np.int64)}))


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axis", [0, -1, 1])
def test_argmax(axis: int, keep: int) -> None:
    node = op("ArgMax", "x", axis=axis, keepdims=keep)
    check(model(node, {"x": (2, 3, 4)}, integer_outputs=True), tolerance=0)


def test_argmax_takes_the_first_maximum_and_may_be_cast() -> None:
    nodes = [op("ArgMax", "x", "i", axis=1), op("Cast", "i", "y", to=7)]
    graph = load(model(nodes, {"x": (1, 4)}, integer_outputs=True))
    y = run_float(graph, {"x": np.array([[1, 3, 3, 0]], np.float32)})["y"]
    assert y.dtype == np.int32
    assert y.tolist() == [[1]]
