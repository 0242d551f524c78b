"""Registering tensor intrinsics: the meaning comes from the same expressions as the computes, the body from a
builder."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import tvm_ffi
from tvm import s_tir, tirx
from tvm.s_tir import TensorIntrin
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcc.lower.kernel import Kernel, View
from qcc.lower.plain import EXTENT

Parameter = tuple[str, tuple[int, ...], str]
"""Name, shape, dtype of a buffer."""


def restride(func: Any, buffers: Sequence[Any]) -> Any:
    """The function with its parameter buffers replaced, in order."""
    pairs = list(zip(func.params, buffers, strict=True))

    def swap(var: Any) -> Any:
        return next((new for old, new in pairs if var.same_as(old)), var)

    return tvm_ffi.structural_map(func, (tirx.Var, swap))


def describe(inputs: Sequence[Parameter], output: Parameter, value: Callable[..., Any]) -> Any:
    """Description of an intrinsic without reduction: ``output[v] = value(v, *tensors)``."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("desc")
        buffers = [T.arg(p[0], _buffer(p)) for p in (*inputs, output)]
        # Blockizing drops axes of extent 1 from the inner block.
        kept = [e for e in output[1] if e > 1]
        with T.grid(*kept) as loops, T.sblock("out"):
            pairs = zip(kept, loops if len(kept) > 1 else [loops], strict=True)
            axes = iter([T.axis.spatial(e, i) for e, i in pairs])
            v = [next(axes) if e > 1 else T.int32(0) for e in output[1]]
            T.buffer_store(buffers[-1], value(*v, *buffers[:-1]), v)
    func = builder.get()
    # The outer block must name the regions that blockize finds around the same statement.
    sch = s_tir.Schedule(func)
    outer = sch.get(sch.blockize(sch.get_loops(sch.get_sblock("out"))[0]))
    root = func.body.block
    body = type(root)([], outer.reads, outer.writes, "root", root.body)
    return tirx.PrimFunc(func.params, type(func.body)([], True, body), func.ret_type, func.attrs)


def describe_block(inputs: Sequence[Parameter], output: Parameter, meaning: Callable[..., None]) -> Any:
    """Description of an intrinsic that updates ``output``: ``meaning(*buffers)`` builds the loops and their block."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("desc")
        buffers = [T.arg(p[0], _buffer(p)) for p in (*inputs, output)]
        with T.sblock("root"):
            whole = [b[tuple(slice(0, e) for e in p[1])] for b, p in zip(buffers, (*inputs, output), strict=True)]
            T.reads(whole[-1], *whole[:-1])
            T.writes(whole[-1])
            meaning(*buffers)
    return builder.get()


def depthwise_meaning(
    outputs: tuple[int, int, int], taps: tuple[int, int, int], stride: int, dilation: int, parts: int
) -> Callable[..., None]:
    """For ``describe_block``: a tile of a depthwise convolution, ``outputs`` (rows, pixels, channels) and ``taps``
    (columns times ``parts``, groups of rows, rows of a group)."""
    extents = (*outputs, *taps)

    def meaning(source: Any, weights: Any, sums: Any) -> None:
        # Blockizing drops axes of extent 1 from the inner block and keeps their loops.
        kept = [i for i, extent in enumerate(extents) if extent > 1]
        with T.grid(*extents) as loops, T.sblock("update"):
            axes = T.axis.remap("".join("SSSRRR"[i] for i in kept), [loops[i] for i in kept])
            y, p, n, kx, g, k = (axes[kept.index(i)] if i in kept else 0 for i in range(6))
            left = T.Cast("int32", source[y, g * taps[2] + k, p * stride + kx // parts * dilation, n])
            product = left * T.Cast("int32", weights[kx, g, n, k])
            T.buffer_store(sums, sums[y, p, n] + product, [y, p, n])

    return meaning


def _buffer(parameter: Parameter, rows: bool = False) -> Any:
    """Dense, or with any distance between the slices of every axis but the last."""
    name, shape, dtype = parameter
    strides = None
    if rows:
        strides = [*(tirx.Var(f"{name}_{i}", "int32") for i in range(len(shape) - 1)), 1]
    return tirx.decl_buffer(shape, dtype, name=name, strides=strides, offset_factor=1)


def implement(
    inputs: Sequence[Parameter], output: Parameter, body: Callable[..., None], update: bool = False,
    rows: Container[str] = (),
) -> Any:
    """Implementation of an intrinsic: ``body(*buffers)`` emits statements.

    With ``update`` the output is read too. The buffers named by ``rows`` are slices of larger ones, their rows apart.
    """
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("impl")
        buffers = [T.arg(p[0], _buffer(p, p[0] in rows)) for p in (*inputs, output)]
        with T.sblock("root"):
            regions = [b[tuple(slice(0, e) for e in p[1])] for b, p in zip(buffers, (*inputs, output), strict=True)]
            T.reads(*regions if update else regions[:-1])
            T.writes(regions[-1])
            body(*buffers)
    return builder.get()


def modular_sum(a: Any, b: Any, lanes: int) -> Any:
    """int32 vectors added modulo 2^32, which TFLite's accumulators may need; signed additions must not overflow."""
    unsigned, signed = f"uint32x{lanes}", f"int32x{lanes}"
    return T.reinterpret(T.reinterpret(a, dtype=unsigned) + T.reinterpret(b, dtype=unsigned), dtype=signed)


