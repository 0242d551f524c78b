"""The meaning of each kernel in TE: what is computed, never how. Schedules transform these; without one they still run.

A compute takes the kernel and its tensors by operand key (constants packed as ``lower.pack`` says) and returns the
tensor that the ``out`` operand holds. Spatial padding is not visible here: it lies in the input's halo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tvm import te, tirx

from qcc.lower import expressions, float_expressions
from qcc.lower.kernel import Kernel

Tensors = Mapping[str, Any]
COMPUTES: dict[str, Callable[[Kernel, Tensors], Any]] = {}


def compute(function: Callable[[Kernel, Tensors], Any]) -> Callable[[Kernel, Tensors], Any]:
    """Register under the function's name, which is ``Kernel.compute``."""
    COMPUTES[function.__name__] = function
    return function


def _epilogue(kernel: Kernel, t: Tensors, acc: Any, shape: tuple[int, ...]) -> Any:
    """Block ``out``: bias, requantization, residual, clamp along the last axis.

    The shift is a parameter, or, with TFLite's rounding, the operand ``shift``: one for each channel. A result of
    float32 is not requantized: ``float_expressions.layer``.
    """
    if kernel.view("y").dtype == "float32":
        return _float_epilogue(t, acc, shape)
    shift, fraction, clamped = (kernel.param(k) for k in ("shift", "fraction", "clamped"))
    storage = kernel.view("y").dtype

    def value(*i: Any) -> Any:
        residual = t["residual"][i] if "residual" in t else None
        by = t["shift"][i[-1]] if "shift" in t else shift
        return expressions.epilogue(
            acc[i] + t["bias"][i[-1]], t["multiplier"][i[-1]], t["q"], by, residual, fraction, storage, clamped
        )

    return te.compute(shape, value, name="out")


def _float_epilogue(t: Tensors, acc: Any, shape: tuple[int, ...]) -> Any:
    def value(*i: Any) -> Any:
        constants = {key: t[key][i[-1]] for key in ("addend", "scale", "bias") if key in t}
        if "step" in t:
            constants["step"] = t["step"][0]
        residual = t["residual"][i] if "residual" in t else None
        return float_expressions.layer(acc[i], constants, residual, (t["q"][0], t["q"][1]))

    return te.compute(shape, value, name="out")


@compute
def conv_gemm_float(kernel: Kernel, t: Tensors) -> Any:
    """``conv_gemm`` with float32 sums, one product after the other; w float32 or float16, dot 1."""
    return conv_gemm(kernel, t)


@compute
def conv_depthwise_float(kernel: Kernel, t: Tensors) -> Any:
    """``conv_depthwise`` with float32 sums; w float32 or float16, dot 1."""
    return conv_depthwise(kernel, t)


def _sum_dtype(kernel: Kernel) -> str:
    return "float32" if kernel.view("x").dtype == "float32" else "int32"


@compute
def conv_gemm(kernel: Kernel, t: Tensors) -> Any:
    """Convolution as implicit GEMM; y [B, OH, OW, NP] with channels padded to whole vectors.

    x [B, H, L]: rows of elements; a tap (ky, kx) of output (y, x) is the run of ``w``'s length that starts at element
    ``x * step + kx // parts * hop`` of row ``y * stride + ky * dilation``. Runs join the taps of a row when they are
    adjacent; ``parts`` taps at the same place hold weights that are too wide for a byte.
    w [N / lanes, KY, KX, run / dot, lanes, dot]: columns in vectors of lanes, the run in groups of dot.
    """
    x, w = t["x"], t["w"]
    stride, dilation, step, hop, parts = (kernel.param(k) for k in ("stride", "dilation", "step", "hop", "parts"))
    blocks, taps_y, taps_x, groups, lanes, dot = kernel.view("w").shape
    batch, height, width = kernel.param("outputs")
    ky, kx = te.reduce_axis((0, taps_y), "ky"), te.reduce_axis((0, taps_x), "kx")
    r = te.reduce_axis((0, groups * dot), "r")
    shape, wide = (batch, height, width, blocks * lanes), _sum_dtype(kernel)
    acc = te.compute(
        shape,
        lambda b, i, j, n: te.sum(
            x[b, i * stride + ky * dilation, j * step + tirx.indexdiv(kx, parts) * hop + r].astype(wide)
            * w[n // lanes, ky, kx, r // dot, n % lanes, r % dot].astype(wide),
            axis=[ky, kx, r],
        ),
        name="acc",
    )
    return _epilogue(kernel, t, acc, shape)


@compute
def conv_depthwise(kernel: Kernel, t: Tensors) -> Any:
    """Depthwise convolution, multiplier 1; y [B, OH, OW, NP] with channels padded to whole vectors.

    x [B, OH, G * dot, W, NP] is the input once per tap row: stride and dilation of rows lie in its strides, rows beyond
    the kernel meet zero weights; ``sliding`` says that the last row is such a row, and that the rows of the next output
    begin one row further down. w [NP / lanes, KX, G, lanes, dot].
    """
    x, w = t["x"], t["w"]
    stride, dilation, parts = (kernel.param(k) for k in ("stride", "dilation", "parts"))
    blocks, taps_x, groups, lanes, column = kernel.view("w").shape
    batch, height, width = kernel.param("outputs")
    kx, g = te.reduce_axis((0, taps_x), "kx"), te.reduce_axis((0, groups), "g")
    k = te.reduce_axis((0, column), "k")
    shape, wide = (batch, height, width, blocks * lanes), _sum_dtype(kernel)
    acc = te.compute(
        shape,
        lambda b, i, j, n: te.sum(
            x[b, i, g * column + k, j * stride + tirx.indexdiv(kx, parts) * dilation, n].astype(wide)
            * w[n // lanes, kx, g, n % lanes, k].astype(wide),
            axis=[kx, g, k],
        ),
        name="acc",
    )
    return _epilogue(kernel, t, acc, shape)
