"""Computes of reductions; x is [kept axes…, reduced axes…], y the kept ones (see ``lower.reduce``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import te, tirx

from qcc.lower import expressions
from qcc.lower.compute import Tensors, compute
from qcc.lower.compute_elementwise import each, finish, wide
from qcc.lower.kernel import Kernel


def over(shape: tuple[int, ...], kept: int, combine: Any, value: Callable[..., Any], name: str) -> Any:
    """``combine`` over the axes of ``shape`` from ``kept`` on; ``value`` is given the whole index."""
    taps = [te.reduce_axis((0, extent), f"r{i}") for i, extent in enumerate(shape[kept:])]
    return te.compute(shape[:kept], lambda *i: combine(value((*i, *taps)), axis=taps), name=name)


@compute
def reduce_sum(kernel: Kernel, t: Tensors) -> Any:
    """Sum less q[3], requantized by q[4]; q[:3] are zero point and limits."""
    q = t["q"]
    kept = len(kernel.view("y").shape)
    acc = over(kernel.view("x").shape, kept, te.sum, lambda i: wide(t["x"], i), "acc")
    return each(kernel, lambda i: finish(kernel, t, acc[i] - q[3], q[4]))


@compute
def reduce_max(kernel: Kernel, t: Tensors) -> Any:
    """Maximum."""
    acc = over(kernel.view("x").shape, len(kernel.view("y").shape), te.max, lambda i: t["x"][i], "acc")
    return each(kernel, lambda i: acc[i])


@compute
def argmax(kernel: Kernel, t: Tensors) -> Any:
    """The least position along the last axis at which the maximum stands."""
    x, shape = t["x"], kernel.view("x").shape
    kept = len(shape) - 1
    top = over(shape, kept, te.max, lambda i: x[i], "top")
    end = expressions.i32(shape[-1])
    acc = over(shape, kept, te.min, lambda i: tirx.Select(x[i] == top[i[:-1]], i[-1], end), "acc")
    return each(kernel, lambda i: acc[i])


@compute
def softmax(kernel: Kernel, t: Tensors) -> Any:
    """``numerics.softmax``; q[0] is the stored form of 0 / 256."""
    x, shape = t["x"], kernel.view("x").shape
    kept = len(shape) - 1
    top = over(shape, kept, te.max, lambda i: x[i], "top")
    power = te.compute(shape, lambda *i: t["table"][wide(top, i[:-1]) - wide(x, i)], name="power")
    total = over(shape, kept, te.sum, lambda i: power[i], "total")

    def value(i: Any) -> Any:
        whole = total[i[:-1]]
        return expressions.quotient((power[i] << 9) + whole, whole * 2, 255) + t["q"][0]

    return each(kernel, value)


@compute
def matmul(kernel: Kernel, t: Tensors) -> Any:
    """``sum (a - q[3]) * (b - q[4])`` requantized by q[5]; q[:3] are zero point and limits."""
    a, b, q = t["a"], t["b"], t["q"]
    k = te.reduce_axis((0, kernel.view("a").shape[-1]), "k")
    acc = te.compute(
        kernel.view("y").shape,
        lambda *i: te.sum((wide(a, (*i[:-1], k)) - q[3]) * (wide(b, (*i[:-2], k, i[-1])) - q[4]), axis=k),
        name="acc",
    )
    return each(kernel, lambda i: finish(kernel, t, acc[i], q[5]))
