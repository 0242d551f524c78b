"""Importers of elementwise operators, softmax, and the conversions between float32 and integers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qcc import numerics, numerics_tflite
from qcc.frontend.refused import Refused
from qcc.frontend.tflite_layers import requantization
from qcc.frontend.tflite_node import QUANTIZED, TfliteNode, importer, int8_limits
from qcc.numerics import QParams
from qcc.ops.pointwise import Expr

BINARY = {"ADD": "add", "SUB": "sub", "MUL": "mul"}
CLIPS = {"RELU": (0.0, math.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}
REAL: dict[str, Expr] = {
    "ABS": ("abs", "x"),
    "NEG": ("neg", "x"),
    "EXP": ("exp", "x"),
    "LOG": ("log", "x"),
    "SQRT": ("sqrt", "x"),
    "RSQRT": ("div", 1.0, ("sqrt", "x")),
    "SQUARE": ("mul", "x", "x"),
    "FLOOR": ("floor", "x"),
    "CEIL": ("ceil", "x"),
    "ELU": ("elu", "x", 1.0),
    "LOGISTIC": ("sigmoid", "x"),
    "TANH": ("tanh", "x"),
    "HARD_SWISH": ("mul", "x", ("div", ("clip", ("add", "x", 3.0), 0.0, 6.0), 6.0)),
}
"""What these compute of real numbers."""


@importer("ADD", "SUB", "MUL")
def binary(n: TfliteNode) -> str:
    """With NumPy broadcasting, and a fused activation."""
    inputs = {"a": n.value(0), "b": n.value(1)}
    if not n.integer:
        return n.emit(BINARY[n.op], inputs, clamp=n.limits())
    a, b, out = n.q(0).step, n.q(1).step, n.out_q()
    tail = {"zero_point": out.zero_point, "clamp": n.clamp()}
    if n.op == "MUL":
        ratio = a * b / out.step
        if n.offset:  # the first scheme's kernel computes it in float32
            ratio = float(np.float32(a) * np.float32(b) / np.float32(out.step))
        return n.tflite("mul", inputs | requantization(n, numerics_tflite.fixed_point(ratio)), **tail)
    dtype = np.float64 if n.op == "ADD" else np.float32
    multipliers, shifts = numerics_tflite.add_fixed_points(a, b, out.step, dtype)
    if min(shifts) < 0:
        raise Refused(f"its result's scale {out.step} is too small for its operands'", "convert the model again")
    return n.tflite(BINARY[n.op], inputs, multipliers=multipliers, shifts=shifts, **tail)


@importer("DIV")
def divide(n: TfliteNode) -> str:
    """Of real numbers by a constant."""
    if n.integer:
        raise _no_integer_form(n)
    divisor = n.reals(1, "divisor")
    if not np.all(divisor):
        raise Refused("it divides by 0")
    return n.emit("mul", {"a": n.value(0), "b": n.constant(n.name + ".inverse", np.float32(1) / divisor)},
                  clamp=n.limits())


def _no_integer_form(n: TfliteNode) -> Refused:
    return Refused(f"{n.op} of quantized tensors is not supported", "keep this operator out of the integer model")


@importer("MAXIMUM", "MINIMUM")
def extremum(n: TfliteNode) -> str:
    """Both operands have the result's parameters."""
    n.same_parameters(0, 1)
    return n.emit(n.op.lower(), {"a": n.value(0), "b": n.value(1)})


@importer(*CLIPS)
def clip(n: TfliteNode) -> str:
    """Clips, and rescales where the result has other parameters."""
    low, high = CLIPS[n.op]
    if not n.integer:
        return n.emit("pointwise", {"x": n.value(0)}, expr=("clip", "x", low, high))
    q, out = n.q(0), n.out_q()
    ratio = float(np.float32(q.step) / np.float32(out.step))
    table = numerics_tflite.rescale_table(q, out, ratio, int8_limits((low, high), out))
    return n.look_up(n.value(0), table)


@importer(*REAL)
def function(n: TfliteNode) -> str:
    """A table of 256 entries where TFLite has one, or an equal rule."""
    if not n.integer:
        return n.emit("pointwise", {"x": n.value(0)}, expr=REAL[n.op])
    q, out = n.q(0), n.out_q()
    match n.op:
        case "LOGISTIC":
            _fixed_result(n, numerics_tflite.LOGISTIC_QPARAMS)
            table = numerics_tflite.logistic_table(q)
        case "TANH":
            _fixed_result(n, numerics_tflite.TANH_QPARAMS)
            table = numerics_tflite.tanh_table(q)
        case "HARD_SWISH":
            table = numerics_tflite.hard_swish_table(q, out)
        case _:
            raise _no_integer_form(n)
    return n.look_up(n.value(0), table)


