"""Leaky rectifier with a slope for each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.base import Op
from qcc.ops.epilogue import integer_clamp
from qcc.ops.requant import REQUANT_ATTRIBUTES, REQUANT_INPUTS, TFLITE_REQUANT_ATTRIBUTES, check_requant, finish
from qcc.ops.rounding import follows_tflite

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext
    from qcc.quantize.convert import Converter


class PRelu(Op):
    """``y = x`` where x >= 0, else ``slope * x``; x [..., C], slope [C] (constant).

    Integer form: no slope; constant multiplier int32 [C] (of either sign) for negative inputs, attribute multiplier for
    the others; ``acc = x - z_x``, then as in ``ops.requant``. With ``rounding="tflite"``: slope int32 [C] less its zero
    point, multiplier and shift [2]; ``acc`` is rescaled by the first, or, if negative, ``acc * slope`` by the second.
    """

    name = "prelu"
    required = ("x",)
    optional = ("slope", *REQUANT_INPUTS)
    integer_attributes = ("multiplier", *REQUANT_ATTRIBUTES, "clamp")
    tflite_attributes = (*TFLITE_REQUANT_ATTRIBUTES, "clamp")

    def infer(self, node: Node, types: Types) -> TensorType:
        """Type of x."""
        x = types["x"]
        self.require(len(x.shape) >= 1, node, "wants x of rank 1 or more")
        tflite = follows_tflite(node)
        check_requant(self, node, types, x.dtype, (2 if tflite else x.shape[-1],))
        if x.dtype == "float32" or tflite:
            self.require("slope" in types, node, "this form wants a slope")
            slope, dtype = types["slope"], "int32" if tflite else "float32"
            self.require((slope.dtype, slope.shape) == (dtype, x.shape[-1:]), node,
                         f"slope must be {dtype}[{x.shape[-1]}], got {slope.dtype}{list(slope.shape)}")
        return TensorType(x.shape, x.dtype)

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return np.where(x["x"] >= 0, x["x"], x["x"] * x["slope"]).astype(np.float32)

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """Rounded once."""
        return self.real(node, x)

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """As in the class docstring."""
        acc = x["x"].astype(np.int64) - types["x"].zero_point
        if follows_tflite(node):
            negative = acc < 0
            constants = {key: np.where(negative, x[key][1], x[key][0]) for key in REQUANT_INPUTS}
            return finish(node, constants, np.where(negative, acc * x["slope"], acc))
        return finish(node, {"multiplier": np.where(acc >= 0, node.attrs["multiplier"], x["multiplier"])}, acc)

    def quantize(self, node: Node, convert: Converter) -> None:
        """Multipliers ``s_x / s_y`` and ``slope * s_x / s_y`` with one shift."""
        x, out = convert.qparams(node.inputs["x"]), convert.qparams(node.output)
        slope = convert.constant(node.inputs["slope"]).astype(np.float64)
        multiplier, shift = numerics.requant_multipliers(np.append(np.abs(slope), 1.0) * x.step / out.step)
        negative = (multiplier[:-1] * np.sign(slope)).astype(np.int32)
        inputs = {
            "x": convert.value(node.inputs["x"]),
            "multiplier": convert.emit_constant(node.output + ".multiplier", negative),
        }
        attrs = {"multiplier": int(multiplier[-1]), "shift": shift, "zero_point": out.zero_point}
        convert.emit(node, self.name, inputs, {**attrs, "clamp": integer_clamp(None, out)})

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.elementwise``."""
        from qcc.lower import elementwise, tflite

        return tflite.prelu_calls(node, ctx) if follows_tflite(node) else elementwise.prelu_calls(node, ctx)

    def float_kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.floats``."""
        from qcc.lower.floats import prelu_calls

        return prelu_calls(node, ctx)
