"""Mean, sum and maximum over whole axes."""

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
from qcc.ops.same_scale import SameScale

if TYPE_CHECKING:
    from qcc.lower.kernel import Call, LowerContext
    from qcc.quantize.convert import Converter
MAX_COUNT = numerics.INT32_MAX // 255
"""Most centred int8 values whose sum cannot leave int32."""


def infer_reduce(op: Op, node: Node, types: Types) -> TensorType:
    """x's shape without ``axes`` (extent 1 with ``keepdims``); raises ``IllegalNode``."""
    x, axes = types["x"], tuple(node.attrs["axes"])
    op.require(x.dtype in ("float32", "int8"), node, f"wants float32 or int8, got {x.dtype}")
    op.require(len(axes) > 0 and axes == tuple(sorted(set(axes))) and axes[0] >= 0 and axes[-1] < len(x.shape), node,
               f"axes {axes} are not ascending axes of {x.shape}")
    return TensorType(reduced_shape(node, x.shape), x.dtype)


def reduced_shape(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the result."""
    axes, keep = node.attrs["axes"], node.attrs["keepdims"]
    return tuple(1 if i in axes else d for i, d in enumerate(shape) if keep or i not in axes)


def reduced_last(node: Node, x: NDArray[Any]) -> NDArray[Any]:
    """x as [kept axes…, elements that are reduced]."""
    axes = tuple(node.attrs["axes"])
    kept = tuple(i for i in range(x.ndim) if i not in axes)
    return x.transpose(*kept, *axes).reshape(*(x.shape[i] for i in kept), -1)


def reduced_count(node: Node, shape: tuple[int, ...]) -> int:
    """Elements that go into one output."""
    return int(np.prod([shape[i] for i in node.attrs["axes"]], dtype=np.int64))


class ReduceSum(Op):
    """Sum over ``axes`` (ascending, not negative); ``keepdims`` keeps them with extent 1.

    Integer form: ``acc = sum of (x - z_x)``, requantized by multiplier [1] (see ``ops.requant``).
    """

    name = "reduce_sum"
    optional = REQUANT_INPUTS
    attributes = ("axes", "keepdims")
    integer_attributes = (*REQUANT_ATTRIBUTES, "clamp")
    tflite_attributes = (*TFLITE_REQUANT_ATTRIBUTES, "clamp")

    def infer(self, node: Node, types: Types) -> TensorType:
        """x's shape without ``axes``."""
        out = infer_reduce(self, node, types)
        check_requant(self, node, types, out.dtype)
        count = reduced_count(node, types["x"].shape)
        self.require(count <= MAX_COUNT, node, f"sums of {count} values may leave 32 bits (at most {MAX_COUNT})")
        return out

    def _divisor(self, node: Node, shape: tuple[int, ...]) -> int:
        """What the sum is divided by."""
        return 1

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        total = x["x"].sum(axis=tuple(node.attrs["axes"]), keepdims=node.attrs["keepdims"], dtype=np.float64)
        return np.asarray(total / self._divisor(node, x["x"].shape), np.float32)

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """The sum from 0 on, element by element, divided by the count."""
        total = numerics_float.sums(reduced_last(node, x["x"]))
        return (total / np.float32(self._divisor(node, x["x"].shape))).reshape(reduced_shape(node, x["x"].shape))

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """As in the class docstring."""
        total = x["x"].sum(axis=tuple(node.attrs["axes"]), keepdims=node.attrs["keepdims"], dtype=np.int64)
        acc = np.asarray(total - reduced_count(node, x["x"].shape) * types["x"].zero_point)
        return finish(node, x, acc).reshape(out.shape)

    def quantize(self, node: Node, convert: Converter) -> None:
        """Multiplier ``s_x / s_y`` over the divisor."""
        value = node.inputs["x"]
        ratio = convert.qparams(value).step / convert.qparams(node.output).step
        real = ratio / self._divisor(node, convert.source.types[value].shape)
        emit_requantized(node, convert, {"x": convert.value(value)}, real, dict(node.attrs))

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.reduce``."""
        from qcc.lower.reduce import sum_calls

        return sum_calls(node, ctx)

    def float_kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.floats``."""
        from qcc.lower.floats import sum_calls

        return sum_calls(node, ctx)


class ReduceMean(ReduceSum):
    """Mean over ``axes``; as ``ReduceSum``, with the count in the multiplier."""

    name = "reduce_mean"

    def _divisor(self, node: Node, shape: tuple[int, ...]) -> int:
        return reduced_count(node, shape)


class ReduceMax(SameScale):
    """Maximum over ``axes`` (ascending, not negative); ``keepdims`` keeps them with extent 1."""

    name = "reduce_max"
    attributes = ("axes", "keepdims")

    def infer(self, node: Node, types: Types) -> TensorType:
        """x's shape without ``axes``."""
        return infer_reduce(self, node, types)

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        return np.asarray(x["x"].max(axis=tuple(node.attrs["axes"]), keepdims=node.attrs["keepdims"]))

    def single(self, node: Node, x: Arrays) -> NDArray[Any]:
        """Element by element, which settles the sign of zero."""
        return numerics_float.maxima(reduced_last(node, x["x"])).reshape(reduced_shape(node, x["x"].shape))

    def kernels(self, node: Node, ctx: LowerContext) -> list[Call]:
        """See ``lower.reduce``."""
        from qcc.lower.reduce import max_calls

        return max_calls(node, ctx)
