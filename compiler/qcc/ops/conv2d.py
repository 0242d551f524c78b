"""Two-dimensional convolution, depthwise and grouped included; 1-D convolution is imported with height 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics_float
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.base import pair
from qcc.ops.epilogue import check_epilogue, layer_dtype, single_epilogue
from qcc.ops.layer import Layer

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext


def windows(x: NDArray[Any], kernel: tuple[int, int], node: Node, fill: float) -> NDArray[Any]:
    """View [N, OH, OW, KH, KW, C] of the padded input of a convolution or pool node (stride, pad, dilation)."""
    (sh, sw), (dh, dw) = pair(node.attrs["stride"]), pair(node.attrs.get("dilation", (1, 1)))
    top, left, bottom, right = node.attrs["pad"]
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    reach = ((kernel[0] - 1) * dh + 1, (kernel[1] - 1) * dw + 1)
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(1, 2))
    return view[:, ::sh, ::sw, :, ::dh, ::dw].transpose(0, 1, 2, 4, 5, 3)


def window_extent(size: int, kernel: int, stride: int, dilation: int, pads: int) -> int:
    """Outputs along one axis: ``floor((size + pads - ((kernel - 1) * dilation + 1)) / stride) + 1``."""
    return (size + pads - ((kernel - 1) * dilation + 1)) // stride + 1


class Conv2d(Layer):
    """``y = clamp(sum x * w + b [+ residual])``; x [N,H,W,C], w [O,KH,KW,C/groups], b [O], residual like y.

    Float attributes: stride (h, w), pad (top, left, bottom, right), dilation (h, w), groups, clamp (low, high), real.
    Integer form: see ``ops.epilogue``; w int8, the padding is the input's zero point, so that it means 0.
    """

    name = "conv2d"
    attributes = ("stride", "pad", "dilation", "groups", "clamp")

    def infer(self, node: Node, types: Types) -> TensorType:
        """[N, OH, OW, O] of x's dtype."""
        x, w, a = types["x"], types["w"], node.attrs
        self.require(len(x.shape) == len(w.shape) == 4, node, f"wants x and w of rank 4, got {x.shape}, {w.shape}")
        n, h, wd, c = x.shape
        o, kh, kw, ci = w.shape
        groups = a["groups"]
        self.require(groups >= 1 and c == ci * groups and o % groups == 0, node,
                     f"{c} input and {o} output channels do not fit {groups} groups of weights {w.shape}")
        (sh, sw), (dh, dw), (top, left, bottom, right) = pair(a["stride"]), pair(a["dilation"]), a["pad"]
        self.require(min(sh, sw, dh, dw) >= 1, node,
                     f"stride {a['stride']} and dilation {a['dilation']} must be at least 1")
        self.require(min(top, left, bottom, right) >= 0, node, f"pad {a['pad']} must not be negative")
        oh = window_extent(h, kh, sh, dh, top + bottom)
        ow = window_extent(wd, kw, sw, dw, left + right)
        self.require(oh > 0 and ow > 0, node, f"kernel {kh}x{kw} is larger than the padded input {h}x{wd}")
        out = TensorType((n, oh, ow, o), layer_dtype(types))
        check_epilogue(self, node, types, out)
        return out

    def sums(
        self, node: Node, x: NDArray[Any], w: NDArray[Any], product: Callable[..., NDArray[Any]] = np.matmul,
        multiply_add: Callable[..., NDArray[Any]] = lambda a, b, c: a * b + c,
    ) -> NDArray[Any]:
        """Sums of products in the dtype of x and w, by row, column and channel; by column and row where each channel
        has one output.

        ``product`` multiplies matrices, ``multiply_add`` is a * b + c.
        """
        o, kh, kw, ci = w.shape
        groups = node.attrs["groups"]
        depthwise = ci == 1 and groups > 1
        if depthwise and o > groups:
            x = np.repeat(x, o // groups, axis=-1)
        view = windows(x, (kh, kw), node, 0.0)
        n, oh, ow = view.shape[:3]
        if depthwise:
            acc = np.zeros((n, oh, ow, o), x.dtype)
            for ky, kx in sorted(np.ndindex(kh, kw), key=lambda tap: tap[::-1] if o == groups else tap):
                acc = multiply_add(view[:, :, :, ky, kx], w[:, ky, kx, 0], acc)
            return acc
        parts = []
        for g in range(groups):
            rows = np.ascontiguousarray(view[..., g * ci : (g + 1) * ci]).reshape(n * oh * ow, kh * kw * ci)
            parts.append(product(rows, w[g * o // groups : (g + 1) * o // groups].reshape(-1, kh * kw * ci).T))
        return np.concatenate(parts, axis=1).reshape(n, oh, ow, o)

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """Fused multiply-adds from 0 on in the order of ``sums``."""
        w = x["w"].astype(np.float32)
        return single_epilogue(node, x, self.sums(node, x["x"], w, numerics_float.products, numerics_float.fma))

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """Implicit GEMM, or the depthwise kernel."""
        from qcc.lower.weighted import convolution_calls

        return convolution_calls(node, ctx)

    def macs(self, node: Node, types: Types, out: TensorType) -> int:
        """Outputs times weights per output."""
        return out.size * int(np.prod(types["w"].shape[1:]))
