"""Which values share parameters, and where a rescaling is inserted."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from float_graphs import POOL, Builder, ops
from qcc import numerics
from qcc.ir.graph import Graph
from qcc.ir.verify import verify
from qcc.numerics import QParams
from qcc.quantize.assign import assign
from qcc.quantize.calibrate import observed

SHAPE = (1, 4, 4, 2)
SIGMOID = ("sigmoid", "x")


def assigned(
    graph: Graph, ranges: Mapping[str, tuple[float, float]], remarks: list[str] | None = None
) -> tuple[dict[str, QParams], Graph]:
    """As ``assign``, with (-1, 1) for every other value; checks the result."""
    given = {v: ranges.get(v, (-1.0, 1.0)) for v in observed(graph)}
    before = repr(graph)
    params, result = assign(graph, given, remarks)
    assert repr(graph) == before
    verify(result)
    real = {v for v in result.activations() if result.types[v].dtype == "float32"}
    assert real == params.keys()
    return params, result


def scale_of(b: Builder, x: str, factor: float) -> str:
    """A value with a scale of its own."""
    return b("pointwise", x=x, expr=("mul", "x", factor))


def test_moved_data_keeps_its_parameters() -> None:
    b = Builder(x=SHAPE)
    free = scale_of(b, "x", 2.0)
    chain = [b("max_pool", x=free, **POOL, dilation=(1, 1))]
    chain.append(b("transpose", x=chain[-1], perm=(0, 3, 1, 2)))
    chain.append(b("reshape", x=chain[-1], shape=(1, 8)))
    chain.append(b("slice", x=chain[-1], begin=(0, 2), end=(1, 8), step=(1, 2)))
    last = b("dense", x=chain[-1], w=b.normal(3, 3), clamp=None)
    params, graph = assigned(b.done(last), {free: (-2.0, 6.0), last: (0.0, 3.0)})
    assert {params[v] for v in [free, *chain]} == {numerics.activation_qparams(-2, 6)}
    assert params[last] == numerics.activation_qparams(0, 3)
    assert ops(graph).count("pointwise") == 1


def test_a_pad_value_widens_the_range() -> None:
    b = Builder(x=SHAPE)
    y = b("pad", x="x", pads=((0, 0), (1, 1), (1, 1), (0, 0)), mode="constant", value=9.0)
    params, _ = assigned(b.done(b.conv(y, 1)), {})
    assert params["x"] == params[y] == numerics.activation_qparams(-1, 9)


@pytest.mark.parametrize(("width", "rescaled"), [(1.9, False), (2.1, True), (40.0, True)])
def test_concat_rescales_a_narrow_operand_that_others_read(width: float, rescaled: bool) -> None:
    b = Builder(x=SHAPE)
    narrow, wide = scale_of(b, "x", 1.0), scale_of(b, "x", width)
    joined = b("concat", x0=narrow, x1=wide, axis=3)
    graph = b.done(b.conv(joined, 2), b.conv(narrow, 2))
    params, result = assigned(graph, {narrow: (0.0, 1.0), wide: (0.0, width)})
    assert params[joined] == params[wide] == numerics.activation_qparams(0, width)
    (node,) = (n for n in result.nodes if n.op == "concat")
    if rescaled:
        copy = node.inputs["x0"]
        assert result.node_of()[copy].attrs == {"expr": "x"}
        assert params[copy] == params[joined]
        assert params[narrow] == numerics.activation_qparams(0, 1)
    else:
        assert node.inputs["x0"] == narrow
        assert params[narrow] == params[joined]


def test_concat_takes_an_operand_of_its_own_as_it_is() -> None:
    b = Builder(x=SHAPE)
    narrow, wide = scale_of(b, "x", 1.0), scale_of(b, "x", 50.0)
    pooled = b("max_pool", x=narrow, kernel=(1, 1), stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1))
    joined = b("concat", x0=pooled, x1=wide, axis=3)
    params, graph = assigned(b.done(b.conv(joined, 2)), {narrow: (0.0, 1.0), wide: (0.0, 50.0)})
    assert {params[v] for v in (narrow, pooled, wide, joined)} == {numerics.activation_qparams(0, 50)}
    assert ops(graph).count("pointwise") == 2


def test_small_steps_do_not_add_up_to_a_large_loss() -> None:
    """A chain of concats, each 1.8 times wider, must not drag the first value along."""
    b = Builder(x=SHAPE)
    values = [scale_of(b, "x", 1.8**i) for i in range(4)]
    joined, outputs = values[0], [b.conv(v, 1) for v in values]
    for value in values[1:]:
        joined = b("concat", x0=joined, x1=value, axis=3)
    outputs.append(b.conv(joined, 1))
    params, _ = assigned(b.done(*outputs), {v: (0.0, 1.8**i) for i, v in enumerate(values)})
    for i, value in enumerate(values):
        assert params[value].step <= 2 * 1.8**i / 255 * 1.001


def test_a_graph_output_keeps_its_precision() -> None:
    b = Builder(x=SHAPE)
    narrow, wide = scale_of(b, "x", 1.0), scale_of(b, "x", 9.0)
    graph = b.done(narrow, b("concat", x0=narrow, x1=wide, axis=3))
    ranges = {narrow: (0.0, 1.0), wide: (0.0, 9.0), graph.outputs[1]: (0.0, 9.0)}
    params, result = assigned(graph, ranges)
    assert params[narrow] == numerics.activation_qparams(0, 1)
    assert ops(result).count("pointwise") == 3


def test_moved_data_of_softmax_keeps_its_fixed_parameters() -> None:
    b = Builder(x=SHAPE)
    fixed = b("softmax", x="x")
    moved = b("reshape", x=fixed, shape=(1, 32))
    params, _ = assigned(b.done(moved), {moved: (0.1, 0.2)})
    assert params[fixed] == params[moved] == numerics.SOFTMAX_QPARAMS


@pytest.mark.parametrize(("other", "copies"), [((0.0, 0.9), 0), ((-4.0, 4.0), 1)])
def test_concat_with_softmax(other: tuple[float, float], copies: int) -> None:
    """Within [0, 1] everybody takes its parameters; else it is rescaled into the wider ones."""
    b = Builder(x=SHAPE)
    fixed, free = b("softmax", x="x"), scale_of(b, "x", 1.0)
    joined = b("concat", x0=fixed, x1=free, axis=3)
    params, graph = assigned(b.done(b.conv(joined, 2)), {free: other})
    assert params[fixed] == numerics.SOFTMAX_QPARAMS
    assert params[free] == params[joined]
    assert (params[joined] == numerics.SOFTMAX_QPARAMS) == (copies == 0)
    assert ops(graph).count("pointwise") == 1 + copies


def test_an_operand_that_is_read_twice_is_rescaled_once() -> None:
    b = Builder(x=SHAPE)
    narrow, wide = scale_of(b, "x", 1.0), scale_of(b, "x", 9.0)
    joined = b("concat", x0=narrow, x1=wide, x2=narrow, axis=3)
    _, graph = assigned(b.done(b.conv(joined, 2), b.conv(narrow, 2)), {narrow: (0.0, 1.0), wide: (0.0, 9.0)})
    (node,) = (n for n in graph.nodes if n.op == "concat")
    assert node.inputs["x0"] == node.inputs["x2"] != narrow


def test_a_constant_operand_widens_the_range() -> None:
    b = Builder(x=SHAPE)
    joined = b("concat", x0="x", x1=np.full((1, 4, 4, 1), 5.0), axis=3)
    top = b("maximum", a=b.conv(joined, 1), b=np.float32([[[[7.0]]]]))
    params, _ = assigned(b.done(b.conv(top, 2)), {})
    assert params["x"] == params[joined] == numerics.activation_qparams(-1, 5)
    assert params[top] == numerics.activation_qparams(-1, 7)


def test_a_clamp_bounds_the_range() -> None:
    b = Builder(x=SHAPE)
    y = b.conv("x", 2, clamp=(0.0, 6.0))
    params, _ = assigned(b.done(b.conv(y, 2)), {y: (-0.1, 7.5)})
    assert params[y] == numerics.activation_qparams(0, 6)


@pytest.mark.parametrize("value", [0.0, 3.5, -2.0])
def test_a_constant_activation_is_exact_and_reported(value: float) -> None:
    b = Builder(x=SHAPE)
    y = b.conv("x", 2)
    remarks: list[str] = []
    params, _ = assigned(b.done(b.conv(y, 2)), {y: (value, value)}, remarks)
    assert numerics.dequantize(numerics.quantize([value], params[y]), params[y])[0] == pytest.approx(value, rel=1e-6)
    assert remarks == [f"{y}: every calibration sample gives the constant {value:g} here"]


def test_no_steps_for_what_a_function_flattens() -> None:
    """Hard-swish is 0 below -3; its range above counts."""
    b = Builder(x=SHAPE)
    hard_swish = ("mul", "x", ("clip", ("add", ("mul", "x", 1 / 6), 0.5), 0.0, 1.0))
    layer = b.conv("x", 2)
    moved = b("transpose", x=layer, perm=(0, 3, 1, 2))
    y = b("pointwise", x=moved, expr=hard_swish)
    params, _ = assigned(b.done(y), {layer: (-30.0, 10.0), y: (-0.375, 10.0)})
    low, high = numerics.dequantize([-128, 127], params[layer])
    assert low == pytest.approx(-3, abs=0.1)
    assert high == pytest.approx(10, abs=0.1)
    assert params[moved] == params[layer]


def test_functions_of_one_value_all_count() -> None:
    b = Builder(x=SHAPE)
    layer = b.conv("x", 2)
    outputs = [b("pointwise", x=layer, expr=("clip", "x", low, low + 1.0)) for low in (0.0, 4.0)]
    params, _ = assigned(b.done(*outputs), {layer: (-30.0, 10.0), outputs[0]: (0.0, 1.0), outputs[1]: (4.0, 5.0)})
    low, high = numerics.dequantize([-128, 127], params[layer])
    assert low == pytest.approx(0, abs=0.05)
    assert high == pytest.approx(5, abs=0.05)


@pytest.mark.parametrize("reader", ["layer", "output", "interpolation"])
def test_other_readers_keep_the_range(reader: str) -> None:
    b = Builder(x=SHAPE)
    layer = b.conv("x", 2)
    moved, outputs = layer, []
    if reader == "interpolation":
        half = ((0, 1), (1, 2), (1024, 1024))
        moved = b("resize_bilinear", x=layer, rows=half, cols=half)
    outputs.append(b("pointwise", x=moved, expr=SIGMOID))
    outputs += {"layer": [b.conv(layer, 1)], "output": [layer], "interpolation": []}[reader]
    params, _ = assigned(b.done(*outputs), {layer: (-30.0, 30.0), outputs[0]: (0.0, 1.0)})
    assert params[layer] == numerics.activation_qparams(-30, 30)


def test_integer_results_and_unused_inputs() -> None:
    b = Builder(x=SHAPE, unused=(3,))
    params, _ = assigned(b.done(b("argmax", x="x", axis=3, keepdims=False)), {"x": (-math.pi, 1.0)})
    assert params.keys() == {"x", "unused"}
