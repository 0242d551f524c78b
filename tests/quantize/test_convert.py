"""Integer programs of small float graphs: edges, constants, remarks, and distance from the float graph."""

from __future__ import annotations

import numpy as np
import pytest

from float_graphs import CONV, NCHW, NHWC, Builder, feed, ops, random_graph
from qcc import numerics
from qcc.ir.evaluate import run_float, run_integer
from qcc.ir.graph import Graph, TensorType
from qcc.ir.verify import verify
from qcc.numerics import QParams
from qcc.passes import SIMPLIFY
from qcc.quantize.assign import assign
from qcc.quantize.calibrate import calibrate
from qcc.quantize.convert import Io, convert


def program(graph: Graph, io: Io = "float", remarks: list[str] | None = None) -> tuple[Graph, dict[str, QParams]]:
    """Calibrated on eight random samples, checked; and the parameters."""
    found = calibrate(graph, [feed(graph, seed) for seed in range(1, 9)], "minmax")
    params, graph = assign(graph, found.ranges)
    integer = convert(graph, params, io, found.means, remarks)
    verify(integer)
    return integer, params


def steps_off(graph: Graph, integer: Graph, params: dict[str, QParams]) -> float:
    """Largest difference of any output on a calibration sample, in steps."""
    x = feed(graph, 1)
    exact, found = run_float(graph, x), run_integer(integer, x)
    assert all((found[v].dtype, found[v].shape) == (exact[v].dtype, exact[v].shape) for v in graph.outputs)
    return max(float(np.abs(exact[v] - found[v]).max() / params[v].step) for v in graph.outputs)


def image() -> Builder:
    return Builder(x=(1, 3, 8, 8))


def test_edges_take_in_the_transposes() -> None:
    b = image()
    y = b("transpose", name="y", x=b.conv(b("transpose", x="x", perm=NHWC), 4), perm=NCHW)
    graph = b.done(y)
    integer, params = program(graph)
    assert ops(integer) == ["quantize", "conv2d", "dequantize"]
    assert (integer.nodes[0].attrs["perm"], integer.nodes[2].attrs["perm"]) == (NHWC, NCHW)
    assert (integer.inputs, integer.outputs) == (["x"], ["y"])
    assert integer.types["x"] == TensorType((1, 3, 8, 8))
    assert integer.types["y"] == TensorType((1, 4, 8, 8))
    assert steps_off(graph, integer, params) <= 4


def test_an_edge_takes_in_one_transpose() -> None:
    b = image()
    x = b("transpose", x=b("transpose", x="x", perm=NHWC), perm=(0, 2, 1, 3))
    y = b("transpose", x=b("transpose", x=b.conv(x, 4), perm=(0, 2, 1, 3)), perm=NCHW)
    graph = b.done(y)
    integer, params = program(graph)
    assert ops(integer) == ["quantize", "transpose", "conv2d", "transpose", "dequantize"]
    assert steps_off(graph, integer, params) <= 4


def test_int8_edges() -> None:
    b = image()
    y = b("transpose", name="y", x=b.conv(b("transpose", x="x", perm=NHWC), 4), perm=NCHW)
    graph = b.done(y)
    integer, params = program(graph, "int8")
    assert ops(integer) == ["transpose", "conv2d", "transpose"]
    assert integer.types["x"] == TensorType((1, 3, 8, 8), "int8", params["x"])
    assert integer.types["y"] == TensorType((1, 4, 8, 8), "int8", params["y"])
    x = feed(graph, 2)["x"]
    inside = run_integer(integer, {"x": numerics.quantize_input(x, params["x"])})["y"]
    outside = run_integer(program(graph)[0], {"x": x})["y"]
    assert np.array_equal(numerics.dequantize_output(inside, params["y"]), outside)


def test_a_transpose_that_is_not_alone_stays() -> None:
    b = image()
    moved = b("transpose", x="x", perm=NHWC)
    graph = b.done(b.conv(moved, 2), b("pointwise", x="x", expr=("tanh", "x")), moved)
    integer, params = program(graph)
    assert sorted(ops(integer)) == ["conv2d", "dequantize", "dequantize", "dequantize", "lut", "quantize", "transpose"]
    assert steps_off(graph, integer, params) <= 4


def test_several_inputs_and_outputs() -> None:
    b = Builder(x=(1, 6), side=(1, 6), unused=(2, 2))
    total = b("add", name="total", a="x", b="side", clamp=None)
    graph = b.done(total, b("mul", name="product", a=total, b="side", clamp=(0.0, 3.0)), "side", total)
    integer, params = program(graph)
    assert integer.inputs == ["x", "side", "unused"]
    assert integer.outputs == ["total", "product", "side", "total"]
    assert steps_off(graph, integer, params) <= 4


