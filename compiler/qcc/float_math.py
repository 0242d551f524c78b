"""Functions of float32 that give the same bits on every machine: each formula once, for NumPy and for generated code.

A ``Machine`` has the operations that IEEE 754 defines to the bit: sums, products, quotients, square roots and fused
multiply-adds, each rounded once, half to even. Exponential and logarithm are polynomials on a reduced range
(``tests/test_float_math.py`` has the error bounds): libm would be as exact, and differ between systems.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Value = Any
"""float32: an array, or an expression of generated code."""


class Machine(Protocol):
    """Operations of float32, rounded once each. ``maximum(a, b)`` is ``a if a > b else b``, which settles signed zeros
    (``minimum`` alike)."""

    def const(self, like: Value, value: float) -> Value:
        """A constant, rounded to float32."""

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""

    def sub(self, a: Value, b: Value) -> Value:
        """a - b."""

    def mul(self, a: Value, b: Value) -> Value:
        """a * b."""

    def div(self, a: Value, b: Value) -> Value:
        """a / b."""

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once."""

    def maximum(self, a: Value, b: Value) -> Value:
        """a if a > b else b."""

    def minimum(self, a: Value, b: Value) -> Value:
        """a if a < b else b."""

    def where_ge0(self, c: Value, then: Value, other: Value) -> Value:
        """then where c >= 0, else other."""

    def sqrt(self, a: Value) -> Value:
        """Square root."""

    def rint(self, a: Value) -> Value:
        """To the nearest whole number, half to even."""

    def floor(self, a: Value) -> Value:
        """Downwards to a whole number."""

    def ceil(self, a: Value) -> Value:
        """Upwards to a whole number."""

    def magnitude(self, a: Value) -> Value:
        """The absolute value."""

    def power_of_two(self, n: Value) -> Value:
        """2^n for whole n in -126..127."""

    def split(self, a: Value) -> tuple[Value, Value]:
        """(m, e), m in [sqrt(1/2), sqrt(2)) and whole e, with a = m * 2^e, of a normal a > 0."""


