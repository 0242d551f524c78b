"""Operators that move data, folded shape arithmetic, names and aliases."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx_support import check, floats, model, op, runtime

from qcc.frontend.onnx import load
from qcc.ir.evaluate import run_float

SHAPE = {"x": (2, 3, 4, 5)}


@pytest.mark.parametrize("shape", [[6, 20], [0, -1], [-1], [2, 0, 20], [1, 2, 3, 4, 5]])
def test_reshape(shape: list[int]) -> None:
    check(model(op("Reshape", "x s"), SHAPE, {"s": shape}))


@pytest.mark.parametrize("axis", [0, 1, 3, 4, -1, -2])
def test_flatten(axis: int) -> None:
    check(model(op("Flatten", "x", axis=axis), SHAPE))


@pytest.mark.parametrize("axes", [None, [0], [0, 2], [-2]])
@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze(opset: int, axes: list[int] | None) -> None:
    shape = {"x": (1, 3, 1, 5)}
    if axes is None:
        check(model(op("Squeeze", "x"), shape, opset=opset))
    elif opset < 13:
        check(model(op("Squeeze", "x", axes=axes), shape, opset=opset))
    else:
        check(model(op("Squeeze", "x a"), shape, {"a": axes}, opset=opset))


@pytest.mark.parametrize("axes", [[0], [1, 3], [-1], [3, 0]])
def test_unsqueeze(axes: list[int]) -> None:
    check(model(op("Unsqueeze", "x a"), {"x": (3, 4)}, {"a": axes}))
    if min(axes) >= 0:
        check(model(op("Unsqueeze", "x", axes=axes), {"x": (3, 4)}, opset=9))


@pytest.mark.parametrize("perm", [None, [0, 2, 3, 1], [3, 0, 1, 2], [0, 1, 2, 3]])
def test_transpose(perm: list[int] | None) -> None:
    attributes = {} if perm is None else {"perm": perm}
    check(model([op("Transpose", "x", "t", **attributes), op("Neg", "t")], SHAPE))


@pytest.mark.parametrize("shape", [[3, 4], [2, 3, 4], [1, 1], [2, 3, 1]])
def test_expand(shape: list[int]) -> None:
    check(model([op("Expand", "x s", "e"), op("Neg", "e")], {"x": (3, 1)}, {"s": shape}))


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (op("Slice", "x n n"), {"n": []}),
        (op("Pad", "x n"), {"n": []}),
        (op("Transpose", "x"), {}),
        (op("Tile", "x n"), {"n": []}),
        (op("ReduceMean", "x"), {}),
        (op("Flatten", "x", axis=0), {}),
        (op("Unsqueeze", "x a"), {"a": [0, 1]}),
        (op("Expand", "x s"), {"s": [2, 3]}),
    ],
    ids=lambda part: part.op_type if isinstance(part, onnx.NodeProto) else "",
)
def test_scalars(node: onnx.NodeProto, constants: dict[str, list[int]]) -> None:
    """What ONNX Runtime computes, or, of Slice, what it refuses to."""
    graph = load(model(node, {"x": ()}, constants))
    (found,) = run_float(graph, {"x": np.float32(1.5)}).values()
    np.testing.assert_array_equal(found, np.full(graph.types["y"].shape, np.float32(1.5)))


def test_tile() -> None:
    check(model(op("Tile", "x r"), {"x": (1, 2, 3)}, {"r": [2, 1, 3]}))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis: int) -> None:
    check(model(op("Concat", "x z c", axis=axis), {"x": (2, 3), "z": (2, 3)}, {"c": floats(2, 3)}))


def test_concat_of_one() -> None:
    check(model([op("Concat", "x", "c", axis=0), op("Neg", "c")], {"x": (2, 3)}))


@pytest.mark.parametrize(("opset", "attributes", "parts"), [
    (11, {}, None), (11, {"split": [2, 4]}, None), (13, {}, None), (13, {}, [1, 5]), (18, {"num_outputs": 2}, None),
])
def test_split(opset: int, attributes: dict[str, Any], parts: list[int] | None) -> None:
    nodes = [op("Split", "x p" if parts else "x", "a b", axis=1, **attributes), op("Neg", "b")]
    check(model(nodes, {"x": (2, 6, 3)}, {"p": parts} if parts else {}, opset=opset, outputs="y a"))


def test_split_unevenly() -> None:
    check(model(op("Split", "x", "a b c", axis=-1, num_outputs=3), {"x": (2, 8)}, opset=18, outputs="a b c"))


SLICES: list[dict[str, list[int]]] = [
    {"starts": [1], "ends": [3]},
    {"starts": [0, 1], "ends": [2**40, -1], "axes": [-1, 2]},
    {"starts": [-3], "ends": [-1], "axes": [3]},
    {"starts": [0, 0], "ends": [99, 99], "axes": [2, 3], "steps": [2, 3]},
    {"starts": [-1], "ends": [-(2**40)], "axes": [3], "steps": [-1]},
    {"starts": [4, 0], "ends": [0, 3], "axes": [3, 2], "steps": [-2, 2]},
    {"starts": [1, 3], "ends": [2, 0], "axes": [1, 2], "steps": [1, -1]},
    {"starts": [0], "ends": [99], "axes": [1], "steps": [1]},
]


@pytest.mark.parametrize("case", SLICES)
def test_slice(case: dict[str, list[int]]) -> None:
    inputs = "x starts ends " + ("axes " if "axes" in case else "- ") + ("steps" if "steps" in case else "")
    check(model([op("Slice", inputs.rstrip("- "), "s"), op("Neg", "s")], SHAPE, case))


@pytest.mark.parametrize("case", SLICES[:3])
def test_slice_by_attributes(case: dict[str, list[int]]) -> None:
    check(model(op("Slice", "x", **case), SHAPE, opset=9))


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
@pytest.mark.parametrize("pads", [
    [0, 0, 1, 2, 0, 0, 3, 0], [1, 0, 0, 1, 0, 2, 1, 1], [0, 0, -1, 2, 0, 0, 0, -2], [0] * 8,
])
def test_pad(mode: str, pads: list[int]) -> None:
    if mode == "constant" or min(pads) == 0:
        check(model([op("Pad", "x p v", "t", mode=mode), op("Neg", "t")], SHAPE, {"p": pads, "v": np.float32(0.5)}))
        check(model([op("Pad", "x", "t", mode=mode, pads=pads, value=0.5), op("Neg", "t")], SHAPE, opset=10))


def test_pad_some_axes() -> None:
    check(model(op("Pad", "x p - a"), SHAPE, {"p": [1, 2, 0, 3], "a": [-1, 1]}, opset=18))


@pytest.mark.parametrize(("axis", "indices"), [
    (1, [0, 2]), (2, [1]), (3, [-1, 0, 0]), (0, np.int64(1)), (1, np.array([[0, 1], [2, 0]])), (-1, np.array(-2)),
])
def test_gather(axis: int, indices: Any) -> None:
    check(model(op("Gather", "x i", axis=axis), SHAPE, {"i": indices}))


def test_even_gather_is_a_slice() -> None:
    graph = load(model(op("Gather", "x i", axis=3), SHAPE, {"i": [0, 2, 4]}))
    assert [n.op for n in graph.nodes] == ["slice"]


def test_shape_arithmetic_is_folded() -> None:
    """Flatten as exporters write it, and zeros of a computed shape, leave one reshape and one addition."""
    nodes = [
        op("Shape", "x", "s"), op("Gather", "s zero", "n"), op("Unsqueeze", "n axis", "n1"),
        op("Concat", "n1 rest", "target", axis=0), op("Reshape", "x target", "flat"),
        op("Shape", "flat", "fs"), op("ConstantOfShape", "fs", "ones",
                                      value=onnx.numpy_helper.from_array(np.ones(1, np.float32))),
        op("Size", "x", "count"), op("Cast", "count", "real", to=1), op("Div", "ones real", "share"),
        op("Where", "mask share share", "chosen"), op("Add", "flat chosen"),
    ]
    constants = {"zero": np.int64(0), "axis": [0], "rest": [-1], "mask": np.array(True)}
    graph = check(model(nodes, SHAPE, constants))
    assert [n.op for n in graph.nodes] == ["reshape", "add"]


def test_shape_with_bounds_and_range() -> None:
    nodes = [op("Shape", "x", "s", start=1, end=-1), op("ReduceProd", "s", "p", keepdims=0),
             op("Range", "z p one", "r"), op("Cast", "r", "f", to=1), op("Reshape", "f s", "g"),
             op("Unsqueeze", "g a", "h"), op("Add", "x h")]
    check(model(nodes, SHAPE, {"z": np.int64(0), "one": np.int64(1), "a": [2]}))


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 13, 18, 21])
def test_weights_reshaped_in_the_graph(opset: int) -> None:
    nodes = [op("Reshape", "flat ws", "w"), op("Transpose", "w", "t", perm=[1, 0]), op("MatMul", "x t")]
    check(model(nodes, {"x": (2, 3)}, {"flat": floats(12), "ws": [4, 3]}, opset=opset))


def test_half_and_double_weights() -> None:
    for dtype, to in ((np.float16, 10), (np.float64, 11)):
        nodes = [op("Cast", "w", "w32", to=1), op("Cast", "x", "x2", to=to), op("Cast", "x2", "x3", to=1),
                 op("MatMul", "x3 w32")]
        check(model(nodes, {"x": (2, 3)}, {"w": floats(3, 4).astype(dtype)}), tolerance=2e-3)


def test_constant_nodes_of_every_kind() -> None:
    tensor = onnx.numpy_helper.from_array(floats(3))
    nodes = [op("Constant", "", "a", value=tensor), op("Constant", "", "b", value_float=2.0),
             op("Constant", "", "c", value_floats=[1.0, 2.0, 3.0]), op("Constant", "", "d", value_ints=[1, 3]),
             op("Add", "x a", "p"), op("Mul", "p b", "q"), op("Add", "q c", "r"), op("Reshape", "r d")]
    check(model(nodes, {"x": (3,)}))


def test_local_functions_are_inlined() -> None:
    twice = onnx.helper.make_function("local", "Twice", ["a"], ["b"], [op("Add", "a a", "b")],
                                      [onnx.helper.make_opsetid("", 17)])
    proto = model([onnx.helper.make_node("Twice", ["x"], ["t"], domain="local"), op("Neg", "t")], {"x": (2, 3)})
    proto.functions.append(twice)
    proto.opset_import.append(onnx.helper.make_opsetid("local", 1))
    assert [n.op for n in check(proto).nodes] == ["add", "pointwise"]


def test_names_and_sources() -> None:
    nodes = [op("Conv", "x w", "conv_out", name="conv1"), op("Relu", "conv_out", "y")]
    graph = load(model(nodes, {"x": (1, 2, 4, 4)}, {"w": floats(3, 2, 3, 3)}), name="net")
    assert graph.name == "net"
    assert (graph.inputs, graph.outputs, list(graph.constants)) == (["x"], ["y"], ["w"])
    assert [n.output for n in graph.nodes][-2:] == ["conv_out", "y"]
    assert [n.source for n in graph.nodes] == ["Conv 'conv1'"] * 3 + ["Relu 'y'"]


def test_helper_values_never_take_a_name_of_the_file() -> None:
    nodes = [op("Conv", "x w", "c"), op("Neg", "c", "c.transpose"), op("Add", "c.transpose c", "c.conv2d"),
             op("Neg", "c.conv2d", "y")]
    graph = check(model(nodes, {"x": (1, 2, 4, 4)}, {"w": floats(3, 2, 1, 1)}))
    assert {"c", "c.transpose", "c.conv2d", "y"} <= {n.output for n in graph.nodes}


def test_outputs_keep_their_names_behind_identities() -> None:
    nodes = [op("Relu", "x", "r"), op("Identity", "r", "y"), op("Dropout", "r", "z"), op("Neg", "r", "n"),
             op("Identity", "x", "copy")]
    graph = check(model(nodes, {"x": (2, 3)}, outputs="y z n copy"))
    assert graph.outputs == ["y", "z", "n", "copy"]


def test_dead_nodes_are_not_imported() -> None:
    nodes = [op("Relu", "x", "y"), op("NonZero", "x", "unused")]
    assert len(load(model(nodes, {"x": (2, 3)})).nodes) == 1


def test_unsorted_nodes_are_sorted() -> None:
    proto = model([op("Neg", "t", "y"), op("Relu", "x", "t")], {"x": (2, 3)})
    assert [n.op for n in load(proto).nodes] == ["pointwise", "pointwise"]
    ordered = model([op("Relu", "x", "t"), op("Neg", "t", "y")], {"x": (2, 3)})
    feed = {"x": floats(2, 3)}
    np.testing.assert_array_equal(run_float(load(proto), feed)["y"], runtime(ordered, feed)["y"])


def test_initializers_listed_as_inputs_are_constants() -> None:
    proto = model(op("Add", "x c"), {"x": (2, 3)}, {"c": floats(3)})
    proto.graph.input.append(onnx.helper.make_tensor_value_info("c", 1, [3]))
    assert load(proto).inputs == ["x"]
