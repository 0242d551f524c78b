"""Quantizing an activation while the model runs: its step, then its values (docs/modes.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from qcc import numerics_float
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.base import IllegalNode, Op

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext
    from qcc.quantize.convert import Converter


class DynamicSteps(Op):
    """float32 [2]: step and inverse step with which the largest magnitude in x becomes ``levels``.

    ``numerics_float.dynamic_steps``; x of any shape.
    """

    name = "dynamic_steps"
    attributes = ("levels",)

    def infer(self, node: Node, types: Types) -> TensorType:
        """float32 [2]."""
        self.require(types["x"].dtype == "float32", node, f"wants float32, got {types['x'].dtype}")
        self.require(1 <= node.attrs["levels"] <= 255, node, f"levels {node.attrs['levels']} leave 1..255")
        return TensorType((2,))

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As ``single``."""
        return self.single(node, x)

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return numerics_float.dynamic_steps(x["x"], node.attrs["levels"])

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """Raises ``IllegalNode``."""
        raise IllegalNode("dynamic_steps reads float32", where=node.output)

    def quantize(self, node: Node, convert: Converter) -> None:
        """Raises ``IllegalNode``."""
        raise IllegalNode("dynamic_steps belongs to the mode dynamic", where=node.output)

    def float_kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.floats``."""
        from qcc.lower.floats import dynamic_steps_calls

        return dynamic_steps_calls(node, ctx)


class DynamicQuantize(Op):
    """int8 image of x: ``numerics_float.dynamic_quantize`` by ``step`` float32 [2], the result of ``dynamic_steps``.

    The zero point is the output's and known at compile time, so that padding and sums of weights are; the output's
    scale is 1, as it counts steps.
    """

    name = "dynamic_quantize"
    required = ("x", "step")

    def infer(self, node: Node, types: Types) -> TensorType:
        """int8, x's shape."""
        for key, t in types.items():
            self.require(t.dtype == "float32", node, f"{key} must be float32, got {t.dtype}")
        self.require(types["step"].shape == (2,), node, f"step must have shape (2,), got {types['step'].shape}")
        return TensorType(types["x"].shape, "int8")

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """Raises ``IllegalNode``."""
        raise IllegalNode("dynamic_quantize belongs to the mode dynamic", where=node.output)

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """As in the class docstring."""
        return numerics_float.dynamic_quantize(x["x"], x["step"], out.zero_point)

    def quantize(self, node: Node, convert: Converter) -> None:
        """Raises ``IllegalNode``."""
        raise IllegalNode("dynamic_quantize belongs to the mode dynamic", where=node.output)

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.floats``."""
        from qcc.lower.floats import dynamic_quantize_calls

        return dynamic_quantize_calls(node, ctx)