def divide_by_power(v: Any, exponent: Any, lanes: int) -> Any:
    """``expressions.divide_by_power`` of int32 vectors."""
    one, last = T.broadcast(T.int32(1), lanes), T.broadcast(T.int32(31), lanes)
    mask = T.shift_left(one, exponent) - one
    threshold = T.shift_right(mask, one) - T.shift_right(v, last)
    above = T.Cast(f"int32x{lanes}", T.bitwise_and(v, mask) > threshold)
    return T.shift_right(v, exponent) + above


def store_channels(out: Any, v: Any, begin: Any, channels: int, row: Sequence[Any] = ()) -> None:
    """Store those lanes of ``v`` that are channels, the first being ``begin``: all, or in pieces. ``row`` is the index
    of the leading axes."""
    lanes = int(out.shape[-1])
    if channels % lanes == 0:
        T.buffer_store(out, v, [*row, T.ramp(T.int32(0), 1, lanes)])
        return
    with T.If(begin + T.int32(lanes) <= T.int32(channels)):
        with T.Then():
            T.buffer_store(out, v, [*row, T.ramp(T.int32(0), 1, lanes)])
        with T.Else():
            first = 0
            for size in (16, 8, 4, 2, 1):
                if channels % lanes & size:
                    piece = tirx.Shuffle([v], [*range(first, first + size)])
                    at = T.ramp(T.int32(first), 1, size) if size > 1 else T.int32(first)
                    T.buffer_store(out, piece, [*row, at])
                    first += size


@contextmanager
def function(kernel: Kernel) -> Iterator[dict[str, Any]]:
    """A function under construction, one of whose loops is parallel: gives its parameters, flat buffers by operand
    key."""
    with T.prim_func(s_tir=True):
        T.func_name("main")
        buffers = _parameters(kernel)
        with _root():
            yield buffers


@contextmanager
def shared_function(kernel: Kernel, extent: int) -> Iterator[tuple[dict[str, Any], Any, Any]]:
    """A function that does units [begin, end) of ``extent`` itself: gives its buffers, begin and end.

    For what wants to know the unit before; a parallel loop has independent iterations.
    """
    with T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({EXTENT: extent})
        buffers = _parameters(kernel)
        begin, end = T.arg("begin", T.int32()), T.arg("end", T.int32())
        with _root(), T.If(begin < end), T.Then():
            yield buffers, begin, end


def _parameters(kernel: Kernel) -> dict[str, Any]:
    return {o.key: T.arg(o.key, T.Buffer((_reach(o.view),), o.view.dtype)) for o in kernel.operands}


@contextmanager
def _root() -> Iterator[None]:
    with T.sblock("root"):
        T.reads()
        T.writes()
        yield


def _reach(view: View) -> int:
    return sum((extent - 1) * stride for extent, stride in zip(view.shape, view.strides, strict=True)) + 1


def register_once(make: Callable[..., tuple[Any, Any]]) -> Callable[..., str]:
    """Decorator: ``make(*key)`` returns (description, implementation); the wrapper registers them and returns the
    name."""

    @wraps(make)
    def name_of(*key: Any) -> str:
        name = ".".join(["qcc", make.__module__.rsplit(".", 1)[-1], make.__name__, *map(str, key)])
        if TensorIntrin.get(name, allow_missing=True) is None:
            TensorIntrin.register(name, *make(*key))
        return name

    return name_of