def _fixed_result(n: TfliteNode, q: QParams) -> None:
    out = n.out_q()
    if out != q:
        raise Refused(f"its result has scale {out.step} and zero point {out.zero_point} as int8 instead of "
                      f"{q.step} and {q.zero_point}", "convert the model again with a current converter")


@importer("LEAKY_RELU")
def leaky_relu(n: TfliteNode) -> str:
    """Slope ``alpha`` below 0."""
    alpha = float(n.option("Alpha"))
    if not math.isfinite(alpha):
        raise Refused(f"its slope is {alpha}")
    if not n.integer:
        return n.emit("pointwise", {"x": n.value(0)}, expr=("leaky", "x", alpha))
    return n.look_up(n.value(0), numerics_tflite.leaky_table(n.q(0), n.out_q(), alpha))


@importer("PRELU")
def prelu(n: TfliteNode) -> str:
    """Slopes for each channel, or one for all; others are not supported."""
    x, channels = n.value(0), n.shape(0)[-1] if n.shape(0) else 1
    shape = n.tensor(1).shape
    if (shape and shape[-1] not in (1, channels)) or any(d != 1 for d in shape[:-1]):
        raise Refused(f"its slopes have shape {list(shape)}; only one for each channel is possible",
                      "share the slopes over the other axes")
    if not n.integer:
        slope = np.broadcast_to(n.reals(1, "slopes").reshape(-1), channels)
        return n.emit("prelu", {"x": x, "slope": n.constant(n.tensor(1).name, np.ascontiguousarray(slope))})
    q, alpha, out = n.q(0), n.q(1), n.out_q()
    raw = n.array(1, "slopes").astype(np.int32).reshape(-1) - n.tensor(1).quantization.zero_points[0]  # type: ignore[union-attr]
    multiplier, shift = numerics_tflite.fixed_points([q.step / out.step, q.step * alpha.step / out.step])
    inputs = {
        "x": x,
        "slope": n.constant(n.name + ".slope", np.ascontiguousarray(np.broadcast_to(raw, channels), np.int32)),
        "multiplier": n.constant(n.name + ".multiplier", multiplier),
        "shift": n.constant(n.name + ".shift", shift),
    }
    return n.tflite("prelu", inputs, zero_point=out.zero_point, clamp=(numerics.INT8_MIN, numerics.INT8_MAX))


@importer("SOFTMAX")
def softmax(n: TfliteNode) -> str:
    """Over the last axis; ``beta`` scales the exponent."""
    beta = float(n.option("Beta"))
    if not (math.isfinite(beta) and beta > 0):
        raise Refused(f"its beta is {beta}")
    x = n.value(0)
    if not n.integer:
        if beta != 1:
            x = n.emit("mul", {"a": x, "b": n.constant(n.name + ".beta", np.array([beta], np.float32))}, clamp=None)
        return n.emit("softmax", {"x": x})
    _fixed_result(n, numerics.SOFTMAX_QPARAMS)
    table = numerics_tflite.softmax_table(n.q(0).step, beta)
    return n.tflite("softmax", {"x": x, "table": n.constant(n.name + ".table", table)})


@importer("QUANTIZE")
def quantize(n: TfliteNode) -> str:
    """float32 to integers, or a change of parameters (and between int8 and uint8, which are one here)."""
    if n.tensor(0).dtype in QUANTIZED:
        return n.rescaled(0)
    if n.tensor(0).dtype != "float32" or not n.integer:
        raise Refused(f"it converts {n.tensor(0).dtype} to {n.result().dtype}", "use float32, int8 and uint8")
    return n.tflite("quantize", {"x": n.value(0)}, perm=None)


@importer("DEQUANTIZE")
def dequantize(n: TfliteNode) -> Any:
    """Integers to float32; of a constant (quantized or float16 weights), a float32 constant."""
    if n.is_known(0):
        n.scope.known[n.result().index] = n.reals(0, "input")
        return None
    if n.tensor(0).dtype not in QUANTIZED:
        raise Refused(f"it converts {n.tensor(0).dtype}", "use int8 and uint8")
    return n.emit("dequantize", {"x": n.value(0)}, perm=None)
