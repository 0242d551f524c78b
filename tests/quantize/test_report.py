"""The table of signal-to-noise ratios."""

from __future__ import annotations

import math

import numpy as np
import pytest

from float_graphs import NHWC, Builder
from qcc.quantize.assign import assign
from qcc.quantize.calibrate import calibrate
from qcc.quantize.convert import convert
from qcc.quantize.report import Quality, layer_quality, quality_table


def test_quality_follows_the_program() -> None:
    b = Builder(x=(1, 3, 8, 8))
    image = b("transpose", name="image", x="x", perm=NHWC)
    first = b.conv(image, 4)
    graph = b.done(b("argmax", x=b.conv(first, 2), axis=3, keepdims=False), b.conv(first, 3))
    samples = np.random.default_rng(0).uniform(-1, 1, (6, 3, 8, 8)).astype(np.float32)
    found = calibrate(graph, samples, "minmax")
    params, graph = assign(graph, found.ranges)
    rows = layer_quality(graph, convert(graph, params, means=found.means), samples)
    assert [(r.value, r.op) for r in rows] == [
        ("image", "quantize"), (first, "conv2d"), (graph.nodes[2].output, "conv2d"), (graph.outputs[1], "dequantize"),
    ]  # fmt: skip
    signal, step = np.square(samples[:4]).mean(), params["image"].step
    assert rows[0].sqnr == pytest.approx(10 * math.log10(signal / (step**2 / 12)), abs=0.5)
    assert min(r.sqnr for r in rows) > 25


def test_exact_values_and_silent_values() -> None:
    b = Builder(x=(1, 4))
    graph = b.done(b("pointwise", x="x", expr=("clip", "x", 0.0, 0.0)))
    params, graph = assign(graph, {"x": (-1.0, 1.0), graph.outputs[0]: (0.0, 0.0)})
    rows = layer_quality(graph, convert(graph, params), np.ones((1, 4), np.float32))
    assert rows[-1].sqnr == math.inf


def test_table() -> None:
    text = quality_table([Quality("a", "conv2d", 31.25), Quality("b", "dense", math.inf)])
    assert text.splitlines() == [
        "    dB  op                value", "  31.2  conv2d            a", "   inf  dense             b",
    ]  # fmt: skip
