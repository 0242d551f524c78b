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


def powers(kernel: Kernel, t: Tensors) -> Any:
    """What softmax sums: the table's entry for the distance of each x from the maximum of its row."""
    x, shape = t["x"], kernel.view("x").shape
    top = over(shape, len(shape) - 1, te.max, lambda i: x[i], "top")
    return te.compute(shape, lambda *i: t["table"][wide(top, i[:-1]) - wide(x, i)], name="power")


@compute
def softmax(kernel: Kernel, t: Tensors) -> Any:
    """``numerics.softmax``; q[0] is the stored form of 0 / 256."""
    power, shape = powers(kernel, t), kernel.view("x").shape
    total = over(shape, len(shape) - 1, te.sum, lambda i: power[i], "total")
    inverse = te.compute(shape[:-1], lambda *i: expressions.inverse(total[i] * 2), name="inverse")

    def value(i: Any) -> Any:
        row = i[:-1]
        return expressions.quotient((power[i] << 9) + total[row], total[row] * 2, inverse[row], 255) + t["q"][0]

    return each(kernel, value)


@compute
def matmul(kernel: Kernel, t: Tensors) -> Any:
    """``sum (a - q[3]) * (b - q[4])`` requantized by q[5]; q[:3] are zero point and limits.

    ``left`` and ``right`` are the centred operands in int16, b's columns in vectors of ``lanes`` and its rows in pairs;
    both are zero beyond the operand.
    """
    a, b, q, lanes = t["a"], t["b"], t["q"], kernel.param("lanes")
    *batch, rows, columns = kernel.view("y").shape
    depth = kernel.view("a").shape[-1]
    pairs, blocks = -(-depth // 2), -(-columns // lanes)

    def centred(tensor: Any, i: tuple[Any, ...], zero: Any, inside: Any) -> Any:
        return tirx.if_then_else(inside, tensor[i].astype("int16") - zero.astype("int16"), tirx.const(0, "int16"))

    left = te.compute(
        (*batch, rows, 2 * pairs), lambda *i: centred(a, i, q[3], i[-1] < depth), name="left"
    )
    right = te.compute(
        (*batch, blocks, pairs, lanes, 2),
        lambda *i: centred(
            b, (*i[:-4], i[-3] * 2 + i[-1], i[-4] * lanes + i[-2]), q[4],
            tirx.all(i[-3] * 2 + i[-1] < depth, i[-4] * lanes + i[-2] < columns),
        ),
        name="right",
    )  # fmt: skip
    k = te.reduce_axis((0, 2 * pairs), "k")

    def product(*i: Any) -> Any:
        *outer, m, n = i
        return te.sum(wide(left, (*outer, m, k)) * wide(right, (*outer, n // lanes, k // 2, n % lanes, k % 2)), axis=k)

    acc = te.compute((*batch, rows, blocks * lanes), product, name="acc")
    return each(kernel, lambda i: finish(kernel, t, acc[i], q[5]))
