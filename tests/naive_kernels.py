"""Kernels as plain C loops over ``qcc/numerics.h``, one file for a program: a stand-in for code generation."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from qcc.data import data_folder
from qcc.emit.entry import prototype
from qcc.emit.package import Package
from qcc.ir.graph import Graph, Node
from qcc.lower.build import Built
from qcc.lower.kernel import Call, CallBuilder, View
from qcc.plan.arena import plan_arena
from qcc.plan.layout import Layout, plan_layout
from qcc.target import Target

INT8 = "-128, 127"


def at(view: View, *index: str) -> str:
    """Offset of an element."""
    return " + ".join(f"({i}) * {s}" for i, s in zip(index, view.strides, strict=True)) or "0"


class Naive:
    """C text of every call of a layout."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.graph = layout, layout.graph
        self.calls: list[Call] = []
        self.text = '#include "qcc/numerics.h"\n'
        self.built: dict[str, Built] = {}
        for node in self.graph.nodes:
            if not layout.is_view(node.output):
                self.node(node)

    def load(self, key: str, view: View, *index: str) -> str:
        element = f"{key}[{at(view, *index)}]"
        return f"((int32_t){element} - 128)" if view.dtype == "uint8" else element

    def finish(self, builder: CallBuilder, inner: str) -> None:
        """One loop for each axis of the output around ``inner``, which may use i0, i1, … and ``STORE(v)``."""
        call = builder.call()
        y = call.kernel.operands[-1].view
        digest = call.kernel.digest
        if digest not in self.built:
            symbol = f"naive_{builder.compute}_{digest}"
            loops = "".join(f"for (int32_t i{d} = {'begin' if d == 0 else 0}; i{d} < {'end' if d == 0 else n}; ++i{d}) "
                            for d, n in enumerate(y.shape))  # fmt: skip
            target = f"y[{at(y, *(f'i{d}' for d in range(len(y.shape))))}]"
            stored = f"{target} = (uint8_t)((v) + 128)" if y.dtype == "uint8" else f"{target} = (v)"
            header = prototype(call.kernel, symbol).rstrip(";")
            self.text += f"#define STORE(v) ({stored})\n{header}\n{{\n{loops}{{\n{inner}\n}}\n}}\n#undef STORE\n"
            self.built[digest] = Built(symbol, Path(), y.shape[0])
        self.calls.append(call)

    def node(self, node: Node) -> None:
        place, shape = self.layout.place, self.graph.types[node.output].shape
        index = [f"i{d}" for d in range(len(shape))]
        a: dict[str, Any] = node.attrs
        c = CallBuilder(node.op, node.output, {k: v for k, v in a.items() if k not in ("begin", "end")})
        if node.op == "concat":
            self.concat(node)
            return
        x = place(node.inputs.get("x", node.inputs.get("a", "")))
        if node.op in ("quantize", "dequantize"):
            c.read("x", x)
            perm = a["perm"] or tuple(range(len(shape)))
            back = [index[perm.index(d)] for d in range(len(shape))]
            q = self.graph.types[node.output if node.op == "quantize" else node.inputs["x"]].qparams
            assert q is not None
            scale = np.float32(1 / q.step) if node.op == "quantize" else np.float32(q.step)
            c.params["scale"] = float(scale)
            c.params["zero_point"] = q.zero_point
            element = self.load("x", x[0], *back)
            inner = f"STORE(qcc_{node.op}({element}, {float(scale).hex()}f, {q.zero_point}));"
        elif node.op == "lut":
            c.read("x", x)
            c.const("table", self.graph.constants[node.inputs["table"]])
            inner = f"STORE(table[{self.load('x', x[0], *index)} + 128]);"
        elif node.op == "add":
            other = place(node.inputs["b"])
            c.read("a", x)
            c.read("b", other)
            z = [self.graph.types[node.inputs[k]].zero_point for k in "ab"]
            c.params["z"] = tuple(z)
            inner = (f"STORE(qcc_add({self.load('a', x[0], *index)} - {z[0]}, {a['multiplier_a']}, "
                     f"{self.load('b', other[0], *index)} - {z[1]}, {a['multiplier_b']}, {a['shift']}, "
                     f"{a['zero_point']}, {INT8}));")  # fmt: skip
        elif node.op == "conv2d":
            inner = self.conv(node, c)
        elif node.op in ("max_pool", "avg_pool"):
            inner = self.pool(node, c)
        elif node.op in ("reshape", "transpose", "slice"):
            c.read("x", x)
            flat = f"({at(View(shape, tuple(int(np.prod(shape[d + 1:])) for d in range(len(shape))), ''), *index)})"
            steps = [int(np.prod(x[0].shape[d + 1:])) for d in range(len(x[0].shape))]
            source = {
                "reshape": lambda: [f"{flat} / {s} % {n}" for s, n in zip(steps, x[0].shape, strict=True)],
                "transpose": lambda: [index[a["perm"].index(d)] for d in range(len(shape))],
                "slice": lambda: [f"{i} * {s} + {b}" for i, s, b in zip(index, a["step"], a["begin"], strict=True)],
            }[node.op]()
            c.params["source"] = ",".join(source)
            inner = f"STORE({self.load('x', x[0], *source)});"
        else:
            raise AssertionError(node.op)
        c.write("y", place(node.output))
        self.finish(c, inner)

    def conv(self, node: Node, c: CallBuilder) -> str:
        a, inputs, graph = node.attrs, node.inputs, self.graph
        x, w = self.layout.window(inputs["x"], a["pad"]), graph.constants[inputs["w"]]
        c.read("x", x)
        for key in ("w", "b", "multiplier"):
            c.const(key, graph.constants[inputs[key]])
        c.macs = graph.types[node.output].size * w[0].size
        zero, (_, kh, kw, ci) = graph.types[inputs["x"]].zero_point, w.shape
        c.params |= {"zero": zero}
        element = self.load("x", x[0], "i0", f"i1 * {a['stride'][0]} + ky", f"i2 * {a['stride'][1]} + kx", "ci")
        end = f"{a['zero_point']}, {INT8}"
        if "residual" in inputs:
            r = self.layout.place(inputs["residual"])
            c.read("r", r)
            c.params["zr"] = zr = graph.types[inputs["residual"]].zero_point
            end = (f"{self.load('r', r[0], 'i0', 'i1', 'i2', 'i3')} - {zr}, {a['residual_multiplier']}, "
                   f"{a['fraction']}, {end}")  # fmt: skip
        name = "qcc_finish_residual" if "residual" in inputs else "qcc_finish"
        return f"""int32_t acc = b[i3];
            for (int32_t ky = 0; ky < {kh}; ++ky) for (int32_t kx = 0; kx < {kw}; ++kx)
            for (int32_t ci = 0; ci < {ci}; ++ci)
                acc += ({element} - ({zero})) * w[((i3 * {kh} + ky) * {kw} + kx) * {ci} + ci];
            STORE({name}(acc, multiplier[i3], {a["shift"]}, {end}));"""

    def pool(self, node: Node, c: CallBuilder) -> str:
        a, graph = node.attrs, self.graph
        x = self.layout.place(node.inputs["x"])
        c.read("x", x)
        if node.op == "avg_pool":
            c.const("multiplier", graph.constants[node.inputs["multiplier"]])
        zero, (_, h, w, _) = graph.types[node.inputs["x"]].zero_point, x[0].shape
        c.params["zero"] = zero
        update = f"acc += v - ({zero})" if node.op == "avg_pool" else "acc = v > acc ? v : acc"
        result = f"qcc_finish(acc, multiplier[0], {a['shift']}, {a['zero_point']}, {INT8})" if "shift" in a else "acc"
        return f"""int32_t acc = {0 if node.op == "avg_pool" else -128};
            for (int32_t ky = 0; ky < {a["kernel"][0]}; ++ky) for (int32_t kx = 0; kx < {a["kernel"][1]}; ++kx) {{
                const int32_t iy = i1 + ky - {a["pad"][0]}, ix = i2 + kx - {a["pad"][1]};
                if (iy >= 0 && iy < {h} && ix >= 0 && ix < {w}) {{
                    const int32_t v = {self.load("x", x[0], "i0", "iy", "ix", "i3")};
                    {update};
                }}
            }}
            STORE({result});"""

    def concat(self, node: Node) -> None:
        """A copy of each input that does not lie there already."""
        start, shape, axis = 0, self.graph.types[node.output].shape, node.attrs["axis"]
        for value in node.inputs.values():
            x, extent = self.layout.place(value), self.graph.types[value].shape[axis]
            begin, end = [0] * len(shape), list(shape)
            begin[axis], end[axis] = start, start + extent
            start += extent
            part = self.layout.part(node.output, tuple(begin), tuple(end))
            if part != x:
                c = CallBuilder("concat", node.output)
                c.read("x", x)
                c.write("y", part)
                self.finish(c, f"STORE({self.load('x', x[0], *(f'i{d}' for d in range(len(shape))))});")


def naive_package(graph: Graph, target: Target, folder: Path, name: str = "net") -> Package:
    """Everything the emitter wants, with an object compiled from C."""
    layout = plan_layout(graph, target)
    naive = Naive(layout)
    source, made = folder / "kernels.c", folder / "kernels.o"
    folder.mkdir(parents=True, exist_ok=True)
    source.write_text(naive.text)
    subprocess.run(["cc", "-std=c99", "-O1", "-ffp-contract=off", "-fPIC", "-c", str(source), "-o", str(made),
                    "-I", str(data_folder("runtime") / "include")], check=True)  # fmt: skip
    built = {digest: Built(b.symbol, made, b.extent) for digest, b in naive.built.items()}
    return Package(name, graph, layout, plan_arena(layout), naive.calls, built, target)
