"""Range methods against NumPy on random streams."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from qcc import numerics
from qcc.quantize.observers import BINS, METHODS, SUBSAMPLE, Summary, minmax, mse, subsample_stride

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
STREAMS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(0.2, 1, n),
    "relu": lambda rng, n: np.maximum(rng.normal(0, 3, n), 0),
    "relu6": lambda rng, n: np.clip(rng.normal(0, 5, n), 0, 6),
    "laplace": lambda rng, n: rng.laplace(size=n),
    "heavy": lambda rng, n: rng.standard_t(3, n),
    "uniform": lambda rng, n: rng.uniform(-1, 1, n),
    "negative": lambda rng, n: -rng.exponential(size=n) - 1,
    "hard swish": lambda rng, n: (lambda x: x * np.clip(x + 3, 0, 6) / 6)(rng.normal(0, 2, n)),
}


def stream(name: str, count: int = 12, size: int = 5000) -> list[NDArray[np.float32]]:
    seed = zlib.crc32(name.encode())
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    return [(STREAMS[name](rng, size) * rng.uniform(0.5, 2)).astype(np.float32) for _ in range(count)]


def summarized(tensors: list[NDArray[np.float32]]) -> Summary:
    summary = Summary()
    for x in tensors:
        assert summary.update(x)
    return summary


def error(x: NDArray[np.float32], low: float, high: float) -> float:
    """Mean squared error of int8 values in the range."""
    q = numerics.activation_qparams(low, high)
    return float(np.square(numerics.dequantize(numerics.quantize(x, q), q) - x).mean())


@pytest.mark.parametrize("name", STREAMS)
def test_streaming_equals_batch(name: str) -> None:
    tensors = stream(name)
    whole = np.concatenate(tensors)
    summary = summarized(tensors)
    assert minmax(summary) == (float(whole.min()), float(whole.max()))
    backwards = summarized(tensors[::-1])
    assert summary.exponent == backwards.exponent
    assert np.array_equal(summary.counts, backwards.counts)
    assert summary.counts.sum() == np.count_nonzero(whole)


@pytest.mark.parametrize("name", STREAMS)
def test_histogram_is_numpys(name: str) -> None:
    tensors = stream(name)
    summary, whole = summarized(tensors), np.concatenate(tensors)
    edges = (np.arange(2 * BINS + 1) - BINS) * 2.0**summary.exponent
    assert edges[0] <= whole.min()
    assert whole.max() < edges[-1]
    assert max(-whole.min(), whole.max()) >= edges[-1] / 2
    assert np.array_equal(summary.counts, np.histogram(whole[whole != 0], edges)[0])


@pytest.mark.parametrize("name", STREAMS)
def test_mse_is_nearly_the_best_range_and_never_worse_than_minmax(name: str) -> None:
    tensors = stream(name)
    whole, summary = np.concatenate(tensors), summarized(tensors)
    low, high = mse(summary)
    assert summary.low <= low <= high <= summary.high
    assert (low, high) == mse(summarized(tensors))
    ends = min(summary.low, 0.0), max(summary.high, 0.0)
    candidates = [(a, b) for a in np.linspace(0.1, 1, 19) for b in np.linspace(0.1, 1, 19)]
    best = min(error(whole, ends[0] * a, ends[1] * b) for a, b in candidates)
    assert error(whole, low, high) <= 1.05 * best
    assert error(whole, low, high) <= 1.001 * error(whole, *ends)


def test_a_known_bound_that_is_often_reached_is_kept() -> None:
    assert mse(summarized(stream("relu6"))) == (0.0, pytest.approx(12, rel=0.5))
    rng = np.random.default_rng(3)
    clamped = [np.clip(rng.normal(0, 5, 4000), 0, 6).astype(np.float32) for _ in range(5)]
    assert mse(summarized(clamped)) == (0.0, 6.0)


def test_memory_does_not_depend_on_the_data() -> None:
    summary, rng = Summary(), np.random.default_rng(0)
    size = summary.counts.nbytes
    for scale in [1e-30, 1e-3, 1.0, 1e8, 1e30, 1e-20]:
        summary.update((rng.normal(size=100_000) * scale).astype(np.float32))
        assert (summary.counts.nbytes, summary.counts.shape) == (size, (2 * BINS,))
    assert summary.counts.sum() <= 6 * SUBSAMPLE


def test_growing_keeps_every_count_on_its_side_of_zero() -> None:
    summary = summarized([np.array([-1e-20, 1e-20, 3e-20], np.float32), np.array([1e10], np.float32)])
    assert summary.counts[: BINS].sum() == 1
    assert (summary.counts[BINS - 1], summary.counts[BINS]) == (1, 2)


@pytest.mark.parametrize("size", [1, 7, SUBSAMPLE, SUBSAMPLE + 1, 112 * 112 * 32, 97 * SUBSAMPLE])
def test_subsample_visits_every_channel(size: int) -> None:
    stride = subsample_stride(size, SUBSAMPLE)
    taken = np.arange(size)[::stride]
    assert len(taken) <= SUBSAMPLE
    for channels in (3, 16, 32):
        if len(taken) >= channels**2 and size % channels == 0:
            assert len(np.unique(taken % channels)) == channels


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("values", "expected"), [([0, 0], (0, 0)), ([2.5] * 9, (2.5, 2.5)), ([-1, -1], (-1, -1))])
def test_constants(method: str, values: list[float], expected: tuple[float, float]) -> None:
    summary = summarized([np.array(values, np.float32)])
    assert METHODS[method](summary) == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    summary = summarized([np.ones(3, np.float32)])
    assert not summary.update(np.array([0.5, bad, 2], np.float32))
    assert (summary.low, summary.high, summary.counts.sum()) == (1, 1, 3)


def test_empty_tensors_change_nothing() -> None:
    summary = summarized([np.empty((0, 3), np.float32), np.ones(1, np.float32)])
    assert (summary.low, summary.high) == (1, 1)
