"""What an op is: its shape rule, its float and its integer meaning, how it is quantized, how it becomes kernels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from numpy.typing import NDArray

from qcc.errors import QccError
from qcc.ir.graph import Arrays, Attr, Node, TensorType, Types

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext
    from qcc.quantize.convert import Converter


class IllegalNode(QccError):  # noqa: N818
    """A node breaks its op's rules; ``where`` names the value it produces."""


class Op(ABC):
    """One operator. Instances hold no state; ``qcc.ops.OPS`` maps names to them.

    The same name serves the float graph and the integer program; integer nodes carry more attributes and constant
    inputs (multipliers, tables), which each op's docstring lists.
    """

    name: ClassVar[str]
    required: ClassVar[tuple[str, ...]] = ("x",)
    """Input keys that must be there; a trailing ``*`` (concat's ``x*``) means x0, x1, …"""
    optional: ClassVar[tuple[str, ...]] = ()
    attributes: ClassVar[tuple[str, ...]] = ()
    """Attributes of the float form."""
    integer_attributes: ClassVar[tuple[str, ...]] = ()
    """Further attributes of the integer form."""
    tflite_attributes: ClassVar[tuple[str, ...] | None] = None
    """Those of the form with ``rounding="tflite"`` (``numerics_tflite``), besides ``rounding``; None: there is none."""
    scale_rule: ClassVar[Literal["free", "same", "fixed"]] = "free"
    """Output parameters: chosen from the range, shared with the inputs (data only moves), or fixed by the op."""

    @abstractmethod
    def infer(self, node: Node, types: Types) -> TensorType:
        """Output type (shape and dtype; no parameters) from input types by key; raises ``IllegalNode``."""

    @abstractmethod
    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """The float meaning: float32 arrays by key in, float32 array out."""

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """The float32 meaning to the bit (``numerics_float``): what every target must produce in the modes that run
        float. Raises ``IllegalNode`` where there is none.
        """
        raise IllegalNode(f"op '{self.name}' cannot run in float32", where=node.output)

    @abstractmethod
    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """The integer meaning, and so the bytes every target must produce."""

    @abstractmethod
    def quantize(self, node: Node, convert: Converter) -> None:
        """Append the integer form of a float node through ``convert.emit``."""

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """The kernel calls that compute an integer node; empty where the value is only a view of its input."""
        raise IllegalNode(f"op '{self.name}' has no kernel", where=node.output)

    def float_kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """As ``kernels``, for a node of float32."""
        raise IllegalNode(f"op '{self.name}' cannot run in float32", where=node.output)

    def macs(self, node: Node, types: Types, out: TensorType) -> int:
        """Multiply-accumulates of one run (0 for ops that are not sums of products)."""
        return 0

    def form_attributes(self, node: Node, integer: bool) -> tuple[str, ...]:
        """The attributes that a node has: those of the float form, and further ones of the integer form that it is."""
        if "step" in node.inputs:  # int8 operands, float32 result: what follows the sums is the float form's
            return self.attributes
        if "rounding" in node.attrs and self.tflite_attributes is not None:
            return (*self.attributes, "rounding", *self.tflite_attributes)
        return (*self.attributes, *self.integer_attributes) if integer else self.attributes

    def require(self, condition: bool, node: Node, what: str) -> None:
        """Raise ``IllegalNode`` unless the condition holds."""
        if not condition:
            raise IllegalNode(f"{self.name}: {what}", where=node.output)


def pair(value: Attr) -> tuple[int, int]:
    """An attribute that must be two ints."""
    first, second = value
    return int(first), int(second)
