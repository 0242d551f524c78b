"""TFLite's rules against definitions in exact integers, and its functions against real ones."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from qcc import numerics_tflite as nt
from qcc.numerics import QParams

SEED = 11
EDGES = [0, 1, -1, 2, -2, 3, -3, 2**30, -(2**30), 2**31 - 1, -(2**31)]


def half_up(v: Fraction) -> int:
    return math.floor(v + Fraction(1, 2))


def half_away(v: Fraction) -> int:
    return half_up(abs(v)) * (-1 if v < 0 else 1)


def draws(count: int) -> list[int]:
    rng = np.random.default_rng(SEED)
    wide = rng.integers(-(2**31), 2**31, count).tolist()
    return [*EDGES, *wide, *(int(v) >> int(s) for v, s in zip(wide, rng.integers(1, 31, count), strict=True))]


@pytest.mark.parametrize("multiplier", [1 << 30, 2**31 - 1, 1518500250, -(1 << 30), 3])
def test_high_mul_is_a_product_of_fractions_half_up(multiplier: int) -> None:
    for v in draws(300):
        assert int(nt.high_mul(v, multiplier)) == half_up(Fraction(v * multiplier, 2**31)), (SEED, v)


@pytest.mark.parametrize("exponent", [0, 1, 2, 7, 30, 31])
def test_divide_by_power_is_half_away_from_zero(exponent: int) -> None:
    halves = [k * 2**exponent // 2 for k in range(-5, 6)]
    for v in [*halves, *draws(300)]:
        assert int(nt.divide_by_power(v, exponent)) == half_away(Fraction(v, 2**exponent)), (SEED, v)


def test_multiply_raises_modulo_32_bits() -> None:
    assert int(nt.multiply(3, 1 << 30, -1)) == 3
    assert int(nt.multiply(2**30, 1 << 30, -2)) == 0
    v = np.array([100, -100])
    assert nt.multiply(v, np.array([1 << 30, 1 << 30]), np.array([1, 0])).tolist() == [25, -50]


@pytest.mark.parametrize("real", [0.5, 1.0, 0.3, 1e-5, 0.99999999999, 3.7, 2.0**-31, 1 - 2.0**-40])
def test_fixed_point_is_within_half_a_unit(real: float) -> None:
    multiplier, shift = nt.fixed_point(real)
    assert 2**30 <= multiplier < 2**31
    assert abs(multiplier * 2.0 ** -(31 + shift) - real) <= real * 2.0**-31


def test_tiny_and_zero_multipliers_vanish() -> None:
    assert nt.fixed_point(0.0) == nt.fixed_point(2.0**-33) == (0, 0)


def test_mean_folds_the_count_in() -> None:
    for ratio, count in [(1.0, 49), (0.4, 3), (2.5, 1), (0.7, 4096)]:
        multiplier, shift = nt.mean_fixed_point(ratio, count)
        assert multiplier * 2.0 ** -(31 + shift) == pytest.approx(ratio / count, rel=2.0**-28)


def test_divide_away_cuts_half_of_an_odd_count() -> None:
    assert nt.divide_away([7, -7, 4, -4, 1, 5], [2, 2, 3, 3, 3, 3]).tolist() == [4, -4, 1, -1, 0, 2]


@pytest.mark.parametrize("real", [2.0**31, 2.0**31 - 0.1, -(2.0**40), math.inf, math.nan])
def test_ratios_beyond_every_shift(real: float) -> None:
    """C shifts 32-bit integers by 31 at most."""
    assert nt.fixed_point(2.0**31 - 1)[1] == -31
    with pytest.raises(OverflowError, match="does not fit 32 bits"):
        nt.fixed_point(real)


def test_fixed_point_functions_are_near_the_real_ones() -> None:
    x = np.linspace(-15.9, 15.9, 4001)
    fixed = np.rint(x * 2.0**27).astype(np.int64)
    below = fixed[fixed <= 0]
    assert np.abs(nt.exp_negative(below, 4) / 2.0**31 - np.exp(below / 2.0**27)).max() < 2e-6
    assert np.abs(nt.logistic(fixed, 4) / 2.0**31 - 1 / (1 + np.exp(-x))).max() < 2e-6
    assert np.abs(nt.tanh(fixed, 4) / 2.0**31 - np.tanh(x)).max() < 4e-6


@pytest.mark.parametrize("scale", [0.002, 0.05, 0.3, 2.0])
def test_softmax_is_near_the_real_one(scale: float) -> None:
    rng = np.random.default_rng(SEED)
    q = rng.integers(-128, 128, (20, 10)).astype(np.int8)
    e = np.exp(scale * (q.astype(float) - q.max(-1, keepdims=True)))
    got = nt.softmax(q, nt.softmax_table(scale, 1.0)).astype(float) + 128
    assert np.abs(got - np.minimum(256 * e / e.sum(-1, keepdims=True), 255)).max() < 1


def test_float_inputs_round_half_away_and_saturate() -> None:
    q = QParams(0.5, 3)
    x = np.array([0.25, -0.25, 0.75, 1e30, -1e30, np.inf], np.float32)
    assert nt.quantize_input(x, q).tolist() == [4, 2, 5, 127, -128, 127]


def test_hard_swish_refuses_scales_without_a_rule() -> None:
    with pytest.raises(OverflowError):
        nt.hard_swish_table(QParams(1.0, 0), QParams(0.001, 0))
