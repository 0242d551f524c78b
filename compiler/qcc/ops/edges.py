"""Float to int8 and back at the edges of an integer program, with a layout change on the way where one is due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics, numerics_tflite
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.base import IllegalNode, Op
from qcc.ops.rounding import follows_tflite

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
    """float32 to int8 in the output's parameters (``numerics.quantize_input``), then transposed by ``perm`` if any.

    With ``rounding="tflite"``: ``numerics_tflite.quantize_input``.
    """

    name = "quantize"
    tflite_attributes = ()

    def infer(self, node: Node, types: Types) -> TensorType:
        """int8, permuted."""
        return permuted(self, node, types, "float32", "int8")

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """As in the class docstring."""
        assert out.qparams is not None, "the output of quantize has parameters"
        rule = numerics_tflite.quantize_input if follows_tflite(node) else numerics.quantize_input
        return self._permute(node, rule(x["x"], out.qparams))

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

class Recentre(Op):
    """uint8 to int8 or back, the same bytes with the highest bit turned over: ``y = x - 128`` or ``y = x + 128``.

    At the edges of an integer program; what the values stand for stays, as the zero point moves along.
    """

    name = "recentre"
    scale_rule = "fixed"

    def infer(self, node: Node, types: Types) -> TensorType:
        """x's shape in the other dtype."""
        x = types["x"]
        self.require(x.dtype in ("uint8", "int8"), node, f"wants uint8 or int8, got {x.dtype}")
        return TensorType(x.shape, "int8" if x.dtype == "uint8" else "uint8")

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """Raises ``IllegalNode``."""
        raise IllegalNode("recentre belongs to integer programs", where=node.output)

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """As in the class docstring."""
        return np.asarray(np.ascontiguousarray(x["x"]).view(np.uint8) ^ np.uint8(0x80)).view(out.dtype)

    def quantize(self, node: Node, convert: Converter) -> None:
        """Raises ``IllegalNode``."""
        raise IllegalNode("recentre belongs to integer programs", where=node.output)

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.elementwise``."""
        from qcc.lower.elementwise import recentre_calls

        return recentre_calls(node, ctx)
