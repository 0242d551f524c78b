"""How integer nodes round: qcc's own way, or TFLite's where the attribute ``rounding`` says so.

Own: attribute ``shift`` and constant ``multiplier`` int32, ``numerics.requantize``. With ``rounding="tflite"`` the
shift is a constant input int32 as large as ``multiplier``, and ``numerics_tflite.multiply`` takes its place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcc import numerics, numerics_tflite
from qcc.ir.graph import Arrays, Node, Types
from qcc.numerics_tflite import TFLITE
from qcc.ops.base import Op


def follows_tflite(node: Node) -> bool:
    """Whether an integer node rounds as TFLite does."""
    return node.attrs.get("rounding") == TFLITE


def accumulator_max(node: Node) -> int:
    """The largest accumulator that a node's rounding allows, up to which kernels stay within 32 bits."""
    return numerics_tflite.ACCUMULATOR_MAX if follows_tflite(node) else numerics.INT32_MAX


def check_shift(op: Op, node: Node, types: Types) -> None:
    """Legality of the constant input ``shift``: one for each multiplier, with TFLite's rounding only."""
    op.require(("shift" in types) == follows_tflite(node), node, 'input shift goes with rounding="tflite"')
    if "shift" in types:
        s, m = types["shift"], types["multiplier"]
        op.require((s.dtype, s.shape) == ("int32", m.shape), node,
                   f"shift must be int32{list(m.shape)}, got {s.dtype}{list(s.shape)}")


def rescale(node: Node, x: Arrays, acc: NDArray[np.int64]) -> NDArray[np.int64]:
    """An accumulator in output steps; raises OverflowError if it is beyond ``accumulator_max`` (a bug upstream).

    ``x`` holds the constants, which broadcast along the last axis.
    """
    limit = accumulator_max(node)
    if acc.size and (acc.max() > limit or acc.min() < -limit - 1):
        raise OverflowError(f"{node.output}: an accumulator leaves {-limit - 1}..{limit}")
    if follows_tflite(node):
        return numerics_tflite.multiply(acc, x["multiplier"], x["shift"])
    return numerics.requantize(acc, x["multiplier"], node.attrs["shift"])
