"""Calibration: ranges, forms of samples, memory, and every complaint."""

from __future__ import annotations

import io
import re
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from float_graphs import POOL, Builder
from qcc.errors import CalibrationError
from qcc.ir.evaluate import run_float
from qcc.ir.graph import Graph
from qcc.quantize.calibrate import Calibration, calibrate, feeds, fingerprint, layer_inputs, observed
from qcc.quantize.observers import SUBSAMPLE


def network(batch: int = 1) -> Graph:
    b = Builder(x=(batch, 6, 6, 3))
    y = b("max_pool", x=b.conv("x", 8, clamp=(0.0, 6.0)), **POOL, dilation=(1, 1))
    y = b("reduce_mean", x=b.conv(y, 4), axes=(1, 2), keepdims=False)
    return b.done(b("softmax", x=b("dense", x=y, w=b.normal(5, 4), b=b.normal(5), clamp=None)))


def two_inputs(batch: int = 1) -> Graph:
    b = Builder(x=(batch, 3), side=(batch, 2, 3))
    return b.done(b("add", a=b("reshape", x="x", shape=(batch, 1, 3)), b="side", clamp=None))


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_what_is_observed() -> None:
    graph = network()
    by_op = {v: n.op for n in graph.nodes for v in [n.output]}
    assert [by_op.get(v, v) for v in observed(graph)] == ["x", "conv2d", "conv2d", "reduce_mean", "dense"]
    assert [by_op.get(v, v) for v in layer_inputs(graph)] == ["x", "max_pool", "reduce_mean"]


def test_ranges_and_means_are_numpys() -> None:
    graph, samples = network(), random(7, 6, 6, 3)
    found = calibrate(graph, samples, "minmax")
    values = list(dict.fromkeys([*observed(graph), *layer_inputs(graph)]))
    runs = [run_float(graph, {"x": s[None]}, keep=values) for s in samples]
    for value in values:
        seen = np.stack([r[value] for r in runs])
        if value in found.ranges:
            assert found.ranges[value] == pytest.approx((seen.min(), seen.max()), rel=1e-5, abs=1e-5)
        if value in found.means:
            expected = seen.reshape(-1, seen.shape[-1]).mean(axis=0)
            assert found.means[value] == pytest.approx(tuple(expected), rel=1e-4, abs=1e-5)


def test_methods_clip_inside_but_not_at_the_edges() -> None:
    b = Builder(x=(1, 64))
    middle = b("dense", x="x", w=b.normal(32, 64), clamp=None)
    graph = b.done(b("pointwise", x=middle, expr=("mul", "x", 2.0)))
    samples = random(200, 64)
    exact, clipped = calibrate(graph, samples, "minmax").ranges, calibrate(graph, samples).ranges
    assert clipped["x"] == exact["x"]
    assert clipped[graph.outputs[0]] == exact[graph.outputs[0]]
    assert exact[middle][0] < clipped[middle][0] < clipped[middle][1] < exact[middle][1]


def generator(samples: Any) -> Iterator[Any]:
    yield from samples


FORMS: list[Callable[[Any], Any]] = [
    lambda a: a,
    lambda a: a[:, None],
    list,
    generator,
    lambda a: generator(a[:, None]),
    lambda a: {"x": a},
    lambda a: [{"x": row} for row in a],
    lambda a: generator({"x": row[None]} for row in a),
    lambda a: a.astype(np.float64),
    lambda a: [row.tolist() for row in a],
]


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_samples(form: Callable[[Any], Any]) -> None:
    graph, samples = network(), random(4, 6, 6, 3)
    assert calibrate(graph, form(samples)) == calibrate(graph, samples)


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_rows_are_joined_into_batches(count: int) -> None:
    samples = random(count, 6, 6, 3)
    single, batched = calibrate(network(), samples, "minmax"), calibrate(network(4), samples, "minmax")
    for value, limits in single.ranges.items():
        assert batched.ranges[value] == pytest.approx(limits, rel=1e-5)
    whole = calibrate(network(4), random(2, 4, 6, 6, 3), "minmax")
    assert whole == calibrate(network(4), random(8, 6, 6, 3), "minmax")


def test_one_sample_without_its_batch() -> None:
    assert calibrate(network(), random(6, 6, 3)) == calibrate(network(), random(1, 6, 6, 3))


@pytest.mark.parametrize("batch", [1, 2])
def test_several_inputs(batch: int) -> None:
    graph = two_inputs(batch)
    x, side = random(6, 3), random(6, 2, 3, seed=1)
    found = calibrate(graph, {"x": x, "side": side}, "minmax")
    assert found.ranges["side"] == (float(side.min()), float(side.max()))
    assert calibrate(graph, [{"x": a, "side": b} for a, b in zip(x, side, strict=True)], "minmax") == found


def test_memory_does_not_grow_with_the_samples() -> None:
    b = Builder(x=(1, 48, 48, 8))
    graph = b.done(b.conv("x", 8))

    def peak(count: int) -> int:
        tracemalloc.start()
        calibrate(graph, (random(48, 48, 8, seed=i) for i in range(count)))
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return top

    peak(2)
    one_sample = 48 * 48 * 8 * 4
    assert peak(200) < peak(10) + 5 * one_sample


