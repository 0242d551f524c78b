"""Weight scales and the mean shift that bias correction takes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from float_graphs import CONV, Builder
from qcc import numerics
from qcc.ir.evaluate import run_float, run_integer
from qcc.quantize import weights
from qcc.quantize.assign import assign
from qcc.quantize.calibrate import calibrate
from qcc.quantize.convert import convert


def test_scales_are_the_largest_weight_by_127() -> None:
    w = np.random.default_rng(0).normal(size=(5, 3, 3, 4))
    assert weights.scales(w, 0.02, 0.03) == pytest.approx(numerics.weight_scales(w, 0))


def test_channels_without_effect_keep_the_multiplier_ordinary() -> None:
    w = np.stack([np.zeros(8), np.full(8, 1e-12), np.ones(8)])
    found = weights.scales(w, input_step=0.02, output_step=0.04)
    assert found == pytest.approx([2.0**-15, 2.0**-15, 1 / 127])
    _, shift = numerics.requant_multipliers(0.02 * found / 0.04)
    assert shift == numerics.DEFAULT_SHIFT


@pytest.mark.parametrize("taps", [4, 128, 129, 5000])
@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-4, 1e-6])
def test_coarser_weights_do_not_show(taps: int, size: float) -> None:
    rng = np.random.default_rng(taps)
    w = np.abs(rng.normal(size=(6, taps))) * size
    exact, found = numerics.weight_scales(w, 0), weights.scales(w, 0.01, 1.0)
    coarser = found > exact
    rounded = np.rint(w / found[:, None]) * found[:, None]
    assert (np.abs(rounded - w).sum(axis=1)[coarser] * 255 * 0.01 <= weights.NEGLIGIBLE).all()
    assert np.array_equal(found[~coarser], exact[~coarser])


LAYERS: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("conv2d", (1, 6, 7, 4), (5, 3, 3, 4), {}),
    ("conv2d", (1, 6, 7, 4), (8, 3, 2, 1), {"groups": 4, "stride": (2, 3), "pad": (2, 0, 1, 1)}),
    ("conv2d", (1, 9, 9, 6), (4, 3, 3, 3), {"groups": 2, "dilation": (2, 1)}),
    ("conv_transpose2d", (1, 4, 5, 4), (6, 3, 3, 2), {"groups": 2, "stride": (2, 2), "output_pad": (1, 0)}),
    ("conv_transpose2d", (1, 4, 5, 3), (2, 2, 4, 3), {"stride": (3, 1), "dilation": (1, 2), "output_pad": (0, 0)}),
    ("dense", (3, 7), (4, 7), {}),
    ("dense", (2, 5, 7), (4, 7), {}),
]


@pytest.mark.parametrize(("op", "shape", "kernel", "attrs"), LAYERS)
def test_mean_shift_is_the_layers_response_to_a_constant_image(
    op: str, shape: tuple[int, ...], kernel: tuple[int, ...], attrs: dict[str, Any]
) -> None:
    b = Builder(3, x=shape)
    error, mean = b.normal(*kernel), b.normal(shape[-1])
    fields: dict[str, Any] = {"clamp": None} if op == "dense" else {**CONV, **attrs}
    graph = b.done(b(op, x="x", w=error, **fields))
    y = run_float(graph, {"x": np.broadcast_to(mean, shape).astype(np.float32)})[graph.outputs[0]]
    expected = y.reshape(-1, y.shape[-1]).mean(axis=0)
    found = weights.mean_shift(graph, graph.nodes[0], error.astype(np.float64), tuple(mean.tolist()))
    assert found == pytest.approx(expected, abs=1e-4)


def test_bias_correction_takes_the_shift_out_of_the_program() -> None:
    """Weights of a 1x1 layer on a positive image: without correction their rounding shifts whole channels."""
    rng = np.random.default_rng(5)
    b = Builder(x=(1, 8, 8, 64))
    w = rng.normal(size=(16, 1, 1, 64))
    w[:, 0, 0, 0] *= 20
    graph = b.done(b("conv2d", x="x", w=w, **{**CONV, "pad": (0, 0, 0, 0)}))
    samples = np.abs(rng.normal(2, 1, (20, 8, 8, 64))).astype(np.float32)
    found = calibrate(graph, samples)
    params, graph = assign(graph, found.ranges)
    shifts = []
    for means in ({}, found.means):
        program = convert(graph, params, means=means)
        runs = [(run_integer(program, {"x": s[None]}), run_float(graph, {"x": s[None]})) for s in samples]
        difference = np.mean([i[v] - f[v] for i, f in runs for v in graph.outputs], axis=(0, 1, 2, 3))
        shifts.append(float(np.abs(difference).max()))
    assert shifts[1] < shifts[0] / 4
