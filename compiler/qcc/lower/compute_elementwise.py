"""Computes of elementwise kernels; operands have y's shape, constants are small tables (see ``lower.elementwise``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import te, tirx

from qcc.lower import expressions
from qcc.lower.compute import Tensors, compute
from qcc.lower.kernel import Kernel


def each(kernel: Kernel, value: Callable[..., Any]) -> Any:
    """Block ``out``: ``y[i] = value(i)`` in y's dtype."""
    y = kernel.view("y")
    return te.compute(y.shape, lambda *i: value(i).astype(y.dtype), name="out")


def wide(tensor: Any, i: Any) -> Any:
    """An element as int32."""
    return tensor[i].astype("int32")


def finish(kernel: Kernel, t: Tensors, acc: Any, multiplier: Any) -> Any:
    """Centred accumulator → stored activation as int32; q[:3] are zero point and limits.

    The shift is a parameter, or, with TFLite's rounding, the operand ``shift``.
    """
    shift = t["shift"][0] if "shift" in t else kernel.param("shift")
    return expressions.finish(acc, multiplier, shift, t["q"])


@compute
def add(kernel: Kernel, t: Tensors) -> Any:
    """``clamp((a * q[4] + b * q[5] + q[3] >> shift) + q[0], q[1], q[2])``."""
    a, b, q, shift = t["a"], t["b"], t["q"], expressions.i32(kernel.param("shift"))
    return each(
        kernel,
        lambda i: expressions.clamp(((wide(a, i) * q[4] + wide(b, i) * q[5] + q[3]) >> shift) + q[0], q[1], q[2]),
    )


@compute
def mul(kernel: Kernel, t: Tensors) -> Any:
    """``(a - q[3]) * (b - q[4])`` requantized by q[5]; q[:3] are zero point and limits."""
    a, b, q = t["a"], t["b"], t["q"]
    return each(kernel, lambda i: finish(kernel, t, (wide(a, i) - q[3]) * (wide(b, i) - q[4]), q[5]))


@compute
def maximum(kernel: Kernel, t: Tensors) -> Any:
    """``max(a, b)``."""
    return each(kernel, lambda i: tirx.Max(t["a"][i], t["b"][i]))


@compute
def minimum(kernel: Kernel, t: Tensors) -> Any:
    """``min(a, b)``."""
    return each(kernel, lambda i: tirx.Min(t["a"][i], t["b"][i]))


@compute
def lut(kernel: Kernel, t: Tensors) -> Any:
    """``table[x + 128]``; stored as uint8, x is the index itself."""
    first = expressions.STORED[kernel.view("x").dtype][0]
    return each(kernel, lambda i: t["table"][wide(t["x"], i) - first])


@compute
def prelu(kernel: Kernel, t: Tensors) -> Any:
    """``x - q[3]`` requantized by q[4], or by ``negative`` where it is below 0; q[:3] are zero point and limits."""
    x, q = t["x"], t["q"]

    def value(i: Any) -> Any:
        acc = wide(x, i) - q[3]
        return finish(kernel, t, acc, tirx.Select(acc >= 0, q[4], t["negative"][i]))

    return each(kernel, value)


@compute
def quantize(kernel: Kernel, t: Tensors) -> Any:
    """``rint(clamp(x * f[0], f[1], f[2])) + q[0]``, half to even."""
    x, f, q = t["x"], t["f"], t["q"]
    return each(
        kernel, lambda i: tirx.nearbyint(expressions.clamp(x[i] * f[0], f[1], f[2])).astype("int32") + q[0]
    )


@compute
def dequantize(kernel: Kernel, t: Tensors) -> Any:
    """``float32(x - q[0]) * f[0]``."""
    return each(kernel, lambda i: (wide(t["x"], i) - t["q"][0]).astype("float32") * t["f"][0])


@compute
def recentre(kernel: Kernel, t: Tensors) -> Any:
    """``x + delta``, within bytes."""
    return each(kernel, lambda i: wide(t["x"], i) + expressions.i32(kernel.param("delta")))
