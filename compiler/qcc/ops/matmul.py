"""Matrix product of two activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics, numerics_float
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.base import Op
from qcc.ops.requant import (
    REQUANT_ATTRIBUTES,
    REQUANT_INPUTS,
    TFLITE_REQUANT_ATTRIBUTES,
    check_requant,
    emit_requantized,
    finish,
)

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext
    from qcc.quantize.convert import Converter
MAX_DEPTH = numerics.INT32_MAX // (255 * 255)
"""Longest sum of products of two centred int8 values that cannot leave int32, whatever the data and zero points."""


class MatMul(Op):
    """``y = a @ b``; a [..., M, K], b [..., K, N], or [..., N, K] with transpose_b; leading axes broadcast as in NumPy.

    Integer form: ``acc = sum (a - z_a) * (b - z_b)``, requantized by multiplier [1] (see ``ops.requant``).
    """

    name = "matmul"
    required = ("a", "b")
    optional = REQUANT_INPUTS
    attributes = ("transpose_b",)
    integer_attributes = (*REQUANT_ATTRIBUTES, "clamp")
    tflite_attributes = (*TFLITE_REQUANT_ATTRIBUTES, "clamp")

    def infer(self, node: Node, types: Types) -> TensorType:
        """[..., M, N] of a's dtype."""
        a, b = types["a"], types["b"]
        self.require(len(a.shape) >= 2 and len(b.shape) >= 2, node,
                     f"wants operands of rank 2 or more, got {a.shape}, {b.shape}")
        self.require(a.dtype == b.dtype, node, f"operands are {a.dtype} and {b.dtype}")
        depth, columns = b.shape[-2:][::-1] if node.attrs["transpose_b"] else b.shape[-2:]
        self.require(a.shape[-1] == depth, node, f"inner extents {a.shape[-1]} and {depth} differ")
        self.require(depth <= MAX_DEPTH, node, f"sums of {depth} products may leave 32 bits (at most {MAX_DEPTH})")
        try:
            batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        except ValueError:
            self.require(False, node, f"leading axes of {a.shape} and {b.shape} do not broadcast")
        check_requant(self, node, types, a.dtype)
        return TensorType((*batch, a.shape[-2], columns), a.dtype)

    def _product(self, node: Node, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(a @ (b.swapaxes(-1, -2) if node.attrs["transpose_b"] else b))

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return self._product(node, x["a"], x["b"]).astype(np.float32)

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """Fused multiply-adds from 0 on."""
        return numerics_float.products(x["a"], x["b"].swapaxes(-1, -2) if node.attrs["transpose_b"] else x["b"])

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """Exact sums (below 2^31, so exact in float64), requantized."""
        a, b = (x[key].astype(np.float64) - types[key].zero_point for key in ("a", "b"))
        return finish(node, x, self._product(node, a, b).astype(np.int64))

    def quantize(self, node: Node, convert: Converter) -> None:
        """Multiplier ``s_a * s_b / s_y``."""
        a, b, out = (convert.qparams(v) for v in (node.inputs["a"], node.inputs["b"], node.output))
        inputs = {key: convert.value(node.inputs[key]) for key in ("a", "b")}
        emit_requantized(node, convert, inputs, a.step * b.step / out.step, {"transpose_b": node.attrs["transpose_b"]})

    def macs(self, node: Node, types: Types, out: TensorType) -> int:
        """Outputs times K."""
        return out.size * types["a"].shape[-1]

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.reduce``."""
        from qcc.lower.reduce import matmul_calls

        return matmul_calls(node, ctx)

    def float_kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.floats``."""
        from qcc.lower.floats import matmul_calls

        return matmul_calls(node, ctx)
