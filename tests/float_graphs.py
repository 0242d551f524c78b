"""Small float graphs for tests: a builder, a seeded generator, and the check that a pass keeps the function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qcc.ir.evaluate import run_float
from qcc.ir.graph import Graph, Node
from qcc.ir.verify import verify
from qcc.ops import OPS

NHWC, NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
CONV = {"stride": (1, 1), "pad": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1, "clamp": None}
POOL = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0, 0, 0)}


class Builder:
    """Appends nodes by op name: ``b("add", a="x", b=array, clamp=None)``; arrays become constants."""

    def __init__(self, seed: int = 0, **inputs: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph("test")
        for name, shape in inputs.items():
            self.graph.inputs.append(self.graph.add_constant(name, np.zeros(shape, np.float32)))
        self.graph.constants.clear()

    def __call__(self, op: str, name: str | None = None, **fields: Any) -> str:
        inputs: dict[str, str] = {}
        attrs: dict[str, Any] = {}
        output = self.graph.fresh(name or f"{op}{len(self.graph.nodes)}")
        for key, value in fields.items():
            if isinstance(value, np.ndarray):
                value = self.graph.add_constant(f"{output}.{key}", value.astype(np.float32))
            is_input = key in (*OPS[op].required, *OPS[op].optional) or (op == "concat" and key != "axis")
            (inputs if is_input else attrs)[key] = value
        node = Node(output, op, inputs, attrs, f"{op} '{output}'")
        self.graph.types[output] = OPS[op].infer(node, self.graph.input_types(node))
        self.graph.nodes.append(node)
        return output

    def shape(self, value: str) -> tuple[int, ...]:
        return self.graph.types[value].shape

    def normal(self, *shape: int) -> Any:
        return self.rng.normal(size=shape).astype(np.float32)

    def conv(self, x: str, channels: int, kernel: int = 3, **attrs: Any) -> str:
        """A convolution of an NHWC value that keeps height and width."""
        w = self.normal(channels, kernel, kernel, self.shape(x)[3]) / 3
        half = kernel // 2
        return self("conv2d", x=x, w=w, b=self.normal(channels), **{**CONV, "pad": (half,) * 4, **attrs})

    def clip(self, x: str, low: float = 0.0, high: float = float("inf")) -> str:
        return self("pointwise", x=x, expr=("clip", "x", low, high))

    def done(self, *outputs: str) -> Graph:
        self.graph.outputs = list(outputs)
        verify(self.graph)
        return self.graph


def ops(graph: Graph) -> list[str]:
    """Ops in order."""
    return [node.op for node in graph.nodes]


def feed(graph: Graph, seed: int = 1) -> dict[str, Any]:
    """Random inputs."""
    rng = np.random.default_rng(seed)
    return {v: rng.normal(size=graph.types[v].shape).astype(np.float32) for v in graph.inputs}


def close(found: Any, expected: Any) -> bool:
    """Equal within 1e-4 of the largest magnitude."""
    limit = 1e-4 * max(1e-3, float(np.abs(expected).max(initial=0)))
    return found.shape == expected.shape and bool(np.abs(found - expected).max(initial=0) <= limit)


def apply(rewrite: Callable[[Graph], Graph], graph: Graph) -> Graph:
    """The rewritten graph; checks that it is legal, computes the same, and that the argument is unchanged."""
    before = (list(map(repr, graph.nodes)), dict(graph.types), list(graph.constants), list(graph.outputs))
    result = rewrite(graph)
    assert before == (list(map(repr, graph.nodes)), dict(graph.types), list(graph.constants), list(graph.outputs))
    verify(result)
    assert (result.inputs, result.outputs) == (graph.inputs, graph.outputs)
    x = feed(graph)
    expected, found = run_float(graph, x), run_float(result, x)
    for value in graph.outputs:
        assert close(found[value], expected[value]), (rewrite.__name__, value)
    return result


def random_graph(seed: int) -> Graph:
    """An image network of 12 random steps with transposes at random places, from an NCHW input."""
    b = Builder(seed, x=(1, 4, 6, 6))
    rng, pool = b.rng, ["x"]

    def perm(rank: int) -> tuple[int, ...]:
        usual = [NHWC, NCHW, None][rng.integers(3)] if rank == 4 else None
        return usual or tuple(map(int, rng.permutation(rank)))

    for _ in range(12):
        x = pool[-1] if rng.random() < 0.7 else str(rng.choice(pool))
        shape = b.shape(x)
        rank, axis = len(shape), int(rng.integers(len(shape)))
        match int(rng.integers(16)):
            case 0 | 1 | 2:
                y = b("transpose", x=x, perm=perm(rank))
            case 3 | 4 if rank == 4:
                image = b("transpose", x=x, perm=NHWC)
                y = b("transpose", x=b.conv(image, 4), perm=NCHW)
            case 5:
                y = b.clip(x) if rng.random() < 0.5 else b("pointwise", x=x, expr=("tanh", "x"))
            case 6:
                same = [v for v in pool if b.shape(v) == shape]
                y = b(str(rng.choice(["add", "mul", "sub"])), a=x, b=str(rng.choice(same)), clamp=None)
            case 7:
                other = b.normal(*[d if rng.random() < 0.5 else 1 for d in shape[axis:]])
                y = b("mul", a=other, b=x, clamp=None) if rng.random() < 0.5 else b("add", a=x, b=other, clamp=None)
            case 8:
                y = b("concat", x0=x, x1=x, axis=axis) if b.graph.types[x].size < 2000 else x
            case 9:
                begin = tuple(int(rng.integers(d)) for d in shape)
                y = b("slice", x=x, begin=begin, end=shape, step=tuple(int(rng.integers(1, 3)) for _ in shape))
            case 10:
                pads = tuple((int(rng.integers(2)), int(rng.integers(2))) for _ in shape)
                y = b("pad", x=x, pads=pads, mode="constant", value=float(rng.integers(2)))
            case 11:
                kind = str(rng.choice(["reduce_mean", "reduce_max"]))
                y = b(kind, x=x, axes=(axis,), keepdims=bool(rng.random() < 0.8))
            case 12:
                y = b("softmax", x=x)
            case 13:
                wide = (*shape[:axis], 1, *shape[axis:])
                flat = (*shape[:axis], int(np.prod(shape[axis:])))
                narrow = tuple(d for d in shape if d != 1)
                y = b("reshape", x=x, shape=[wide, flat, narrow or (1,)][rng.integers(3)])
            case 14:
                y = b("dense", x=x, w=b.normal(3, shape[-1]), b=b.normal(3), clamp=None)
            case 15:
                y = b("take", x=x, axis=axis, indices=tuple(map(int, rng.integers(0, shape[axis], 3))))
            case _:
                y = b.clip(x, -1.0, 1.0)
        if b.shape(y) and b.graph.types[y].size < 5000 and len(b.shape(y)) <= 5:
            pool.append(y)
    return b.done(*dict.fromkeys([pool[-1], *(str(v) for v in rng.choice(pool[1:] or pool, 1))]))
