"""Outputs over their inputs: which may be, in which direction, and that kernels then still compute the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from integer_programs import Builder, random_inputs
from qcc import pipeline
from qcc.ir.graph import Graph
from qcc.plan.layout import Layout, plan_layout
from qcc.plan.overlay import BACKWARD, FORWARD
from qcc.target import Target
from qcc.verify import verify_model


def chain(*layers: tuple[int, int, int, int], size: tuple[int, int] = (9, 7), channels: int = 4) -> Graph:
    """Convolutions of (channels, taps, stride, padding) one after the other."""
    b = Builder("chain", 5)
    x = b.input((1, *size, channels))
    for count, taps, stride, pad in layers:
        x = b.conv(x, count, taps, (pad,) * 4, stride)
    return b.output(x)


def directions(graph: Graph) -> list[int]:
    layout = plan_layout(graph, Target.load("cortex-m4"))
    return [layout.overlay(node.output) for node in graph.nodes]


@pytest.mark.parametrize(("layer", "direction"), [
    ((4, 1, 1, 0), BACKWARD), ((8, 1, 1, 0), BACKWARD), ((3, 1, 1, 0), FORWARD),  # pixel by pixel
    ((4, 3, 1, 1), FORWARD), ((2, 3, 2, 1), FORWARD), ((12, 3, 1, 1), BACKWARD),  # row by row
    ((4, 3, 1, 0), FORWARD), ((8, 2, 2, 0), FORWARD),
    ((18, 1, 3, 0), 0),  # a row of outputs covers what is needed next, either way
])  # fmt: skip
def test_directions(layer: tuple[int, int, int, int], direction: int) -> None:
    assert directions(chain(layer)) == [direction]


def brute_force(layout: Layout, graph: Graph) -> int:
    """The direction in which a convolution of windows meets no byte that it has overwritten."""
    node = graph.nodes[0]
    (_, height, width, depth), (_, rows, columns, channels) = (graph.types[v].shape for v in (node.inputs["x"],
                                                                                             node.output))  # fmt: skip
    taps, (stride, _), (top, *_) = graph.types[node.inputs["w"]].shape[1], node.attrs["stride"], node.attrs["pad"]
    for direction, order in ((FORWARD, range(rows)), (BACKWARD, range(rows - 1, -1, -1))):
        fetched, written, safe = set[int](), set[int](), True
        for i in order:
            for r in range(max(0, i * stride - top), min(height, i * stride - top + taps)):
                if r not in fetched:
                    safe = safe and not written & set(range(r * width * depth, (r + 1) * width * depth))
                    fetched.add(r)
            written |= set(range(i * columns * channels, (i + 1) * columns * channels))
        if safe:
            return direction
    return 0


@pytest.mark.parametrize("seed", range(12))
def test_against_every_byte(seed: int) -> None:
    b = Builder("one", seed)
    height, width, depth, channels = (int(n) for n in b.rng.integers(3, 12, 4))
    taps, stride, pad = int(b.rng.integers(2, 4)), int(b.rng.integers(1, 4)), int(b.rng.integers(0, 2))
    graph = chain((channels, taps, stride, pad), size=(height, width), channels=depth)
    found = directions(graph)[0]
    assert found in (0, brute_force(plan_layout(graph, Target.load("c99")), graph))


@pytest.mark.parametrize("target", ["c99", "cortex-m4", "cortex-m55"])
def test_bytes(target: str, tmp_path: Path) -> None:
    """Each kind of convolution over its input, forwards and backwards, with odd sizes."""
    graph = chain((8, 1, 1, 0), (16, 3, 1, 1), (16, 3, 1, 1), (6, 3, 1, 1), (6, 1, 1, 0), (3, 1, 1, 0), (5, 3, 2, 1))
    assert set(directions(graph)) == {FORWARD, BACKWARD}
    model = pipeline.build(graph, Target.load(target), tmp_path / "out", jobs=1)
    over = [layer["name"] for layer in model.manifest["layers"] if any("over " in r for r in layer["remarks"])]
    assert len(over) >= 5, "where memory is short; the last layers are small"
    assert verify_model(model, [random_inputs(graph, seed) for seed in range(3)]) is None
    largest = max(t.nbytes for name, t in graph.types.items() if t.dtype == "int8" and name not in graph.constants)
    work = max(b["bytes"] for b in model.manifest["arena"]["buffers"] if b["name"].endswith("(work)"))
    assert model.manifest["arena"]["bytes"] <= largest + work
