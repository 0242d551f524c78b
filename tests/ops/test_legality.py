"""Every rule that ``infer`` checks, broken once: the message, and that no rule is left without a test."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from single_node import CONV

import qcc.ops
from qcc.ir.graph import Node, TensorType
from qcc.ops import OPS, IllegalNode

F, B, W = "float32", "int8", "int32"
Kinds = Mapping[str, tuple[tuple[int, ...], str]]

IMAGE = ((1, 5, 5, 4), F)
X = {"x": ((2, 3), F)}
XI = {"x": ((2, 3), B)}
XW = {"x": IMAGE, "w": ((6, 3, 3, 4), F)}
CONVI = {"x": ((1, 5, 5, 4), B), "w": ((6, 3, 3, 4), B), "b": ((6,), W), "multiplier": ((6,), W)}
ATTRI = {**CONV, "clamp": (-128, 127), "shift": 31, "zero_point": 0}
TRANSPOSED = {**CONV, "output_pad": (0, 0)}
AB = {"a": ((2, 3), F), "b": ((3, 4), F)}
POOL = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0, 0, 0), "dilation": (1, 1)}
AVG = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0, 0, 0), "count_include_pad": False}
NORM = {key: ((3,), F) for key in ("mean", "variance", "weight", "bias")}
ROWS = ((0, 1), (1, 1), (0, 5))
REQUANT = {"shift": 31, "zero_point": 0, "clamp": (-128, 127)}
TFLITE = {"rounding": "tflite", "zero_point": 0, "clamp": (-128, 127)}
TFLITE_CONV = {**CONV, **TFLITE}

CASES: list[tuple[str, Kinds, dict[str, Any], str]] = [
    ("fake_quant", {"x": ((3,), B)}, {"scale": 0.1, "zero_point": 0}, "wants float32, got int8"),
    ("fake_quant", {"x": ((3,), F)}, {"scale": 0.0, "zero_point": 0}, "scale 0.0 is not positive"),
    ("fake_quant", {"x": ((3,), F)}, {"scale": 0.1, "zero_point": 128}, "zero point 128 leaves int8"),
    ("conv2d", {**XW, "x": ((5, 5, 4), F)}, CONV, "of rank 4"),
    ("conv2d", {**XW, "w": ((6, 3, 3, 3), F)}, CONV, "4 input and 6 output channels do not fit 1 groups"),
    ("conv2d", XW, {**CONV, "groups": 0}, "do not fit 0 groups"),
    ("conv2d", XW, {**CONV, "stride": (0, 1)}, "must be at least 1"),
    ("conv2d", XW, {**CONV, "pad": (0, -1, 0, 0)}, "must not be negative"),
    ("conv2d", XW, {**CONV, "dilation": (3, 1)}, "larger than the padded input"),
    ("conv2d", {"x": ((1, 5, 5, 4), W), "w": ((6, 3, 3, 4), W)}, CONV, "wants float32 or int8, got int32"),
    ("conv2d", {**XW, "w": ((6, 3, 3, 4), B)}, CONV, "x is float32, but w is int8"),
    ("conv2d", {**XW, "residual": ((1, 3, 3, 4), F)}, CONV, r"residual must be float32\[1, 3, 3, 6\]"),
    ("conv2d", {**XW, "b": ((4,), F)}, CONV, r"b must be float32\[6\], got float32\[4\]"),
    ("conv2d", XW, {**CONV, "clamp": (1.0, 0.0)}, "not in order"),
    ("conv2d", {**XW, "table": ((256,), B)}, CONV, "belong to the integer form"),
    ("conv2d", {"x": CONVI["x"], "w": CONVI["w"]}, ATTRI, "wants b and multiplier"),
    ("conv2d", CONVI, {**ATTRI, "clamp": None}, "wants clamp limits"),
    ("conv2d", CONVI, {**ATTRI, "clamp": (-129, 127)}, "leaves int8"),
    ("conv2d", {**CONVI, "multiplier": ((6,), F)}, ATTRI, r"multiplier must be int32\[6\]"),
    ("conv2d", {**CONVI, "table": ((255,), B)}, ATTRI, r"table must be int8\[256\]"),
    ("conv2d", {**XW, "w": ((6, 3, 3, 4), F), "step": ((2,), F)}, CONV, "the dynamic form wants int8 operands and b"),
    ("conv2d", {**{k: CONVI[k] for k in ("x", "w")}, "b": ((6,), F), "step": ((1,), F)}, CONV,
     r"step must be float32\[2\]"),
    ("dynamic_steps", XI, {"levels": 127}, "wants float32, got int8"),
    ("dynamic_steps", X, {"levels": 256}, "levels 256 leave 1..255"),
    ("dynamic_quantize", {**XI, "step": ((2,), F)}, {}, "x must be float32, got int8"),
    ("dynamic_quantize", {**X, "step": ((3,), F)}, {}, r"step must have shape \(2,\)"),
    ("conv_transpose2d", {**XW, "w": ((6, 4), F)}, TRANSPOSED, "of rank 4"),
    ("conv_transpose2d", XW, {**TRANSPOSED, "groups": 4}, "do not fit 4 groups"),
    ("conv_transpose2d", XW, {**TRANSPOSED, "dilation": (1, 0)}, "must be at least 1"),
    ("conv_transpose2d", XW, {**TRANSPOSED, "output_pad": (-1, 0)}, "must not be negative"),
    ("conv_transpose2d", XW, {**TRANSPOSED, "pad": (4, 0, 4, 0)}, "leaves no output"),
    ("dense", {"x": ((), F), "w": ((4, 3), F)}, {"clamp": None}, "rank"),
    ("dense", {**X, "w": ((4, 2), F)}, {"clamp": None}, "3 inputs do not fit"),
    ("matmul", {**AB, "a": ((3,), F)}, {"transpose_b": False}, "rank 2 or more"),
    ("matmul", {**AB, "b": ((3, 4), B)}, {"transpose_b": False}, "operands are float32 and int8"),
    ("matmul", AB, {"transpose_b": True}, "inner extents 3 and 4 differ"),
    ("matmul", {"a": ((1, 40000), F), "b": ((40000, 1), F)}, {"transpose_b": False}, "may leave 32 bits"),
    ("matmul", {"a": ((2, 2, 3), F), "b": ((3, 3, 4), F)}, {"transpose_b": False}, "do not broadcast"),
    ("matmul", {k: (s, W) for k, (s, _) in AB.items()}, {"transpose_b": False}, "wants float32 or int8, got int32"),
    ("matmul", {k: (s, B) for k, (s, _) in AB.items()}, {"transpose_b": False, **REQUANT}, "wants a multiplier"),
    ("matmul", {**AB, "multiplier": ((1,), W)}, {"transpose_b": False}, "belongs to the integer form"),
    ("batch_norm", {"x": ((), F), **NORM}, {"epsilon": 0.1}, "rank 1 or more"),
    ("batch_norm", {**XI, **NORM}, {"epsilon": 0.1}, "x must be float32"),
    ("batch_norm", {**X, **NORM, "mean": ((2,), F)}, {"epsilon": 0.1}, "mean must have shape"),
    ("batch_norm", {**X, **NORM}, {"epsilon": -0.1}, "epsilon -0.1 is negative"),
    ("add", {"a": ((2,), F), "b": ((2,), B)}, {"clamp": None}, "operands are float32 and int8"),
    ("sub", {"a": ((2,), W), "b": ((2,), W)}, {"clamp": None}, "wants float32 or int8"),
    ("maximum", {"a": ((2,), F), "b": ((3,), F)}, {}, "do not broadcast"),
    ("mul", {"a": ((2,), B), "b": ((2,), B), "multiplier": ((2,), W)}, REQUANT, r"multiplier must be int32\[1\]"),
    ("pointwise", XI, {"expr": "x"}, "wants float32, got int8"),
    ("pointwise", X, {"expr": ("cosh", "x")}, "unknown function 'cosh'"),
    ("pointwise", X, {"expr": ()}, "unknown function"),
    ("pointwise", X, {"expr": ("add", "x")}, "add takes 2 operands and 0 constants, got 1"),
    ("pointwise", X, {"expr": ("pow", "x", "x")}, "the constants of pow must be floats"),
    ("pointwise", X, {"expr": ("clip", "x", 1.0, 0.0)}, "not in order"),
    ("pointwise", X, {"expr": ("pow", "x", float("inf"))}, "the constants of pow must be finite"),
    ("pointwise", X, {"expr": ("grid", "x", 0.0, 0.0)}, "no int8 grid has scale"),
    ("pointwise", X, {"expr": ("grid", "x", 0.5, 128.0)}, "no int8 grid has scale"),
    ("pointwise", X, {"expr": ("add", "x", ("neg", float("nan")))}, "literal nan is not finite"),
    ("pointwise", X, {"expr": ("add", "x", "y")}, "'y' is neither 'x' nor a float"),
    ("lut", {**X, "table": ((256,), B)}, {}, "wants int8, got float32"),
    ("lut", {**XI, "table": ((255,), B)}, {}, r"table must be int8\[256\]"),
    ("prelu", {"x": ((), F)}, {}, "rank 1 or more"),
    ("prelu", X, {}, "wants a slope"),
    ("prelu", {**X, "slope": ((1,), F)}, {}, r"slope must be float32\[3\], got float32\[1\]"),
    ("softmax", {"x": ((), F)}, {}, "rank 1 or more"),
    ("softmax", {"x": ((2,), W)}, {}, "wants float32 or int8"),
    ("softmax", XI, {}, "wants a table"),
    ("softmax", {**XI, "table": ((256,), B)}, {}, r"table must be int32\[256\]"),
    ("max_pool", X, POOL, "rank 4"),
    ("max_pool", {"x": ((1, 4, 4, 1), W)}, POOL, "wants float32 or int8"),
    ("max_pool", {"x": IMAGE}, {**POOL, "stride": (0, 1)}, "must be at least 1"),
    ("max_pool", {"x": IMAGE}, {**POOL, "pad": (0, 0, -1, 0)}, "must not be negative"),
    ("max_pool", {"x": IMAGE}, {**POOL, "kernel": (6, 2)}, "larger than the padded input"),
    ("avg_pool", {"x": IMAGE}, {**AVG, "pad": (2, 0, 0, 0)}, "holds a whole window"),
    ("reduce_sum", {"x": ((2, 3), W)}, {"axes": (0,), "keepdims": True}, "wants float32 or int8"),
    ("reduce_mean", X, {"axes": (1, 0), "keepdims": True}, "not ascending axes"),
    ("reduce_max", X, {"axes": (), "keepdims": True}, "not ascending axes"),
    ("reduce_sum", {"x": ((10**7,), F)}, {"axes": (0,), "keepdims": True}, "may leave 32 bits"),
    ("concat", {"x1": ((2,), F)}, {"axis": 0}, "operands must be x0, x1"),
    ("concat", {"x0": ((2,), F)}, {"axis": 1}, "axis 1 is not an axis"),
    ("concat", {"x0": ((2,), F), "x1": ((2,), B)}, {"axis": 0}, "x0 is float32, but x1 is int8"),
    ("concat", {"x0": ((2, 3), F), "x1": ((2, 4), F)}, {"axis": 0}, "does not fit x0"),
    ("slice", X, {"begin": (0,), "end": (1,), "step": (1,)}, "must have the rank"),
    ("slice", X, {"begin": (0, 2), "end": (1, 4), "step": (1, 1)}, "2:4:1 is not a part of axis 1"),
    ("pad", X, {"pads": ((0, 0),), "mode": "edge", "value": 0.0}, "1 pads do not fit"),
    ("pad", X, {"pads": ((0, 0), (0, 0)), "mode": "wrap", "value": 0.0}, "mode 'wrap' is none of"),
    ("pad", X, {"pads": ((0, 0), (-1, 0)), "mode": "edge", "value": 0.0}, "must not be negative"),
    ("pad", X, {"pads": ((0, 0), (3, 0)), "mode": "reflect", "value": 0.0}, "reflect more than"),
    ("reshape", X, {"shape": (-1, 2)}, "does not have the elements"),
    ("transpose", X, {"perm": (0, 0)}, "does not permute"),
    ("expand", X, {"shape": (3, 2)}, "does not broadcast to"),
    ("take", X, {"axis": 2, "indices": (0,)}, "axis 2 is not an axis"),
    ("take", X, {"axis": 1, "indices": (3,)}, "indices leave axis 1"),
    ("resize_bilinear", X, {"rows": ROWS, "cols": ROWS}, "rank 4"),
    ("resize_bilinear", {"x": ((1, 2, 2, 1), W)}, {"rows": ROWS, "cols": ROWS}, "wants float32 or int8"),
    ("resize_bilinear", {"x": ((1, 2, 2, 1), F)}, {"rows": ROWS, "cols": ((0,), (1,), ())}, "cols: .* in length"),
    ("resize_bilinear", {"x": ((1, 1, 2, 1), F)}, {"rows": ROWS, "cols": ROWS}, "rows: positions leave"),
    ("resize_bilinear", {"x": ((1, 2, 2, 1), F)}, {"rows": ROWS, "cols": ((0,), (1,), (2049,))}, "weights leave"),
    ("argmax", {"x": ((2, 3), W)}, {"axis": 0, "keepdims": True}, "wants float32 or int8"),
    ("argmax", X, {"axis": 2, "keepdims": True}, "axis 2 is not an axis"),
    ("quantize", XI, {"perm": None}, "wants float32, got int8"),
    ("dequantize", XI, {"perm": (0, 2)}, "does not permute"),
    ("recentre", X, {}, "wants uint8 or int8"),
    ("conv2d", {**CONVI, "shift": ((6,), W)}, ATTRI, "shift goes with rounding"),
    ("conv2d", CONVI, TFLITE_CONV, "shift goes with rounding"),
    ("conv2d", {**CONVI, "shift": ((1,), W)}, TFLITE_CONV, r"shift must be int32\[6\]"),
    ("conv2d", {**CONVI, "shift": ((6,), W), "residual": ((1, 3, 3, 6), B)}, TFLITE_CONV, "no residual"),
    ("avg_pool", {"x": ((1, 2, 2, 1), B)}, {**AVG, **TFLITE, "count_include_pad": True}, "does not count padding"),
    ("softmax", {"x": ((1, 4096), B), "table": ((256,), W)}, {"rounding": "tflite"}, "may leave 32 bits"),
]  # fmt: skip


def broken_rule(op: str, kinds: Kinds, attrs: dict[str, Any]) -> tuple[IllegalNode, tuple[str, int]]:
    """The error of an illegal node, and file and line of the rule that it broke."""
    with pytest.raises(IllegalNode) as caught:
        OPS[op].infer(Node("y", op, {k: k for k in kinds}, attrs), {k: TensorType(*kind) for k, kind in kinds.items()})
    frames = list(caught.traceback)
    assert frames[-1].name == "require"
    return caught.value, (Path(frames[-2].path).name, frames[-2].lineno + 1)


@pytest.mark.parametrize(("op", "kinds", "attrs", "message"), CASES)
def test_message(op: str, kinds: Kinds, attrs: dict[str, Any], message: str) -> None:
    error, _ = broken_rule(op, kinds, attrs)
    assert error.where == "y"
    assert str(error).startswith(f"y: {op}: ")
    assert re.search(message, error.what), error.what


def test_every_rule_is_broken_by_a_case() -> None:
    """A new rule needs a case above."""
    broken = {broken_rule(op, kinds, attrs)[1] for op, kinds, attrs, _ in CASES}
    untested = []
    for path in sorted(Path(qcc.ops.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "require":
                lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                if not any((path.name, line) in broken for line in lines):
                    untested.append(f"{path.name}:{node.lineno}")
    assert untested == []


def test_attributes_cover_the_integer_form() -> None:
    """Names are unique, and no attribute is listed twice."""
    for name, op in OPS.items():
        assert op.name == name
        listed = (*op.attributes, *op.integer_attributes)
        assert len(set(listed)) == len(listed)
