"""Scikit-learn's bundled digits, split the same way for training and for the demo."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Split = tuple[NDArray[np.float32], NDArray[np.int64]]


def load() -> tuple[Split, Split]:
    """Training and test images, float32 [N, 1, 8, 8] in [0, 1], with their labels."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=450, random_state=0, stratify=labels
    )
    return (train_x, train_y), (test_x, test_y)
