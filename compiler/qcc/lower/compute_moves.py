"""Computes of kernels that move data (see ``lower.moves``)."""

from __future__ import annotations

from typing import Any

from tvm import te

from qcc.lower.compute import Tensors, compute
from qcc.lower.compute_elementwise import each
from qcc.lower.kernel import Kernel


@compute
def copy(kernel: Kernel, t: Tensors) -> Any:
    """``y = x``."""
    return each(kernel, lambda i: t["x"][i])


@compute
def fill(kernel: Kernel, t: Tensors) -> Any:
    """``y = value[0]``."""
    return each(kernel, lambda i: t["value"][0])


@compute
def gather(kernel: Kernel, t: Tensors) -> Any:
    """``y[…, i, …] = x[…, index[i], …]`` along each of ``axes``."""
    axes = kernel.param("axes")
    return each(kernel, lambda i: t["x"][tuple(t[f"index{k}"][v] if k in axes else v for k, v in enumerate(i))])


@compute
def reshape(kernel: Kernel, t: Tensors) -> Any:
    """x's elements in row-major order, in another shape."""
    shape, wanted = kernel.view("x").shape, kernel.view("y").shape

    def value(*index: Any) -> Any:
        flat: Any = 0
        for i, extent in zip(index, wanted, strict=True):
            flat = flat * extent + i
        found = []
        for extent in reversed(shape):
            found.append(flat % extent)
            flat = flat // extent
        return t["x"][tuple(reversed(found))]

    return te.compute(wanted, value, name="out")
