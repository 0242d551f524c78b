"""Properties of the integer arithmetic that hold for every input."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qcc import numerics
from qcc.numerics import INT32_MAX, QParams

settings.register_profile("qcc", max_examples=200, deadline=None, print_blob=True, derandomize=True)
settings.load_profile("qcc")

INT8 = st.integers(-128, 127)
SCALES = st.floats(1e-6, 1e3)
MULTIPLIERS = st.floats(2**-16, 1, exclude_max=True)


def half_up(value: Fraction) -> int:
    """Exact rounding, halves up."""
    return math.floor(value + Fraction(1, 2))


@given(st.integers(-(2**61), 2**61), st.integers(0, 62))
def test_rounding_shift_rounds_half_up(v: int, shift: int) -> None:
    assert int(numerics.rounding_shift(v, shift)) == half_up(Fraction(v, 1 << shift))


@given(MULTIPLIERS, st.floats(-1, 1))
def test_requantize_is_within_a_256th_of_the_rounded_product(m: float, position: float) -> None:
    """For |acc| <= 256 / m, the accumulators whose result lies in range."""
    acc = int(position * min(256 / m, INT32_MAX))
    multiplier, shift = numerics.requant_multipliers(m)
    assert shift == 31 or (shift == 30 and m > 1 - 2**-31)
    error = int(numerics.requantize(acc, multiplier[0], shift)) - Fraction(m) * acc
    assert abs(error) <= Fraction(1, 2) + Fraction(1, 256)


@given(st.lists(st.floats(1e-12, 1e6), min_size=1, max_size=5))
def test_requant_multipliers_fit_int32(real: list[float]) -> None:
    """Any mix of real multipliers: int32, and as precise as the largest one allows."""
    multiplier, shift = numerics.requant_multipliers(real)
    assert multiplier.dtype == np.int32
    assert (multiplier >= 0).all()
    assert 1 <= shift <= 62
    assert np.abs(multiplier - np.asarray(real) * 2.0**shift).max() <= 1
    assert shift >= 31 or multiplier.max() >= 2**29


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_requant_multipliers_reject(bad: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        numerics.requant_multipliers(bad)


@given(SCALES, SCALES, SCALES, st.sampled_from([1, -1]), INT8, INT8)
def test_additions_stay_within_int32(a: float, b: float, out: float, sign: int, z_a: int, z_b: int) -> None:
    m = numerics.add_multipliers(a, b, out, sign)
    half = 1 << m.shift >> 1
    worst = sum(max(z + 128, 127 - z) * abs(k) for z, k in ((z_a, m.a), (z_b, m.b)))
    assert worst + half <= INT32_MAX


@given(st.floats(2**-8, 2**8), st.floats(2**-8, 2**8), st.sampled_from([1, -1]), INT8, INT8, INT8, INT8)
def test_addition_is_precise(a: float, b: float, sign: int, q_a: int, q_b: int, z_a: int, z_b: int) -> None:
    """Half a step, and both multipliers' rounding, each relative to the larger one: 255 * 2^-20."""
    m = numerics.add_multipliers(a, b, 1.0, sign)
    found = int(numerics.rounding_shift((q_a - z_a) * m.a + (q_b - z_b) * m.b, m.shift))
    real = Fraction(a) * (q_a - z_a) + sign * Fraction(b) * (q_b - z_b)
    assert abs(found - real) <= Fraction(1, 2) + Fraction(255, 2**20) * max(Fraction(a), Fraction(b))


CHANNELS = st.lists(st.tuples(st.floats(2**-20, 4), st.integers(1, INT32_MAX)), min_size=1, max_size=4)


@given(CHANNELS, st.floats(2**-8, 16))
def test_residuals_stay_within_int32(channels: list[tuple[float, int]], ratio: float) -> None:
    """Both terms, their sum and the rounding constant, for the largest accumulator of each channel."""
    real, bound = (np.asarray(column) for column in zip(*channels, strict=True))
    assume((real * bound).max() + 255 * ratio + 2 < INT32_MAX)
    fraction = numerics.residual_fraction(real, bound, ratio)
    multiplier, shift = numerics.requant_multipliers(real * 2.0**fraction)
    wide = numerics.requantize(bound, multiplier, shift)
    worst = int(wide.max()) + 255 * round(ratio * 2.0**fraction) + (1 << fraction >> 1)
    assert worst <= INT32_MAX


def test_a_residual_that_cannot_fit() -> None:
    with pytest.raises(OverflowError, match="does not fit 32 bits"):
        numerics.residual_fraction(4.0, INT32_MAX, 1.0)


WEIGHTS = st.lists(st.integers(-127, 127), min_size=1, max_size=40)


@given(WEIGHTS, INT8, st.integers(-(2**20), 2**20), st.booleans())
def test_accumulator_bound_holds_for_adversarial_inputs(weights: list[int], zero: int, bias: int, up: bool) -> None:
    """Inputs that push every product the same way, summed in any order (worst after the products of one sign)."""
    w = np.asarray([weights], np.int8)
    worst = [(127 if (k > 0) == up else -128) for k in weights]
    products = sorted((q - zero) * k for q, k in zip(worst, weights, strict=True))
    bound = int(numerics.accumulator_bound(w, bias, zero)[0])
    for order in (products, products[::-1]):
        assert max(abs(int(v)) for v in np.cumsum([bias, *order])) <= bound


