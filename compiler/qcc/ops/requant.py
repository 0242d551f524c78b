"""Ops that end in one requantization: matmul, mul, prelu, avg_pool, reduce_mean, reduce_sum.

Integer form: constant input ``multiplier`` int32, attributes ``shift``, ``zero_point``, ``clamp`` (ints):
``y = clamp(requantize(acc, multiplier, shift) + zero_point)``; with ``rounding="tflite"`` as ``ops.rounding`` says.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcc import numerics
from qcc.ir.graph import Arrays, Attr, Node, Types
from qcc.ops.base import Op
from qcc.ops.epilogue import check_clamp, integer_clamp
from qcc.ops.rounding import check_shift, rescale

if TYPE_CHECKING:
    from qcc.quantize.convert import Converter

REQUANT_INPUTS = ("multiplier", "shift")
REQUANT_ATTRIBUTES = ("shift", "zero_point")
TFLITE_REQUANT_ATTRIBUTES = ("zero_point",)


def check_requant(op: Op, node: Node, types: Types, dtype: str, sizes: Collection[int] = (1,)) -> None:
    """Legality of dtype, clamp and, in the integer form (int8), of the multiplier, whose size is one of ``sizes``."""
    op.require(dtype in ("float32", "int8"), node, f"wants float32 or int8, got {dtype}")
    check_clamp(op, node, dtype)
    if dtype == "float32":
        op.require("multiplier" not in types, node, "multiplier belongs to the integer form")
    else:
        op.require("multiplier" in types, node, "the integer form wants a multiplier")
        m = types["multiplier"]
        expected = " or ".join(f"[{size}]" for size in sorted(set(sizes)))
        op.require(m.dtype == "int32" and len(m.shape) == 1 and m.size in sizes, node,
                   f"multiplier must be int32{expected}, got {m.dtype}{list(m.shape)}")
    check_shift(op, node, types)


def finish(node: Node, x: Arrays, acc: NDArray[np.int64]) -> NDArray[np.int8]:
    """The formula of the module's docstring; ``x`` holds its constants. Raises as ``rescale`` does."""
    return numerics.clamp(rescale(node, x, acc) + node.attrs["zero_point"], *node.attrs["clamp"])


def emit_requantized(
    node: Node, convert: Converter, inputs: dict[str, str], real: ArrayLike, attrs: dict[str, Attr] | None = None
) -> None:
    """Emit the integer form of ``node`` with the real multipliers ``real`` (one, or one for each entry)."""
    out = convert.qparams(node.output)
    multiplier, shift = numerics.requant_multipliers(real)
    name = convert.emit_constant(node.output + ".multiplier", multiplier)
    tail: dict[str, Any] = {"shift": shift, "zero_point": out.zero_point}
    tail["clamp"] = integer_clamp(node.attrs.get("clamp"), out)
    convert.emit(node, node.op, {**inputs, "multiplier": name}, {**(attrs or {}), **tail})
