"""Convolutions, pools, resizing, block moves: imported models compute what ONNX Runtime computes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from onnx_support import check, floats, model, op, runtime

from qcc.frontend.onnx import load
from qcc.ir.evaluate import run_float

CONVS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((1, 3, 7, 6), (4, 3, 3, 3), {}),
    "batch": ((3, 3, 7, 6), (4, 3, 2, 3), {}),
    "stride_pads": ((1, 2, 9, 8), (4, 2, 3, 2), {"strides": [2, 3], "pads": [1, 0, 2, 1]}),
    "dilation": ((1, 2, 9, 9), (4, 2, 3, 2), {"dilations": [2, 3]}),
    "groups": ((1, 4, 5, 5), (6, 2, 3, 3), {"group": 2}),
    "depthwise": ((1, 4, 5, 5), (4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    "multiplier": ((1, 3, 5, 5), (6, 1, 3, 3), {"group": 3}),
    "same_upper": ((1, 2, 8, 7), (4, 2, 3, 4), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same_lower": ((1, 2, 8, 7), (4, 2, 3, 4), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "valid": ((1, 2, 8, 7), (4, 2, 3, 2), {"auto_pad": "VALID"}),
    "one_axis": ((2, 3, 11), (4, 3, 3), {"strides": [2], "pads": [2, 1], "dilations": [2]}),
    "one_axis_same": ((1, 4, 10), (4, 1, 4), {"auto_pad": "SAME_LOWER", "group": 4}),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("case", CONVS)
def test_conv(case: str, bias: bool) -> None:
    x, w, attributes = CONVS[case]
    constants = {"w": floats(*w)} | ({"b": floats(w[0])} if bias else {})
    check(model(op("Conv", "x w b" if bias else "x w", **attributes), {"x": x}, constants))


def test_same_padding_with_dilation() -> None:
    """ONNX Runtime refuses the combination; the rule is that outputs are as many as inputs at stride 1."""
    node = op("Conv", "x w", auto_pad="SAME_UPPER", dilations=[2, 3])
    graph = load(model(node, {"x": (1, 2, 8, 7)}, {"w": floats(4, 2, 3, 2)}))
    assert next(n for n in graph.nodes if n.op == "conv2d").attrs["pad"] == (2, 1, 2, 2)
    assert graph.types["y"].shape == (1, 4, 8, 7)


TRANSPOSED: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((1, 3, 4, 5), (3, 4, 3, 2), {}),
    "stride": ((2, 3, 4, 5), (3, 4, 3, 2), {"strides": [2, 3], "pads": [1, 0, 0, 1]}),
    "output_padding": ((1, 3, 4, 5), (3, 2, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    "groups": ((1, 4, 4, 3), (4, 3, 3, 3), {"group": 2, "strides": [2, 2]}),
    "depthwise": ((1, 4, 4, 3), (4, 1, 2, 2), {"group": 4, "strides": [2, 2]}),
    "dilation": ((1, 2, 4, 3), (2, 2, 2, 3), {"dilations": [3, 2]}),
    "same_upper": ((1, 2, 4, 3), (2, 2, 3, 4), {"auto_pad": "SAME_UPPER", "strides": [2, 1]}),
    "same_lower": ((1, 2, 4, 3), (2, 2, 3, 4), {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
    "output_shape": ((1, 2, 4, 3), (2, 2, 3, 3), {"output_shape": [8, 6], "strides": [2, 2]}),
    "output_shape_upper": ((1, 2, 4, 3), (2, 2, 3, 3),
                           {"output_shape": [8, 6], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "one_axis": ((1, 2, 5), (2, 3, 4), {"strides": [2], "pads": [1, 2]}),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("case", TRANSPOSED)
def test_conv_transpose(case: str, bias: bool) -> None:
    x, w, attributes = TRANSPOSED[case]
    outputs = w[1] * attributes.get("group", 1)
    constants = {"w": floats(*w)} | ({"b": floats(outputs)} if bias else {})
    check(model(op("ConvTranspose", "x w b" if bias else "x w", **attributes), {"x": x}, constants))


def test_shared_weights_and_layouts() -> None:
    """One initializer read by two convolutions of different kinds, and by an Add, keeps its meaning in each."""
    nodes = [op("Conv", "x w", "a", pads=[1, 1, 1, 1]), op("ConvTranspose", "a w", "c", pads=[1, 1, 1, 1]),
             op("Conv", "c w", "d", pads=[1, 1, 1, 1]), op("Add", "d w", "y")]
    check(model(nodes, {"x": (2, 2, 3, 3)}, {"w": floats(2, 2, 3, 3)}))


POOLS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 3, 6, 6), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "asymmetric": ((1, 3, 7, 6), {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 2, 1]}),
    "ceil": ((1, 3, 6, 7), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "ceil_pads": ((1, 3, 6, 7), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    "ceil_dropped": ((1, 2, 4, 4), {"kernel_shape": [1, 2], "strides": [3, 3], "pads": [0, 1, 0, 1], "ceil_mode": 1}),
    "same_upper": ((1, 3, 6, 7), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "same_lower": ((1, 3, 6, 7), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "valid": ((1, 3, 6, 7), {"kernel_shape": [3, 2], "auto_pad": "VALID"}),
    "one_axis": ((1, 3, 9), {"kernel_shape": [4], "strides": [3], "pads": [1, 2]}),
}


@pytest.mark.parametrize("case", POOLS)
def test_max_pool(case: str) -> None:
    x, attributes = POOLS[case]
    check(model(op("MaxPool", "x", **attributes), {"x": x}))


def test_max_pool_dilated() -> None:
    check(model(op("MaxPool", "x", kernel_shape=[2, 3], dilations=[3, 2], pads=[1, 1, 1, 1]), {"x": (1, 2, 8, 8)}))


@pytest.mark.parametrize("counted", [0, 1])
@pytest.mark.parametrize("case", POOLS)
def test_average_pool(case: str, counted: int) -> None:
    x, attributes = POOLS[case]
    check(model(op("AveragePool", "x", count_include_pad=counted, **attributes), {"x": x}, opset=19))


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 3, 7)])
@pytest.mark.parametrize("kind", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pool(kind: str, shape: tuple[int, ...]) -> None:
    check(model(op(kind, "x"), {"x": shape}))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str) -> None:
    check(model(op("DepthToSpace", "x", blocksize=2, mode=mode), {"x": (2, 12, 3, 4)}))


def test_space_to_depth() -> None:
    check(model(op("SpaceToDepth", "x", blocksize=2), {"x": (2, 3, 6, 4)}))


MODES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
LINEAR = 2 * 6 / 4096
"""Weights have 11 bits: two of them are wrong by at most 2^-12 each, of a difference of neighbours of at most 6."""
TARGETS = [(7, 5), (14, 10), (10, 13), (3, 2), (1, 1), (4, 9)]


def test_resize_positions_on_ties() -> None:
    """2 / (4 / 7) is a tie that float32 misses."""
    node = op("Resize", "x - - s", mode="nearest", coordinate_transformation_mode="asymmetric",
              nearest_mode="round_prefer_ceil")
    for size, result in ((7, 4), (7, 2), (26, 28), (14, 19), (28, 62), (30, 9)):
        check(model(node, {"x": (1, 1, 1, size)}, {"s": [1, 1, 1, result]}), tolerance=0)


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("mode", MODES)
def test_resize_nearest_to_sizes(mode: str, rounding: str) -> None:
    for height, width in TARGETS:
        node = op("Resize", "x - - s", mode="nearest", coordinate_transformation_mode=mode, nearest_mode=rounding)
        check(model(node, {"x": (1, 2, 7, 5)}, {"s": [1, 2, height, width]}, opset=19), tolerance=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["nearest", "linear"])
def test_resize_by_scales(kind: str, mode: str) -> None:
    for scales in ((2, 2), (2.5, 1.7), (0.6, 0.4), (1, 3)):
        node = op("Resize", "x - s", mode=kind, coordinate_transformation_mode=mode)
        proto = model(node, {"x": (1, 2, 7, 5)}, {"s": np.array([1, 1, *scales], np.float32)}, opset=19)
        check(proto, tolerance=0 if kind == "nearest" else LINEAR)


@pytest.mark.parametrize("mode", MODES)
def test_resize_linear_to_sizes(mode: str) -> None:
    for height, width in TARGETS:
        node = op("Resize", "x - - s", mode="linear", coordinate_transformation_mode=mode)
        check(model(node, {"x": (2, 2, 7, 5)}, {"s": [2, 2, height, width]}, opset=19), tolerance=LINEAR)


def test_resize_tf_half_pixel() -> None:
    node = op("Resize", "x e e s", mode="nearest", coordinate_transformation_mode="tf_half_pixel_for_nn")
    constants = {"e": np.zeros(0, np.float32), "s": [1, 2, 9, 4]}
    check(model(node, {"x": (1, 2, 7, 5)}, constants, opset=11), tolerance=0)


@pytest.mark.parametrize("kind", ["nearest", "linear"])
def test_resize_crop(kind: str) -> None:
    node = op("Resize", "x r - s", mode=kind, coordinate_transformation_mode="tf_crop_and_resize")
    roi = np.array([0, 0, 0.2, 0.1, 1, 1, 0.9, 0.8], np.float32)
    check(model(node, {"x": (1, 2, 9, 8)}, {"r": roi, "s": [1, 2, 5, 12]}), tolerance=LINEAR if kind == "linear" else 0)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_resize_keeps_aspect_ratio(policy: str) -> None:
    node = op("Resize", "x - - s", mode="nearest", axes=[2, 3], keep_aspect_ratio_policy=policy)
    check(model(node, {"x": (1, 2, 7, 5)}, {"s": [12, 11]}, opset=18), tolerance=0)


def test_resize_one_axis() -> None:
    for kind in ("nearest", "linear"):
        node = op("Resize", "x - s", mode=kind)
        check(model(node, {"x": (1, 3, 8)}, {"s": np.array([1, 1, 2], np.float32)}), tolerance=LINEAR)


def test_resize_channels() -> None:
    node = op("Resize", "x - s", mode="nearest")
    check(model(node, {"x": (1, 3, 4, 4)}, {"s": np.array([1, 2, 2, 1], np.float32)}), tolerance=0)


def test_resize_to_the_same_size_is_nothing() -> None:
    nodes = [op("Resize", "x - s", "r"), op("Relu", "r")]
    graph = load(model(nodes, {"x": (1, 3, 4, 4)}, {"s": np.ones(4, np.float32)}))
    assert [n.op for n in graph.nodes] == ["pointwise"]


@pytest.mark.parametrize("kind", ["nearest", "linear"])
@pytest.mark.parametrize("opset", [9, 10])
def test_upsample_with_scales_input(opset: int, kind: str) -> None:
    for scales in ((2, 3), (1.5, 2), (0.5, 0.4)):
        node = op("Upsample" if opset == 9 else "Resize", "x s", mode=kind)
        if opset == 9 and min(scales) < 1:
            continue
        constants = {"s": np.array([1, 1, *scales], np.float32)}
        check(model(node, {"x": (1, 2, 6, 5)}, constants, opset=opset), tolerance=LINEAR if kind == "linear" else 0)


def test_upsample_with_scales_attribute() -> None:
    check(model(op("Upsample", "x", scales=[1.0, 1.0, 2.0, 2.0]), {"x": (1, 2, 3, 4)}, opset=7), tolerance=0)


def test_average_pool_windows_against_plain_sums() -> None:
    """All small geometries with ceil_mode: ONNX Runtime and the imported graph agree."""
    for size, kernel, stride, pad, counted in itertools.product((4, 5), (2, 3), (1, 2, 3), (0, 1), (0, 1)):
        node = op("AveragePool", "x", kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, ceil_mode=1,
                  count_include_pad=counted)
        proto = model(node, {"x": (1, 1, size, size)}, opset=19)
        x = {"x": floats(1, 1, size, size, seed=size)}
        np.testing.assert_allclose(run_float(load(proto), x)["y"], runtime(proto, x)["y"], atol=1e-5)
