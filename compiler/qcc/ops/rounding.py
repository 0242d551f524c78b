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


def check_shift(op: Op, node: Node, types: Types) -> None:
    """Legality of the constant input ``shift``: one for each multiplier, with TFLite's rounding only."""
    op.require(("shift" in types) == follows_tflite(node), node, 'input shift goes with rounding="tflite"')
    if "shift" in types:
        s, m = types["shift"], types["multiplier"]
        op.require((s.dtype, s.shape) == ("int32", m.shape), node,
                   f"shift must be int32{list(m.shape)}, got {s.dtype}{list(s.shape)}")


def rescale(node: Node, x: Arrays, acc: NDArray[np.int64]) -> NDArray[np.int64]:
    """An accumulator in output steps; ``x`` holds the constants, which broadcast along the last axis.

    TFLite's accumulators are modulo 2^32 (unused channels of real models have biases near 2^31). Others raise
    OverflowError if they leave int32 (a bug upstream).
    """
    if follows_tflite(node):
        return numerics_tflite.multiply(numerics_tflite.wrap32(acc), x["multiplier"], x["shift"])
    if acc.size and (acc.max() > numerics.INT32_MAX or acc.min() < -numerics.INT32_MAX - 1):
        raise OverflowError(f"{node.output}: an accumulator does not fit int32")
    return numerics.requantize(acc, x["multiplier"], node.attrs["shift"])
