"""``runtime/include/qcc/numerics.h`` against ``numerics.py``: equal on edges and on random values."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qcc import numerics
from qcc.data import data_folder
from qcc.numerics import QParams

SOURCE = """
#include "qcc/numerics.h"
#define EACH for (int64_t i = 0; i < n; ++i)
void requantize(int64_t n, const int32_t *a, const int32_t *m, const int32_t *s, int64_t *y)
{ EACH y[i] = qcc_requantize(a[i], m[i], s[i]); }
void rounding_shift(int64_t n, const int64_t *v, const int32_t *s, int64_t *y)
{ EACH y[i] = qcc_rounding_shift(v[i], s[i]); }
void clamp(int64_t n, const int64_t *v, const int32_t *low, const int32_t *high, int8_t *y)
{ EACH y[i] = qcc_clamp(v[i], low[i], high[i]); }
void finish(int64_t n, const int32_t *a, int32_t m, int32_t s, int32_t z, int8_t *y)
{ EACH y[i] = qcc_finish(a[i], m, s, z, -100, 110); }
void residual(int64_t n, const int32_t *a, const int32_t *r, int32_t m, int32_t s, int32_t rm, int32_t f, int8_t *y)
{ EACH y[i] = qcc_finish_residual(a[i], m, s, r[i], rm, f, 5, -128, 127); }
void add(int64_t n, const int32_t *a, const int32_t *b, int32_t ma, int32_t mb, int32_t s, int32_t z, int8_t *y)
{ EACH y[i] = qcc_add(a[i], ma, b[i], mb, s, z, -128, 127); }
void quantize(int64_t n, const float *x, float inverse, int32_t z, int8_t *y)
{ EACH y[i] = qcc_quantize(x[i], inverse, z); }
void dequantize(int64_t n, const int8_t *q, float scale, int32_t z, float *y)
{ EACH y[i] = qcc_dequantize(q[i], scale, z); }
void softmax(int64_t n, int32_t row, const int8_t *q, const int32_t *t, int8_t *y)
{ EACH qcc_softmax(q + i * row, row, t, y + i * row); }
void bilinear(int64_t n, const int8_t *q, const int32_t *r, const int32_t *c, int8_t *y)
{ EACH y[i] = qcc_bilinear(q[4 * i], q[4 * i + 1], q[4 * i + 2], q[4 * i + 3], r[i], c[i]); }
"""
INT32_EDGES = np.array([-(2**31), -(2**31) + 1, -1, 0, 1, 2**30, 2**31 - 1], np.int32)
Twin = Callable[..., Any]


@pytest.fixture(scope="module", params=["-O0", "-O3"])
def twin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Twin:
    folder = tmp_path_factory.mktemp("twin")
    (folder / "twin.c").write_text(SOURCE)
    subprocess.run(["cc", "-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", request.param, "-shared", "-fPIC",
                    "-I", str(data_folder("runtime") / "include"), "twin.c", "-o", "twin.so"],
                   check=True, cwd=folder)
    library = ctypes.CDLL(str(folder / "twin.so"))

    def call(name: str, n: int, *arguments: Any) -> None:
        def as_c(a: Any) -> Any:
            if isinstance(a, np.ndarray):
                return ctypes.c_void_p(a.ctypes.data)
            return ctypes.c_float(a) if isinstance(a, float) else ctypes.c_int32(a)

        library[name](ctypes.c_int64(n), *map(as_c, arguments))

    return call


@pytest.fixture
def rng() -> np.random.Generator:
    print("seed 7")
    return np.random.default_rng(7)


def cross(*axes: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    return [np.ascontiguousarray(g.ravel()) for g in np.meshgrid(*axes, indexing="ij")]


def test_requantize(twin: Twin, rng: np.random.Generator) -> None:
    a, m, s = cross(INT32_EDGES, INT32_EDGES, np.arange(0, 63, dtype=np.int32))
    safe = np.abs(a.astype(float) * m) + 2.0 ** (s - 1.0) < 2.0**63
    a, m, s = a[safe], m[safe], s[safe]
    more = [rng.integers(-(2**31), 2**31, 20000).astype(np.int32) for _ in range(2)]
    more.append(rng.integers(1, 62, 20000).astype(np.int32))
    a, m, s = (np.concatenate(p) for p in zip((a, m, s), more, strict=True))
    y = np.empty(a.size, np.int64)
    twin("requantize", a.size, a, m, s, y)
    expected = [(int(p) * int(q) + ((1 << int(r)) >> 1)) >> int(r) for p, q, r in zip(a, m, s, strict=True)]
    np.testing.assert_array_equal(y, expected)
    for shift in range(63):
        at = s == shift
        np.testing.assert_array_equal(y[at], numerics.requantize(a[at], m[at], shift))


def test_rounding_shift_and_clamp(twin: Twin, rng: np.random.Generator) -> None:
    v = np.concatenate([rng.integers(-(2**61), 2**61, 5000), np.arange(-70, 71)])
    for shift in (0, 1, 2, 11, 31, 61):
        y = np.empty(v.size, np.int64)
        twin("rounding_shift", v.size, v, np.full(v.size, shift, np.int32), y)
        np.testing.assert_array_equal(y, numerics.rounding_shift(v, shift))
    v, low, high = cross(np.array([-(2**62), -129, -128, -5, 0, 9, 127, 128, 2**62]), np.array([-128, -7], np.int32),
                         np.array([0, 127], np.int32))  # fmt: skip
    got = np.empty(v.size, np.int8)
    twin("clamp", v.size, v, low, high, got)
    np.testing.assert_array_equal(got, [numerics.clamp(p, q, r) for p, q, r in zip(v, low, high, strict=True)])


def test_finish(twin: Twin, rng: np.random.Generator) -> None:
    a = np.concatenate([rng.integers(-(2**20), 2**20, 5000).astype(np.int32), INT32_EDGES])
    for real in (0.9, 1e-4, 3.5, 2.0**-20):
        (multiplier,), shift = numerics.requant_multipliers([real])
        got = np.empty(a.size, np.int8)
        twin("finish", a.size, a, int(multiplier), shift, -7, got)
        np.testing.assert_array_equal(got, numerics.clamp(numerics.requantize(a, multiplier, shift) - 7, -100, 110))


def test_residual(twin: Twin, rng: np.random.Generator) -> None:
    a, r = rng.integers(-(2**18), 2**18, 5000).astype(np.int32), rng.integers(-255, 256, 5000).astype(np.int32)
    for fraction in (0, 1, 6):
        (multiplier,), shift = numerics.requant_multipliers([1e-3 * 2**fraction])
        ratio = round(0.7 * 2**fraction)
        got = np.empty(a.size, np.int8)
        twin("residual", a.size, a, r, int(multiplier), shift, ratio, fraction, got)
        v = numerics.rounding_shift(numerics.requantize(a, multiplier, shift) + r * np.int64(ratio), fraction)
        np.testing.assert_array_equal(got, numerics.clamp(v + 5, -128, 127))


@pytest.mark.parametrize("sign", [1, -1])
def test_add(twin: Twin, sign: int) -> None:
    a, b = cross(np.arange(-255, 256, dtype=np.int32), np.arange(-255, 256, dtype=np.int32))
    for scales in ((0.1, 0.02, 0.11), (1.0, 1.0, 1.0), (1e-3, 5.0, 0.5), (300.0, 1e-4, 0.5)):
        m = numerics.add_multipliers(*scales, sign)
        got = np.empty(a.size, np.int8)
        twin("add", a.size, a, b, m.a, m.b, m.shift, 3, got)
        v = numerics.rounding_shift(a.astype(np.int64) * m.a + b.astype(np.int64) * m.b, m.shift)
        np.testing.assert_array_equal(got, numerics.clamp(v + 3, -128, 127))


@pytest.mark.parametrize("q", [QParams(0.05, -3), QParams(1.0, 127), QParams(3.7e-5, -128), QParams(1e6, 0)])
def test_edges(twin: Twin, rng: np.random.Generator, q: QParams) -> None:
    extremes = [0.0, -0.0, 1e30, -1e30, np.inf, -np.inf]
    steps = np.concatenate([np.arange(-300, 301) / 2, rng.uniform(-300, 300, 5000), extremes])
    x = (steps * q.step).astype(np.float32)
    x = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(-np.inf))])
    got = np.empty(x.size, np.int8)
    twin("quantize", x.size, x, float(np.float32(1 / q.step)), q.zero_point, got)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got, numerics.quantize_input(x, q))
    back = np.empty(x.size, np.float32)
    twin("dequantize", x.size, got, float(np.float32(q.step)), q.zero_point, back)
    np.testing.assert_array_equal(back, numerics.dequantize_output(got, q))


@pytest.mark.parametrize("row", [1, 2, 10, 1001])
def test_softmax(twin: Twin, rng: np.random.Generator, row: int) -> None:
    for scale in (0.001, 0.1, 2.0):
        q = rng.integers(-128, 128, (50, row)).astype(np.int8)
        table, got = numerics.softmax_table(scale, row), np.empty((50, row), np.int8)
        twin("softmax", 50, row, q, table, got)
        np.testing.assert_array_equal(got, numerics.softmax(q, table))


def test_bilinear(twin: Twin, rng: np.random.Generator) -> None:
    q = np.concatenate([rng.integers(-128, 128, (3000, 4)), [[-128] * 4], [[127] * 4]]).astype(np.int8)
    row, column = (rng.integers(0, 2049, len(q)).astype(np.int32) for _ in range(2))
    row[:9], column[:9] = np.repeat([0, 1024, 2048], 3), np.tile([0, 1024, 2048], 3)
    got = np.empty(len(q), np.int8)
    twin("bilinear", len(q), q, row, column, got)
    expected = [numerics.bilinear(v.reshape(1, 2, 2, 1), ([0], [1], [r]), ([0], [1], [c])).item()
                for v, r, c in zip(q, row, column, strict=True)]  # fmt: skip
    np.testing.assert_array_equal(got, expected)
