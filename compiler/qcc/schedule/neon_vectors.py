"""What kernels for NEON are written with: functions, loads and stores of vectors, and the epilogue.

A function here builds TIR that LLVM turns into the instructions named in its docstring.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from qcc.lower import float_expressions
from qcc.lower.kernel import Kernel
from qcc.schedule import intrinsic as tir
from qcc.schedule.neon_instructions import Neon, Vector, intrinsic
from qcc.schedule.neon_loads import helpers


@contextmanager
def function(kernel: Kernel, neon: Neon, sums: int) -> Iterator[dict[str, Any]]:
    """``tir.function`` with the helpers of ``neon_loads``; ``sums``: of its tiles."""
    with tir.function(kernel) as buffers, T.attr(tirx.const(0, "int32"), "pragma_import_llvm", helpers(neon, sums)):
        yield buffers


def load(buffer: Any, offset: Any, lanes: int = 16) -> Vector:
    """``lanes`` neighbouring elements of a flat buffer (``ldr``; neighbours become ``ldp``)."""
    return buffer[T.ramp(T.int32(0) + offset, 1, lanes)]


def load_fours(buffer: Any, offset: Any, count: int) -> list[Vector]:
    """``count`` neighbouring elements in vectors of four."""
    return [load(buffer, offset + i, 4) for i in range(0, count, 4)]


def store(buffer: Any, offset: Any, value: Vector, begin: int, count: int) -> None:
    """Store elements [begin, begin + count) of a vector: 16, 8 and 4 at a time, then one by one."""
    width, done = _lanes(value), 0
    while done < count:
        size = next(s for s in (16, 8, 4, 1) if s <= count - done and (begin + done) % s == 0)
        first = begin + done
        part = value
        if size == 4 != width:  # as a word: LLVM would widen four bytes only to shorten them again
            words = T.reinterpret(value, dtype=f"int32x{width // 4}")
            part = T.reinterpret(tirx.Shuffle([words], [first // 4]), dtype="int8x4")
        elif size != width:
            part = tirx.Shuffle([value], list(range(first, first + size)))
        index = T.int32(0) + offset + done
        T.buffer_store(buffer, part, [index if size == 1 else T.ramp(index, 1, size)])
        done += size


def _lanes(value: Vector) -> int:
    return int(str(value.ty).rpartition("x")[2])


def join(low: Vector, high: Vector) -> Vector:
    """One vector of two."""
    return tirx.Shuffle([low, high], list(range(2 * _lanes(low))))


def gather_words(buffer: Any, offsets: Sequence[Any]) -> Vector:
    """Four bytes from each place, in one vector."""
    return T.reinterpret(
        tirx.Shuffle([T.reinterpret(load(buffer, o, 4), dtype="int32") for o in offsets], list(range(len(offsets)))),
        dtype=f"int8x{4 * len(offsets)}",
    )


def real_layer(acc: Vector, tables: Mapping[str, Any], channel: Any, residual: Vector | None) -> Vector:
    """``float_expressions.layer`` of int32x4 with the bias in it; float32x4. The channels begin at ``channel``."""
    constants = {key: load(tables[key], channel, 4) for key in ("addend", "scale")}
    constants["step"] = T.broadcast(tables["step"][0], 4)
    limits = (T.broadcast(tables["q"][0], 4), T.broadcast(tables["q"][1], 4))
    return float_expressions.layer(acc, constants, residual, limits)


@dataclass(frozen=True)
class Epilogue:
    """What follows the sums; fields are the kernel's parameters. ``q`` is the kernel's table of zero points and limits.

    Exact as ``lower.expressions.epilogue``: ``sqrdmulh`` is ``(2 * a * b + 2^31) >> 32``.
    """

    neon: Neon
    shift: int | None
    """None: each channel has its own, and rounding is TFLite's."""
    raised: bool
    """Some of the channels' shifts are to the left."""
    fraction: int
    clamped: bool
    residual: bool
    narrow: bool
    """Requantized values are proved to fit 16 bits, residual and zero point included."""

    @staticmethod
    def of(kernel: Kernel, neon: Neon) -> Epilogue:
        """That of a convolution."""
        residual = any(o.key == "residual" for o in kernel.operands)
        names = ("shift", "raised", "fraction", "clamped", "narrow")
        shift, raised, fraction, clamped, narrow = (kernel.param(k) for k in names)
        return Epilogue(neon, shift, raised, fraction, clamped, residual, narrow)

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables by channel that ``requantize`` wants."""
        return ("multiplier", "shift") if self.shift is None else ("multiplier",)

    def requantize(self, acc: Vector, multiplier: Vector, *shift: Vector) -> Vector:
        """int32x4: ``sqrdmulh``, or a 64-bit product and ``rshrn``; operands beside ``acc`` are of ``tables``."""
        if self.shift is None:
            return self._rounded_twice(acc, multiplier, *shift)
        if self.shift == 31:
            return self.neon.high_product(acc, multiplier)
        halves = []
        for low in (0, 2):
            a, b = (tirx.Shuffle([v], [low, low + 1]) for v in (acc, multiplier))
            half = T.broadcast(T.int64(1 << (self.shift - 1)), 2)
            wide = self.neon.wide_product(a, b) + half
            halves.append(T.Cast("int32x2", T.shift_right(wide, T.broadcast(T.int64(self.shift), 2))))
        return join(*halves)

    def _rounded_twice(self, acc: Vector, multiplier: Vector, shift: Vector) -> Vector:
        """``expressions.multiply``: half away from zero is half up of a negative number less one."""
        none = T.broadcast(T.int32(0), 4)
        left = T.min(shift, none) if self.raised else none
        down = T.min(none - shift, none)
        if self.raised:
            acc = self.neon.shift(acc, none - left)
        v = self.neon.high_product(acc, multiplier)
        less = T.shift_right(T.bitwise_and(v, down), T.broadcast(T.int32(31), 4))
        return self.neon.shift(intrinsic("sadd.sat.v4i32", "int32x4", v, less), down, rounding=True)

    def finish(self, values: Sequence[Vector], residual: Vector | None, q: Any) -> Vector:
        """Requantized int32x4, up to four → int8x8 or int8x16, whose last elements mean nothing where vectors miss.

        ``residual`` is int8 with as many elements, at least eight.
        """
        words = list(values)
        if residual is not None:
            count = _lanes(residual)
            centred = T.Cast(f"int16x{count}", residual) - T.broadcast(T.Cast("int16", q[3]), count)
            factor = T.broadcast(T.int32(0) + q[4], 4)
            for i, v in enumerate(words):
                part = tirx.Shuffle([centred], list(range(4 * i, 4 * i + 4)))
                v = v + T.Cast("int32x4", part) * factor
                if self.fraction:
                    half = T.broadcast(T.int32(1 << (self.fraction - 1)), 4)
                    v = T.shift_right(v + half, T.broadcast(T.int32(self.fraction), 4))
                words[i] = v
        if len(words) % 2:
            words.append(words[-1])
        zero = T.broadcast(T.Cast("int16", q[0]), 8)
        halves = []
        for low, high in zip(words[::2], words[1::2], strict=True):
            if self.narrow:
                v = T.Cast("int16x8", join(low, high)) + zero
            else:
                v = join(*(self.neon.saturate(w, "int16x4") for w in (low, high)))
                v = intrinsic("sadd.sat.v8i16", "int16x8", v, zero)
            halves.append(self.neon.saturate(v, "int8x8"))
        out = join(*halves) if len(halves) == 2 else halves[0]
        if self.clamped:
            low, high = (T.broadcast(T.Cast("int8", q[i]), _lanes(out)) for i in (1, 2))
            out = T.min(T.max(out, low), high)
        return out
