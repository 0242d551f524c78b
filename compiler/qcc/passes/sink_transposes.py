"""Let transposes sink through the graph until they cancel, vanish into weights, or meet a node that needs the order.

One sweep. A value is known by its layout, a pair ``(base, perm)`` with ``value = transpose(base, perm)``; a transpose
node changes the layout and emits nothing. A node that can work on permuted axes runs on the bases, and its output
inherits the permutation. Any other node asks for its operands in their written order, which emits a transpose where the
layout is not trivial (a reshape where only axes of size 1 move).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Attr, Graph, Node
from qcc.numerics import QParams
from qcc.passes.rewrite import WEIGHTED, float32, infer, inverse, is_identity, moves_nothing, rename

Perm = tuple[int, ...]
Followed = tuple[dict[str, Attr], Perm]
"""Attributes of a node that runs on permuted axes, and the permutation of its output."""

BINARY = ("add", "sub", "mul", "maximum", "minimum")
PASSIVE = (*BINARY, "pointwise", "fake_quant", "concat", "slice", "pad", "take")
"""Ops that want of their operands what is wanted of their result."""
FLEXIBLE = (
    "reshape", "expand", "reduce_mean", "reduce_sum", "reduce_max", "argmax", "softmax", "batch_norm", "prelu", "dense",
)  # fmt: skip
"""Ops that may do without the written order."""
NAMES: dict[Perm, str] = {(0, 2, 3, 1): "nhwc", (0, 3, 1, 2): "nchw"}


def sink_transposes(graph: Graph) -> Graph:
    """Remove the transposes that need not be.

    Before: a legal float graph. After: the same function; transposes remain only where an operator that is bound to its
    axes (convolution, pool, matmul, some reshapes) or a graph output needs an order that its operand does not have.
    Inputs are transposed at once where all their readers want the same order.
    """
    return _Sweep(graph).run()


class _Sweep:
    """State of the sweep: the graph that is written and the layout of every value of the graph that is read."""

    def __init__(self, source: Graph) -> None:
        self.source = source
        self.out = source.copy()
        self.out.nodes = []
        self.layout: dict[str, tuple[str, Perm]] = {
            v: (v, _trivial(source, v)) for v in [*source.inputs, *source.constants]
        }
        self.made: dict[tuple[str, Perm], str] = {}
        self.shuffled: dict[str, NDArray[np.intp]] = {}
        self.users = source.users()
        self.wanted = self._demands()

    def run(self) -> Graph:
        """The rewritten graph."""
        for value in self.source.inputs:
            self._meet_demand(value)
        for node in self.source.nodes:
            if node.op == "transpose":
                base, perm = self.layout[node.inputs["x"]]
                self.layout[node.output] = base, tuple(perm[i] for i in node.attrs["perm"])
            elif node.op == "reshape":
                self._reshape(node)
            elif not self._follow(node):
                self._stay(node)
        for value in self.source.outputs:
            self._return(value)
        self._restore_names()
        self.out.prune()
        return self.out

    def _demands(self) -> dict[str, Perm]:
        """The permutation in which all readers of a value want it, where they agree and have a wish."""
        wanted: dict[str, Perm] = {v: _trivial(self.source, v) for v in self.source.outputs}
        for node in reversed(self.source.nodes):
            for key, value in node.inputs.items():
                wish: Perm | None = _trivial(self.source, value)
                later = wanted.get(node.output)
                if node.op == "transpose":
                    wish = later and tuple(later[i] for i in inverse(node.attrs["perm"]))
                elif node.op in PASSIVE:
                    wish = later if later and len(later) == len(self.source.types[value].shape) else None
                elif node.op in FLEXIBLE or (node.op, key) == ("matmul", "b"):
                    wish = None
                if wish is not None:
                    wanted[value] = wish if wanted.get(value, wish) == wish else _trivial(self.source, value)
        return wanted

    def _meet_demand(self, value: str) -> None:
        """Transpose a value in written order at once if its readers agree on another one."""
        perm = self.wanted.get(value, ())
        if perm and not is_identity(perm):
            base = self.layout[value][0]
            turned = self._view(value, perm)
            self.layout[value] = turned, perm
            self.made[turned, perm] = base

    def _view(self, value: str, perm: Perm) -> str:
        """Name of a tensor ``t`` with ``value = transpose(t, perm)``; emits what it takes."""
        base, have = self.layout[value]
        turn = tuple(have[i] for i in inverse(perm))
        if is_identity(turn):
            return base
        if (base, turn) not in self.made:
            if base in self.out.constants:
                array = np.ascontiguousarray(self.out.constants[base].transpose(turn))
                self.made[base, turn] = self.out.add_constant(base, array, self._given(base))
            else:
                shape = self.out.types[base].shape
                name = self.out.fresh(f"{base}_{NAMES.get(turn, 'turned')}")
                node = Node(name, "transpose", {"x": base}, {"perm": turn})
                if moves_nothing(shape, turn):
                    node.op, node.attrs = "reshape", {"shape": tuple(shape[i] for i in turn)}
                self.made[base, turn] = self._emit(node)
        return self.made[base, turn]

    def _given(self, constant: str) -> QParams | None:
        """Parameters that a constant keeps when its axes are moved or widened: those of the whole tensor."""
        q = self.out.types[constant].qparams
        return q if q is not None and q.axis is None else None

    def _emit(self, node: Node) -> str:
        """Append a node."""
        self.out.types[node.output] = infer(self.out, node)
        self.out.nodes.append(node)
        return node.output

    def _write(self, node: Node, inputs: dict[str, str], attrs: dict[str, Attr], perm: Perm) -> None:
        """Append the new form of a node, whose output is then known in layout ``perm``."""
        self._emit(Node(node.output, node.op, inputs, attrs, node.source))
        self.layout[node.output] = node.output, perm

    def _stay(self, node: Node) -> None:
        """Write a node as it is, operands in written order."""
        inputs = {k: self._view(v, _trivial(self.source, v)) for k, v in node.inputs.items()}
        attrs = dict(node.attrs)
        if node.op == "matmul":
            base, perm = self.layout[node.inputs["b"]]
            if perm == (*range(len(perm) - 2), len(perm) - 1, len(perm) - 2):
                inputs["b"], attrs["transpose_b"] = base, not attrs["transpose_b"]
        self._write(node, inputs, attrs, _trivial(self.source, node.output))
        returned = any(user.output in self.source.outputs for user in self.users[node.output])
        if returned or node.op not in WEIGHTED:  # a layer takes in what follows it, in its own order
            self._meet_demand(node.output)

    def _follow(self, node: Node) -> bool:
        """Write a node on permuted axes, in the permutation that costs the fewest transposed elements."""
        if "x" in node.inputs and node.inputs["x"] in self.shuffled:
            return self._shuffle(node)
        operands = [v for k, v in node.inputs.items() if k == "x" or node.op in (*BINARY, "concat")]
        if node.op in (*BINARY, "expand"):
            for value in operands:
                self._widen(value, len(self.source.types[node.output].shape))
        perms = dict.fromkeys(self.layout[v][1] for v in operands if v not in self.source.constants)
        followed = {perm: found for perm in perms if (found := follow(node, perm)) is not None}
        if not followed:
            return False
        wish = self.wanted.get(node.output)
        best = min(followed, key=lambda perm: (sum(self._cost(v, perm) for v in operands), perm != wish))
        attrs, perm = followed[best]
        inputs = {k: self._view(v, best) if v in operands else v for k, v in node.inputs.items()}
        self._write(node, inputs, attrs, perm)
        return True

    def _cost(self, value: str, perm: Perm) -> int:
        """Elements that ``_view`` would move."""
        base, have = self.layout[value]
        turn = tuple(have[i] for i in inverse(perm))
        kind = self.out.types[base]
        return 0 if base in self.out.constants or moves_nothing(kind.shape, turn) else kind.size

    def _widen(self, value: str, rank: int) -> None:
        """Give an operand of lower rank the leading axes of size 1 that broadcasting implies."""
        shape = self.source.types[value].shape
        if len(self.layout[value][1]) == rank:
            return
        wide = (1,) * (rank - len(shape)) + shape
        if value in self.out.constants:
            name = self.out.add_constant(value, self.out.constants[value].reshape(wide), self._given(value))
        else:
            base = self._view(value, _trivial(self.source, value))
            name = self._emit(Node(self.out.fresh(f"{value}_wide"), "reshape", {"x": base}, {"shape": wide}))
        self.layout[value] = name, tuple(range(rank))

    def _reshape(self, node: Node) -> None:
        """Reshape the operand's base; where axes that merge or split lie apart in it, transpose it before."""
        x, shape = node.inputs["x"], tuple(node.attrs["shape"])
        base, perm = self.layout[x]
        before = self.source.types[x].shape
        olds, news = regroup(before, shape, perm)
        wide = [axis for axis in olds if before[axis] != 1]
        if wide != sorted(wide, key=perm.__getitem__):
            wish = self.wanted.get(node.output)
            if self._flatten(node):
                return
            if wish is None or is_identity(wish):
                return self._stay(node)
            base = self._view(x, inverse(olds))
        self._write(node, {"x": base}, {"shape": tuple(shape[axis] for axis in news)}, inverse(news))
        if is_identity(news):
            self._meet_demand(node.output)

    def _flatten(self, node: Node) -> bool:
        """Flatten the base where only dense layers read the result: they will permute their weights instead."""
        base, perm = self.layout[node.inputs["x"]]
        before, shape = self.source.types[node.inputs["x"]].shape, node.attrs["shape"]
        if len(shape) != 2 or perm[0] != 0 or before[0] != shape[0] or not self._dense_only(node.output):
            return False
        self._write(node, {"x": base}, dict(node.attrs), (0, 1))
        order = np.arange(shape[1]).reshape(before[1:]).transpose([i - 1 for i in inverse(perm)[1:]])
        self.shuffled[node.output] = order.reshape(-1)
        return True

    def _dense_only(self, value: str) -> bool:
        """All that reads ``value``, possibly through pointwise nodes, are dense layers with constant weights."""
        return value not in self.source.outputs and all(
            (user.op in ("pointwise", "fake_quant") and self._dense_only(user.output))
            or (user.op == "dense" and user.inputs["w"] in self.source.constants and value == user.inputs["x"]
                and "residual" not in user.inputs)
            for user in self.users[value]
        )

    def _shuffle(self, node: Node) -> bool:
        """Write a reader of a value whose last axis is shuffled: element j holds what was element order[j]."""
        order = self.shuffled[node.inputs["x"]]
        inputs = dict(node.inputs)
        if node.op == "dense":
            w = inputs["w"]
            taken = float32(self.source.constants[w][:, order])
            inputs["w"] = self.out.add_constant(w, taken, self.source.types[w].qparams)
        else:
            self.shuffled[node.output] = order
        self._write(node, inputs, dict(node.attrs), (0, 1))
        return True

    def _return(self, value: str) -> None:
        """Let the written graph return ``value`` under its own name and in its own order."""
        name = self._view(value, _trivial(self.source, value))
        if name == value:
            return
        if any(n.output == value for n in self.out.nodes):
            self._rename(value, self.out.fresh(f"{value}_{NAMES.get(inverse(self.layout[value][1]), 'turned')}"))
        if name in self.out.inputs or name in self.out.constants or name in self.source.outputs:
            self._emit(Node(value, "reshape", {"x": name}, {"shape": self.out.types[name].shape}))
        else:
            self._rename(name, value)

    def _rename(self, old: str, new: str) -> None:
        """Rename a written value everywhere."""
        outputs = list(self.out.outputs)
        rename(self.out, old, new)
        self.out.outputs = outputs
        self.layout = {v: (new if base == old else base, perm) for v, (base, perm) in self.layout.items()}
        self.made = {(new if b == old else b, p): new if v == old else v for (b, p), v in self.made.items()}

    def _restore_names(self) -> None:
        """Let ``y.op``, of which the importer made ``y`` by a transpose that is gone, be called ``y``."""
        written = {node.output for node in self.out.nodes}
        for value, (base, _) in list(self.layout.items()):
            if base in written and value not in written and base.startswith(f"{value}."):
                written = (written - {base}) | {value}
                self._rename(base, value)


