"""Ranges of activations: a summary of everything seen, of constant size, and the methods that choose a range from it.

A method is one function ``Summary -> (low, high)`` and its line in ``METHODS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qcc.numerics import INT8_MAX, INT8_MIN

Range = tuple[float, float]

BINS = 4096
"""Histogram bins on each side of 0; between 8 and 16 of them share one step of an unsigned range."""
SUBSAMPLE = 1 << 14
"""Elements of one tensor that enter the histogram; its minimum and maximum are exact over all elements."""
_SMALLEST_EXPONENT = -120


class Summary:
    """What is kept of one activation: exact ``low`` and ``high``, and a histogram whose bins are powers of two wide.

    Bin i holds ``(i - BINS) * 2^e <= x < (i - BINS + 1) * 2^e``. When a value lies outside, e grows and neighbouring
    bins merge; since they nest, the histogram does not depend on the order in which tensors arrive. Exact zeros are
    left out: every quantization represents them.
    """

    def __init__(self) -> None:
        """Nothing seen yet."""
        self.low, self.high = math.inf, -math.inf
        self.counts = np.zeros(2 * BINS, np.int64)
        self.exponent = _SMALLEST_EXPONENT

    def update(self, x: NDArray[np.float32]) -> bool:
        """Take in a tensor; False (and nothing taken in) if it holds a NaN or an infinity."""
        flat = x.ravel()
        if flat.size == 0:
            return True
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            return False
        self.low, self.high = min(self.low, low), max(self.high, high)
        peak = max(-low, high)
        if peak > 0:
            self._widen(math.frexp(peak)[1] - int(math.log2(BINS)))
        part = flat[:: subsample_stride(flat.size, SUBSAMPLE)]
        index = np.floor(part * np.float32(2.0**-self.exponent)).astype(np.int64) + BINS
        self.counts += np.bincount(index, minlength=2 * BINS)
        self.counts[BINS] -= part.size - np.count_nonzero(part)
        return True

    def _widen(self, exponent: int) -> None:
        """Merge bins until they are ``2^exponent`` wide."""
        steps = min(exponent - self.exponent, int(math.log2(BINS)) + 1)
        if steps <= 0:
            return
        if self.counts.any():
            for _ in range(steps):
                merged = self.counts.reshape(-1, 2).sum(axis=1)
                self.counts = np.concatenate([np.zeros(BINS // 2, np.int64), merged, np.zeros(BINS // 2, np.int64)])
        self.exponent = exponent

    def bins(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centres and counts of the bins that hold something."""
        index = np.flatnonzero(self.counts)
        centres = (index - BINS + 0.5) * 2.0**self.exponent
        return np.clip(centres, self.low, self.high), self.counts[index].astype(np.float64)


def subsample_stride(size: int, wanted: int) -> int:
    """The smallest stride that takes at most ``wanted`` of ``size`` elements; coprime to it, it visits all channels."""
    stride = -(-size // max(1, wanted))
    while math.gcd(stride, size) != 1:
        stride += 1
    return stride


def squared_error(
    centres: NDArray[np.float64], counts: NDArray[np.float64], lows: NDArray[np.float64], highs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum of squared int8 quantization errors of the binned values, for each range (lows[i], highs[i]) that holds 0.

    The parameters are those of ``numerics.activation_qparams``.
    """
    scale = (highs - lows) / (INT8_MAX - INT8_MIN)
    zero = np.clip(np.rint(INT8_MIN - lows / scale), INT8_MIN, INT8_MAX)
    total = np.empty(len(scale))
    for i, (s, z) in enumerate(zip(scale, zero, strict=True)):
        error = np.clip(np.rint(centres / s), INT8_MIN - z, INT8_MAX - z) * s - centres
        total[i] = np.dot(error * error, counts)
    return total


def minmax(summary: Summary) -> Range:
    """Everything that was seen."""
    return summary.low, summary.high


def mse(summary: Summary) -> Range:
    """The range within min-max that minimizes the expected squared error of int8 values.

    A grid over the fractions of both ends is refined around its best point. Clipping must pay: where it lowers the
    error by less than 2 %, nothing is clipped, so that an unseen sample has all the room there is.
    """
    low, high = min(summary.low, 0.0), max(summary.high, 0.0)
    centres, counts = summary.bins()
    if high - low < 1e-30 or not len(centres):
        return minmax(summary)
    best = np.ones(2)
    grids = [np.linspace(0.02, 1.0, 15)] * 2
    for reach in (1 / 6, 1 / 36, 1 / 216, 0.0):
        pairs = [(a, b) for a in (grids[0] if low < 0 else [1.0]) for b in (grids[1] if high > 0 else [1.0])]
        fractions = np.array([(1.0, 1.0), best, *pairs])
        errors = squared_error(centres, counts, low * fractions[:, 0], high * fractions[:, 1])
        best = fractions[int(errors.argmin())]
        grids = [np.clip(c + reach * np.linspace(-1, 1, 7), 0.02, 1.0) for c in best]
    if errors.min() > 0.98 * errors[0]:
        return minmax(summary)
    return max(float(low * best[0]), summary.low), min(float(high * best[1]), summary.high)


METHODS: dict[str, Callable[[Summary], Range]] = {"minmax": minmax, "mse": mse}
