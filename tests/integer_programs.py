"""Small integer programs: built by hand, or drawn at random with many views, concats, residuals and paddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc import numerics
from qcc.ir.graph import Graph, Node, TensorType
from qcc.numerics import QParams
from qcc.ops import OPS

Q = QParams(0.05, -3)


class Builder:
    """Appends integer nodes; each method returns the value it produced, quantized by ``Q`` unless told otherwise."""

    def __init__(self, name: str = "program", seed: int = 0) -> None:
        self.graph, self.rng = Graph(name), np.random.default_rng(seed)

    def input(self, shape: tuple[int, ...], dtype: str = "int8", name: str = "x") -> str:
        self.graph.inputs.append(name)
        self.graph.types[name] = TensorType(shape, dtype, Q if dtype == "int8" else None)
        return name

    def node(self, op: str, inputs: dict[str, str], q: QParams | None = Q, name: str = "v", **attrs: Any) -> str:
        node = Node(self.graph.fresh(f"{name}{len(self.graph.nodes)}"), op, inputs, attrs, f"{op} test")
        inferred = OPS[op].infer(node, self.graph.input_types(node))
        params = q if inferred.dtype == "int8" else None
        self.graph.types[node.output] = TensorType(inferred.shape, inferred.dtype, params)
        self.graph.nodes.append(node)
        return node.output

    def output(self, *values: str) -> Graph:
        self.graph.outputs += values
        return self.graph

    def shape(self, value: str) -> tuple[int, ...]:
        return self.graph.types[value].shape

    def conv(self, x: str, channels: int, kernel: int = 3, pad: tuple[int, int, int, int] = (1, 1, 1, 1),
             stride: int = 1, residual: str | None = None, q: QParams = Q) -> str:
        add, c = self.graph.add_constant, self.shape(x)[3]
        weight = self.rng.integers(-127, 128, (channels, kernel, kernel, c)).astype(np.int8)
        real = self.rng.uniform(0.5, 1, channels) * 2.0 / (kernel * np.sqrt(c) * 127)
        attrs: dict[str, Any] = {"stride": (stride, stride), "pad": pad, "dilation": (1, 1), "groups": 1}
        inputs = {"x": x, "w": add("w", weight, QParams((0.01,) * channels, 0, 0)),
                  "b": add("b", self.rng.integers(-500, 500, channels).astype(np.int32))}
        if residual is not None:
            inputs["residual"] = residual
            attrs |= {"residual_multiplier": 1 << 4, "fraction": 4}
            real = real * 16
        multiplier, shift = numerics.requant_multipliers(real)
        inputs["multiplier"] = add("m", multiplier)
        return self.node("conv2d", inputs, q, **attrs, shift=shift, zero_point=q.zero_point, clamp=(-128, 127))

    def add(self, a: str, b: str) -> str:
        m = numerics.add_multipliers(Q.step, Q.step, Q.step)
        return self.node("add", {"a": a, "b": b}, multiplier_a=m.a, multiplier_b=m.b, shift=m.shift,
                         zero_point=Q.zero_point, clamp=(-128, 127))

    def lut(self, x: str) -> str:
        table = self.graph.add_constant("t", self.rng.integers(-128, 128, 256).astype(np.int8))
        return self.node("lut", {"x": x, "table": table})

    def concat(self, *values: str, axis: int = 3) -> str:
        return self.node("concat", {f"x{i}": v for i, v in enumerate(values)}, axis=axis)

    def slice(self, x: str, begin: tuple[int, ...], end: tuple[int, ...], step: tuple[int, ...] | None = None) -> str:
        return self.node("slice", {"x": x}, begin=begin, end=end, step=step or (1,) * len(begin))

    def reshape(self, x: str, *shape: int) -> str:
        return self.node("reshape", {"x": x}, shape=shape)

    def max_pool(self, x: str) -> str:
        return self.node("max_pool", {"x": x}, kernel=(3, 3), stride=(1, 1), pad=(1, 1, 1, 1), dilation=(1, 1))

    def avg_pool(self, x: str) -> str:
        m = self.graph.add_constant("m", numerics.requant_multipliers([1 / 9])[0])
        return self.node("avg_pool", {"x": x, "multiplier": m}, kernel=(3, 3), stride=(1, 1), pad=(1, 1, 1, 1),
                         count_include_pad=True, shift=31, zero_point=Q.zero_point, clamp=(-128, 127))

    def quantize(self, x: str, perm: tuple[int, ...] | None = None) -> str:
        return self.node("quantize", {"x": x}, perm=perm)

    def dequantize(self, x: str, perm: tuple[int, ...] | None = None) -> str:
        return self.node("dequantize", {"x": x}, None, perm=perm)


def random_program(seed: int, steps: int = 14) -> Graph:
    """A program over NHWC values of mixed sizes; float32 or int8 edges."""
    rng = np.random.default_rng(seed)
    b = Builder(f"random{seed}", seed)
    batch, size, channels = (int(v) for v in rng.integers((1, 3, 1), (3, 7, 6)))
    float_edges = bool(rng.integers(2))
    if float_edges:
        values = [b.quantize(b.input((batch, channels, size, size + 1), "float32"), (0, 2, 3, 1))]
    else:
        values = [b.input((batch, size, size + 1, channels))]

    def pick(*shape: int | None) -> str | None:
        fit = [v for v in values if len(b.shape(v)) == 4
               and all(want is None or want == have for want, have in zip(shape, b.shape(v), strict=False))]
        return fit[int(rng.integers(len(fit)))] if fit else None

    kinds = ["conv", "residual", "add", "lut", "concat", "cut", "reshape", "pool", "squeeze", "move"]
    for _ in range(steps):
        x = pick()
        assert x is not None
        n, h, w, c = b.shape(x)
        choice, q = str(rng.choice(kinds)), b.graph.types[x].qparams
        if choice == "conv":
            pad = tuple(int(p) for p in rng.integers(0, 3, 4))
            if h + pad[0] + pad[2] >= 3 and w + pad[1] + pad[3] >= 3:
                values.append(b.conv(x, int(rng.integers(1, 6)), 3, pad, int(rng.integers(1, 3)),
                                     q=Q if rng.integers(2) else QParams(0.05, 7)))  # fmt: skip
        elif choice == "residual":
            values.append(b.conv(x, c, 3, residual=x if rng.integers(2) else pick(n, h, w, c)))
        elif choice == "add":
            values.append(b.add(x, pick(n, h, w, c) or x))
        elif choice == "lut":
            values.append(b.lut(x))
        elif choice == "concat":
            axis = int(rng.choice([3, 3, 3, 1, 2, 0]))
            want: list[int | None] = [n, h, w, c]
            want[axis] = None
            parts = [p for p in (x, *(pick(*want) for _ in range(int(rng.integers(3))))) if p]
            parts = [p for p in parts if b.graph.types[p].qparams == q]
            values.append(b.node("concat", {f"x{i}": p for i, p in enumerate(parts)}, q, axis=axis))
        elif choice == "cut":
            begin = tuple(int(rng.integers(0, d)) if rng.integers(3) == 0 else 0 for d in (n, h, w, c))
            end = tuple(int(rng.integers(a + 1, d + 1)) if rng.integers(3) == 0 else d
                        for a, d in zip(begin, (n, h, w, c), strict=True))  # fmt: skip
            step = tuple(2 if rng.integers(6) == 0 else 1 for _ in range(4))
            values.append(b.node("slice", {"x": x}, q, begin=begin, end=end, step=step))
        elif choice == "reshape":
            shape = (n, w, h, c) if rng.integers(2) else (n, 1, h * w, c)
            values.append(b.node("reshape", {"x": x}, q, shape=shape))
        elif choice == "squeeze":
            flat = b.node("reshape", {"x": x}, q, shape=tuple(d for d in (n, h, w, c) if d != 1))
            values.append(b.node("reshape", {"x": flat}, q, shape=(n, h, w, c)))
        elif choice == "move":
            perm = tuple(int(p) for p in rng.permutation(4))
            values.append(b.node("transpose", {"x": x}, q, perm=perm))
        elif q == Q:
            values.append(b.max_pool(x) if rng.integers(2) else b.avg_pool(x))
    ends = [values[-1], *(str(v) for v in rng.choice(values, int(rng.integers(0, 2))))]
    ends = list(dict.fromkeys(ends))
    return b.output(*(b.dequantize(v, (0, 3, 1, 2)) if float_edges else v for v in ends))


def random_inputs(graph: Graph, seed: int) -> dict[str, Any]:
    """Arrays for a program's inputs."""
    rng = np.random.default_rng(seed)
    found = {}
    for name in graph.inputs:
        t = graph.types[name]
        found[name] = (rng.integers(-128, 128, t.shape).astype(np.int8) if t.dtype == "int8"
                       else rng.normal(0, 3, t.shape).astype(np.float32))  # fmt: skip
    return found
