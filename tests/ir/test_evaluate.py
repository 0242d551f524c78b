"""Running graphs: what is checked, what is kept, what is freed."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qcc.errors import InputError
from qcc.ir.evaluate import run_float, run_integer
from qcc.ir.graph import Arrays, Graph, Node, TensorType, Types
from qcc.ops import OPS

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def chain() -> Graph:
    """y = -(x * c), z = y + y; outputs x2 (an input passed on) and z."""
    graph = Graph("chain", ["x"], ["x", "z"], {"x": TensorType((2, 3))})
    graph.add_constant("c", np.array([1, 2, 3], np.float32))
    for node in (
        Node("m", "mul", {"a": "x", "b": "c"}, {"clamp": None}),
        Node("y", "pointwise", {"x": "m"}, {"expr": ("neg", "x")}),
        Node("z", "add", {"a": "y", "b": "y"}, {"clamp": None}),
        Node("unused", "reshape", {"x": "z"}, {"shape": (6,)}),
    ):
        graph.types[node.output] = OPS[node.op].infer(node, graph.input_types(node))
        graph.nodes.append(node)
    return graph


def test_outputs_and_kept_values() -> None:
    found = run_float(chain(), {"x": X}, keep=["y", "c"])
    assert list(found) == ["x", "z", "y", "c"]
    assert (found["y"] == -X * [1, 2, 3]).all()
    assert (found["z"] == 2 * found["y"]).all()
    assert list(run_float(chain(), {"x": X})) == ["x", "z"]


def test_dead_values_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last reader of a value has run, nothing holds its array."""
    alive: dict[str, weakref.ref[Any]] = {}
    seen: dict[str, list[str]] = {}

    def spy(name: str) -> None:
        op = OPS[name]
        original = op.real

        def real(node: Node, x: Arrays) -> NDArray[Any]:
            gc.collect()
            seen[node.output] = [value for value, ref in alive.items() if ref() is not None]
            y = original(node, x)
            alive[node.output] = weakref.ref(y)
            return y

        monkeypatch.setattr(op, "real", real)

    for name in ("mul", "pointwise", "add", "reshape"):
        spy(name)
    run_float(chain(), {"x": X})
    assert seen == {"m": [], "y": ["m"], "z": ["y"], "unused": ["z"]}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"^x: this input is missing. Hint: give float32\[2, 3\]$"),
        ({"x": X, "w": X}, "^w: the model has no such input. Hint: its inputs are x$"),
        ({"x": X[0]}, r"^x: shape \(3,\) was given, \(2, 3\) is expected. Hint: reshape"),
        ({"x": X.astype(np.float64)}, r"^x: dtype float64 was given, float32 is expected. Hint: convert it: x.astype"),
    ],
)
@pytest.mark.parametrize("run", [run_float, run_integer])
def test_wrong_inputs(run: Any, inputs: dict[str, NDArray[Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(chain(), inputs)


def test_integer_nodes_see_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """run_integer hands each op its operands' types and its own."""

    def integer(node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        assert types["x"].shape == x["x"].shape
        assert out.shape == (6,)
        return np.zeros(out.shape, np.int8)

    graph = Graph("one", ["x"], ["y"], {"x": TensorType((2, 3), "int8"), "y": TensorType((6,), "int8")})
    graph.nodes.append(Node("y", "reshape", {"x": "x"}, {"shape": (6,)}))
    monkeypatch.setattr(OPS["reshape"], "integer", integer)
    assert run_integer(graph, {"x": np.ones((2, 3), np.int8)})["y"].tolist() == [0] * 6
