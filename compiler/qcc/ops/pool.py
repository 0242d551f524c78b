"""Maxima and means over windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics, numerics_float, numerics_tflite
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.base import Op, pair
from qcc.ops.conv2d import window_extent, windows
from qcc.ops.epilogue import check_clamp
from qcc.ops.requant import REQUANT_ATTRIBUTES, check_requant, emit_requantized, finish
from qcc.ops.rounding import follows_tflite
from qcc.ops.same_scale import SameScale

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext
    from qcc.quantize.convert import Converter


def taps_inside(node: Node, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """[OH, OW]: how many taps of each window lie inside an input of ``shape`` [N, H, W, C]."""
    view = windows(np.ones((1, *shape[1:3], 1), np.int64), pair(node.attrs["kernel"]), node, 0)
    return np.asarray(view.sum(axis=(3, 4))[0, :, :, 0])


def tap_counts(node: Node, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Divisors of an avg_pool node over an input of ``shape``: [OH * OW], or [1] where all windows count alike."""
    counts = taps_inside(node, shape).reshape(-1)
    if node.attrs["count_include_pad"]:
        return np.full(1, np.prod(node.attrs["kernel"]), np.int64)
    return counts[:1] if (counts == counts[0]).all() else counts


def infer_pool(op: Op, node: Node, types: Types) -> TensorType:
    """[N, OH, OW, C] of x's dtype; raises ``IllegalNode``."""
    x, a = types["x"], node.attrs
    op.require(len(x.shape) == 4, node, f"wants x of rank 4, got {x.shape}")
    op.require(x.dtype in ("float32", "int8"), node, f"wants float32 or int8, got {x.dtype}")
    kernel, stride, dilation = pair(a["kernel"]), pair(a["stride"]), pair(a.get("dilation", (1, 1)))
    op.require(min(*kernel, *stride, *dilation) >= 1, node,
               f"kernel {kernel}, stride {stride} and dilation {dilation} must be at least 1")
    top, left, bottom, right = a["pad"]
    op.require(min(a["pad"]) >= 0, node, f"pad {a['pad']} must not be negative")
    oh = window_extent(x.shape[1], kernel[0], stride[0], dilation[0], top + bottom)
    ow = window_extent(x.shape[2], kernel[1], stride[1], dilation[1], left + right)
    op.require(oh > 0 and ow > 0, node, f"kernel {kernel} is larger than the padded input {x.shape[1:3]}")
    zeros_count = a.get("count_include_pad", False)
    op.require(zeros_count or int(taps_inside(node, x.shape).min()) > 0, node, f"pad {a['pad']} holds a whole window")
    return TensorType((x.shape[0], oh, ow, x.shape[3]), x.dtype)


class MaxPool(SameScale):
    """Maximum over kernel (h, w) windows of x [N,H,W,C]; attributes stride, pad (top, left, bottom, right), dilation.

    Padding never wins, and no window may lie in it entirely.
    """

    name = "max_pool"
    attributes = ("kernel", "stride", "pad", "dilation")

    def infer(self, node: Node, types: Types) -> TensorType:
        """[N, OH, OW, C] of x's dtype."""
        return infer_pool(self, node, types)

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring (for int8 as well)."""
        fill = numerics.INT8_MIN if x["x"].dtype == np.int8 else -np.inf
        view = windows(x["x"], pair(node.attrs["kernel"]), node, fill)
        y = view[:, :, :, 0, 0]
        for ky, kx in np.ndindex(*pair(node.attrs["kernel"])):
            y = numerics_float.maximum(y, view[:, :, :, ky, kx])
        return np.ascontiguousarray(y)

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.pools``."""
        from qcc.lower.pools import max_pool_calls

        return max_pool_calls(node, ctx)


class AvgPool(Op):
    """Mean over kernel (h, w) windows of x [N,H,W,C]; attributes stride, pad, count_include_pad.

    Padding counts as zeros if ``count_include_pad``; else the mean is over the taps inside the input, and no window may
    lie in the padding entirely. Integer form: ``acc = sum of (x - z_x)`` over the taps inside, requantized
    (``ops.requant``) by constant multiplier int32 [1], or [OH * OW] where the counts differ.

    With ``rounding="tflite"`` input and output share their parameters and there is no multiplier: the mean of
    ``x + offset`` (0, or 128 for what the file has as uint8) is ``numerics_tflite.divide_away``, less the offset, and
    ``clamp``.
    """

    name = "avg_pool"
    optional = ("multiplier",)
    attributes = ("kernel", "stride", "pad", "count_include_pad")
    integer_attributes = (*REQUANT_ATTRIBUTES, "clamp")
    tflite_attributes = ("offset", "clamp")

    def infer(self, node: Node, types: Types) -> TensorType:
        """[N, OH, OW, C] of x's dtype."""
        out = infer_pool(self, node, types)
        if follows_tflite(node):
            self.require(not node.attrs["count_include_pad"], node, "TFLite's rounding does not count padding")
            check_clamp(self, node, out.dtype)
        else:
            check_requant(self, node, types, out.dtype, (1, out.shape[1] * out.shape[2]))
        return out

    def _sums(self, node: Node, x: NDArray[Any]) -> NDArray[Any]:
        view = windows(x, pair(node.attrs["kernel"]), node, 0)
        return np.asarray(sum(view[:, :, :, ky, kx] for ky, kx in np.ndindex(*pair(node.attrs["kernel"]))))

    def _each(self, values: NDArray[Any], out: tuple[int, ...]) -> NDArray[Any]:
        """[1] or [OH * OW] values in a shape that broadcasts to the output."""
        return values.reshape(1, out[1], out[2], 1) if values.size > 1 else values

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        sums = self._sums(node, x["x"])
        return np.asarray(sums / self._each(tap_counts(node, x["x"].shape), sums.shape)).astype(np.float32)

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """The sum from 0 on, tap by tap, divided by the count."""
        sums = self._sums(node, x["x"])
        return np.asarray(sums / self._each(tap_counts(node, x["x"].shape), sums.shape).astype(np.float32))

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """As in the class docstring."""
        if follows_tflite(node):
            offset = node.attrs["offset"]
            sums = self._sums(node, x["x"].astype(np.int64) + offset)
            # Padding adds nothing to a sum, so the offset counts for the taps inside only.
            mean = numerics_tflite.divide_away(sums, self._each(tap_counts(node, x["x"].shape), out.shape))
            return numerics.clamp(mean - offset, *node.attrs["clamp"])
        acc = self._sums(node, x["x"].astype(np.int64) - types["x"].zero_point)
        return finish(node, {"multiplier": self._each(x["multiplier"], out.shape)}, acc)

    def quantize(self, node: Node, convert: Converter) -> None:
        """Multipliers ``s_x / (s_y * count)``."""
        value = node.inputs["x"]
        counts = tap_counts(node, convert.source.types[value].shape)
        real = convert.qparams(value).step / convert.qparams(node.output).step / counts
        emit_requantized(node, convert, {"x": convert.value(value)}, real, dict(node.attrs))

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.pools``."""
        from qcc.lower import pools, tflite

        return tflite.avg_pool_calls(node, ctx) if follows_tflite(node) else pools.avg_pool_calls(node, ctx)

    def float_kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.floats``."""
        from qcc.lower.floats import avg_pool_calls

        return avg_pool_calls(node, ctx)
