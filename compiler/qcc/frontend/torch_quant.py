"""Operators of PT2E-quantized programs as QuantizeLinear and DequantizeLinear, with their limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node as Fx

from qcc.frontend.refused import Refused
from qcc.frontend.torch_node import Writer, arguments, operator, shape

LEVELS = {torch.int8: np.int8, torch.uint8: np.uint8, torch.int32: np.int32, torch.int16: np.int16}


def _levels(a: dict[str, Any]) -> Any:
    """NumPy's dtype of the integers; raises ``Refused``."""
    if a["dtype"] not in LEVELS:
        raise Refused(f"it quantizes to {a['dtype']}", "quantize to int8 or uint8")
    return LEVELS[a["dtype"]]


def _limited(w: Writer, x: str, a: dict[str, Any], scale: NDArray[Any], zero: NDArray[Any]) -> str:
    """x within what the quantizer's own limits represent, where they are narrower than the dtype."""
    limits = np.iinfo(_levels(a))
    if (a["quant_min"], a["quant_max"]) == (limits.min, limits.max) or a["dtype"] == torch.int32:
        return x
    bounds = [(q - zero.astype(np.float64)) * scale for q in (a["quant_min"], a["quant_max"])]
    if scale.ndim == 0:
        return w.emit("Clip", [x, *(w.constant(np.float32(b)) for b in bounds)])
    for op, bound in zip(("Max", "Min"), bounds, strict=True):
        x = w.emit(op, [x, w.constant(bound.astype(np.float32))])
    return x


@operator("quantized_decomposed.quantize_per_tensor.default")
def _quantize(w: Writer, node: Fx) -> None:
    a = arguments(node)
    scale, zero = np.asarray(a["scale"], np.float32), np.asarray(a["zero_point"], _levels(a))
    x = _limited(w, w.value(a["input"]), a, scale, zero)
    w.write(node, "QuantizeLinear", [x, w.constant(scale), w.constant(zero)])


@operator("quantized_decomposed.dequantize_per_tensor.default")
def _dequantize(w: Writer, node: Fx) -> None:
    a = arguments(node)
    scale, zero = np.asarray(a["scale"], np.float32), np.asarray(a["zero_point"], _levels(a))
    w.write(node, "DequantizeLinear", [w.value(a["input"]), w.constant(scale), w.constant(zero)])


@operator("quantized_decomposed.quantize_per_channel.default", "quantized_decomposed.dequantize_per_channel.default")
def _per_channel(w: Writer, node: Fx) -> None:
    a = arguments(node)
    scale, zero = (w.array(a[key]) for key in ("scales", "zero_points"))
    parameters = [w.constant(scale.astype(np.float32)), w.constant(zero.astype(_levels(a)))]
    x, op = w.value(a["input"]), "DequantizeLinear" if "dequantize" in str(node.target) else "QuantizeLinear"
    if op == "QuantizeLinear":
        wide = [-1 if i == a["axis"] else 1 for i in range(len(shape(a["input"])))]
        x = _limited(w, x, a, scale.reshape(wide), zero.reshape(wide))
    w.write(node, op, [x, *parameters], axis=int(a["axis"]))
