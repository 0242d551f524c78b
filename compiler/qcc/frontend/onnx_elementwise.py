"""Importers of elementwise operators: a function of one tensor becomes ``pointwise``, others add, mul, maximum …"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np

from qcc.frontend.onnx_node import OnnxNode, importer
from qcc.frontend.refused import Refused
from qcc.ir.graph import Attr

X = "x"
INF = math.inf
SIMPLE: dict[str, Attr] = {
    "Relu": ("clip", X, 0.0, INF),
    "Sigmoid": ("sigmoid", X),
    "Tanh": ("tanh", X),
    "Erf": ("erf", X),
    "Exp": ("exp", X),
    "Log": ("log", X),
    "Sqrt": ("sqrt", X),
    "Neg": ("neg", X),
    "Abs": ("abs", X),
    "Floor": ("floor", X),
    "Ceil": ("ceil", X),
    "Reciprocal": ("div", 1.0, X),
    "Softsign": ("div", X, ("add", 1.0, ("abs", X))),
    "HardSwish": ("mul", X, ("clip", ("add", ("div", X, 6.0), 0.5), 0.0, 1.0)),
}
SOFTPLUS: Attr = ("add", ("max", X, 0.0), ("log", ("add", 1.0, ("exp", ("neg", ("abs", X))))))
"""``log(1 + exp(x))`` without overflow."""
SIMPLE |= {"Softplus": SOFTPLUS, "Mish": ("mul", X, ("tanh", SOFTPLUS))}


def pointwise(n: OnnxNode, expr: Attr) -> str:
    """A function of input 0."""
    return n.emit("pointwise", {"x": n.value(0)}, expr=expr)


@importer(*SIMPLE)
def simple(n: OnnxNode) -> str:
    """Functions without attributes."""
    return pointwise(n, SIMPLE[n.op])


def _number(n: OnnxNode, name: str, default: float) -> float:
    return float(n.attrs.get(name, default))


@importer("LeakyRelu")
def leaky_relu(n: OnnxNode) -> str:
    """``x if x >= 0 else alpha * x``."""
    return pointwise(n, ("leaky", X, _number(n, "alpha", 0.01)))


@importer("Elu")
def elu(n: OnnxNode) -> str:
    """``x if x >= 0 else alpha * (exp(x) - 1)``."""
    return pointwise(n, ("elu", X, _number(n, "alpha", 1.0)))


@importer("Selu")
def selu(n: OnnxNode) -> str:
    """``gamma * elu(x, alpha)``; the defaults are ONNX's."""
    alpha, gamma = _number(n, "alpha", 1.67326319217681884765625), _number(n, "gamma", 1.05070102214813232421875)
    return pointwise(n, ("mul", gamma, ("elu", X, alpha)))


@importer("HardSigmoid")
def hard_sigmoid(n: OnnxNode) -> str:
    """``clip(alpha * x + beta, 0, 1)``."""
    line = ("add", ("mul", X, _number(n, "alpha", 0.2)), _number(n, "beta", 0.5))
    return pointwise(n, ("clip", line, 0.0, 1.0))


@importer("Swish")
def swish(n: OnnxNode) -> str:
    """``x * sigmoid(alpha * x)``."""
    return pointwise(n, ("mul", X, ("sigmoid", ("mul", X, _number(n, "alpha", 1.0)))))


@importer("Gelu")
def gelu(n: OnnxNode) -> str:
    """``x / 2 * (1 + erf(x / sqrt 2))``, or its approximation by tanh."""
    approximate = n.attrs.get("approximate", "none")
    if approximate == "none":
        inner: Attr = ("erf", ("mul", X, math.sqrt(0.5)))
    elif approximate == "tanh":
        cubic = ("add", X, ("mul", 0.044715, ("mul", X, ("mul", X, X))))
        inner = ("tanh", ("mul", math.sqrt(2 / math.pi), cubic))
    else:
        raise Refused(f"approximate '{approximate}' is not known", "use 'none' or 'tanh'")
    return pointwise(n, ("mul", ("mul", 0.5, X), ("add", 1.0, inner)))


@importer("Clip")
def clip(n: OnnxNode) -> str:
    """Bounds are attributes before opset 11, then optional inputs."""
    low, high = _number(n, "min", -INF), _number(n, "max", INF)
    if n.opset >= 11:
        low = n.scalar(1, "lower bound") if n.has(1) else -INF
        high = n.scalar(2, "upper bound") if n.has(2) else INF
    if math.isnan(low) or math.isnan(high):
        raise Refused("a bound is not a number")
    limits = np.finfo(np.float32)
    low, high = (low if low > limits.min else -INF), (high if high < limits.max else INF)
    return n.value(0) if (low, high) == (-INF, INF) else pointwise(n, ("clip", X, min(low, high), high))


