"""Which nodes run on the accelerator, and rewrites of those that it knows under another form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcc.errors import Unsupported, UnsupportedError
from qcc.ir.graph import Graph, Node, TensorType
from qcc.npu.constraints import violation
from qcc.npu.description import Description
from qcc.ops.base import pair

EDGES = ("dequantize", "recentre")
"""At the end of a program."""


@dataclass(frozen=True)
class Split:
    """``before`` and ``after`` run on the host; ``inputs`` and ``outputs`` cross to and from the device."""

    graph: Graph
    before: list[Node]
    device: list[Node]
    after: list[Node]
    inputs: list[str]
    outputs: list[str]

    def host_graph(self) -> Graph | None:
        """What follows the device, as a program of its own; None if nothing does."""
        if not self.after:
            return None
        made = self.graph.copy()
        computed = {n.output for n in self.after}
        made.name, made.nodes = f"{self.graph.name}_host", self.after
        read = {v for n in self.after for v in n.inputs.values()} - computed - made.constants.keys()
        made.inputs = sorted(read)
        made.outputs = [v for v in self.graph.outputs if v in computed]
        made.prune()
        return made


def split(graph: Graph, d: Description, host: bool = False) -> Split:
    """Quantization at the edges is the host's work; so, with ``host``, is what the accelerator cannot do and all that
    follows from it. Raises UnsupportedError, which lists every node that breaks a rule, but not those behind one.
    """
    on_host: set[str] = set()
    lost: set[str] = set()
    before, device, after = [], [], []
    refused: list[Unsupported] = []
    for node in graph.nodes:
        if node.op in ("quantize", "recentre") and node.inputs["x"] in graph.inputs:
            before.append(node)
            continue
        if any(v in lost for v in node.inputs.values()):
            lost.add(node.output)
            continue
        follows = any(v in on_host for v in node.inputs.values())
        broken = None if node.op in EDGES or follows else violation(node, graph, d)
        if node.op in EDGES or follows or (broken and host):
            on_host.add(node.output)
            after.append(node)
        elif broken:
            refused.append(broken)
            lost.add(node.output)
        else:
            device.append(node)
    if refused:
        raise UnsupportedError(refused, where=f"{graph.name} for {d.name}")
    graph = graph.copy()
    device = [n for node in device for n in (_as_convolution(graph, node) if node.op == "conv_transpose2d" else [node])]
    made = {n.output for n in device}
    read = {v for n in device for v in n.inputs.values()}
    sources = [*graph.inputs, *(n.output for n in before)]
    wanted = {v for n in after for v in n.inputs.values()} | set(graph.outputs)
    outputs = [v for v in made if v in wanted]
    order = {n.output: i for i, n in enumerate(device)}
    inputs = [v for v in sources if v in read]
    return Split(graph, before, device, after, inputs, sorted(outputs, key=order.__getitem__))


def _as_convolution(graph: Graph, node: Node) -> list[Node]:
    """A transposed convolution is one of an image with zeros between its pixels, with the kernel turned round.

    reshape → pad → reshape spreads the pixels.
    """
    a, x = node.attrs, graph.types[node.inputs["x"]]
    (sh, sw), (dh, dw), groups = pair(a["stride"]), pair(a["dilation"]), a["groups"]
    n, h, w, c = x.shape
    weight = graph.constants[node.inputs["w"]]
    _, kh, kw, _ = weight.shape
    top, left, *_ = a["pad"]
    oh, ow = graph.types[node.output].shape[1:3]

    def add(name: str, op: str, source: str, extents: tuple[int, ...], **attrs: object) -> Node:
        value = graph.fresh(f"{node.output}.{name}")
        graph.types[value] = TensorType(extents, x.dtype, x.qparams)
        return Node(value, op, {"x": source}, attrs, node.source)

    split_axes = add("axes", "reshape", node.inputs["x"], (n, h, 1, w, 1, c), shape=(n, h, 1, w, 1, c))
    spread = add("spread", "pad", split_axes.output, (n, h, sh, w, sw, c), mode="constant", value=0.0,
                 pads=((0, 0), (0, 0), (0, sh - 1), (0, 0), (0, sw - 1), (0, 0)))  # fmt: skip
    image = add("image", "reshape", spread.output, (n, h * sh, w * sw, c), shape=(n, h * sh, w * sw, c))
    front = ((kh - 1) * dh - top, (kw - 1) * dw - left)
    source, height, width = image, h * sh, w * sw
    cut = (max(-front[0], 0), max(-front[1], 0))
    nodes = [split_axes, spread, image]
    if any(cut):
        shape = (n, height - cut[0], width - cut[1], c)
        source = add("cut", "slice", image.output, shape, begin=(0, *cut, 0), end=(n, height, width, c), step=(1,) * 4)
        nodes.append(source)
        height, width = shape[1:3]
    before = (max(front[0], 0), max(front[1], 0))
    behind = (max(oh + (kh - 1) * dh - height - before[0], 0), max(ow + (kw - 1) * dw - width - before[1], 0))
    turned = graph.add_constant(f"{node.output}.turned", np.ascontiguousarray(weight[:, ::-1, ::-1]),
                                graph.types[node.inputs["w"]].qparams)
    attrs = {k: v for k, v in a.items() if k != "output_pad"}
    attrs |= {"stride": (1, 1), "pad": (*before, *behind), "groups": groups}
    return [*nodes, Node(node.output, "conv2d", {**node.inputs, "x": source.output, "w": turned}, attrs, node.source)]