def _trivial(graph: Graph, value: str) -> Perm:
    """The identity permutation of a value."""
    return tuple(range(len(graph.types[value].shape)))


def place(items: Sequence[Any], perm: Perm) -> tuple[Any, ...]:
    """Per-axis items of a value, in the order of its base's axes."""
    return tuple(items[i] for i in inverse(perm))


def follow(node: Node, perm: Perm) -> Followed | None:
    """How a node runs on operands in layout ``perm``; None if it is bound to its axes."""
    a, last = node.attrs, perm[-1:] == (len(perm) - 1,)
    match node.op:
        case "pointwise" | "fake_quant" | "add" | "sub" | "mul" | "maximum" | "minimum":
            return dict(a), perm
        case "concat" | "take":
            return {**a, "axis": perm[a["axis"]]}, perm
        case "slice":
            return {key: place(a[key], perm) for key in ("begin", "end", "step")}, perm
        case "pad":
            return {**a, "pads": place(a["pads"], perm)}, perm
        case "expand":
            return {"shape": place(a["shape"], perm)}, perm
        case "reduce_mean" | "reduce_sum" | "reduce_max":
            axes = tuple(sorted(perm[i] for i in a["axes"]))
            return {**a, "axes": axes}, perm if a["keepdims"] else _without(perm, a["axes"])
        case "argmax":
            return {**a, "axis": perm[a["axis"]]}, perm if a["keepdims"] else _without(perm, (a["axis"],))
        case "softmax" | "batch_norm" | "prelu" if last:
            return dict(a), perm
        case "dense" if last and "residual" not in node.inputs:
            return dict(a), perm
    return None


