"""Elementwise operators: imported models compute what ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_support import check, floats, model, op

from qcc.frontend.onnx import load

FUNCTIONS: dict[str, tuple[str, dict[str, Any], int]] = {
    **{name: (name, {}, 17) for name in (
        "Relu", "Sigmoid", "Tanh", "Erf", "Exp", "Neg", "Abs", "Floor", "Ceil", "Softsign", "HardSwish", "Softplus",
        "HardSigmoid", "LeakyRelu", "Elu", "Selu", "Identity")},
    "Mish": ("Mish", {}, 18),
    "Gelu": ("Gelu", {}, 20),
    "Gelu_tanh": ("Gelu", {"approximate": "tanh"}, 20),
    "HardSigmoid_parameters": ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}, 17),
    "LeakyRelu_alpha": ("LeakyRelu", {"alpha": 0.3}, 17),
    "Elu_alpha": ("Elu", {"alpha": 0.7}, 17),
    "Selu_parameters": ("Selu", {"alpha": 1.5, "gamma": 1.2}, 17),
    "Clip_old": ("Clip", {"min": -0.5, "max": 1.25}, 6 + 4),
    "Clip_old_low": ("Clip", {"min": 0.0}, 7),
    "Dropout_old": ("Dropout", {"ratio": 0.5}, 7),
    "Dropout": ("Dropout", {}, 13),
}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_function(case: str) -> None:
    kind, attributes, opset = FUNCTIONS[case]
    nodes = [op(kind, "x", "t", **attributes), op("Neg", "t")]
    check(model(nodes, {"x": (2, 3, 4, 5)}, opset=opset))


@pytest.mark.parametrize("kind", ["Log", "Sqrt", "Reciprocal"])
def test_function_of_positive_numbers(kind: str) -> None:
    check(model(op(kind, "x"), {"x": (3, 4)}), low=0.1, high=4)


def test_swish() -> None:
    node = op("Swish", "x", alpha=1.5)
    graph = load(model(node, {"x": (3,)}, opset=24))
    assert graph.nodes[0].attrs["expr"] == ("mul", "x", ("sigmoid", ("mul", "x", 1.5)))


@pytest.mark.parametrize("inputs", ["x l h", "x l", "x - h"])
def test_clip_by_inputs(inputs: str) -> None:
    check(model(op("Clip", inputs), {"x": (2, 5)}, {"l": np.float32(-1), "h": np.float32(0.5)}))


def test_clip_with_crossed_bounds_is_the_upper_one() -> None:
    check(model(op("Clip", "x l h"), {"x": (2, 5)}, {"l": np.float32(1), "h": np.float32(0.5)}))


def test_clip_to_everything_is_nothing() -> None:
    limits = np.finfo(np.float32)
    nodes = [op("Clip", "x l h", "c"), op("Clip", "c", "d"), op("Neg", "d")]
    graph = check(model(nodes, {"x": (2, 5)}, {"l": limits.min, "h": limits.max}))
    assert len(graph.nodes) == 1


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Max", "Min"])
@pytest.mark.parametrize(("a", "b"), [
    ((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (3, 1)), ((4,), (2, 3, 4)), ((2, 1, 4), (3, 1)),
])
def test_two_activations(kind: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    check(model(op(kind, "a b"), {"a": a, "b": b}))


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 1), (), (1,), (5, 2, 3, 4)])
@pytest.mark.parametrize("inputs", ["x c", "c x"])
def test_activation_and_constant(kind: str, shape: tuple[int, ...], inputs: str) -> None:
    if kind == "Div":
        check(model(op("Div", inputs), {"x": (2, 3, 4)}, {"c": floats(*shape, low=0.5)}), low=0.5)
    else:
        check(model(op(kind, inputs), {"x": (2, 3, 4)}, {"c": floats(*shape)}))


def test_constant_of_lower_rank_gets_leading_ones() -> None:
    graph = load(model(op("Add", "x c"), {"x": (1, 3, 4, 4)}, {"c": floats(3, 1, 1)}))
    assert [c.shape for c in graph.constants.values()] == [(1, 3, 1, 1)]


@pytest.mark.parametrize("kind", ["Max", "Min", "Sum", "Mean"])
def test_several_operands(kind: str) -> None:
    check(model(op(kind, "a b c k"), {"a": (2, 3, 4), "b": (4,), "c": (3, 1)}, {"k": floats(3, 4)}))
    check(model(op(kind, "a"), {"a": (2, 3)}))


def test_power() -> None:
    check(model(op("Pow", "x c"), {"x": (2, 5)}, {"c": np.float32(2)}))
    check(model(op("Pow", "x c"), {"x": (2, 5)}, {"c": np.float32(0.5)}), low=0.1)
    check(model(op("Pow", "x c"), {"x": (2, 5)}, {"c": np.array([3], np.int64)}))
    check(model(op("Pow", "c x"), {"x": (2, 5)}, {"c": np.float32(1.7)}))


@pytest.mark.parametrize(("shape", "slope"), [
    ((2, 3, 4, 5), (3, 1, 1)), ((2, 3, 4, 5), (1, 3, 1, 1)), ((2, 3, 4, 5), (1,)), ((2, 3, 4), (4,)), ((2, 3), (3,)),
    ((2, 3, 4, 5), ()), ((2, 3, 5), (3, 1)),
])
def test_prelu(shape: tuple[int, ...], slope: tuple[int, ...]) -> None:
    check(model(op("PRelu", "x s"), {"x": shape}, {"s": floats(*slope)}))


def test_gelu_written_with_erf() -> None:
    nodes = [op("Div", "x r", "a"), op("Erf", "a", "b"), op("Add", "b one", "c"), op("Mul", "x c", "d"),
             op("Mul", "d half")]
    constants = {"r": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    check(model(nodes, {"x": (2, 7)}, constants))
