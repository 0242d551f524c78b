"""README.md of a folder with C source: exact sizes, how to use it, its layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qcc.emit.cheader import declarations, region_bytes
from qcc.emit.csource import ModelSource, offset_in_arena, title
from qcc.emit.package import Package, one_line
from qcc.ops import OPS

if TYPE_CHECKING:
    from qcc.emit.measure import Sizes


def parameter_bytes(p: Package) -> int:
    """Bytes of the model's parameters, as any format has to store them: weights, biases, multipliers by channel."""
    graph = p.graph
    values = {n.inputs[key] for n in graph.nodes if "w" in n.inputs
              for key in ("w", "b", "multiplier") if key in n.inputs}  # fmt: skip
    return sum(graph.constants[v].nbytes for v in values)


def readme(p: Package, source: ModelSource, sizes: Sizes | None, use: str) -> str:
    """Text of README.md."""
    upper, parameters = p.prefix.upper(), parameter_bytes(p)
    lines = [f"# {one_line(p.name)}", "", f"A neural network as C99 for `{p.target.name}`, made by qcc.", "",
             "| memory | bytes |", "|---|---|"]  # fmt: skip
    if sizes is not None:
        lines += [f"| flash: code of `{p.prefix}.c` | {sizes.code} |"]
    stored = sizes.constants if sizes else source.constants.nbytes
    lines += [f"| flash: constants of `{p.prefix}_weights.c` | {stored} |",
              f"| … of these: weights, biases, multipliers of channels | {parameters} |"]  # fmt: skip
    if sizes is not None:
        lines += [f"| flash beyond those | {sizes.flash - parameters} |"]
    lines += [f"| RAM: `{upper}_{name.upper()}_BYTES`, given by you | {nbytes} |"
              for name, nbytes in region_bytes(p).items()]  # fmt: skip
    if sizes is not None and sizes.stack is not None:
        lines += [f"| RAM: stack of `{p.prefix}_run`, without the C library's functions | {sizes.stack} |"]
    lines += ["", *([f"Measured with `{sizes.compiler}`."] if sizes else
                    [f"Code and stack were not measured: no {p.target.link.cc[0]} was found."]),
              "Nothing else is kept in RAM: there is no other data, and no allocation. Of the C library",
              "only `memcpy` and `memset` are used.", "", "## Use", "", use.format(p.prefix, upper), "", "```c",
              f'#include "{p.prefix}.h"', ""]  # fmt: skip
    arrays, call = declarations(p)
    lines += [*arrays, "", call, "```", ""]
    edges = [(kind, v) for kind, _, v, _ in p.edges() if offset_in_arena(p, v) is not None]
    if edges:
        lines += [f"`{p.prefix}_{edges[0][0]}_in_place(&context)` and its like point into that memory: an input that",
                  "is written there needs no array of its own and is not copied; an output stays until the next run.",
                  ""]  # fmt: skip
    lines += [f"`{p.prefix}_quantize_input` and `{p.prefix}_dequantize_output` convert from and to real numbers.",
              f"Define `QCC_PROFILE` and a function `{p.prefix}_layer_done` to time the layers.", "",
              "## Layers", "", "| layer | | output | MACs | constants | kernel |", "|---|---|---|---|---|---|",
              *_layers(p, source)]  # fmt: skip
    return "\n".join(lines) + "\n"


def object_readme(p: Package, source: ModelSource, size: int) -> str:
    """Text of README.md beside a static library."""
    upper = p.prefix.upper()
    arrays, call = declarations(p)
    ram = [f"| RAM: `{upper}_{name.upper()}_BYTES`, given by you | {n} |" for name, n in region_bytes(p).items()]
    flags = " ".join(p.target.link.flags)
    lines = [f"# {one_line(p.name)}", "", f"A neural network for `{p.target.name}` as a library, made by qcc.", "",
             "| memory | bytes |", "|---|---|", f"| flash: `lib{p.prefix}.a` | {size} |", *ram, "",
             f"Link `lib{p.prefix}.a` and include `{p.prefix}.h`. It was compiled for `{flags}`;",
             "of the C library it needs `memcpy` and `memset`.", "", "```c", f'#include "{p.prefix}.h"', "",
             *arrays, "", call, "```", "", "## Layers", "", "| layer | | output | MACs | constants | kernel |",
             "|---|---|---|---|---|---|", *_layers(p, source)]  # fmt: skip
    return "\n".join(lines) + "\n"


def _layers(p: Package, source: ModelSource) -> Iterator[str]:
    for step, node in enumerate(p.graph.nodes):
        out = p.graph.types[node.output]
        macs = OPS[node.op].macs(node, p.graph.input_types(node), out)
        constants = sum(a.nbytes for name, a in source.constants.arrays.items()
                        if name.startswith(f"{p.prefix}_layer{step}_"))  # fmt: skip
        kernels = ", ".join(f"`{name}`" for name in source.calls_of(node))
        shape = "x".join(map(str, out.shape))
        name = title(p, step, node).split(", ", 1)[1]
        yield f"| {step} | {node.op}, {name} | {shape} | {macs} | {constants} | {kernels} |"
