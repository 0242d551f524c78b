"""Real functions of one tensor, as expressions; in integers a table of 256 entries.

An expression is the variable ``"x"``, a float, or a tuple ``(function, operand…, constant…)`` with a function of
``FUNCTIONS``: ``("mul", "x", ("sigmoid", "x"))`` is SiLU, ``("clip", "x", 0.0, inf)`` is Relu.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc import float_math, numerics, numerics_float
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.numerics import QParams
from qcc.ops.base import IllegalNode, Op

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext
    from qcc.quantize.convert import Converter

Expr = Any
"""``"x"``, a float, or a tuple of a function's name, operand expressions and float constants."""


@dataclass(frozen=True)
class Function:
    """``compute(*operands, *constants)`` on arrays; the constants are Python floats."""

    operands: int
    constants: int
    compute: Callable[..., Any]


_erf = np.frompyfunc(math.erf, 1, 1)


def _elu(x: Any, alpha: float) -> Any:
    return np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def _grid(x: Any, step: float, zero_point: float) -> Any:
    q = QParams(step, int(zero_point))
    return numerics.dequantize(numerics.quantize(np.nan_to_num(x), q), q)


FUNCTIONS: dict[str, Function] = {
    "add": Function(2, 0, np.add),
    "sub": Function(2, 0, np.subtract),
    "mul": Function(2, 0, np.multiply),
    "div": Function(2, 0, np.divide),
    "max": Function(2, 0, np.maximum),
    "min": Function(2, 0, np.minimum),
    "neg": Function(1, 0, np.negative),
    "abs": Function(1, 0, np.abs),
    "exp": Function(1, 0, np.exp),
    "log": Function(1, 0, np.log),
    "sqrt": Function(1, 0, np.sqrt),
    "erf": Function(1, 0, lambda x: np.asarray(_erf(x), np.float64)),
    "tanh": Function(1, 0, np.tanh),
    "sigmoid": Function(1, 0, lambda x: 1.0 / (1.0 + np.exp(-x))),
    "floor": Function(1, 0, np.floor),
    "ceil": Function(1, 0, np.ceil),
    "clip": Function(1, 2, np.clip),
    "pow": Function(1, 1, np.power),
    "elu": Function(1, 1, _elu),
    "grid": Function(1, 2, _grid),
    "leaky": Function(1, 1, lambda x, alpha: np.where(x >= 0, x, alpha * x)),
    "where_ge0": Function(3, 0, lambda x, then, other: np.where(x >= 0, then, other)),
}
"""Every function of an expression. ``clip`` (low, high), ``pow`` (exponent), ``elu`` and ``leaky`` (alpha) take
constants; ``grid`` (scale, zero point) is what quantizing to int8 leaves of a value; ``where_ge0(c, then, other)`` is
``then`` where c >= 0."""


def evaluate(expr: Expr, x: NDArray[Any]) -> NDArray[Any]:
    """Value of a valid expression at each element of x: x's shape and (float) dtype, computed in float64.

    Outside a function's domain the result is what NumPy says (nan or inf), without a warning.
    """

    def value(e: Expr) -> Any:
        if isinstance(e, tuple):
            function = FUNCTIONS[e[0]]
            operands = [value(operand) for operand in e[1 : 1 + function.operands]]
            return function.compute(*operands, *e[1 + function.operands :])
        return wide if e == "x" else float(e)

    wide = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        return np.array(np.broadcast_to(value(expr), wide.shape), x.dtype)


def compose(outer: Expr, inner: Expr) -> Expr:
    """The expression of ``outer(inner(x))``: every ``"x"`` of ``outer`` becomes ``inner``."""
    if isinstance(outer, tuple):
        count = FUNCTIONS[outer[0]].operands
        return (outer[0], *(compose(e, inner) for e in outer[1 : 1 + count]), *outer[1 + count :])
    return inner if outer == "x" else outer


