"""Batch normalization with fixed statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Arrays, Node, TensorType, Types
from qcc.ops.base import IllegalNode, Op

if TYPE_CHECKING:
    from qcc.quantize.convert import Converter


class BatchNorm(Op):
    """``y = (x - mean) / sqrt(variance + epsilon) * weight + bias`` along the last axis of x [..., C]; the rest [C].

    It exists in float graphs only: passes fold it into a convolution before quantization.
    """

    name = "batch_norm"
    required = ("x", "mean", "variance", "weight", "bias")
    attributes = ("epsilon",)

    def infer(self, node: Node, types: Types) -> TensorType:
        """Type of x."""
        x = types["x"]
        self.require(len(x.shape) >= 1, node, "wants x of rank 1 or more")
        for key in self.required:
            self.require(types[key].dtype == "float32", node, f"{key} must be float32, got {types[key].dtype}")
        for key in self.required[1:]:
            self.require(types[key].shape == x.shape[-1:], node,
                         f"{key} must have shape {x.shape[-1:]}, got {types[key].shape}")
        self.require(node.attrs["epsilon"] >= 0, node, f"epsilon {node.attrs['epsilon']} is negative")
        return TensorType(x.shape, x.dtype)

    def real(self, node: Node, x: Arrays) -> NDArray[Any]:
        """As in the class docstring."""
        scale = x["weight"] / np.sqrt(x["variance"] + node.attrs["epsilon"])
        return np.asarray((x["x"] - x["mean"]) * scale + x["bias"]).astype(np.float32)

    def integer(self, node: Node, x: Arrays, types: Types, out: TensorType) -> NDArray[Any]:
        """Raises ``IllegalNode``."""
        raise IllegalNode("batch_norm has no integer form: fold it first", where=node.output)

    def quantize(self, node: Node, convert: Converter) -> None:
        """Raises ``IllegalNode``."""
        raise IllegalNode("batch_norm has no integer form: fold it first", where=node.output)