def _without(perm: Perm, axes: Sequence[int]) -> Perm:
    """The permutation that is left when the value's ``axes`` are gone."""
    left = [p for i, p in enumerate(perm) if i not in axes]
    return tuple(sorted(left).index(p) for p in left)


def regroup(before: tuple[int, ...], after: tuple[int, ...], perm: Perm) -> tuple[Perm, Perm]:
    """How a value in layout ``perm`` that is reshaped from ``before`` to ``after`` may keep the order of its base.

    A reshape merges and splits runs of axes. Returns the axes before and after, run by run in the order of the base:
    the reshape acts on a tensor with the axes in that order.
    """
    runs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        olds, news = [i], [j]
        m, n = before[i], after[j]
        while m != n:
            if m < n:
                i += 1
                olds.append(i)
                m *= before[i]
            else:
                j += 1
                news.append(j)
                n *= after[j]
        runs.append((olds, news))
        i, j = i + 1, j + 1
    if not runs:
        return tuple(range(len(before))), tuple(range(len(after)))
    runs[-1][0].extend(range(i, len(before)))
    runs[-1][1].extend(range(j, len(after)))

    def position(run: tuple[list[int], list[int]]) -> int:
        wide = [perm[axis] for axis in run[0] if before[axis] != 1]
        return min(wide or [perm[run[0][0]]])

    runs.sort(key=position)
    return tuple(axis for olds, _ in runs for axis in olds), tuple(axis for _, news in runs for axis in news)
