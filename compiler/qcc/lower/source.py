"""Kernel → C source: TVM's C code generation on functions with plain pointers, made readable.

What remains of TVM's text is the body: its headers and macros go, arithmetic that needs 64 bits or conditions becomes
calls of functions in ``runtime/mcu``, parameters become const where they are read, and arrays above a few words become
parameters too (``work``), so that a kernel needs little stack.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx

from qcc.lower.kernel import Kernel
from qcc.lower.plain import BLOCKS_TO_LOOPS
from qcc.lower.share import ANY
from qcc.schedule.decide import Decide

if TYPE_CHECKING:
    from qcc.target import Target

OUTSIDE = "_"
LOCAL_BYTES = 32
"""Arrays up to this size stay local: they are registers, if the C compiler is lucky."""
FINISH = [
    tirx.transform.FlattenBuffer(), tirx.transform.NarrowDataType(32), s_tir.transform.LoopPartition(),
    tirx.transform.UnrollLoop(), tirx.transform.StmtSimplify(), tirx.transform.RemoveNoOp(),
    tirx.transform.LowerIntrin(),
]  # fmt: skip


@dataclass(frozen=True)
class Source:
    """C text of one function; ``work`` are (name, dtype, bytes) of its last parameters."""

    symbol: str
    text: str
    work: tuple[tuple[str, str, int], ...]


def kernel_source(kernel: Kernel, target: Target, decide: Decide) -> Source:
    """The C function of a kernel."""
    func, work = _function(kernel, target, decide, _select)
    symbol, c = _symbol(kernel), tvm.target.Target("c")
    module = _finished(func, symbol, c)
    text = tvm.get_global_func("target.build.c")(module, c).inspect_source()
    return Source(symbol, _readable(text, kernel, symbol), work)


def kernel_object(kernel: Kernel, target: Target, decide: Decide) -> Any:
    """The same function as LLVM compiles it: a module whose object calls what is not a scalar in ``runtime/mcu``, under
    names with ``OUTSIDE`` at their end.
    """
    assert target.llvm is not None, "asked for by Target.with_emit"
    func, _ = _function(kernel, target, decide, _rounding)
    func = tirx.PrimFunc(func.params, _unselect(func.body), func.ret_type, func.attrs)
    # A width that is not used, but asked for.
    llvm = tvm.target.Target({**target.llvm.options(), "vector-width": 128})
    return tvm.get_global_func("target.build.llvm")(_finished(func, _symbol(kernel), llvm), llvm)


def _finished(func: Any, symbol: str, target: Any) -> Any:
    func = func.with_attrs({"global_symbol": symbol, "target": target, "tirx.noalias": True})
    return tvm.ir.transform.Sequential(FINISH)(tvm.IRModule({symbol: func}))


def _function(
    kernel: Kernel, target: Target, decide: Decide, select: Callable[[Any], Any]
) -> tuple[Any, tuple[tuple[str, str, int], ...]]:
    """Loops with pointers as parameters, and the work memory among them that no parameter of the kernel tells."""
    from importlib import import_module

    from qcc.schedule import scheduled

    written = import_module(f"qcc.schedule.{target.family}").FUNCTIONS.get(kernel.compute)
    func = written(kernel) if written is not None else None
    return (func, ()) if func is not None else _hoist(_with_pointers(scheduled(kernel, target, decide), select))


def _symbol(kernel: Kernel) -> str:
    """Compute and taps or output shape, for people; a piece of the digest tells other kernels apart."""
    shape = [d for d in (kernel.get("taps_y"), kernel.get("taps_x")) if d is not None]
    if kernel.view("y").shape != ANY:
        shape = [d for i, d in enumerate(kernel.view("y").shape) if d != 1 or i] or [1]
    return "_".join([kernel.compute, *(["x".join(map(str, shape))] if shape else []), kernel.digest[:8]])


def _with_pointers(func: Any, select: Callable[[Any], Any]) -> Any:
    """Scheduled TIR with buffers as parameters → loops with pointers as parameters."""
    func = tirx.PrimFunc(func.params, select(func.body), func.ret_type, func.attrs)
    lowered = tvm.ir.transform.Sequential(BLOCKS_TO_LOOPS)(tvm.IRModule({"main": func}))["main"]
    pointers, declarations = [], []
    for buffer in lowered.params:
        pointer = _pointer(buffer)
        pointers.append(pointer)
        declarations.append(tirx.DeclBuffer(buffer, data=pointer))
    return tirx.PrimFunc(pointers, tirx.SeqStmt([*declarations, lowered.body]))


def _pointer(buffer: Any) -> Any:
    return tirx.Var(str(buffer.name), tvm.ir.PointerType(tvm.ir.PrimType(str(buffer.dtype))))


def _select(body: Any) -> Any:
    """Requantization, minimum, maximum and rounding as calls, for C."""

    def requantize(cast: Any) -> Any:
        shifted = cast.value
        if not (_dtype(cast) == "int32" and _dtype(shifted) == "int64"):
            return cast
        found = _requantization(shifted)
        return cast if found is None else tirx.call_extern("int32", "qcc_requantize", *found)

    def call(name: str) -> Any:
        return lambda e: tirx.call_extern("int32", name, e.a, e.b) if _dtype(e) == "int32" else e

    rules = [(tirx.Cast, requantize), (tirx.Max, call("qcc_max")), (tirx.Min, call("qcc_min"))]
    return _rounding(tvm_ffi.structural_map(body, rules))


def _rounding(body: Any) -> Any:
    """Rounding as calls: C99 has it in its library of mathematics, which firmware does without."""

    def rounded(e: Any) -> Any:
        nearest = getattr(e.op, "name", "") == "tirx.nearbyint"
        return tirx.call_extern("float32", "qcc_round_even", e.args[0]) if nearest else e

    return tvm_ffi.structural_map(body, (tvm.ir.Call, rounded))


def _unselect(body: Any) -> Any:
    """Scalars of ``runtime/mcu`` as expressions, which LLVM sees through; other functions by the names they have for
    objects.
    """

    def wide(v: Any) -> Any:
        return tirx.Cast("int64", v)

    def requantized(acc: Any, multiplier: Any, shift: Any) -> Any:
        half = tirx.const(1, "int64") << (wide(shift) - tirx.const(1, "int64"))
        return tirx.Cast("int32", (wide(acc) * wide(multiplier) + half) >> wide(shift))

    def clamped(v: Any, low: Any, high: Any) -> Any:
        return tirx.Cast("int8", tirx.Min(tirx.Max(v, low), high))

    low, high, whole = (tirx.const(n, "int32") for n in (-128, 127, 32))
    scalars: dict[str, Callable[..., Any]] = {
        "qcc_min": tirx.Min, "qcc_max": tirx.Max, "qcc_clamp": clamped, "qcc_requantize": requantized,
        "qcc_saturate": lambda v: clamped(v, low, high),
        "qcc_requantize_high": lambda acc, m, more: requantized(acc, m, whole) + more,
    }  # fmt: skip

    def rule(e: Any) -> Any:
        if getattr(e.op, "name", "") != "tirx.call_extern":
            return e
        name, *arguments = e.args
        if name.value in scalars:
            return scalars[name.value](*arguments)
        return tirx.call_extern(_dtype(e), name.value + OUTSIDE, *arguments)

    return tvm_ffi.structural_map(body, (tvm.ir.Call, rule))


def _dtype(e: Any) -> str:
    return str(e.ty.dtype)


def _requantization(shifted: Any) -> tuple[Any, Any, Any] | None:
    """(accumulator, multiplier, shift) of ``acc * multiplier + half >> shift`` in 64 bits."""
    if not isinstance(shifted, tirx.RShift):
        return None
    total, shift = shifted.a, shifted.b
    if not (isinstance(total, tirx.Add) and isinstance(total.a, tirx.Mul) and isinstance(shift, tirx.IntImm)):
        return None
    half = isinstance(total.b, tirx.IntImm) and int(total.b) == 1 << (int(shift) - 1)
    a, b = _narrow(total.a.a), _narrow(total.a.b)
    return (a, b, tirx.const(int(shift), "int32")) if half and a is not None and b is not None else None


def _narrow(wide: Any) -> Any:
    """The int32 expression whose conversion to int64 TVM has moved to its leaves."""
    if isinstance(wide, tirx.IntImm):
        return tirx.const(int(wide), "int32")
    if isinstance(wide, tirx.Cast):
        return wide.value if _dtype(wide.value) == "int32" else wide.value.astype("int32")
    if isinstance(wide, tirx.Add | tirx.Sub | tirx.Mul):
        a, b = _narrow(wide.a), _narrow(wide.b)
        return None if a is None or b is None else type(wide)(a, b)
    if isinstance(wide, tirx.Select):
        a, b = _narrow(wide.true_value), _narrow(wide.false_value)
        return None if a is None or b is None else tirx.Select(wide.condition, a, b)
    return None


def _hoist(func: Any) -> tuple[Any, tuple[tuple[str, str, int], ...]]:
    """Local arrays above ``LOCAL_BYTES`` as parameters."""
    found: list[Any] = []
    pointers: list[Any] = []

    def hoist(allocation: Any) -> Any:
        buffer = allocation.buffer
        if _nbytes(buffer) <= LOCAL_BYTES:
            return allocation
        pointers.append(_pointer(buffer))
        found.append(buffer)
        return tirx.DeclBuffer(buffer, data=pointers[-1])

    body = tvm_ffi.structural_map(func.body, (tirx.AllocBuffer, hoist))
    work = tuple((str(b.name), str(b.dtype), _nbytes(b)) for b in found)
    return tirx.PrimFunc([*func.params, *pointers], body), work


def _nbytes(buffer: Any) -> int:
    size = 1
    for extent in buffer.shape:
        size *= int(extent)
    return size * int(tvm_ffi.dtype(str(buffer.dtype)).itemsize)


def _readable(text: str, kernel: Kernel, symbol: str) -> str:
    """The definition only, cleaned."""
    start = text.rindex(f"TVM_DLL void {symbol}(")
    text = text[start + len("TVM_DLL ") :].rstrip()
    text = re.sub(r"^\s*#pragma.*\n", "", text, flags=re.M)
    signature, body = text.split(") {\n", 1)
    name, parameters = signature.split("(", 1)
    read = {o.key for o in kernel.operands if o.role != "out"}
    declared = []
    for parameter in parameters.split(", "):
        if "*" not in parameter:
            declared.append(parameter)
            continue
        c_type, key = parameter.replace("__restrict__", "").replace("*", " ").split()
        plain = key.removesuffix("_ptr")
        declared.append(f"{'const ' if plain in read else ''}{c_type} *{plain}")
    body = re.sub(r"\b(\w+?)_ptr\b", r"\1", body)
    body = re.sub(r"\(&\((\w+\[)", r"&(\1", body)
    names = [re.split(r"[ *]", d)[-1] for d in declared]
    body = "".join(f"  (void){n};\n" for n in names if not re.search(rf"\b{n}\b", body)) + body
    return f"static {name}({', '.join(declared)})\n{{\n{_tidy(body)}\n"


def _tidy(body: str) -> str:
    """Fewer parentheses, indentation by four."""
    return re.sub(r"^ +", lambda spaces: 2 * spaces[0], _unwrapped(body), flags=re.M)


def _unwrapped(body: str) -> str:
    """``&(name[…])`` → ``&name[…]``."""
    out, i = [], 0
    while i < len(body):
        if body.startswith("&(", i):
            depth, j = 1, i + 2
            while depth:
                depth += {"(": 1, ")": -1}.get(body[j], 0)
                j += 1
            out.append("&" + body[i + 2 : j - 1])
            i = j + 1 if body[j] == ")" else j
            continue
        out.append(body[i])
        i += 1
    return "".join(out)