def test_integer_results_are_returned_as_they_are() -> None:
    b = Builder(x=(2, 50))
    best = b("argmax", name="best", x="x", axis=1, keepdims=False)
    graph = b.done(best, b("reshape", x=best, shape=(1, 2)))
    for io in ("float", "int8"):
        integer, _ = program(graph, io)
        assert integer.types["best"] == TensorType((2,), "int32")
    assert ops(integer) == ["argmax", "reshape"]
    x = feed(graph, 3)
    assert (run_integer(program(graph)[0], x)["best"] == run_float(graph, x)["best"]).all()


def test_a_constant_output() -> None:
    b = Builder(x=(1, 3))
    y = b("pointwise", x="x", expr=("exp", "x"))
    graph = b.done(y)
    graph.outputs.append(graph.add_constant("anchors", np.float32([1.5, 2.5])))
    integer, _ = program(graph)
    assert run_integer(integer, feed(graph))["anchors"].tolist() == [1.5, 2.5]


def test_a_constant_serves_as_weight_and_as_operand() -> None:
    b = Builder(x=(4, 4))
    w = b.graph.add_constant("w", b.normal(4, 4))
    y = b("dense", x="x", w=w, clamp=None)
    y = b("add", a=y, b=w, clamp=None)
    graph = b.done(b("concat", x0=b("dense", x=y, w=w, clamp=None), x1=w, axis=0))
    integer, params = program(graph)
    stored = {v for n in integer.nodes for v in n.inputs.values() if v.startswith("w")}
    assert len(stored) == 4
    assert steps_off(graph, integer, params) <= 8


def test_names_of_new_constants_do_not_meet_later_values() -> None:
    b = Builder(x=(1, 4))
    first = b("dense", name="y", x="x", w=b.normal(4, 4), clamp=None)
    second = b("pointwise", name="y.bias", x=first, expr=("tanh", "x"))
    third = b("add", name="y.multiplier", a=second, b=first, clamp=None)
    graph = b.done(third)
    integer, params = program(graph)
    assert steps_off(graph, integer, params) <= 4


def test_repaired_overflow_is_remarked() -> None:
    b = Builder(x=(1, 200_000))
    graph = b.done(b("dense", name="y", x="x", w=np.ones((2, 200_000)), clamp=None))
    remarks: list[str] = []
    integer, _ = program(graph, remarks=remarks)
    assert remarks == ["y: weight scale of 2 channels widened to keep accumulators within 32 bits"]
    assert integer.types["y.int8"].qparams


def test_a_table_follows_its_layer() -> None:
    b = image()
    layer = b.conv(b("transpose", x="x", perm=NHWC), 4)
    graph = b.done(b("pointwise", x=layer, expr=("mul", "x", ("sigmoid", "x"))))
    integer, params = program(graph)
    assert ops(integer) == ["quantize", "conv2d", "dequantize"]
    assert "table" in integer.nodes[1].inputs
    assert steps_off(graph, integer, params) <= 4


def test_rescaled_operands_stay_close() -> None:
    b = Builder(x=(1, 4, 4, 2))
    narrow = b("pointwise", x="x", expr=("tanh", "x"))
    wide = b("pointwise", x="x", expr=("mul", "x", 30.0))
    joined = b("concat", x0=narrow, x1=wide, axis=3)
    graph = b.done(joined, b("dense", x=narrow, w=b.normal(3, 2), clamp=None))
    integer, params = program(graph)
    assert ops(integer).count("lut") == 3
    assert steps_off(graph, integer, params) <= 2


def test_a_residual_network() -> None:
    """Nine layers: the error in steps grows with the depth, and stays a small part of the 255 of the range."""
    b = Builder(7, x=(1, 3, 12, 12))
    y = b.conv(b("transpose", x="x", perm=NHWC), 8, clamp=(0.0, np.inf))
    for _ in range(4):
        z = b("conv2d", x=y, w=b.normal(8, 3, 3, 1) / 2, b=b.normal(8), **{**CONV, "groups": 8, "clamp": (0.0, 6.0)})
        y = b("conv2d", x=z, w=b.normal(8, 1, 1, 8) / 3, residual=y, **{**CONV, "pad": (0,) * 4})
    y = b("dense", x=b("reduce_mean", x=y, axes=(1, 2), keepdims=False), w=b.normal(10, 8), clamp=None)
    graph = b.done(y)
    integer, params = program(graph)
    assert steps_off(graph, integer, params) <= 8


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs(seed: int) -> None:
    """Whatever the graph, both forms of the program are legal; on average outputs are within a few steps."""
    print(f"seed {seed}")
    graph = random_graph(seed)
    for simplify in SIMPLIFY:
        graph = simplify(graph)
    program(graph, "int8")
    integer, params = program(graph)
    x = feed(graph, 1)
    exact, found = run_float(graph, x), run_integer(integer, x)
    for value in graph.outputs:
        assert (exact[value].shape, exact[value].dtype) == (found[value].shape, found[value].dtype)
        if value in params:
            assert np.abs(exact[value] - found[value]).mean() <= 4 * params[value].step