EXP_LOWEST, EXP_HIGHEST = -87.0, 88.0
"""Arguments beyond are taken as these: the results stay normal and finite."""
LOG_LEAST = 2.0**-126
LOG2_E, LN2_HIGH, LN2_LOW = 1.4426950408889634, 0.693359375, -2.12194440e-4
EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
LOG = (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
       2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # fmt: skip
"""Cephes, expf and logf (S. Moshier)."""
ERF_P, ERF = 0.3275911, (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
"""Abramowitz and Stegun, 7.1.26: absolute error below 1.5e-7."""
TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
"""Cephes, tanhf, for |x| < 0.625."""


def polynomial(m: Machine, x: Value, coefficients: tuple[float, ...]) -> Value:
    """Horner's rule, the highest power first."""
    value = m.const(x, coefficients[0])
    for c in coefficients[1:]:
        value = m.fma(value, x, m.const(x, c))
    return value


def exp(m: Machine, x: Value) -> Value:
    """e^x, relative error below 2^-22 between ``EXP_LOWEST`` and ``EXP_HIGHEST``."""
    x = m.minimum(m.maximum(x, m.const(x, EXP_LOWEST)), m.const(x, EXP_HIGHEST))
    n = m.rint(m.mul(x, m.const(x, LOG2_E)))
    r = m.fma(n, m.const(x, -LN2_HIGH), x)
    r = m.fma(n, m.const(x, -LN2_LOW), r)
    tail = m.fma(polynomial(m, r, EXP), m.mul(r, r), r)
    return m.mul(m.add(tail, m.const(x, 1.0)), m.power_of_two(n))


def log(m: Machine, x: Value) -> Value:
    """Natural logarithm of x > 0; what is below 2^-126 counts as that."""
    fraction, exponent = m.split(m.maximum(x, m.const(x, LOG_LEAST)))
    r = m.sub(fraction, m.const(x, 1.0))
    square = m.mul(r, r)
    tail = m.fma(exponent, m.const(x, LN2_LOW), m.mul(m.mul(polynomial(m, r, LOG), r), square))
    tail = m.fma(square, m.const(x, -0.5), tail)
    return m.fma(exponent, m.const(x, LN2_HIGH), m.add(r, tail))


def sigmoid(m: Machine, x: Value) -> Value:
    """1 / (1 + e^-x)."""
    one = m.const(x, 1.0)
    return m.div(one, m.add(one, exp(m, negative(m, x))))


def tanh(m: Machine, x: Value) -> Value:
    """An odd polynomial near 0; beyond 1 - 2 / (e^2|x| + 1), with the sign of x."""
    one, size = m.const(x, 1.0), m.magnitude(x)
    far = m.sub(one, m.div(m.const(x, 2.0), m.add(exp(m, m.mul(size, m.const(x, 2.0))), one)))
    far = m.where_ge0(x, far, negative(m, far))
    square = m.mul(x, x)
    near = m.fma(m.mul(polynomial(m, square, TANH), square), x, x)
    return m.where_ge0(m.sub(size, m.const(x, 0.625)), far, near)


def erf(m: Machine, x: Value) -> Value:
    """The error function."""
    one, size = m.const(x, 1.0), m.magnitude(x)
    t = m.div(one, m.fma(size, m.const(x, ERF_P), one))
    tail = m.mul(m.mul(polynomial(m, t, ERF), t), exp(m, negative(m, m.mul(size, size))))
    return m.where_ge0(x, m.sub(one, tail), m.sub(tail, one))


def power(m: Machine, x: Value, exponent: float) -> Value:
    """x^exponent: whole exponents up to 8 by multiplication, a square root, else ``e^(exponent log x)`` of x >= 0."""
    one = m.const(x, 1.0)
    if exponent == int(exponent) and abs(exponent) <= 8:
        value = one
        for _ in range(abs(int(exponent))):
            value = x if value is one else m.mul(value, x)
        return m.div(one, value) if exponent < 0 else value
    if abs(exponent) == 0.5:
        return m.sqrt(x) if exponent > 0 else m.div(one, m.sqrt(x))
    return exp(m, m.mul(log(m, x), m.const(x, exponent)))


def elu(m: Machine, x: Value, alpha: float) -> Value:
    """x where x >= 0, else alpha (e^x - 1)."""
    low = m.minimum(x, m.const(x, 0.0))
    return m.where_ge0(x, x, m.mul(m.const(x, alpha), m.sub(exp(m, low), m.const(x, 1.0))))


def leaky(m: Machine, x: Value, alpha: float) -> Value:
    """x where x >= 0, else alpha x."""
    return m.where_ge0(x, x, m.mul(m.const(x, alpha), x))


def clip(m: Machine, x: Value, low: float, high: float) -> Value:
    """Between low and high; an infinite limit is none."""
    x = x if low == -float("inf") else m.maximum(x, m.const(x, low))
    return x if high == float("inf") else m.minimum(x, m.const(x, high))


def grid(m: Machine, x: Value, step: float, zero_point: float) -> Value:
    """The nearest of the 256 values of an int8 with these parameters."""
    whole = clip(m, m.rint(m.div(x, m.const(x, step))), -128.0 - zero_point, 127.0 - zero_point)
    return m.mul(whole, m.const(x, step))


def negative(m: Machine, x: Value) -> Value:
    """0 - x."""
    return m.sub(m.const(x, 0.0), x)


def evaluate(m: Machine, expr: Any, x: Value) -> Value:
    """An expression of ``ops.pointwise``, function by function."""
    if not isinstance(expr, tuple):
        return x if expr == "x" else m.const(x, expr)
    name = expr[0]
    if name in OPERATIONS:
        method, count = OPERATIONS[name]
        return getattr(m, method)(*(evaluate(m, operand, x) for operand in expr[1 : 1 + count]))
    return FUNCTIONS[name](m, evaluate(m, expr[1], x), *expr[2:])


OPERATIONS = {"add": ("add", 2), "sub": ("sub", 2), "mul": ("mul", 2), "div": ("div", 2), "max": ("maximum", 2),
              "min": ("minimum", 2), "abs": ("magnitude", 1), "sqrt": ("sqrt", 1), "floor": ("floor", 1),
              "ceil": ("ceil", 1), "where_ge0": ("where_ge0", 3)}  # fmt: skip
"""Functions of ``ops.pointwise`` that are one operation: its name here, and how many operands it takes."""
FUNCTIONS: dict[str, Callable[..., Value]] = {
    "neg": negative, "exp": exp, "log": log, "erf": erf, "tanh": tanh, "sigmoid": sigmoid, "clip": clip, "pow": power,
    "elu": elu, "leaky": leaky, "grid": grid,
}  # fmt: skip
"""The others; together they are all of ``ops.pointwise.FUNCTIONS``."""
