"""``conv_gemm`` of every family: random shapes, every form of the epilogue, extreme bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from convolution import TARGETS, Case, check, runnable

SEED = 20_000


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)

    def pick(*options: int) -> int:
        return int(rng.choice(options))

    kernel = (pick(1, 1, 2, 3), pick(1, 1, 3, 5))
    stride, dilation = (pick(1, 2, 3), pick(1, 1, 2, 3)), (pick(1, 2), pick(1, 1, 2))
    groups = pick(1, 1, 1, 2, 3)
    outputs = pick(1, 2, 3, 5, 8), pick(1, 2, 5, 7, 13, 17, 31, 32)
    sizes = zip(kernel, dilation, stride, outputs, strict=True)
    height, width = ((k - 1) * d + 1 + (o - 1) * s for k, d, s, o in sizes)
    residual = bool(rng.random() < 0.4)
    return Case(
        seed, (pick(1, 1, 2), height, width, groups * pick(1, 3, 4, 7, 16, 33)),
        groups * pick(1, 2, 5, 8, 11, 16, 17, 24, 33), kernel, stride, dilation, groups, residual,
        (-128, 127) if rng.random() < 0.5 else (pick(-128, -90, 0), pick(1, 60, 127)),
        pick(20, 31, 32, 33, 37, 40), pick(0, 3, 8) if residual else 0, pick(0, 0, 3, 8), in_place=residual,
    )  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_random_shapes(name: str, tmp_path: Path) -> None:
    print(f"seeds {SEED} … {SEED + 29}")
    check([random_case(SEED + i) for i in range(30)], runnable(name), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("residual", [False, True])
def test_every_epilogue(residual: bool, name: str, tmp_path: Path) -> None:
    cases = [
        Case(shift, (1, 1, 12, 20), 21, residual=residual, clamp=clamp, shift=shift, fraction=6 if residual else 0)
        for shift in (18, 31, 32, 33, 36, 40) for clamp in ((-128, 127), (-7, 99))
    ]  # fmt: skip
    if residual:  # a multiplier of more than 16 bits
        cases.append(Case(4, (1, 1, 12, 20), 40, residual=True, shift=20, fraction=14))
    check(cases, runnable(name), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_every_number_of_channels(name: str, tmp_path: Path) -> None:
    """Nothing is stored behind a last, partial vector."""
    check([Case(n, (1, 3, 5, 8), n, gap=n % 2) for n in range(1, 34)], runnable(name), tmp_path)


@pytest.mark.parametrize("case", [
    Case(1, (1, 34, 34, 16), 16, (3, 3), residual=True, fraction=6, in_place=True),
    Case(2, (1, 9, 9, 64), 96, (3, 3), residual=True, fraction=6, in_place=True),
    Case(3, (2, 9, 9, 64), 48, (3, 3)),
    Case(4, (1, 1, 49, 200), 33, residual=True, in_place=True),
    Case(5, (1, 15, 30, 24), 64, (2, 2), (2, 2)),
    Case(6, (1, 40, 19, 8), 32, gap=8),
], ids=["few steps", "lines joined", "joined, batch", "overlap", "strides", "many groups"])  # fmt: skip
@pytest.mark.parametrize("name", TARGETS)
def test_groups_of_tiles(name: str, case: Case, tmp_path: Path) -> None:
    """Ways in which AMX cuts an image into tiles, and finishes one group while it multiplies the next."""
    check([case], runnable(name), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_extreme_bytes_do_not_saturate(name: str, tmp_path: Path) -> None:
    cases = [Case(k, (1, 5, 9, 64), 24, (k, k), clamp=(-128, 127), extreme=True) for k in (1, 3)]
    check(cases, runnable(name), tmp_path)


@pytest.mark.parametrize("case", [
    Case(1, (2, 1, 1, 12_544), 16),
    Case(2, (1, 1, 12, 6_000), 9),
    Case(3, (1, 1, 6, 6_002), 8),
    Case(4, (1, 3, 14, 1_000), 8, (3, 3)),
], ids=["dense", "parts", "no useful part", "shared pixels in parts"])  # fmt: skip
@pytest.mark.parametrize("name", TARGETS)
def test_long_reductions(name: str, case: Case, tmp_path: Path) -> None:
    check([case], runnable(name), tmp_path)


def test_the_other_storage(tmp_path: Path) -> None:
    """AVX2 kernels do not depend on how activations are stored."""
    target = runnable("x86-avx2").model_copy(update={"storage": "uint8"})
    check([random_case(SEED + 100 + i) for i in range(10)], target, tmp_path)
