"""Multiply-accumulates of the ops that are sums of products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from single_node import CONV, float_graph

from qcc.ops import OPS


@pytest.mark.parametrize(
    ("op", "inputs", "constants", "attrs", "expected"),
    [
        ("conv2d", {"x": (1, 4, 4, 6)}, {"w": (8, 3, 3, 3)}, {**CONV, "groups": 2}, 2 * 2 * 8 * 27),
        ("conv2d", {"x": (2, 4, 4, 6)}, {"w": (6, 3, 3, 1)}, {**CONV, "groups": 6}, 2 * 4 * 6 * 9),
        ("conv_transpose2d", {"x": (1, 4, 5, 6)}, {"w": (8, 3, 2, 3)},
         {**CONV, "groups": 2, "output_pad": (0, 0)}, 4 * 5 * 6 * 6 * 4),
        ("dense", {"x": (2, 3, 5)}, {"w": (7, 5)}, {"clamp": None}, 2 * 3 * 5 * 7),
        ("matmul", {"a": (2, 3, 5), "b": (2, 5, 4)}, {}, {"transpose_b": False}, 2 * 3 * 5 * 4),
        ("add", {"a": (3,), "b": (3,)}, {}, {"clamp": None}, 0),
    ],
)  # fmt: skip
def test_macs(op: str, inputs: Any, constants: Any, attrs: dict[str, Any], expected: int) -> None:
    x, c = ({k: np.zeros(s, np.float32) for k, s in group.items()} for group in (inputs, constants))
    graph = float_graph(op, x, c, attrs)
    node = graph.nodes[0]
    assert OPS[op].macs(node, graph.input_types(node), graph.types["y"]) == expected
