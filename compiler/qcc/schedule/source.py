"""Building blocks of kernels that become C source: typed pointers, named scalars, calls of functions in ``qcc.h``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcc.lower.kernel import Kernel

Expr = Any


def function(kernel: Kernel, body: Callable[[dict[str, Any]], None]) -> Any:
    """A function with one pointer for each operand; ``body`` is given flat buffers by operand key."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        pointers = [T.arg(o.key, T.handle(o.view.dtype)) for o in kernel.operands]
        buffers = {}
        for operand, pointer in zip(kernel.operands, pointers, strict=True):
            reach = 1 + sum((e - 1) * s for e, s in zip(operand.view.shape, operand.view.strides, strict=True))
            buffers[operand.key] = T.decl_buffer((reach,), operand.view.dtype, data=pointer)
        body(buffers)
    return builder.get()


def array(name: str, size: int, dtype: str) -> Any:
    """A local array."""
    return IRBuilder.name(name, T.alloc_buffer((size,), dtype))


def loop(name: str, extent: int) -> Any:
    """``for name in range(extent)``; without a loop for one iteration."""
    return _Loop(name, extent)


class _Loop:
    """A serial loop whose variable has a name."""

    def __init__(self, name: str, extent: int) -> None:
        self.name, self.extent = name, extent
        self.frame = T.serial(0, extent) if extent != 1 else None

    def __enter__(self) -> Expr:
        return tirx.const(0, "int32") if self.frame is None else IRBuilder.name(self.name, self.frame.__enter__())

    def __exit__(self, *failure: Any) -> None:
        if self.frame is not None:
            self.frame.__exit__(*failure)


def let(name: str, value: Expr) -> Expr:
    """A loaded or called for value that is used several times; what is computed from indices needs no name."""
    return IRBuilder.name(name, T.bind(value))


def branch(condition: Expr, then: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
    """``if``; a condition that is known leaves one side. None stands for true."""
    if condition is None:
        then()
        return
    with T.If(condition):
        with T.Then():
            then()
        if otherwise is not None:
            with T.Else():
                otherwise()


def call(name: str, *arguments: Expr, dtype: str = "void") -> Expr:
    """A call of a function in ``qcc.h``."""
    return tirx.call_extern(dtype, name, *(tirx.const(a, "int32") if isinstance(a, int) else a for a in arguments))


def run(name: str, *arguments: Expr) -> None:
    """A call as a statement."""
    T.evaluate(call(name, *arguments))


def at(buffer: Any, index: Expr = 0) -> Expr:
    """A pointer to an element."""
    return T.address_of(buffer[index])


def within(value: Expr, low: int, high: int, extent: int) -> Expr | None:
    """``0 <= value < extent`` as far as it is not known from low <= value <= high; None where it is known to hold."""
    checks = ([value >= 0] if low < 0 else []) + ([value < extent] if high >= extent else [])
    return tirx.all(*checks) if checks else None


def every(conditions: Sequence[Expr | None]) -> Expr | None:
    """The conjunction of conditions that may be known to hold (None)."""
    found = [c for c in conditions if c is not None]
    return tirx.all(*found) if found else None


def finish(kernel: Kernel, acc: Expr, multiplier: Expr, by: Expr | None, residual: Expr | None) -> Expr:
    """The epilogue of ``ops.epilogue`` as int8; the accumulator holds the bias. ``by``: TFLite's shift, if any."""
    p: dict[str, Any] = dict(kernel.params)
    if by is not None:
        name = "qcc_tflite_multiply_high" if p["doubled"] else "qcc_tflite_multiply"
        v = call(name, acc, multiplier, by, dtype="int32")
    elif p["shift"] == 32 or p["doubled"]:
        v = call("qcc_requantize_high", acc * 2 if p["doubled"] else acc, multiplier, dtype="int32")
    else:
        v = call("qcc_requantize", acc, multiplier, p["shift"], dtype="int32")
    if residual is not None:
        half = (1 << p["fraction"]) >> 1
        v = v + (residual.astype("int32") - p["residual_zero"]) * p["residual_multiplier"] + half
        v = v >> tirx.const(p["fraction"], "int32")
    v = v + p["zero"]
    if (p["low"], p["high"]) == (-128, 127):
        return call("qcc_saturate", v, dtype="int8")
    return call("qcc_clamp", v, p["low"], p["high"], dtype="int8")


def offset(strides: Sequence[int], index: Sequence[Expr]) -> Expr:
    """Element offset; axes at index 0 add nothing."""
    total: Expr = 0
    for stride, i in zip(strides, index, strict=True):
        total = total + i * stride if stride else total
    return total
