"""Random one-op integer programs whose operands lie in memory in every way that a layout knows."""

from __future__ import annotations

from typing import Any

import numpy as np

from integer_programs import Builder
from qcc import numerics
from qcc.numerics import QParams
from qcc.ops.epilogue import integer_clamp

Shape = tuple[int, ...]
WIDE = (1, 2, 3, 5, 8, 16, 17, 24, 31, 32, 48, 64, 67, 96, 100, 128, 130, 256)


class Draw(Builder):
    """A builder with random choices; ``q`` are the parameters that same-scale values share."""

    def __init__(self, seed: int) -> None:
        super().__init__(f"seed{seed}", seed)
        self.q = self.qparams()

    def int(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def pick(self, *options: Any) -> Any:
        return options[self.int(0, len(options) - 1)]

    def qparams(self) -> QParams:
        return QParams(float(np.float32(2.0 ** self.rng.uniform(-9, -3))), self.pick(-128, -3, 0, 17, 127))

    def clamp(self, q: QParams) -> tuple[int, int]:
        return self.pick((-128, 127), (q.zero_point, 127), integer_clamp((0.0, 60 * q.step), q))

    def shape(self, value: str) -> Shape:
        return self.graph.types[value].shape

    def image(self) -> Shape:
        c = self.pick(*WIDE)
        most = 6 if c > 48 else 12
        return self.pick(1, 1, 2), self.int(1, most), self.int(1, most), c

    def any_shape(self) -> Shape:
        rank = self.int(1, 5)
        if rank == 1:
            return (self.pick(1, 7, 64, 1000, 1001),)
        return (*(self.int(1, 5) for _ in range(rank - 1)), self.pick(*WIDE))

    def operand(self, shape: Shape, q: QParams | None = None, name: str = "x") -> str:
        """An int8 input, or one with gaps: a halo, or a part of a wider tensor."""
        q = q or self.q
        name = self.graph.fresh(name)
        how = self.pick("plain", "halo", "part") if len(shape) == 4 else self.pick("plain", "part")
        if how == "part":
            axis = self.int(0, len(shape) - 1)
            before, after = self.int(0, 3), self.int(0, 3)
            whole = tuple(d + before + after if i == axis else d for i, d in enumerate(shape))
            self.input(whole, q, name)
            begin = tuple(before if i == axis else 0 for i in range(len(shape)))
            return self.node("slice", {"x": name}, q, begin=begin, end=tuple(map(sum, zip(begin, shape, strict=True))),
                             step=(1,) * len(shape))  # fmt: skip
        self.input(shape, q, name)
        if how == "halo":
            self.haloed(name)
        return name

    def input(self, shape: Shape, q: QParams | None, name: str) -> str:  # type: ignore[override]
        value = super().input(shape, "int8" if q else "float32", name)
        if q:
            self.graph.types[value] = type(self.graph.types[value])(shape, "int8", q)
        return value

    def haloed(self, value: str) -> None:
        """Let somebody read a value with padding."""
        pad = (self.int(0, 2), self.int(0, 2), self.int(0, 2), self.int(1, 2))
        q = self.graph.types[value].qparams
        self.graph.outputs.append(self.average(value, (1, 1), (1, 1), pad, True, q))

    def average(self, x: str, kernel: tuple[int, int], stride: tuple[int, int], pad: Shape, include: bool,
                q: QParams | None = None) -> str:  # fmt: skip
        out = q or self.qparams()
        _, h, w, _ = self.shape(x)
        (kh, kw), (sh, sw) = kernel, stride
        oh, ow = (h + pad[0] + pad[2] - kh) // sh + 1, (w + pad[1] + pad[3] - kw) // sw + 1
        counts = np.full((oh, ow), kh * kw, np.float64)
        if not include:
            ones = np.pad(np.ones((h, w)), ((pad[0], pad[2]), (pad[1], pad[3])))
            counts = np.array([[ones[i * sh : i * sh + kh, j * sw : j * sw + kw].sum() for j in range(ow)]
                               for i in range(oh)])  # fmt: skip
        if len(set(counts.ravel())) == 1:
            counts = counts[:1, :1]
        scale = self.graph.types[x].qparams
        assert scale is not None
        m, shift = numerics.requant_multipliers(scale.step / out.step / counts.ravel())
        return self.node("avg_pool", {"x": x, "multiplier": self.graph.add_constant("m", m)}, out, kernel=kernel,
                         stride=stride, pad=pad, count_include_pad=include, shift=shift, zero_point=out.zero_point,
                         clamp=self.clamp(out))  # fmt: skip

    def finish(self, y: str) -> None:
        """Make y an output: as it is, with a halo of its own, or inside a concat."""
        t = self.graph.types[y]
        how = self.pick("plain", "halo", "concat")
        if t.dtype == "int8" and how == "halo" and len(t.shape) == 4:
            self.haloed(y)
        elif t.dtype == "int8" and how == "concat" and t.shape:
            axis = self.int(0, len(t.shape) - 1)
            other = tuple(self.int(1, 4) if i == axis else d for i, d in enumerate(t.shape))
            before = self.input(other, t.qparams, self.graph.fresh("other"))
            parts = self.pick((y, before), (before, y), (before, y, before))
            y = self.node("concat", {f"x{i}": p for i, p in enumerate(parts)}, t.qparams, axis=axis)
        self.graph.outputs.append(y)

    def requantized(self, op: str, inputs: dict[str, str], real: float, out: QParams, **attrs: Any) -> str:
        m, shift = numerics.requant_multipliers([real])
        return self.node(op, {**inputs, "multiplier": self.graph.add_constant("m", m)}, out, shift=shift,
                         zero_point=out.zero_point, clamp=self.clamp(out), **attrs)  # fmt: skip

    def constant(self, shape: Shape, q: QParams, name: str = "c") -> str:
        return self.graph.add_constant(name, self.rng.integers(-128, 128, shape).astype(np.int8), q)

    def two(self, q: tuple[QParams, QParams]) -> dict[str, str]:
        """Operands a and b that broadcast; one may be a constant, or both the same."""
        shape = self.any_shape() if self.int(0, 1) else self.image()
        other = tuple(1 if self.int(0, 2) == 0 else d for d in shape)[self.pick(0, 0, self.int(0, len(shape) - 1)) :]
        if self.int(0, 1):
            other = shape
        a = self.operand(shape, q[0], "a")
        if self.int(0, 5) == 0 and q[0] == q[1]:
            return {"a": a, "b": a}
        b = self.constant(other, q[1]) if self.int(0, 2) == 0 else self.operand(other, q[1], "b")
        return {"a": a, "b": b} if self.int(0, 1) else {"a": b, "b": a}


def add(d: Draw) -> str:
    q = d.q, d.pick(d.q, d.qparams())
    inputs, out = d.two(q), d.qparams()
    op = d.pick("add", "sub")
    steps = {k: d.graph.types[v].qparams for k, v in inputs.items()}
    m = numerics.add_multipliers(steps["a"].step, steps["b"].step, out.step, 1 if op == "add" else -1)  # type: ignore[union-attr]
    return d.node(op, inputs, out, multiplier_a=m.a, multiplier_b=m.b, shift=m.shift, zero_point=out.zero_point,
                  clamp=d.clamp(out))  # fmt: skip


def mul(d: Draw) -> str:
    q, out = (d.q, d.qparams()), d.qparams()
    inputs = d.two(q)
    return d.requantized("mul", inputs, q[0].step * q[1].step / out.step, out)


def compare(d: Draw) -> str:
    return d.node(d.pick("maximum", "minimum"), d.two((d.q, d.q)), d.q)


def lut(d: Draw) -> str:
    return Builder.lut(d, d.operand(d.pick(d.any_shape(), d.image())))


def prelu(d: Draw) -> str:
    x, out = d.operand(d.pick(d.any_shape(), d.image())), d.qparams()
    slope = d.rng.uniform(-0.5, 1, d.shape(x)[-1])
    m, shift = numerics.requant_multipliers(np.append(np.abs(slope), 1.0) * d.q.step / out.step)
    negative = d.graph.add_constant("m", (m[:-1] * np.sign(slope)).astype(np.int32))
    return d.node("prelu", {"x": x, "multiplier": negative}, out, multiplier=int(m[-1]), shift=shift,
                  zero_point=out.zero_point, clamp=d.clamp(out))  # fmt: skip


def quantize(d: Draw) -> str:
    shape = d.pick(d.any_shape(), d.image())
    perm = d.pick(None, tuple(int(i) for i in d.rng.permutation(len(shape))), None)
    if len(shape) == 4 and d.int(0, 1):
        perm = (0, 2, 3, 1)
    return d.node("quantize", {"x": d.input(shape, None, "x")}, d.q, perm=perm)


def dequantize(d: Draw) -> str:
    x = d.operand(d.pick(d.any_shape(), d.image()))
    perm = d.pick(None, tuple(int(i) for i in d.rng.permutation(len(d.shape(x)))))
    return d.node("dequantize", {"x": x}, None, perm=perm)


def _window(d: Draw, shape: Shape) -> dict[str, Any]:
    size, kernel, pad = shape[1:3], [], [0, 0, 0, 0]
    for axis in (0, 1):
        kernel.append(d.int(1, min(size[axis], 4)))
        pad[axis], pad[axis + 2] = d.int(0, kernel[axis] - 1), d.int(0, kernel[axis] - 1)
    return {"kernel": tuple(kernel), "stride": (d.int(1, 3), d.int(1, 3)), "pad": tuple(pad)}


def max_pool(d: Draw) -> str:
    x = d.operand(d.image())
    a = _window(d, d.shape(x))
    dilation = tuple(d.pick(1, 1, 2) if (k - 1) * 2 < s else 1
                     for k, s in zip(a["kernel"], d.shape(x)[1:3], strict=True))  # fmt: skip
    return d.node("max_pool", {"x": x}, d.q, **a, dilation=dilation)


def avg_pool(d: Draw) -> str:
    x = d.operand(d.image())
    a = _window(d, d.shape(x))
    return d.average(x, a["kernel"], a["stride"], a["pad"], bool(d.int(0, 1)))


def reduce(d: Draw) -> str:
    x, out = d.operand(d.pick(d.any_shape(), d.image())), d.qparams()
    shape = d.shape(x)
    axes = tuple(i for i in range(len(shape)) if d.int(0, 1)) or (len(shape) - 1,)
    if len(shape) == 4 and d.int(0, 1):
        axes = (1, 2)
    keep = {"axes": axes, "keepdims": bool(d.int(0, 1))}
    op = d.pick("reduce_sum", "reduce_mean", "reduce_max")
    if op == "reduce_max":
        return d.node(op, {"x": x}, d.q, **keep)
    count = np.prod([shape[i] for i in axes]) if op == "reduce_mean" else 1
    return d.requantized(op, {"x": x}, d.q.step / out.step / count, out, **keep)


def argmax(d: Draw) -> str:
    x = d.operand(d.pick(d.any_shape(), d.image()))
    return d.node("argmax", {"x": x}, None, axis=d.int(0, len(d.shape(x)) - 1), keepdims=bool(d.int(0, 1)))


def softmax(d: Draw) -> str:
    x = d.operand(d.any_shape())
    table = d.graph.add_constant("t", numerics.softmax_table(d.q.step, d.shape(x)[-1]))
    return d.node("softmax", {"x": x, "table": table}, numerics.SOFTMAX_QPARAMS)


def matmul(d: Draw) -> str:
    batch = tuple(d.int(1, 3) for _ in range(d.int(0, 2)))
    m, k, n = d.int(1, 9), d.pick(*WIDE), d.pick(*WIDE)
    transpose = bool(d.int(0, 1))
    q, out = (d.q, d.qparams()), d.qparams()
    other = tuple(1 if d.int(0, 2) == 0 else e for e in batch)[d.int(0, len(batch)) :]
    a = d.operand((*batch, m, k), q[0], "a")
    tail = (n, k) if transpose else (k, n)
    b = d.constant((*other, *tail), q[1]) if d.int(0, 4) == 0 else d.operand((*other, *tail), q[1], "b")
    real = 20 * q[0].step * q[1].step / out.step / k
    return d.requantized("matmul", {"a": a, "b": b}, real, out, transpose_b=transpose)


def concat(d: Draw) -> str:
    shape = d.pick(d.any_shape(), d.image())
    axis = d.int(0, len(shape) - 1)
    parts = []
    for _ in range(d.int(1, 3)):
        part = tuple(d.int(1, 20) if i == axis else e for i, e in enumerate(shape))
        parts.append(d.constant(part, d.q) if d.int(0, 4) == 0 else d.operand(part, d.q))
    return d.node("concat", {f"x{i}": p for i, p in enumerate(parts)}, d.q, axis=axis)


def cut(d: Draw) -> str:
    x = d.operand(d.pick(d.any_shape(), d.image()))
    shape = d.shape(x)
    begin = tuple(d.int(0, e - 1) for e in shape)
    end = tuple(d.int(b + 1, e) for b, e in zip(begin, shape, strict=True))
    return d.node("slice", {"x": x}, d.q, begin=begin, end=end, step=tuple(d.pick(1, 1, 2, 3) for _ in shape))


def pad(d: Draw) -> str:
    x, mode = d.operand(d.pick(d.any_shape(), d.image())), d.pick("constant", "edge", "reflect")
    pads = tuple((d.int(0, min(e - 1, 3)), d.int(0, min(e - 1, 3))) if d.int(0, 2) else (0, 0) for e in d.shape(x))
    return d.node("pad", {"x": x}, d.q, pads=pads, mode=mode, value=float(d.rng.normal(0, 1)))


def reshape(d: Draw) -> str:
    x = d.operand(d.image())
    n, h, w, c = d.shape(x)
    return d.node("reshape", {"x": x}, d.q, shape=d.pick((n, w, h, c), (n * h, w * c), (n, c, h, w), (n * h * w * c,),
                                                         (n, h * w, c), (h * w, 1, n * c)))  # fmt: skip


def transpose(d: Draw) -> str:
    x = d.operand(d.pick(d.any_shape(), d.image()))
    return d.node("transpose", {"x": x}, d.q, perm=tuple(int(i) for i in d.rng.permutation(len(d.shape(x)))))


def expand(d: Draw) -> str:
    shape = d.any_shape()
    small = tuple(1 if d.int(0, 1) else e for e in shape)[d.int(0, len(shape) - 1) :]
    return d.node("expand", {"x": d.operand(small)}, d.q, shape=shape)


def take(d: Draw) -> str:
    x = d.operand(d.pick(d.any_shape(), d.image()))
    axis = d.int(0, len(d.shape(x)) - 1)
    indices = d.rng.integers(0, d.shape(x)[axis], d.int(1, 9))
    return d.node("take", {"x": x}, d.q, axis=axis, indices=tuple(int(i) for i in indices))


def resize(d: Draw) -> str:
    x = d.operand(d.image())

    def positions(extent: int) -> tuple[tuple[int, ...], ...]:
        count = d.int(1, 12)
        weights = d.rng.choice([0, 1, 700, 1024, 2047, 2048], count)
        return tuple(tuple(int(v) for v in row)
                     for row in (*d.rng.integers(0, extent, (2, count)), weights))  # fmt: skip

    return d.node("resize_bilinear", {"x": x}, d.q, rows=positions(d.shape(x)[1]), cols=positions(d.shape(x)[2]))


def weighted(d: Draw, op: str) -> str:
    """conv2d, conv_transpose2d or dense with all that an epilogue can hold."""
    groups = d.pick(1, 1, 1, 2, 3, 5, 8, 20)
    depth, each = d.pick(*WIDE[:8]), d.pick(*WIDE[:8])
    if groups > 3:
        depth, each = d.pick(1, 2, 4), d.pick(1, 1, 2, 3)
    channels = groups * depth
    attrs: dict[str, Any] = {}
    if op == "dense":
        groups, channels = 1, d.pick(*WIDE)
        shape: Shape = (*d.any_shape()[:-1], channels) if d.int(0, 1) else (d.int(1, 3), channels)
        w_shape: Shape = (d.pick(*WIDE), channels)
    else:
        shape = (d.pick(1, 1, 2), d.int(1, 9), d.int(1, 9), channels)
        kernel = d.int(1, 4), d.int(1, 4)
        dilation = d.pick((1, 1), (1, 1), (2, 2), (1, 3))
        attrs = {"stride": (d.int(1, 3), d.int(1, 3)), "dilation": dilation, "groups": groups}
        reach = tuple((k - 1) * s for k, s in zip(kernel, dilation, strict=True))
        if op == "conv2d":
            missing = [max(0, r + 1 - s) for r, s in zip(reach, shape[1:3], strict=True)]
            attrs["pad"] = (missing[0] + d.int(0, 2), missing[1] + d.int(0, 2), d.int(0, 2), d.int(0, 2))
        else:
            attrs["output_pad"] = tuple(d.int(0, max(s, e) - 1)
                                        for s, e in zip(attrs["stride"], dilation, strict=True))  # fmt: skip
            attrs["pad"] = tuple(d.int(0, r // 2) for r in (*reach, *reach))
        w_shape = (groups * each, *kernel, depth)
    x, out = d.operand(shape), d.qparams()
    weight = d.rng.integers(-127, 128, w_shape).astype(np.int8)
    w = d.graph.add_constant("w", weight, QParams((0.01,) * w_shape[0], 0, 0))
    bias = d.rng.integers(-500, 500, w_shape[0])
    inputs = {"x": x, "w": w, "b": d.graph.add_constant("b", bias.astype(np.int32))}
    real = d.rng.uniform(0.2, 1, w_shape[0]) * d.pick(1.0, 1.0, 30.0) / (127 * np.sqrt(np.prod(w_shape[1:])))
    if d.int(0, 1):
        trial = d.graph.copy()
        m = trial.add_constant("m", numerics.requant_multipliers(real)[0])
        clone = Draw(0)
        clone.graph = trial
        y = clone.node(op, {**inputs, "multiplier": m}, out, **attrs, shift=31, zero_point=0, clamp=(-128, 127))
        r = d.operand(trial.types[y].shape, d.qparams(), "r")
        step = d.graph.types[r].qparams
        assert step is not None
        ratio = min(step.step / out.step, 20.0)
        fraction = numerics.residual_fraction(real, numerics.storage_bound(weight, bias), ratio)
        inputs["residual"] = r
        attrs |= {"residual_multiplier": round(ratio * 2.0**fraction), "fraction": fraction}
        real = real * 2.0**fraction
    if d.int(0, 3) == 0:
        inputs["table"] = d.graph.add_constant("t", d.rng.integers(-128, 128, 256).astype(np.int8))
    m, shift = numerics.requant_multipliers(real)
    inputs["multiplier"] = d.graph.add_constant("m", m)
    return d.node(op, inputs, out, **attrs, shift=shift, zero_point=out.zero_point, clamp=d.clamp(out))


OPERATORS = {
    "add": add, "mul": mul, "compare": compare, "lut": lut, "prelu": prelu, "quantize": quantize,
    "dequantize": dequantize, "max_pool": max_pool, "avg_pool": avg_pool, "reduce": reduce, "argmax": argmax,
    "softmax": softmax, "matmul": matmul, "concat": concat, "slice": cut, "pad": pad, "reshape": reshape,
    "transpose": transpose, "expand": expand, "take": take, "resize": resize,
    **{op: lambda d, op=op: weighted(d, op) for op in ("conv2d", "conv_transpose2d", "dense")},
}  # fmt: skip
"""Each adds operands and a node, and returns the node's value."""