def problem(expr: Expr) -> str:
    """What is wrong with an expression; empty if nothing is."""
    if isinstance(expr, tuple):
        if not expr or expr[0] not in FUNCTIONS:
            return f"unknown function {expr[0] if expr else '()'!r}"
        name, function = expr[0], FUNCTIONS[expr[0]]
        if len(expr) != 1 + function.operands + function.constants:
            return f"{name} takes {function.operands} operands and {function.constants} constants, got {len(expr) - 1}"
        constants = expr[1 + function.operands :]
        if not all(isinstance(c, float) and not math.isnan(c) for c in constants):
            return f"the constants of {name} must be floats, got {constants}"
        if name != "clip" and not all(map(math.isfinite, constants)):
            return f"the constants of {name} must be finite, got {constants}"
        if name == "grid" and not (0 < constants[0] < math.inf and -128 <= constants[1] <= 127):
            return f"no int8 grid has scale and zero point {constants}"
        if name == "clip" and constants[0] > constants[1]:
            return f"clip limits {constants} are not in order"
        return next(filter(None, map(problem, expr[1 : 1 + function.operands])), "")
    if isinstance(expr, float):
        return "" if math.isfinite(expr) else f"literal {expr} is not finite"
    return "" if expr == "x" else f"{expr!r} is neither 'x' nor a float"


def is_clip(expr: Expr) -> tuple[float, float] | None:
    """Limits (low, high) of an expression that only clips x; None for every other."""
    if isinstance(expr, tuple) and expr[:2] == ("clip", "x"):
        return expr[2], expr[3]
    return None


class Pointwise(Op):
    """``y = expr(x)``, elementwise, any shape. The integer form is a ``lut``."""

    name = "pointwise"
    attributes = ("expr",)

    def infer(self, node: Node, types: Types) -> TensorType:
        """Type of x."""
        x = types["x"]
        self.require(x.dtype == "float32", node, f"wants float32, got {x.dtype}")
        fault = problem(node.attrs["expr"])
        self.require(not fault, node, fault)
        return TensorType(x.shape, x.dtype)

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return evaluate(node.attrs["expr"], x["x"])

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """``float_math.evaluate``."""
        with np.errstate(all="ignore"):
            y = float_math.evaluate(numerics_float.NUMPY, node.attrs["expr"], x["x"])
        return np.array(np.broadcast_to(y, x["x"].shape), np.float32)

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """Raises ``IllegalNode``."""
        raise IllegalNode("pointwise belongs to float graphs: its integer form is lut", where=node.output)

    def quantize(self, node: Node, convert: Converter) -> None:
        """A ``lut`` with the function's image of every input value."""
        x, out = convert.qparams(node.inputs["x"]), convert.qparams(node.output)
        table = numerics.lookup_table(lambda v: evaluate(node.attrs["expr"], v), x, out)
        inputs = {"x": convert.value(node.inputs["x"]), "table": convert.emit_constant(node.output + ".table", table)}
        convert.emit(node, "lut", inputs, {})

    def float_kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.floats``."""
        from qcc.lower.floats import pointwise_calls

        return pointwise_calls(node, ctx)


class Lut(Op):
    """``y = table[x + 128]``; x int8 of any shape, constant table int8 [256]. Integer programs only."""

    name = "lut"
    required = ("x", "table")

    def infer(self, node: Node, types: Types) -> TensorType:
        """Type of x."""
        x, table = types["x"], types["table"]
        self.require(x.dtype == "int8", node, f"wants int8, got {x.dtype}")
        self.require((table.dtype, table.shape) == ("int8", (256,)), node,
                     f"table must be int8[256], got {table.dtype}{list(table.shape)}")
        return TensorType(x.shape, "int8")

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """Raises ``IllegalNode``."""
        raise IllegalNode("lut belongs to integer programs", where=node.output)

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """As in the class docstring."""
        return np.asarray(x["table"][x["x"].astype(np.int16) + 128])

    def quantize(self, node: Node, convert: Converter) -> None:
        """Raises ``IllegalNode``."""
        raise IllegalNode("lut belongs to integer programs", where=node.output)

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.elementwise``."""
        from qcc.lower.elementwise import lut_calls

        return lut_calls(node, ctx)
