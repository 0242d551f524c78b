"""Building blocks of kernels that become C source: typed pointers, named scalars, calls of ``runtime/mcu``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcc.lower.kernel import Kernel
from qcc.lower.share import ANY

Expr = Any


def function(kernel: Kernel, body: Callable[[dict[str, Any], dict[str, Any]], None]) -> Any:
    """A function with one pointer for each operand and each work array, and an integer for each parameter that is None.

    ``body`` is given flat buffers by name, and the parameters: values, or the variables of integers.
    """
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        memory = [(o.key, o.view.dtype) for o in kernel.operands]
        memory += [(name, dtype) for name, dtype, _ in kernel.get("work") or ()]
        pointers = [(name, dtype, T.arg(name, T.handle(dtype))) for name, dtype in memory]
        numbers = {key: T.arg(key, T.int32()) if value is None else value for key, value in kernel.params}
        buffers = {name: T.decl_buffer(ANY, dtype, data=pointer) for name, dtype, pointer in pointers}
        body(buffers, numbers)
    return builder.get()


def array(name: str, size: int, dtype: str) -> Any:
    """A local array."""
    return IRBuilder.name(name, T.alloc_buffer((size,), dtype))


def loop(name: str, extent: Expr, begin: Expr = 0) -> Any:
    """``for name in range(begin, extent)``; without a loop for one iteration."""
    return _Loop(name, extent, begin)


class _Loop:
    """A serial loop whose variable has a name."""

    def __init__(self, name: str, extent: Expr, begin: Expr) -> None:
        self.name = name
        one = isinstance(extent, int) and isinstance(begin, int) and (begin, extent) == (0, 1)
        self.frame = None if one else T.serial(begin, extent)

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
    """A call of a function in ``runtime/mcu``."""
    return tirx.call_extern(dtype, name, *(tirx.const(a, "int32") if isinstance(a, int) else a for a in arguments))


def run(name: str, *arguments: Expr) -> None:
    """A call as a statement."""
    T.evaluate(call(name, *arguments))


def at(buffer: Any, index: Expr = 0) -> Expr:
    """A pointer to an element."""
    return T.address_of(buffer[index])


def as_byte(value: Expr) -> Expr:
    """A number of int8 for a parameter that wants one."""
    return T.int8(value) if isinstance(value, int) else value.astype("int8")


def quotient(a: Expr, b: int) -> Expr:
    """``a // b`` of a number that is not negative."""
    return a // b if isinstance(a, int) else tirx.truncdiv(a, b)


def remainder(a: Expr, b: int) -> Expr:
    """``a % b`` of a number that is not negative."""
    return a % b if isinstance(a, int) else tirx.truncmod(a, b)


def finish(p: dict[str, Any], acc: Expr, multiplier: Expr, by: Expr | None, residual: Expr | None) -> Expr:
    """The epilogue of ``ops.epilogue`` as int8; the accumulator holds the bias. ``by``: TFLite's shift, if any."""
    if by is not None:
        name = "qcc_tflite_multiply_high" if p["doubled"] else "qcc_tflite_multiply"
        v = call(name, acc, multiplier, by, dtype="int32")
    elif p["shift"] == 32 or p["doubled"]:
        more = p["zero"] if residual is None else 0
        v = call("qcc_requantize_high", acc * 2 if p["doubled"] else acc, multiplier, more, dtype="int32")
    else:
        v = call("qcc_requantize", acc, multiplier, p["shift"], dtype="int32")
    if residual is not None:
        fraction = T.int32(p["fraction"]) if isinstance(p["fraction"], int) else p["fraction"]
        half = (T.int32(1) << fraction) >> T.int32(1)
        v = v + (residual.astype("int32") - p["residual_zero"]) * p["residual_multiplier"] + half
        v = v >> fraction
    if residual is not None or by is not None or not (p["shift"] == 32 or p["doubled"]):
        v = v + p["zero"]
    if not p["clamped"]:
        return call("qcc_saturate", v, dtype="int8")
    return call("qcc_clamp", v, p["low"], p["high"], dtype="int8")


def offset(strides: Sequence[int], index: Sequence[Expr]) -> Expr:
    """Element offset."""
    total: Expr = 0
    for stride, i in zip(strides, index, strict=True):
        total = total + i * stride
    return total
