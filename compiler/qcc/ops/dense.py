"""Fully connected layer: a matrix product with constant weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics_float
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.epilogue import check_epilogue, layer_dtype, single_epilogue
from qcc.ops.layer import Layer

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext


class Dense(Layer):
    """``y = clamp(x @ w.T + b [+ residual])``; x [..., K], w [O, K], b [O], y and residual [..., O].

    Float attribute: clamp (low, high) in reals. Integer form: see ``ops.epilogue``; w int8.
    """

    name = "dense"
    attributes = ("clamp",)

    def infer(self, node: Node, types: Types) -> TensorType:
        """[..., O] of x's dtype."""
        x, w = types["x"], types["w"]
        self.require(len(x.shape) >= 1 and len(w.shape) == 2, node,
                     f"wants x of rank 1 or more and w of rank 2, got {x.shape}, {w.shape}")
        self.require(x.shape[-1] == w.shape[1], node, f"{x.shape[-1]} inputs do not fit weights {w.shape}")
        out = TensorType((*x.shape[:-1], w.shape[0]), layer_dtype(types))
        check_epilogue(self, node, types, out)
        return out

    def sums(self, node: Node, x: NDArray[Any], w: NDArray[Any]) -> NDArray[Any]:
        """By rows of x."""
        return np.asarray(x @ w.T)

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """Fused multiply-adds from 0 on."""
        rows = x["x"].reshape(-1, x["x"].shape[-1])
        sums = numerics_float.products(rows, x["w"].astype(np.float32).T)
        return single_epilogue(node, x, sums.reshape(*x["x"].shape[:-1], -1))

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """A GEMM whose pixels are the rows of x."""
        from qcc.lower.weighted import dense_calls

        return dense_calls(node, ctx)

    def macs(self, node: Node, types: Types, out: TensorType) -> int:
        """Outputs times K."""
        return out.size * types["w"].shape[1]
