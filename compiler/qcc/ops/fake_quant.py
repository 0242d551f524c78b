"""Where a float graph is quantized already: the mark that quantized files and PyTorch programs leave on a value."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.numerics import QParams
from qcc.ops.base import IllegalNode, Op

if TYPE_CHECKING:
    from qcc.quantize.convert import Converter


def mark(node: Node) -> QParams:
    """The parameters that a fake_quant node gives its value."""
    return QParams(node.attrs["scale"], node.attrs["zero_point"])


class FakeQuant(Op):
    """``y = scale * (clamp(rint(x / scale) + zero_point) - zero_point)``, clamped to int8; any shape.

    Float graphs only. ``quantize.assign`` gives its value these parameters and takes the node out.
    """

    name = "fake_quant"
    attributes = ("scale", "zero_point")
    scale_rule = "same"

    def infer(self, node: Node, types: Types) -> TensorType:
        """Type of x."""
        x, scale, zero_point = types["x"], node.attrs["scale"], node.attrs["zero_point"]
        self.require(x.dtype == "float32", node, f"wants float32, got {x.dtype}")
        self.require(math.isfinite(scale) and scale > 0, node, f"scale {scale} is not positive and finite")
        self.require(numerics.INT8_MIN <= zero_point <= numerics.INT8_MAX, node, f"zero point {zero_point} leaves int8")
        return TensorType(x.shape)

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring, rounding half to even."""
        q = mark(node)
        return np.asarray(numerics.dequantize(numerics.quantize(x["x"], q), q), np.float32)

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """Raises ``IllegalNode``."""
        raise IllegalNode("fake_quant belongs to float graphs", where=node.output)

    def quantize(self, node: Node, convert: Converter) -> None:
        """Raises ``IllegalNode``: ``quantize.assign`` removes these nodes."""
        raise IllegalNode("fake_quant belongs to float graphs", where=node.output)
