"""fuse_table."""

from __future__ import annotations

import numpy as np
import pytest

from integer_programs import Builder
from qcc.ir.evaluate import run_integer
from qcc.ir.graph import Graph
from qcc.ir.verify import verify
from qcc.numerics import QParams
from qcc.passes.fuse_table import fuse_table


def program(outputs: int) -> Graph:
    b = Builder()
    layer = b.conv(b.input((1, 5, 5, 3)), 4)
    table = b.graph.add_constant("table", b.rng.integers(-128, 128, 256).astype(np.int8))
    y = b.node("lut", {"x": layer, "table": table}, QParams(0.01, 5))
    return b.output(*[y, layer][:outputs])


@pytest.mark.parametrize(("outputs", "ops"), [(1, ["conv2d"]), (2, ["conv2d", "lut"])])
def test_the_layer_looks_up_what_only_the_table_reads(outputs: int, ops: list[str]) -> None:
    graph = program(outputs)
    fused = fuse_table(graph)
    verify(graph)
    verify(fused)
    assert [node.op for node in fused.nodes] == ops
    assert [node.op for node in graph.nodes] == ["conv2d", "lut"]
    assert [fused.types[v] for v in fused.outputs] == [graph.types[v] for v in graph.outputs]
    x = {"x": np.random.default_rng(3).integers(-128, 128, (1, 5, 5, 3)).astype(np.int8)}
    expected, found = run_integer(graph, x), run_integer(fused, x)
    assert all(np.array_equal(found[v], expected[v]) for v in graph.outputs)


def test_one_table_a_layer() -> None:
    graph = program(1)
    again = fuse_table(graph)
    table = again.nodes[0].inputs["table"]
    b = Builder()
    b.graph = again
    b.graph.outputs = []
    y = b.node("lut", {"x": again.nodes[0].output, "table": table})
    assert [node.op for node in fuse_table(b.output(y)).nodes] == ["conv2d", "lut"]