@given(WEIGHTS, INT8, st.integers(-(2**20), 2**20), st.booleans(), st.sampled_from([0, 128]))
def test_storage_bound_covers_stored_sums(weights: list[int], zero: int, bias: int, up: bool, offset: int) -> None:
    """Sums over int8 or uint8 storage that start from the bias with the zero point folded in."""
    w = np.asarray([weights], np.int8)
    stored = [(127 if (k > 0) == up else -128) + offset for k in weights]
    start = bias - (zero + offset) * sum(weights)
    products = sorted(q * k for q, k in zip(stored, weights, strict=True))
    bound = int(numerics.storage_bound(w, bias)[0])
    for order in (products, products[::-1]):
        assert max(abs(int(v)) for v in np.cumsum([start, *order])) <= bound


@given(st.lists(INT8, min_size=1, max_size=300), st.floats(1e-4, 1))
def test_softmax_sums_to_one(values: list[int], scale: float) -> None:
    """Within a step of the real softmax: half a step of rounding, the table's, and 1 is stored as 255/256."""
    q = np.asarray([values], np.int8)
    y = numerics.softmax(q, numerics.softmax_table(scale, len(values))).astype(int)[0] + 128
    real = np.exp(scale * (q[0].astype(float) - q.max()))
    real *= 256 / real.sum()
    assert np.abs(y - np.minimum(real, 255)).max() <= 0.5 + 2**-21 * 256 * len(values) + 1e-6
    assert abs(int(y.sum()) - 256) <= len(values) / 2 + 1


@given(st.integers(2, 2**22), st.floats(1e-6, 10))
def test_softmax_stays_within_32_bits(count: int, scale: float) -> None:
    """Numerator and denominator of the division, unsigned."""
    largest = int(numerics.softmax_table(scale, count)[0])
    assert largest >= 2**7
    assert (largest << 9) + count * largest < 2**32
    assert 2 * count * largest < 2**32


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_activation_parameters_hold_the_range_and_zero(first: float, second: float) -> None:
    low, high = sorted((first, second))
    q = numerics.activation_qparams(low, high)
    assert np.float32(q.step) == q.step
    assert numerics.dequantize(numerics.quantize(0.0, q), q) == 0
    slack = q.step * (1 + 1e-4)
    for real in (low, high):
        assert abs(float(numerics.dequantize(numerics.quantize(real, q), q)) - real) <= slack


def test_a_range_of_nothing() -> None:
    assert numerics.activation_qparams(0, 0) == QParams(1.0, 0)


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), SCALES, INT8)
def test_input_edge(values: list[float], scale: float, zero: int) -> None:
    """The float32 recipe is within a step of exact rounding, saturates, and returns to the same integers."""
    q = QParams(float(np.float32(scale)), zero)
    found = numerics.quantize_input(np.asarray(values, np.float32), q)
    assert found.dtype == np.int8
    assert np.abs(found.astype(int) - numerics.quantize(values, q)).max() <= 1
    assert (numerics.quantize_input(numerics.dequantize_output(found, q), q) == found).all()


def test_input_edge_saturates() -> None:
    q = QParams(0.5, 3)
    edge = np.array([-np.inf, -1e30, 1e30, np.inf], np.float32)
    assert numerics.quantize_input(edge, q).tolist() == [-128, -128, 127, 127]


def test_weights_never_hold_minus_128() -> None:
    w = np.array([[-1.0, 1.0], [0.0, 0.0], [-3.0, 0.5]])
    scales = numerics.weight_scales(w, 0)
    q = numerics.quantize(w, QParams(tuple(scales), 0, 0))
    assert q.tolist() == [[-127, 127], [0, 0], [-127, 21]]
    assert scales[1] == 1
    assert numerics.dequantize(q, QParams(tuple(scales), 0, 0))[2].tolist() == pytest.approx([-3, 21 * 3 / 127])


def test_lookup_table_outside_a_domain() -> None:
    """nan becomes 0, infinities saturate."""
    q = QParams(1.0, 0)
    table = numerics.lookup_table(np.log, q, q)
    assert table[128 - 5] == 0
    assert table[128] == -128
    assert table[128 + 100] == 5


@given(st.lists(INT8, min_size=4, max_size=4), st.integers(0, 2048), st.integers(0, 2048))
def test_bilinear_is_exactly_rounded(corners: list[int], down: int, right: int) -> None:
    q = np.asarray(corners, np.int8).reshape(1, 2, 2, 1)
    found = int(numerics.bilinear(q, ((0,), (1,), (down,)), ((0,), (1,), (right,))).item())
    top, bottom = (corners[i] * (2048 - right) + corners[i + 1] * right for i in (0, 2))
    assert found == half_up(Fraction(top * (2048 - down) + bottom * down, 2**22))