def test_results_are_plain_numbers() -> None:
    found = calibrate(network(), random(2, 6, 6, 3))
    assert all(type(v) is float for limits in found.ranges.values() for v in limits)
    assert all(type(v) is float for mean in found.means.values() for v in mean)
    assert isinstance(found, Calibration)


def test_means_of_large_images_use_a_subset() -> None:
    b = Builder(x=(1, 80, 80, 8))
    graph = b.done(b.conv("x", 2, kernel=1))
    samples = random(3, 80, 80, 8) + np.arange(8, dtype=np.float32)
    assert samples[0].size > SUBSAMPLE
    assert calibrate(graph, samples).means["x"] == pytest.approx(range(8), abs=0.1)


WRONG: list[tuple[str, Any, str]] = [
    ("nothing", random(0, 6, 6, 3), r"there are no calibration samples\. Hint: give at least one"),
    ("an empty list", [], r"there are no calibration samples"),
    ("shape", random(3, 7, 6, 3), r"sample 0: input 'x' has shape \(7, 6, 3\), the model wants \(1, 6, 6, 3\)\. Hint"),
    ("order of axes", random(2, 3, 6, 6), r"has shape \(3, 6, 6\).*Hint: transpose the samples"),
    ("batch", random(2, 5, 6, 6, 3), r"has shape \(5, 6, 6, 3\), the model wants \(1, 6, 6, 3\)"),
    ("uint8", np.zeros((2, 6, 6, 3), np.uint8), r"has dtype uint8, the model wants float32\. Hint: preprocess"),
    ("int64", [np.zeros((6, 6, 3), np.int64)], r"has dtype int64"),
    ("nan", [random(6, 6, 3), np.full((6, 6, 3), np.nan)], r"sample 1: input 'x' holds a NaN or an infinity\. Hint"),
    ("overflow", np.full((1, 6, 6, 3), 1e300), r"holds a NaN or an infinity"),
    ("unknown input", {"y": random(2, 6, 6, 3)}, r"the model has no input 'y'\. Hint: its inputs are x"),
    ("ragged", [[[1.0], [2.0, 3.0]]], r"input 'x' is not an array"),
    ("a path", "samples.npz", r"calibration samples cannot be a str\. Hint: give an array"),
    ("a number", 3, r"calibration samples cannot be a int"),
]


@pytest.mark.parametrize(("samples", "message"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_complaints(samples: Any, message: str) -> None:
    with pytest.raises(CalibrationError) as caught:
        calibrate(network(), samples)
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)


SEVERAL: list[tuple[str, int, Any, str]] = [
    ("one array", 1, random(2, 3), r"one array, but the model has 2 inputs\. Hint: give .* the keys x, side"),
    ("missing", 1, {"x": random(2, 3)}, r"input 'side' is missing\. Hint: give every input"),
    ("number", 1, {"x": np.float32(3), "side": random(3)}, r"samples of input 'x' are a single number\."),
    ("scalar", 1, {"x": np.array(3.0), "side": random(3)}, r"samples of input 'x' are a single number"),
    ("lengths", 1, {"x": random(2, 3), "side": random(3, 2, 3)}, r"different numbers of samples: .*'x': 2, 'side': 3"),
    ("mixed", 2, [{"x": random(3), "side": random(2, 2, 3)}], r"some inputs are whole, others are single rows"),
]


@pytest.mark.parametrize(("batch", "samples", "message"), [w[1:] for w in SEVERAL], ids=[w[0] for w in SEVERAL])
def test_complaints_about_several_inputs(batch: int, samples: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        calibrate(two_inputs(batch), samples)


def test_a_model_that_overflows() -> None:
    b = Builder(x=(1, 4))
    graph = b.done(b("pointwise", x=b("pointwise", name="hot", x="x", expr=("exp", "x")), expr=("neg", "x")))
    with pytest.raises(CalibrationError, match="sample 1: the float model computes a NaN or an infinity at 'hot'"):
        calibrate(graph, np.array([[0] * 4, [1000] * 4], np.float32))


def test_unknown_method() -> None:
    with pytest.raises(CalibrationError, match=r"unknown calibration method 'best'\. Hint: one of minmax, mse"):
        calibrate(network(), random(1, 6, 6, 3), "best")


def test_progress_is_on_stderr_where_that_is_a_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate(network(), random(2, 6, 6, 3))
    assert capfd.readouterr() == ("", "")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    calibrate(network(), random(2, 6, 6, 3), progress=False)
    assert sys.stderr.getvalue() == ""
    calibrate(network(), random(2, 6, 6, 3))
    assert "2/2" in sys.stderr.getvalue()
    assert capfd.readouterr().out == ""


def test_a_graph_of_one_input() -> None:
    b = Builder(x=(2, 3))
    assert calibrate(b.done("x"), random(4, 3)).ranges.keys() == {"x"}


def test_feeds_have_the_inputs_shapes() -> None:
    for feed in feeds(network(4), random(5, 6, 6, 3)):
        assert feed["x"].shape == (4, 6, 6, 3)


def test_fingerprint() -> None:
    a, b = random(3, 4), random(3, 4, seed=1)
    marks = [fingerprint(v) for v in (a, b, a.astype(np.float64), a.reshape(4, 3), [a], {"x": a}, {"y": a}, [a, b])]
    assert len(set(marks)) == len(marks)
    assert fingerprint(a.T.copy().T) == marks[0]
    assert fingerprint(generator(a)) is None
