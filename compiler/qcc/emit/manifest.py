"""``manifest.json``: everything about an artifact that a tool may want to know, without running it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qcc.emit.package import Package
from qcc.ir.graph import Graph, Node
from qcc.lower.kernel import BufferArg
from qcc.ops import OPS
from qcc.runtime import FORMAT


def manifest(package: Package, functions: Mapping[str, str] | None = None) -> dict[str, Any]:
    """JSON values; bytes, elements and step numbers are ints, shapes lists. ``functions``: names of kernels by symbol,
    where they have others than these.
    """
    from qcc import __version__

    p = package
    layers = [_layer(p, node, functions or {}) for node in p.graph.nodes]
    edges: dict[str, list[dict[str, Any]]] = {"input": [], "output": []}
    for kind, _, value, q in p.edges():
        t = p.graph.types[value]
        entry: dict[str, Any] = {"name": value, "shape": list(t.shape), "dtype": t.dtype}
        edges[kind].append(entry | ({} if q is None else {"scale": q.step, "zero_point": q.zero_point}))
    return {
        "format": FORMAT,
        "qcc": __version__,
        "name": p.name,
        "prefix": p.prefix,
        "target": {"name": p.target.name, "arch": p.target.arch, "requires": p.target.requires,
                   "emit": p.target.emit, "run": p.target.run.command},
        "inputs": edges["input"],
        "outputs": edges["output"],
        "arithmetic": arithmetic(p.graph),
        "macs": sum(layer["macs"] for layer in layers),
        "weight_bytes": p.weights.nbytes,
        "arena": {
            "bytes": p.arena_bytes,
            "lower_bound": p.arena.lower_bound,
            "regions": [{"name": r.name, "begin": r.begin, "bytes": r.nbytes} for r in p.arena.regions],
            "buffers": [
                {"name": b.name, "offset": p.arena.offsets[b.name], "bytes": b.nbytes, "first": b.first, "last": b.last}
                for b in p.arena.blocks.values()
            ],
        },
        "layers": layers,
        "remarks": list(p.remarks),
    }


def arithmetic(graph: Graph) -> str:
    """"int8" for integer programs; "dynamic" or "float16" for those of a mode, "float32" where it found no layer."""
    dtypes = {t.dtype for t in graph.types.values()}
    if any(node.op == "dynamic_quantize" for node in graph.nodes):
        return "dynamic"
    return next((dtype for dtype in ("int8", "float16") if dtype in dtypes), "float32")


def _layer(p: Package, node: Node, functions: Mapping[str, str]) -> dict[str, Any]:
    types, out = p.graph.input_types(node), p.graph.types[node.output]
    calls = p.calls_of[node.output]
    weights = [arg for call in calls for arg in call.args if not isinstance(arg, BufferArg)]
    return {
        "name": node.output,
        "op": node.op,
        "source": node.source,
        "shape": list(out.shape),
        "dtype": out.dtype,
        "macs": OPS[node.op].macs(node, types, out),
        "weight_bytes": sum(w.nbytes for w in weights),
        "kernels": [functions.get(symbol, symbol) for symbol in (p.built[call.kernel.digest].symbol for call in calls)],
        "remarks": _remarks(p, node),
        "place": _place(p, node.output),
    }


def _remarks(p: Package, node: Node) -> list[str]:
    found = []
    if p.layout.is_view(node.output):
        found.append(f"view of {node.inputs['x']}")
    elif not p.calls_of[node.output]:
        found.append("already in place")
    if node.output in p.layout.in_place:
        found.append(f"over {p.layout.in_place[node.output]}")
    if _covers(p, node):
        found.append(f"over {node.inputs['x']}, {'forward' if p.layout.overlay(node.output) > 0 else 'backward'}")
    found += [r.removeprefix(f"{node.output}: ") for r in p.remarks if r.startswith(f"{node.output}: ")]
    return found


def _covers(p: Package, node: Node) -> bool:
    """Whether an output that may lie over its input does."""
    if not p.layout.overlay(node.output):
        return False
    a, b = (p.arena.blocks[p.layout.places[v].buffer] for v in (node.inputs["x"], node.output))
    return p.arena.offsets[a.name] == p.arena.offsets[b.name]


def _place(p: Package, value: str) -> dict[str, Any] | None:
    """Where a value can be found in the arena after its node ran; None if it is in the caller's memory."""
    place = p.layout.places[value]
    if p.layout.buffers[place.buffer].kind != "arena":
        return None
    return {"buffer": p.arena.offsets[place.buffer], "offset": place.offset, "strides": list(place.view.strides),
            "dtype": place.view.dtype}  # fmt: skip
