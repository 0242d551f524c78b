"""Operands as kernels like them: broadcast, and with as few axes as their strides allow."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Attr
from qcc.lower.kernel import BufferArg, Call, CallBuilder, LowerContext, Operand, View, dense_strides

Placed = tuple[View, BufferArg]
Strides = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """What a kernel reads: a part of a buffer, or a constant as activations are stored."""

    view: View
    arg: BufferArg | NDArray[Any]

    def broadcast(self, shape: tuple[int, ...]) -> Source:
        """Repeated to ``shape`` by NumPy's rule: stride 0 along the new or widened axes."""
        missing = len(shape) - len(self.view.shape)
        pairs = zip(self.view.shape, self.view.strides, shape[missing:], strict=True)
        strides = (0,) * missing + tuple(0 if have != want else stride for have, stride, want in pairs)
        return Source(View(shape, strides, self.view.dtype), self.arg)

    def permuted(self, perm: Sequence[int]) -> Source:
        """Axis i is axis ``perm[i]`` of this one."""
        shape, strides = (tuple(of[axis] for axis in perm) for of in (self.view.shape, self.view.strides))
        return Source(View(shape, strides, self.view.dtype), self.arg)

    def part(self, index: Sequence[int], shape: tuple[int, ...]) -> Source:
        """The part that starts at ``index`` and has ``shape``."""
        offset = sum(i * s for i, s in zip(index, self.view.strides, strict=True))
        view = View(shape, self.view.strides, self.view.dtype)
        if isinstance(self.arg, BufferArg):
            return Source(view, BufferArg(self.arg.value, self.arg.offset + offset))
        return Source(view, self.arg.reshape(-1)[offset:])

    def viewed(self, shape: tuple[int, ...], strides: Strides) -> Source:
        """The same memory under another shape and strides."""
        return Source(View(shape, strides, self.view.dtype), self.arg)


def stored(array: NDArray[Any], storage: str) -> NDArray[Any]:
    """int8 values as activations are stored (``storage``); arrays of other dtypes as they are."""
    if array.dtype == np.int8 and storage == "uint8":
        return np.asarray(np.ascontiguousarray(array).view(np.uint8) ^ np.uint8(0x80))
    return array


def storage_offset(storage: str) -> int:
    """What storing adds to a quantized value."""
    return 128 if storage == "uint8" else 0


def source(ctx: LowerContext, value: str) -> Source:
    """An operand that is an activation or a constant."""
    if ctx.is_constant(value):
        array = stored(ctx.constant(value), ctx.storage)
        return Source(View(array.shape, dense_strides(array.shape), str(array.dtype)), array)
    return Source(*ctx.place(value))


def merge_axes(
    shape: Sequence[int], strides: Sequence[Strides], fixed: Container[int] = ()
) -> tuple[tuple[int, ...], list[Strides], list[int]]:
    """(shape, strides of each view, places of the ``fixed`` axes) with the fewest axes; at least one remains.

    Axes of extent 1 go; neighbours merge where all views step evenly across them. Fixed axes stay as they are.
    """
    axes: list[tuple[int, list[int], bool]] = []
    for axis, extent in enumerate(shape):
        steps = [s[axis] for s in strides]
        keep = axis in fixed
        if extent == 1 and not keep:
            continue
        if axes and not keep and not axes[-1][2]:
            outer, outer_steps, _ = axes[-1]
            if all(a == extent * b for a, b in zip(outer_steps, steps, strict=True)):
                axes[-1] = (outer * extent, steps, False)
                continue
        axes.append((extent, steps, keep))
    axes = axes or [(1, [1] * len(strides), False)]
    merged = [tuple(axis[1][k] for axis in axes) for k in range(len(strides))]
    return tuple(a[0] for a in axes), merged, [i for i, a in enumerate(axes) if a[2]]


def pixel_step(view: View) -> int | None:
    """Elements from a pixel to the next one where a view of any rank is one row of pixels (its last axis holds
    channels); None where its strides do not allow that.
    """
    extents, (steps,), _ = merge_axes(view.shape[:-1], [view.strides[:-1]])
    if len(extents) > 1:
        return None
    return steps[0] if extents[0] > 1 else view.shape[-1]


def add_source(call: CallBuilder, key: str, read: Source) -> None:
    """Add an operand that is read, from a buffer or from a constant."""
    call.operands.append(Operand(key, "in" if isinstance(read.arg, BufferArg) else "const", read.view))
    call.args.append(read.arg)


def elementwise_call(
    compute: str, node: str, reads: Mapping[str, Source], y: Placed,
    constants: Mapping[str, NDArray[Any]] | None = None, params: Mapping[str, Attr] | None = None,
) -> Call:
    """``y[i] = compute(reads[i]…)``: every operand in ``reads`` is broadcast to y, then their axes merge together."""
    view, arg = y
    wide = {key: read.broadcast(view.shape) for key, read in reads.items()}
    shape, strides, _ = merge_axes(view.shape, [*(read.view.strides for read in wide.values()), view.strides])
    call = CallBuilder(compute, node, dict(params or {}))
    for (key, read), steps in zip(wide.items(), strides[:-1], strict=True):
        add_source(call, key, read.viewed(shape, steps))
    for key, array in (constants or {}).items():
        call.const(key, array)
    call.write("y", (View(shape, strides[-1], view.dtype), arg))
    return call.call()
