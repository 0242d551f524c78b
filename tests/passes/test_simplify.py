"""All passes in their order: on random graphs and on the real models."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from float_graphs import apply, close, feed, ops, random_graph
from qcc.frontend.onnx import load
from qcc.ir.evaluate import run_float
from qcc.ir.graph import Graph
from qcc.ir.verify import verify
from qcc.passes import SIMPLIFY

REAL = {
    "mnist_cnn": {"reshape": 2, "conv2d": 2, "max_pool": 2, "dense": 1},
    "mobilenet_v1_0.75_224": {"transpose": 1, "conv2d": 27, "reduce_mean": 1, "dense": 1},
    "mobilenet_v2_1.0_224_deq": {"transpose": 1, "conv2d": 53, "reduce_mean": 1, "reshape": 1},
    "resnet20_cifar10": {
        "transpose": 1, "conv2d": 19, "slice": 2, "pad": 2, "avg_pool": 1, "reshape": 1, "dense": 1,
    },
}  # fmt: skip
REAL["resnet20_cifar10_bn"] = REAL["resnet20_cifar10"]


def simplified(graph: Graph) -> Graph:
    for rewrite in SIMPLIFY:
        graph = rewrite(graph)
    return graph


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs(seed: int) -> None:
    print("seed", seed)
    graph = random_graph(seed)
    for rewrite in SIMPLIFY:
        graph = apply(rewrite, graph)


@pytest.mark.parametrize("name", REAL)
def test_real_models(name: str, data_dir: Path) -> None:
    before = load(data_dir / "models" / f"{name}.onnx")
    after = simplified(before)
    verify(after)
    assert Counter(ops(after)) == REAL[name]
    x = feed(before)
    expected, found = run_float(before, x), run_float(after, x)
    assert all(close(found[v], expected[v]) for v in before.outputs)


@pytest.mark.parametrize("name", REAL)
def test_names_still_say_what_they_hold(name: str, data_dir: Path) -> None:
    """A name that survives stands for the same numbers, though perhaps in another order of axes."""
    before = load(data_dir / "models" / f"{name}.onnx")
    after = simplified(before)
    shared = [n.output for n in after.nodes if n.output in {m.output for m in before.nodes}]
    assert len(shared) > len(after.nodes) / 2
    x = feed(before)
    expected, found = run_float(before, x, shared), run_float(after, x, shared)
    for value in shared:
        assert close(np.sort(found[value], axis=None), np.sort(expected[value], axis=None)), value
