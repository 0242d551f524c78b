"""Functions of float32: their error against float64, and that they are those of pointwise expressions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from qcc import float_math
from qcc.numerics_float import NUMPY
from qcc.ops import pointwise

RNG = np.random.default_rng(5)
erf = np.vectorize(math.erf)


def error(function: Callable[..., object], exact: Callable[..., np.ndarray], x: np.ndarray) -> np.ndarray:
    """Difference from the exact value."""
    x = x.astype(np.float32)
    return np.abs(np.asarray(function(NUMPY, x), np.float64) - exact(x.astype(np.float64)))


def test_exp() -> None:
    x = RNG.uniform(float_math.EXP_LOWEST, float_math.EXP_HIGHEST, 200_000)
    assert (error(float_math.exp, np.exp, x) / np.exp(x.astype(np.float32).astype(np.float64))).max() < 2.0**-22
    assert np.isfinite(np.asarray(float_math.exp(NUMPY, np.array([-1e30, 1e30], np.float32)))).all()


def test_log() -> None:
    x = 2.0 ** RNG.uniform(-125, 127, 200_000)
    assert (error(float_math.log, np.log, x) / np.maximum(1, np.abs(np.log(x)))).max() < 2.0**-22
    near = RNG.uniform(0.5, 2, 100_000)
    assert error(float_math.log, np.log, near).max() < 2.0**-23


@pytest.mark.parametrize(
    ("function", "exact", "bound"),
    [(float_math.sigmoid, lambda x: 1 / (1 + np.exp(-x)), 2.0**-22), (float_math.tanh, np.tanh, 2.0**-22),
     (float_math.erf, erf, 2.0**-20)],
)  # fmt: skip
def test_bounded_functions(function: Callable[..., object], exact: Callable[..., np.ndarray], bound: float) -> None:
    x = np.concatenate([RNG.normal(size=100_000) * scale for scale in (0.1, 1, 5)])
    assert error(function, exact, x).max() < bound


@pytest.mark.parametrize("exponent", [2.0, 3.0, -1.0, 0.5, -0.5, 1.5, -2.25, 0.0])
def test_power(exponent: float) -> None:
    x = RNG.uniform(0.1, 10, 20_000)
    got = error(lambda m, v: float_math.power(m, v, exponent), lambda v: v**exponent, x)
    assert (got / x.astype(np.float32) ** exponent).max() < 2.0**-20


def test_the_functions_are_those_of_pointwise() -> None:
    assert float_math.OPERATIONS.keys() | float_math.FUNCTIONS.keys() == pointwise.FUNCTIONS.keys()
    assert {name: count for name, (_, count) in float_math.OPERATIONS.items()} == {
        name: pointwise.FUNCTIONS[name].operands for name in float_math.OPERATIONS
    }
