"""What follows the sums in conv2d, conv_transpose2d and dense: bias, requantization, residual, clamp, table.

Float form: inputs ``b`` [O] and ``residual`` (shape of y), attribute ``clamp`` (low, high).

Integer form: constant inputs ``b`` int32 [O] (scale s_x * s_w) and ``multiplier`` int32 [O]; optional ``residual`` int8
(shape of y) and ``table`` int8 [256]; attributes ``shift``, ``zero_point``, ``clamp`` (ints) and, with a residual,
``residual_multiplier`` and ``fraction``:

    v = requantize(acc + b, multiplier, shift)
    v = rounding_shift(v + (r - z_r) * residual_multiplier, fraction)        # with a residual
    y = clamp(v + zero_point)
    y = table[y + 128]                                                       # with a table

With ``rounding="tflite"`` (``ops.rounding``) there is no residual.

Dynamic form: x and w int8, the result float32. The input ``step`` float32 [2] is the scale of x, known when it runs
(``ops.dynamic``); w's scales are its parameters; the rest is as in the float form, where w may be float16 too:

    y = clamp(fma(acc, step[0] * scale, b) + residual)                      # numerics_float
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics, numerics_float
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.numerics import QParams
from qcc.ops.base import Op
from qcc.ops.rounding import check_shift, rescale

EPILOGUE_INPUTS = ("residual", "multiplier", "shift", "table", "step")
TFLITE_EPILOGUE_ATTRIBUTES = ("zero_point",)
EPILOGUE_ATTRIBUTES = ("shift", "zero_point", "residual_multiplier", "fraction")


def layer_dtype(types: Types) -> str:
    """dtype of a layer's result: x's, unless int8 sums become reals."""
    return "float32" if "step" in types else types["x"].dtype


def check_clamp(op: Op, node: Node, dtype: str) -> None:
    """Legality of the attribute ``clamp``: None or (low, high), which are int8 values in an integer node."""
    if node.attrs.get("clamp") is None:
        op.require(dtype != "int8" or "clamp" not in node.attrs, node, "the integer form wants clamp limits")
        return
    low, high = node.attrs["clamp"]
    op.require(low <= high, node, f"clamp limits ({low}, {high}) are not in order")
    if dtype == "int8":
        op.require(low >= numerics.INT8_MIN and high <= numerics.INT8_MAX, node, f"clamp ({low}, {high}) leaves int8")


def check_epilogue(op: Op, node: Node, types: Types, out: TensorType) -> None:
    """Legality of dtypes, bias, residual, clamp and, in the integer form, of multiplier and table."""
    channels = out.shape[-1]
    op.require(out.dtype in ("float32", "int8"), node, f"wants float32 or int8, got {out.dtype}")
    x, w = types["x"].dtype, types["w"].dtype
    op.require(w == x or (x, w) == ("float32", "float16"), node, f"x is {x}, but w is {w}")
    if "step" in types:
        op.require(x == "int8" and "b" in types, node, "the dynamic form wants int8 operands and b")
        op.require((types["step"].dtype, types["step"].shape) == ("float32", (2,)), node, "step must be float32[2]")
    if "residual" in types:
        r = types["residual"]
        op.require((r.shape, r.dtype) == (out.shape, out.dtype), node,
                   f"residual must be {out.dtype}{list(out.shape)}, got {r.dtype}{list(r.shape)}")
    check_clamp(op, node, out.dtype)
    vectors = {"b": ("int32", channels), "multiplier": ("int32", channels), "table": ("int8", 256)}
    if out.dtype == "int8":
        op.require("b" in types and "multiplier" in types, node, "the integer form wants b and multiplier")
        check_shift(op, node, types)
        op.require("shift" not in types or "residual" not in types, node, "TFLite's rounding has no residual")
    else:
        op.require(not {"multiplier", "shift", "table"} & set(types), node,
                   "multiplier, shift and table belong to the integer form")
        vectors = {"b": ("float32", channels)}
    for key, (dtype, size) in vectors.items():
        if key in types:
            t = types[key]
            op.require((t.dtype, t.shape) == (dtype, (size,)), node,
                       f"{key} must be {dtype}[{size}], got {t.dtype}{list(t.shape)}")


def real_epilogue(node: Node, x: Arrays, sums: NDArray[Any]) -> NDArray[Any]:
    """``clamp(sums + b + residual)`` in float32."""
    y = sums
    if "b" in x:
        y = y + x["b"]
    if "residual" in x:
        y = y + x["residual"]
    low, high = node.attrs.get("clamp") or (-math.inf, math.inf)
    return np.asarray(np.clip(y, low, high), np.float32)


def single_epilogue(
    node: Node, x: Arrays, sums: NDArray[Any], scale: NDArray[np.float32] | None = None
) -> NDArray[Any]:
    """What follows the sums of a layer of float32, to the bit; ``scale`` [O] of int8 weights with the dynamic form."""
    bias = x["b"] if "b" in x else np.zeros(sums.shape[-1], np.float32)
    y = sums + bias if scale is None else numerics_float.dynamic_dequantize(sums, x["step"][0], scale, bias)
    if "residual" in x:
        y = y + x["residual"]
    return numerics_float.clamp(y, node.attrs.get("clamp"))


def integer_epilogue(node: Node, x: Arrays, types: Types, acc: NDArray[np.int64]) -> NDArray[Any]:
    """The formulas of the module's docstring; raises OverflowError if an accumulator leaves int32 (a bug upstream)."""
    if "step" in x:
        return single_epilogue(node, x, acc, numerics_float.weight_scale(types["w"].qparams))
    a = node.attrs
    v = rescale(node, x, acc + x["b"])
    if "residual" in x:
        r = x["residual"].astype(np.int64) - types["residual"].zero_point
        v = numerics.rounding_shift(v + r * a["residual_multiplier"], a["fraction"])
    y = numerics.clamp(v + a["zero_point"], *a["clamp"])
    return np.asarray(x["table"][y.astype(np.int32) + 128]) if "table" in x else y


def integer_clamp(limits: tuple[float, float] | None, q: QParams) -> tuple[int, int]:
    """Real clamp limits in steps of ``q``, within int8."""
    low, high = limits or (-math.inf, math.inf)

    def step(real: float, fallback: int) -> int:
        if math.isinf(real):
            return fallback
        return int(np.clip(np.rint(real / q.step) + q.zero_point, numerics.INT8_MIN, numerics.INT8_MAX))

    return step(low, numerics.INT8_MIN), step(high, numerics.INT8_MAX)
