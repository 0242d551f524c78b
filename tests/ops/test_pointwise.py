"""Expressions: values against ONNX Runtime and closed forms, composition, recognition of clips."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from qcc.ops.pointwise import FUNCTIONS, compose, evaluate, is_clip, problem

X = np.linspace(-4, 4, 81)
POSITIVE = np.linspace(0.1, 4, 40)
PEERS: list[tuple[Any, str, dict[str, Any]]] = [
    (("neg", "x"), "Neg", {}),
    (("abs", "x"), "Abs", {}),
    (("exp", "x"), "Exp", {}),
    (("log", "x"), "Log", {}),
    (("sqrt", "x"), "Sqrt", {}),
    (("erf", "x"), "Erf", {}),
    (("tanh", "x"), "Tanh", {}),
    (("sigmoid", "x"), "Sigmoid", {}),
    (("floor", "x"), "Floor", {}),
    (("ceil", "x"), "Ceil", {}),
    (("elu", "x", 0.7), "Elu", {"alpha": 0.7}),
    (("leaky", "x", 0.2), "LeakyRelu", {"alpha": 0.2}),
    (("mul", "x", ("clip", ("add", ("div", "x", 6.0), 0.5), 0.0, 1.0)), "HardSwish", {}),
]
BY_FORMULA: list[tuple[Any, Any]] = [
    (("add", "x", 2.0), X + 2),
    (("sub", 1.0, "x"), 1 - X),
    (("mul", "x", "x"), X * X),
    (("div", "x", 4.0), X / 4),
    (("max", "x", 0.5), np.maximum(X, 0.5)),
    (("min", ("neg", "x"), 0.5), np.minimum(-X, 0.5)),
    (("clip", "x", -1.0, math.inf), np.maximum(X, -1)),
    (("pow", "x", 3.0), X**3),
    (("grid", "x", 0.03, -7.0), (np.clip(np.rint(X / 0.03) - 7, -128, 127) + 7) * 0.03),
    (("where_ge0", ("sub", "x", 1.0), "x", 7.0), np.where(X >= 1, X, 7)),
    (3.0, np.full(81, 3.0)),
    ("x", X),
]


@pytest.mark.parametrize(("expr", "op", "attributes"), PEERS)
def test_against_onnx_runtime(expr: Any, op: str, attributes: dict[str, Any]) -> None:
    x = (POSITIVE if op in ("Log", "Sqrt") else X).astype(np.float32)
    kinds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], **attributes)], "peer", kinds[:1], kinds[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    (peer,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    found = evaluate(expr, x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, peer, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(("expr", "expected"), BY_FORMULA)
def test_by_formula(expr: Any, expected: Any) -> None:
    found = evaluate(expr, X)
    assert found.dtype == np.float64
    assert found.shape == X.shape
    np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_every_function_is_tested() -> None:
    def functions(expr: Any) -> set[str]:
        return {expr[0]}.union(*map(functions, expr[1:])) if isinstance(expr, tuple) else set()

    assert set().union(*(functions(case[0]) for case in [*PEERS, *BY_FORMULA])) == set(FUNCTIONS)


def test_outside_the_domain() -> None:
    """No warning (they are errors here); NumPy's values."""
    with np.errstate(all="raise"):
        y = evaluate(("log", "x"), np.array([-1.0, 0.0, 1.0]))
    assert np.isnan(y[0])
    assert y[1:].tolist() == [-math.inf, 0]


def test_compose() -> None:
    outer, inner = ("mul", "x", ("sigmoid", ("mul", "x", 2.0))), ("clip", ("add", "x", 1.0), 0.0, 6.0)
    both = compose(outer, inner)
    assert problem(both) == ""
    np.testing.assert_array_equal(evaluate(both, X), evaluate(outer, evaluate(inner, X)))
    assert compose("x", inner) == inner
    assert compose(2.0, inner) == 2.0


def test_is_clip() -> None:
    assert is_clip(("clip", "x", 0.0, math.inf)) == (0.0, math.inf)
    assert is_clip(("clip", ("neg", "x"), 0.0, 1.0)) is None
    assert is_clip("x") is None
    assert is_clip(("neg", "x")) is None
