"""What nodes compute on the accelerator, in TE: the stages of a node, which are also its instructions' descriptions.

A function takes the extents of its result and tensors. With the extents of a whole node it makes the node's stage, with
those of a tile the description of the instruction that computes it. Images are [batch, row, column, group, channel].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tvm import te, tirx

from qcc.lower import expressions
from qcc.lower.expressions import i32
from qcc.npu.isa import DIVIDE, DOUBLE
from qcc.numerics_tflite import ADD_LEFT_SHIFT

Shape = Sequence[int]
Registers = Mapping[str, int]
"""Values of a configure."""


def _taps(r: Registers) -> tuple[Any, Any]:
    return te.reduce_axis((0, r["kernel_h"]), "ky"), te.reduce_axis((0, r["kernel_w"]), "kx")


def _pixel(r: Registers, i: Any, j: Any, ky: Any, kx: Any) -> tuple[Any, Any]:
    return i * r["stride_h"] + ky * r["dilation_h"], j * r["stride_w"] + kx * r["dilation_w"]


def filled(shape: Shape, dtype: str, value: int) -> Any:
    """All ``value``."""
    return te.compute(shape, lambda *i: tirx.const(value, dtype), name="out")


def products(shape: Shape, channels: int, r: Registers, x: Any, w: Any) -> Any:
    """Sums over a window and its channels; w [group, ky, kx, channel, output]."""
    ky, kx = _taps(r)
    k = te.reduce_axis((0, channels), "k")

    def term(n: Any, i: Any, j: Any, g: Any, o: Any) -> Any:
        row, column = _pixel(r, i, j, ky, kx)
        centred = x[n, row, column, g, k].astype("int32") - r["zero_point"]
        return te.sum(centred * (w[g, ky, kx, k, o].astype("int32") - r["weight_zero"]), axis=[ky, kx, k])

    return te.compute(shape, term, name="acc")


def depthwise(shape: Shape, repeat: int, r: Registers, x: Any, w: Any) -> Any:
    """Sums over a window; each channel has ``repeat`` outputs; w [1, ky, kx, 1, output]."""
    ky, kx = _taps(r)

    def term(n: Any, i: Any, j: Any, g: Any, o: Any) -> Any:
        row, column = _pixel(r, i, j, ky, kx)
        centred = x[n, row, column, g, tirx.indexdiv(o, repeat)].astype("int32") - r["zero_point"]
        return te.sum(centred * w[g, ky, kx, 0, o].astype("int32"), axis=[ky, kx])

    return te.compute(shape, term, name="acc")


def window(shape: Shape, form: str, r: Registers, x: Any) -> Any:
    """Maxima (int8) or sums (int32) of windows."""
    ky, kx = _taps(r)
    fold, dtype = (te.max, "int8") if form == "max_pool" else (te.sum, "int32")

    def term(n: Any, i: Any, j: Any, g: Any, c: Any) -> Any:
        row, column = _pixel(r, i, j, ky, kx)
        value = x[n, row, column, g, c]
        return fold(value if dtype == "int8" else value.astype(dtype) - r["zero_point"], axis=[ky, kx])

    return te.compute(shape, term, name="acc")


def requantized(shape: Shape, r: Registers, table: bool, residual: bool, acc: Any, p: Any, *more: Any) -> Any:
    """Sums to activations; p [bias, multiplier (, shift)][group, output], then a table, then a residual."""
    q = [i32(r[k]) for k in ("zero_point", "low", "high", "residual_zero", "residual_multiplier")]
    entries = more[0] if table else None
    other = more[-1] if residual else None

    def value(*i: Any) -> Any:
        channel = i[3:]
        shift = p[(2, *channel)] if r["rounding"] == DOUBLE else r["shift"]
        y = expressions.epilogue(acc[i] + p[(0, *channel)], p[(1, *channel)], q, shift,
                                 None if other is None else other[i], r["fraction"], "int8", True)  # fmt: skip
        return y if entries is None else _lookup(entries, y)

    return te.compute(shape, value, name="out")


def pooled(shape: Shape, form: str, r: Registers, each: bool, acc: Any, m: Any = None) -> Any:
    """Maxima as they are; sums by a factor: m [rows or 1, columns or 1, factor (, shift)]."""

    def value(*i: Any) -> Any:
        if form == "max_pool":
            return acc[i]
        at = i[1:3] if each else (0, 0)
        if r["rounding"] == DIVIDE:
            half = tirx.indexdiv(m[(*at, 0)], 2)
            mean = tirx.truncdiv(tirx.Select(acc[i] > 0, acc[i] + half, acc[i] - half), m[(*at, 0)])
            return expressions.clamp(mean + r["zero_point"], i32(r["low"]), i32(r["high"])).astype("int8")
        shift = m[(*at, 1)] if r["rounding"] == DOUBLE else r["shift"]
        q = [i32(r[k]) for k in ("zero_point", "low", "high")]
        return expressions.finish(acc[i], m[(*at, 0)], shift, q).astype("int8")

    return te.compute(shape, value, name="out")


def table_shape(rank: int) -> tuple[int, ...]:
    """Of a table that is read by a block of so many axes."""
    return (*[1] * (rank - 1), 256)


def _lookup(table: Any, x: Any) -> Any:
    """``table[x + 128]``, as a function: a tensor intrinsic cannot stand for a load whose index is data."""
    return tirx.call_pure_extern("int8", "lookup", table[(0,) * len(table.shape)], x)


def copied(shape: Shape, x: Any) -> Any:
    """The same bytes."""
    return te.compute(shape, lambda *i: x[i], name="out")


def _add(r: Registers, a: Any, b: Any) -> Any:
    v = (a - r["zero_a"]) * i32(r["multiplier_a"]) + (b - r["zero_b"]) * i32(r["multiplier_b"])
    return expressions.rounding_shift(v, r["shift"]) + r["zero_point"]


def _mul(r: Registers, a: Any, b: Any) -> Any:
    acc = (a - r["zero_a"]) * (b - r["zero_b"])
    return expressions.requantize(acc, i32(r["multiplier_a"]), r["shift"]) + r["zero_point"]


def _prelu(r: Registers, a: Any, negative: Any) -> Any:
    acc = a - r["zero_a"]
    multiplier = tirx.Select(acc >= 0, i32(r["multiplier_a"]), negative)
    return expressions.requantize(acc, multiplier, r["shift"]) + r["zero_point"]


def _add_double(r: Registers, a: Any, b: Any) -> Any:
    def scaled(v: Any, key: str) -> Any:
        return expressions.divide_by_power(expressions.high_mul(v, i32(r[f"multiplier_{key}"])), i32(r[f"shift_{key}"]))

    left, right = (scaled((v - r[f"zero_{k}"]) << i32(ADD_LEFT_SHIFT), k) for v, k in ((a, "a"), (b, "b")))
    return scaled(left + right * r["sign"], "out") + r["zero_point"]


SCALED: Mapping[str, Callable[[Registers, Any, Any], Any]] = {
    "add": _add, "mul": _mul, "prelu": _prelu, "add_double": _add_double}  # fmt: skip
"""Forms of elementwise that scale, before the clamp; the second operand is a tensor or an entry."""


def element(shape: Shape, form: str, r: Registers, a: Any, b: Any) -> Any:
    """An operand that is repeated along an axis has the extent 1 there; a table is looked up."""

    def at(tensor: Any, i: Sequence[Any]) -> Any:
        own = i[len(i) - len(tensor.shape) :]
        return tensor[tuple(0 if int(n) == 1 else k for n, k in zip(tensor.shape, own, strict=True))]

    def value(*i: Any) -> Any:
        x = at(a, i)
        if form == "table":
            return _lookup(b, x)
        y = at(b, i)
        if form in ("max", "min"):
            return (tirx.Max if form == "max" else tirx.Min)(x, y)
        v = SCALED[form](r, x.astype("int32"), y.astype("int32"))
        return expressions.clamp(v, i32(r["low"]), i32(r["high"])).astype("int8")

    return te.compute(shape, value, name="out")
