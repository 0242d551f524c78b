"""Float to int8 and back at the edges of an integer program, with a layout change on the way where one is due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.base import IllegalNode, Op

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext
    from qcc.quantize.convert import Converter


def permuted(op: Op, node: Node, types: Types, dtype: str, out: str) -> TensorType:
    """Type of x (which must be ``dtype``) after the attribute ``perm``, with dtype ``out``; raises ``IllegalNode``."""
    x, perm = types["x"], node.attrs["perm"]
    op.require(x.dtype == dtype, node, f"wants {dtype}, got {x.dtype}")
    if perm is None:
        return TensorType(x.shape, out)
    op.require(sorted(perm) == list(range(len(x.shape))), node, f"perm {perm} does not permute {x.shape}")
    return TensorType(tuple(x.shape[i] for i in perm), out)


class Edge(Op):
    """What quantize and dequantize share: they belong to integer programs only."""

    attributes = ("perm",)
    scale_rule = "fixed"

    def _permute(self, node: Node, x: NDArray[Any]) -> NDArray[Any]:
        perm = node.attrs["perm"]
        return x if perm is None else np.ascontiguousarray(x.transpose(perm))

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """Raises ``IllegalNode``."""
        raise IllegalNode(f"{self.name} belongs to integer programs", where=node.output)

    def quantize(self, node: Node, convert: Converter) -> None:
        """Raises ``IllegalNode``."""
        raise IllegalNode(f"{self.name} belongs to integer programs", where=node.output)


class Quantize(Edge):
    """float32 to int8 in the output's parameters (``numerics.quantize_input``), then transposed by ``perm`` if any."""

    name = "quantize"

    def infer(self, node: Node, types: Types) -> TensorType:
        """int8, permuted."""
        return permuted(self, node, types, "float32", "int8")

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """As in the class docstring."""
        assert out.qparams is not None, "the output of quantize has parameters"
        return self._permute(node, numerics.quantize_input(x["x"], out.qparams))

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.elementwise``."""
        from qcc.lower.elementwise import quantize_calls

        return quantize_calls(node, ctx)


class Dequantize(Edge):
    """int8 to float32 (``numerics.dequantize_output``), then transposed by ``perm`` if any."""

    name = "dequantize"

    def infer(self, node: Node, types: Types) -> TensorType:
        """float32, permuted."""
        return permuted(self, node, types, "int8", "float32")

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """As in the class docstring."""
        q = types["x"].qparams
        assert q is not None, "the input of dequantize has parameters"
        return self._permute(node, numerics.dequantize_output(x["x"], q))

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.elementwise``."""
        from qcc.lower.elementwise import dequantize_calls

        return dequantize_calls(node, ctx)