@importer("PRelu")
def prelu(n: OnnxNode) -> str:
    """One slope: leaky; slopes along the channels or the last axis: ``prelu``."""
    slope, shape = n.floats(1, "slope"), n.shape(0)
    if slope.size == 1:
        return pointwise(n, ("leaky", X, float(slope.reshape(-1)[0])))
    wide = full_rank(slope.shape, len(shape))
    axes = [i for i, d in enumerate(wide) if d != 1]
    fits = len(wide) == len(shape) and len(axes) == 1 and axes[0] in (1, len(shape) - 1)
    if not fits or wide[axes[0]] != shape[axes[0]]:
        raise Refused(f"slopes of shape {list(slope.shape)} for an input of shape {list(shape)}",
                      "use one slope per channel, or a single one")
    axis, rank = axes[0], len(shape)
    order = [*(i for i in range(rank) if i != axis), axis]
    slopes = n.constant(n.inputs[1], slope.reshape(-1))
    y = n.emit("prelu", {"x": n.transpose(n.value(0), order), "slope": slopes})
    return n.transpose(y, tuple(int(i) for i in np.argsort(order)))


def full_rank(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Ones in front, up to ``rank`` axes."""
    return (1,) * (rank - len(shape)) + tuple(shape)


def operand(n: OnnxNode, index: int, rank: int) -> str:
    """An input of a broadcasting operator with ``rank`` axes, so that layouts can be changed axis by axis."""
    shape = n.shape(index)
    if len(shape) < rank and n.is_known(index):
        array = n.floats(index, f"input '{n.inputs[index]}'")
        return n.constant(n.inputs[index], array.reshape(full_rank(shape, rank)), n.operand_grid(index))
    return n.reshape(n.value(index), full_rank(shape, rank))


def _binary(n: OnnxNode, op: str, a: str, b: str) -> str:
    clamp = {} if op in ("maximum", "minimum") else {"clamp": None}
    return n.emit(op, {"a": a, "b": b}, **clamp)


def _rank(n: OnnxNode) -> int:
    """Common rank of all inputs; refuses shapes that do not broadcast."""
    shapes = [n.shape(i) for i in range(len(n.inputs))]
    try:
        return len(np.broadcast_shapes(*shapes))
    except ValueError as error:
        raise Refused(f"shapes {' and '.join(str(list(s)) for s in shapes)} do not broadcast",
                      "check the shapes of its inputs") from error


@importer("Add", "Sub", "Mul")
def arithmetic(n: OnnxNode) -> str:
    """Broadcasting; the operand of lower rank gets ones in front."""
    rank = _rank(n)
    return _binary(n, n.op.lower(), operand(n, 0, rank), operand(n, 1, rank))


@importer("Div")
def divide(n: OnnxNode) -> str:
    """By a constant: multiply by its reciprocal; of a constant: multiply it by the reciprocal of the other."""
    rank = _rank(n)
    if n.is_known(1):
        divisor = n.floats(1, "divisor").astype(np.float64).reshape(full_rank(n.shape(1), rank))
        if not divisor.all():
            raise Refused("it divides by 0", "check its divisor")
        reciprocal = 1 / divisor
        return _binary(n, "mul", operand(n, 0, rank), n.constant(f"{n.inputs[1]}.reciprocal", reciprocal))
    if not n.is_known(0):
        raise Refused("its divisor is not constant", "multiply by a constant, or cut the model in front of this node")
    inverse = n.emit("pointwise", {"x": operand(n, 1, rank)}, expr=("div", 1.0, X))
    return _binary(n, "mul", inverse, operand(n, 0, rank))


@importer("Pow")
def power(n: OnnxNode) -> str:
    """Constant exponent, or constant positive base: ``exp(x * log base)``."""
    if n.is_known(1):
        return pointwise(n, ("pow", X, n.scalar(1, "exponent")))
    base = n.scalar(0, "base or exponent")
    if base <= 0:
        raise Refused(f"its base {base} is not positive")
    return n.emit("pointwise", {"x": n.value(1)}, expr=("exp", ("mul", X, math.log(base))))


@importer("Max", "Min", "Sum", "Mean")
def variadic(n: OnnxNode) -> str:
    """From left to right, two at a time; a constant scalar in Max and Min becomes a clip."""
    rank = _rank(n)
    if n.op in ("Max", "Min") and len(n.inputs) == 2:
        for index in (0, 1):
            if n.is_known(index) and n.array(index, "bound").size == 1 and len(n.shape(1 - index)) == rank:
                bound = n.scalar(index, "bound")
                limits = (bound, INF) if n.op == "Max" else (-INF, bound)
                return n.emit("pointwise", {"x": n.value(1 - index)}, expr=("clip", X, *limits))
    op = {"Max": "maximum", "Min": "minimum"}.get(n.op, "add")
    total = reduce(lambda a, b: _binary(n, op, a, b), [operand(n, i, rank) for i in range(len(n.inputs))])
    if n.op != "Mean" or len(n.inputs) == 1:
        return total
    return _binary(n, "mul", total, n.constant(f"{n.outputs[0]}.share", np.full((1,) * rank, 1 / len(n.inputs))))
