"""Transposed two-dimensional convolution (a convolution's gradient with respect to its input)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics_float
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.base import pair
from qcc.ops.conv2d import Conv2d
from qcc.ops.epilogue import check_epilogue, layer_dtype, single_epilogue
from qcc.ops.layer import Layer

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext


class ConvTranspose2d(Layer):
    """Each pixel adds a patch: ``y[i * stride - pad + k * dilation] += x[i] * w[k]``; then b, residual, clamp.

    x [N,H,W,C], w [O,KH,KW,C/groups], b [O], residual like y [N,OH,OW,O] with
    ``OH = (H - 1) * stride + (KH - 1) * dilation + 1 + output_pad - top - bottom``. Float attributes: stride (h, w),
    pad (top, left, bottom, right), dilation (h, w), groups, output_pad (h, w), clamp (low, high) in reals.
    Integer form: see ``ops.epilogue``; w int8.
    """

    name = "conv_transpose2d"
    attributes = ("stride", "pad", "dilation", "groups", "output_pad", "clamp")

    def infer(self, node: Node, types: Types) -> TensorType:
        """[N, OH, OW, O] of x's dtype."""
        x, w, a = types["x"], types["w"], node.attrs
        self.require(len(x.shape) == len(w.shape) == 4, node, f"wants x and w of rank 4, got {x.shape}, {w.shape}")
        c, o, ci, groups = x.shape[3], w.shape[0], w.shape[3], a["groups"]
        self.require(groups >= 1 and c == ci * groups and o % groups == 0, node,
                     f"{c} input and {o} output channels do not fit {groups} groups of weights {w.shape}")
        self.require(min(*pair(a["stride"]), *pair(a["dilation"])) >= 1, node,
                     f"stride {a['stride']} and dilation {a['dilation']} must be at least 1")
        self.require(min(*a["pad"], *pair(a["output_pad"])) >= 0, node,
                     f"pad {a['pad']} and output_pad {a['output_pad']} must not be negative")
        oh, ow = self._extent(node, x.shape, w.shape)
        self.require(oh > 0 and ow > 0, node, f"pad {a['pad']} leaves no output")
        out = TensorType((x.shape[0], oh, ow, o), layer_dtype(types))
        check_epilogue(self, node, types, out)
        return out

    def _extent(self, node: Node, x: tuple[int, ...], w: tuple[int, ...]) -> tuple[int, int]:
        """Output height and width."""
        a = node.attrs
        top, left, bottom, right = a["pad"]
        geometry = zip(x[1:3], w[1:3], a["stride"], a["dilation"], a["output_pad"], strict=True)
        oh, ow = ((size - 1) * s + (taps - 1) * d + 1 + extra for size, taps, s, d, extra in geometry)
        return oh - top - bottom, ow - left - right

    def sums(self, node: Node, x: NDArray[Any], w: NDArray[Any]) -> NDArray[Any]:
        """By taps."""
        a = node.attrs
        groups, (sh, sw), (dh, dw), (top, left, bottom, right) = a["groups"], a["stride"], a["dilation"], a["pad"]
        (n, h, wd, _), (o, kh, kw, ci) = x.shape, w.shape
        oh, ow = self._extent(node, x.shape, w.shape)
        full = np.zeros((n, oh + top + bottom, ow + left + right, groups, o // groups), x.dtype)
        pixels = x.reshape(n, h, wd, groups, 1, ci)
        for ky, kx in np.ndindex(kh, kw):
            taps = w[:, ky, kx].reshape(groups, o // groups, ci).transpose(0, 2, 1)
            rows = slice(ky * dh, ky * dh + (h - 1) * sh + 1, sh)
            columns = slice(kx * dw, kx * dw + (wd - 1) * sw + 1, sw)
            full[:, rows, columns] += (pixels @ taps)[..., 0, :]
        return full[:, top : top + oh, left : left + ow].reshape(n, oh, ow, o)

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """A convolution of the spread-out input by the kernel turned around; zeros in between add nothing."""
        a, w = node.attrs, x["w"].astype(np.float32)
        (sh, sw), (dh, dw), (top, left, bottom, right) = a["stride"], a["dilation"], a["pad"]
        (n, h, wd, c), (_, kh, kw, _) = x["x"].shape, w.shape
        oh, ow = self._extent(node, x["x"].shape, w.shape)
        spread = np.zeros((n, oh + (kh - 1) * dh + top + bottom, ow + (kw - 1) * dw + left + right, c), np.float32)
        y0, x0 = (kh - 1) * dh, (kw - 1) * dw
        spread[:, y0 : y0 + h * sh : sh, x0 : x0 + wd * sw : sw] = x["x"]
        spread = spread[:, top : top + oh + (kh - 1) * dh, left : left + ow + (kw - 1) * dw]
        attrs = {"stride": (1, 1), "pad": (0, 0, 0, 0), "dilation": (dh, dw), "groups": a["groups"]}
        turned = Node(node.output, "conv2d", node.inputs, attrs)
        sums = Conv2d().sums(turned, spread, w[:, ::-1, ::-1], numerics_float.products, numerics_float.fma)
        return single_epilogue(node, x, sums)

    def macs(self, node: Node, types: Types, out: TensorType) -> int:
        """Input elements times the weights each of them meets."""
        o, kh, kw, _ = types["w"].shape
        return types["x"].size * kh * kw * o // int(node.attrs["groups"])

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.transposed``."""
        from qcc.lower.transposed import transposed_calls

        return transposed_calls(node, ctx)
