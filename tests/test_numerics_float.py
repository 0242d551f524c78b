"""float32 arithmetic to the bit: fused multiply-adds against rationals, and the rules of run-time quantization."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from qcc import numerics_float as nf


def rounded(exact: Fraction) -> np.float32:
    """The nearest float32, half to even."""
    guess = np.float32(float(exact))
    near = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    even = [int(v.view(np.int32)) % 2 for v in near]
    return min(zip(near, even, strict=True), key=lambda c: (abs(Fraction(float(c[0])) - exact), c[1]))[0]


def check(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    got = nf.fma(a, b, c)
    for x, y, z, found in zip(a.ravel(), b.ravel(), c.ravel(), got.ravel(), strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        assert found == rounded(exact), f"{x!r} * {y!r} + {z!r}"


def test_fma_of_random_numbers() -> None:
    rng = np.random.default_rng(7)
    a, b, c = (rng.normal(size=2000).astype(np.float32) * np.float32(2) ** rng.integers(-20, 20, 2000) for _ in "abc")
    check(a.astype(np.float32), b.astype(np.float32), c.astype(np.float32))


def test_fma_where_rounding_twice_goes_wrong() -> None:
    """c plus half a unit of c plus a little that float64 does not hold."""
    rng = np.random.default_rng(8)
    c = rng.uniform(1, 2, 500).astype(np.float32)
    half = np.float32(2.0**-24)
    a = np.full(500, np.float32(1 + 2.0**-23) * half, np.float32)
    b = np.full(500, 1 - 2.0**-23, np.float32)  # a * b = 2^-24 (1 - 2^-46)
    sign = np.where(rng.integers(2, size=500), 1, -1).astype(np.float32)
    twice = (a.astype(np.float64) * b + c * sign).astype(np.float32)
    assert (twice != nf.fma(a, b, c * sign)).any(), "the case is not what it says"
    check(a, b, (c * sign).astype(np.float32))


def test_fma_of_subnormal_results() -> None:
    rng = np.random.default_rng(9)
    a = (rng.normal(size=500) * 2.0**-70).astype(np.float32)
    b = (rng.normal(size=500) * 2.0**-60).astype(np.float32)
    c = (rng.normal(size=500) * 2.0**-128).astype(np.float32)
    check(a, b, c)


def test_fma_of_infinities() -> None:
    inf, one = np.float32(np.inf), np.float32(1)
    with np.errstate(invalid="ignore"):
        got = nf.fma(np.array([inf, one, inf]), one, np.array([one, -inf, -inf]))
    assert got[:2].tolist() == [np.inf, -np.inf]
    assert np.isnan(got[2])


def test_sums_and_products_keep_their_order() -> None:
    x = np.array([[1e8, 1.0, -1e8, 1.0]], np.float32)
    assert nf.sums(x).tolist() == [1.0]
    assert nf.products(x, np.ones((4, 1), np.float32)).tolist() == [[1.0]]
    assert nf.maxima(np.array([-0.0, 0.0, -0.0], np.float32)).tobytes() == np.float32(-0.0).tobytes()


@pytest.mark.parametrize(("levels", "zero_point"), [(127, 0), (255, -128)])
def test_dynamic_quantization(levels: int, zero_point: int) -> None:
    x = np.random.default_rng(1).normal(size=(3, 50)).astype(np.float32)
    x = np.abs(x) if zero_point else x
    steps = nf.dynamic_steps(x, levels)
    q = nf.dynamic_quantize(x, steps, zero_point)
    assert np.abs(q.astype(int) - zero_point).max() == levels
    assert np.abs((q.astype(int) - zero_point) * steps[0] - x).max() <= steps[0] * 0.5001


def test_a_tensor_of_zeros_has_no_step() -> None:
    for tiny in (0.0, 2.0**-101):
        steps = nf.dynamic_steps(np.full(4, tiny, np.float32), 127)
        assert steps.tolist() == [0, 0]
        assert nf.dynamic_quantize(np.full(4, tiny, np.float32), steps, 0).tolist() == [0] * 4
    assert np.isfinite(nf.dynamic_steps(np.full(4, nf.LEAST_PEAK, np.float32), 255)).all()
