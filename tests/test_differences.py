"""What ``verify`` says of results that differ where numbers do not."""

from __future__ import annotations

import numpy as np

from qcc.verify import _difference


def test_zeros_of_either_sign_differ() -> None:
    got, expected = np.array([[1.0, -0.0]], np.float32), np.array([[1.0, 0.0]], np.float32)
    assert _difference("y", got, expected) == "y: 1 of 2 elements, at most by 0, first at (0, 1): -0.0 instead of 0.0"
