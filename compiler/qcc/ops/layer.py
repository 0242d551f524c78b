"""What conv2d, conv_transpose2d and dense have in common: constant weights, and the epilogue after their sums."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics
from qcc.errors import ModelError
from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.numerics import QParams
from qcc.ops.base import Op
from qcc.ops.epilogue import (
    EPILOGUE_ATTRIBUTES,
    EPILOGUE_INPUTS,
    TFLITE_EPILOGUE_ATTRIBUTES,
    integer_clamp,
    integer_epilogue,
    real_epilogue,
)
from qcc.ops.rounding import follows_tflite

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext
    from qcc.quantize.convert import Converter


class Layer(Op):
    """``y = clamp(sums(x, w) + b [+ residual])``; axis 0 of w, and the last of y, are the output channels."""

    required = ("x", "w")
    optional = ("b", *EPILOGUE_INPUTS)
    integer_attributes = EPILOGUE_ATTRIBUTES
    tflite_attributes = TFLITE_EPILOGUE_ATTRIBUTES

    @abstractmethod
    def sums(self, node: Node, x: NDArray[Any], w: NDArray[Any]) -> NDArray[Any]:
        """Sums of products, shape of y, in the dtype of x and w."""

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return real_epilogue(node, x, self.sums(node, x["x"], x["w"]))

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """Exact sums of ``(x - zero_point) * w``, then the epilogue; only TFLite's weights may have a zero point."""
        weight_zero_point = types["w"].zero_point if follows_tflite(node) else 0
        centred, w = numerics.exact_operands(x["x"], types["x"].zero_point, x["w"], weight_zero_point)
        return integer_epilogue(node, x, types, self.sums(node, centred, w).astype(np.int64))

    def quantize(self, node: Node, convert: Converter) -> None:
        """Weights per output channel.

        A weight scale grows where bias or sums would leave int32 (the overflow proof), and ``convert.remark`` says so.
        Raises ``ModelError`` where that does not help.
        """
        x, out = convert.qparams(node.inputs["x"]), convert.qparams(node.output)
        weight = convert.constant(node.inputs["w"]).astype(np.float64)
        channels = weight.shape[0]
        bias = convert.constant(node.inputs["b"]).astype(np.float64) if "b" in node.inputs else np.zeros(channels)
        wanted, given = convert.weight_scales(node, weight), convert.given_scales(node)
        if given is not None:
            peak = np.abs(weight).reshape(channels, -1).max(axis=1, initial=0.0)
            rounded = int((np.rint(peak / given) > numerics.WEIGHT_MAX).sum())
            if rounded:
                convert.remark(node, f"the given weights of {rounded} channels leave [-127, 127] and were rounded"
                                     " to fit")  # fmt: skip
        scales = wanted
        for _ in range(40):
            params = QParams(tuple(float(s) for s in scales), 0, 0)
            q_weight = numerics.quantize(weight, params)
            error = numerics.dequantize(q_weight, params) - weight
            wide_bias = np.rint((bias - convert.mean_shift(node, error)) / (x.step * scales))
            bound = numerics.storage_bound(q_weight, np.clip(wide_bias, -(2.0**40), 2.0**40).astype(np.int64))
            failed = bound > numerics.INT32_MAX
            if not failed.any():
                break
            scales = np.where(failed, scales * 2, scales)
        else:
            raise ModelError("no weight scale keeps its sums within 32 bits", where=node.source or node.output,
                             hint="its bias is out of proportion to its weights and scales: check the model's numbers")
        widened = int((scales != wanted).sum())
        if widened:
            convert.remark(node, f"weight scale of {widened} channels widened to keep accumulators within 32 bits")

        q_bias = wide_bias.astype(np.int32)
        real = x.step * scales / out.step
        inputs = {
            "x": convert.value(node.inputs["x"]),
            "w": convert.emit_constant(node.inputs["w"], q_weight, params),
            "b": convert.emit_constant(node.output + ".bias", q_bias),
        }
        attrs = {key: node.attrs[key] for key in self.attributes if key != "clamp"}
        if "residual" in node.inputs:
            r = convert.qparams(node.inputs["residual"])
            try:
                fraction = numerics.residual_fraction(real, bound, r.step / out.step)
            except OverflowError as error:
                raise ModelError(str(error), where=node.source or node.output,
                                 hint="its scales are out of proportion: check the model's quantization") from error
            real = real * 2.0**fraction
            inputs["residual"] = convert.value(node.inputs["residual"])
            attrs |= {"residual_multiplier": round(r.step / out.step * 2.0**fraction), "fraction": fraction}
        multiplier, shift = numerics.requant_multipliers(real, bound)
        inputs["multiplier"] = convert.emit_constant(node.output + ".multiplier", multiplier)
        clamp = integer_clamp(node.attrs.get("clamp"), out)
        convert.emit(node, node.op, inputs, {**attrs, "shift": shift, "zero_point": out.zero_point, "clamp": clamp})

    def float_kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """The same with float32 sums."""
        return self.kernels(node, ctx)
