"""fake_quant nodes that change nothing go; the function stays the same, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from float_graphs import Builder, feed
from qcc.ir.evaluate import run_float
from qcc.ir.graph import Graph
from qcc.passes.merge_fake_quants import merge_fake_quants

Q = {"scale": 0.05, "zero_point": -20}
OTHER = {"scale": 0.07, "zero_point": -20}
X = (2, 6, 5, 4)


def marks_left(graph: Graph) -> int:
    result = merge_fake_quants(graph)
    for seed in range(3):
        x = feed(graph, seed)
        want, found = run_float(graph, x), run_float(result, x)
        for value in graph.outputs:
            np.testing.assert_array_equal(want[value], found[value])
    return sum(n.op == "fake_quant" for n in result.nodes)


@pytest.mark.parametrize("op", ["max_pool", "reshape", "transpose", "slice", "concat", "pad"])
def test_moved_values_stay_quantized(op: str) -> None:
    b = Builder(x=X)
    first = b("fake_quant", x="x", **Q)
    attrs = {
        "max_pool": {"kernel": (2, 2), "stride": (2, 2), "pad": (0,) * 4, "dilation": (1, 1)},
        "reshape": {"shape": (12, 20)}, "transpose": {"perm": (0, 3, 1, 2)},
        "slice": {"begin": (0,) * 4, "end": (1, 6, 5, 4), "step": (1,) * 4}, "concat": {"axis": 3},
        "pad": {"pads": ((0, 0), (1, 1), (0, 0), (0, 0)), "mode": "constant", "value": 0.0},
    }[op]
    moved = b(op, **({"x0": first, "x1": first} if op == "concat" else {"x": first}), **attrs)
    last = b("fake_quant", x=moved, **Q)
    assert marks_left(b.done(b("pointwise", x=last, expr=("tanh", "x")))) == 1


@pytest.mark.parametrize(("second", "left"), [(Q, 1), (OTHER, 2)])
def test_clips_between_equal_quantizations(second: dict[str, float], left: int) -> None:
    for limits in ((0.0, float("inf")), (0.013, 3.971)):
        b = Builder(x=X)
        clipped = b.clip(b("fake_quant", x=b.conv("x", 4), **Q), *limits)
        assert marks_left(b.done(b("fake_quant", x=clipped, **second))) == left


def test_a_value_that_others_read_keeps_its_quantization() -> None:
    b = Builder(x=X)
    shared = b("fake_quant", x=b.conv("x", 4), **Q)
    clipped = b("fake_quant", x=b.clip(shared), **Q)
    assert marks_left(b.done(clipped, b("pointwise", x=shared, expr=("tanh", "x")))) == 2


@pytest.mark.parametrize("value", [0.01, 99.0])
def test_padding_that_is_not_on_the_grid(value: float) -> None:
    b = Builder(x=X)
    first = b("fake_quant", x="x", **Q)
    padded = b("pad", x=first, pads=((0, 0), (1, 1), (0, 0), (0, 0)), mode="constant", value=value)
    assert marks_left(b.done(b("fake_quant", x=padded, **Q))) == 2
