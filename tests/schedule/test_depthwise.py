"""``conv_depthwise`` of every family: random shapes, and outputs that share their columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from convolution import TARGETS, Case, check, runnable

SEED = 30_000


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)

    def pick(*options: int) -> int:
        return int(rng.choice(options))

    kernel = (pick(1, 2, 3, 3, 5), pick(1, 3, 3, 5))
    stride, dilation = (pick(1, 1, 2, 3), pick(1, 2, 3)), (pick(1, 1, 2), pick(1, 1, 2))
    outputs = pick(1, 2, 4, 5, 7), pick(1, 2, 5, 7, 8, 13, 14)
    sizes = zip(kernel, dilation, stride, outputs, strict=True)
    height, width = ((k - 1) * d + 1 + (o - 1) * s for k, d, s, o in sizes)
    residual, n = bool(rng.random() < 0.4), pick(2, 3, 8, 13, 16, 17, 21, 24, 32, 40)
    return Case(
        seed, (pick(1, 1, 2), height, width, n), n, kernel, stride, dilation, n, residual,
        (-128, 127) if rng.random() < 0.5 else (pick(-128, -90, 0), pick(1, 60, 127)),
        pick(20, 31, 32, 33, 37, 40), pick(0, 3, 8) if residual else 0, pick(0, 0, 3, 8),
    )  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_random_shapes(name: str, tmp_path: Path) -> None:
    print(f"seeds {SEED} … {SEED + 29}")
    check([random_case(SEED + i) for i in range(30)], runnable(name), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7])
def test_rows_of_outputs_share_columns(rows: int, name: str, tmp_path: Path) -> None:
    """An even number of output rows, stride 1, with and without a row to spare in the last group."""
    check([Case(rows, (1, rows + 3, 16, 24), 24, (rows, 3), groups=24)], runnable(name), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_extreme_bytes_do_not_saturate(name: str, tmp_path: Path) -> None:
    check([Case(1, (1, 9, 9, 16), 16, (5, 5), groups=16, extreme=True)], runnable(name), tmp_path)
