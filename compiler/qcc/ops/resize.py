"""Bilinear resizing with precomputed positions (nearest resizing is ``take`` along each axis)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics, numerics_float, numerics_tflite
from qcc.ir.graph import Arrays, Attr, Node, TensorType, Types
from qcc.ops.rounding import follows_tflite
from qcc.ops.same_scale import SameScale

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext


class ResizeBilinear(SameScale):
    """``y[i, j]`` mixes rows lo[i], hi[i] and columns lo[j], hi[j] of x [N,H,W,C].

    ``rows`` and ``cols`` are (lo, hi, weight): tuples as long as the output, weight / 2^11 being the share of hi. In
    integers the four products (shares of 2^22 in all) are summed and rounded once: ``numerics.bilinear``. With
    ``rounding="tflite"`` it is rounded half away from zero.
    """

    name = "resize_bilinear"
    attributes = ("rows", "cols")
    tflite_attributes = ()

    def infer(self, node: Node, types: Types) -> TensorType:
        """[N, len(rows), len(cols), C] of x's dtype."""
        x = types["x"]
        self.require(len(x.shape) == 4, node, f"wants x of rank 4, got {x.shape}")
        self.require(x.dtype in ("float32", "int8"), node, f"wants float32 or int8, got {x.dtype}")
        for key, extent in (("rows", x.shape[1]), ("cols", x.shape[2])):
            low, high, weight = node.attrs[key]
            self.require(len(low) == len(high) == len(weight) > 0, node, f"{key}: lo, hi and weight differ in length")
            self.require(min(*low, *high) >= 0 and max(*low, *high) < extent, node,
                         f"{key}: positions leave an extent of {extent}")
            self.require(min(weight) >= 0 and max(weight) <= numerics.BILINEAR_ONE, node,
                         f"{key}: weights leave 0..{numerics.BILINEAR_ONE}")
        return TensorType((x.shape[0], len(node.attrs["rows"][0]), len(node.attrs["cols"][0]), x.shape[3]), x.dtype)

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""

        def mix(v: NDArray[Any], axis: int, positions: Attr) -> NDArray[Any]:
            low, high, weight = positions
            share = (np.asarray(weight) / numerics.BILINEAR_ONE).astype(np.float32).reshape([-1] + [1] * (3 - axis))
            return np.asarray(np.take(v, low, axis) * (1 - share) + np.take(v, high, axis) * share)

        return mix(mix(x["x"], 1, node.attrs["rows"]), 2, node.attrs["cols"])

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """``numerics_float.bilinear``."""
        return numerics_float.bilinear(x["x"], node.attrs["rows"], node.attrs["cols"], numerics.BILINEAR_ONE)

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """``numerics.bilinear``, or TFLite's."""
        if follows_tflite(node):
            return numerics_tflite.bilinear(x["x"], node.attrs["rows"], node.attrs["cols"])
        return numerics.bilinear(x["x"], node.attrs["rows"], node.attrs["cols"])

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.pools``."""
        from qcc.lower.pools import resize_calls

        return resize_calls(node, ctx)

    def float_kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.floats``."""
        from qcc.lower.floats import resize_calls

        return resize_calls(node, ctx)
