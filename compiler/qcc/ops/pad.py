"""Padding as a node of its own (a convolution's or pool's padding is its attribute)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.same_scale import SameScale

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext

MODES = ("constant", "edge", "reflect")


class Pad(SameScale):
    """(before, after) elements added to each axis by ``pads``; mode constant (``value``), edge, or reflect.

    In integers the constant is ``value`` quantized with x's parameters (0 is the zero point exactly).
    """

    name = "pad"
    attributes = ("pads", "mode", "value")

    def infer(self, node: Node, types: Types) -> TensorType:
        """Extent plus pads along each axis, x's dtype."""
        x, pads, mode = types["x"], node.attrs["pads"], node.attrs["mode"]
        self.require(len(pads) == len(x.shape), node, f"{len(pads)} pads do not fit {x.shape}")
        self.require(mode in MODES, node, f"mode {mode!r} is none of {', '.join(MODES)}")
        for (before, after), extent in zip(pads, x.shape, strict=True):
            self.require(before >= 0 and after >= 0, node, f"pads {pads} must not be negative")
            self.require(mode != "reflect" or max(before, after) < extent, node,
                         f"pads {pads} reflect more than {x.shape} holds")
        return TensorType(tuple(b + d + a for (b, a), d in zip(pads, x.shape, strict=True)), x.dtype)

    def _padded(self, node: Node, x: NDArray[Any], fill: float) -> NDArray[Any]:
        if node.attrs["mode"] == "constant":
            return np.pad(x, node.attrs["pads"], constant_values=fill)
        return np.pad(x, node.attrs["pads"], mode=node.attrs["mode"])

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return self._padded(node, x["x"], node.attrs["value"])

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """As in the class docstring."""
        q = types["x"].qparams
        return self._padded(node, x["x"], int(numerics.quantize(node.attrs["value"], q)) if q else node.attrs["value"])

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.moves``."""
        from qcc.lower.moves import pad_calls

        return pad_calls(node, ctx)
