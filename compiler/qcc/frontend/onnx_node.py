"""What an importer function sees of one ONNX node, and the registry of these functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from qcc.errors import ModelError
from qcc.frontend.refused import MAX_TAKEN, Refused, normal_axis, registry, result_type
from qcc.ir.graph import Attr, Graph, Node
from qcc.numerics import QParams


@dataclass
class Scope:
    """The values of an ONNX graph under import.

    ``known`` holds the values whose contents are known now (any dtype); ``values`` maps the others, and the known ones
    that were needed as operands, to value names of ``graph``. ``unknown`` holds results of refused nodes whose shape is
    not known.
    """

    graph: Graph
    opset: int
    reserved: frozenset[str]
    """Every ONNX value name: helper values must not take one."""
    known: dict[str, NDArray[Any]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    grids: dict[str, QParams] = field(default_factory=dict)
    """Parameters of known values that were dequantized; the axis is the file's."""
    quantized: dict[str, tuple[QParams, str]] = field(default_factory=dict)
    """Parameters (int8) and file dtype of values that are integers in the file and reals in the graph."""

    def fresh(self, hint: str) -> str:
        """A name that neither the graph nor the ONNX file uses."""
        name, count = hint, 0
        while name in self.graph.types or name in self.reserved:
            count += 1
            name = f"{hint}_{count}"
        return name

    def constant(self, hint: str, array: NDArray[Any], grid: QParams | None = None) -> str:
        """Store a float32 constant, under its ONNX name where that is free; raises ``ModelError`` if not finite.

        ``grid``: parameters that the file gives it.
        """
        with np.errstate(over="ignore"):
            real = np.ascontiguousarray(array, np.float32).reshape(array.shape)
        if not np.all(np.isfinite(real)):
            raise ModelError(f"constant '{hint}' holds NaN, infinity or numbers too large for float32",
                             hint="export the model again from finite weights")
        name = hint if hint in self.known and hint not in self.graph.types else self.fresh(hint)
        return self.graph.add_constant(name, real, grid)


class OnnxNode:
    """One node: its attributes (decoded), its inputs by position, and ``emit`` for the nodes that replace it."""

    def __init__(self, proto: onnx.NodeProto, scope: Scope) -> None:
        """Decode ``proto``, whose inputs ``scope`` holds."""
        self.op: str = proto.op_type
        self.name = label(proto)
        self.source = f"{self.op} '{self.name}'"
        self.inputs: list[str] = list(proto.input)
        self.outputs: list[str] = list(proto.output)
        self.attrs = {a.name: _decode(onnx.helper.get_attribute_value(a)) for a in proto.attribute}
        self.scope, self.opset = scope, scope.opset
        self.emitted: list[Node] = []

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def is_known(self, index: int) -> bool:
        """Whether an input is there and its contents are known."""
        return self.has(index) and self.inputs[index] in self.scope.known

    def array(self, index: int, what: str) -> NDArray[Any]:
        """Contents of an input that must be constant; ``what`` names it in the refusal."""
        if not self.is_known(index):
            raise Refused(f"its {what} is not constant", f"export the model with constant {what}")
        return self.scope.known[self.inputs[index]]

    def floats(self, index: int, what: str) -> NDArray[Any]:
        """Contents of an input that must be constant and of a float type."""
        array = self.array(index, what)
        if array.dtype.kind in "iubcSUO":
            raise Refused(f"its {what} is of type {array.dtype}; only float32 is computed")
        return array

    def integers(self, index: int, what: str) -> tuple[int, ...]:
        """Contents of a constant list of integers."""
        array = self.array(index, what)
        if array.dtype.kind not in "iu":
            raise Refused(f"its {what} is of type {array.dtype}, not an integer")
        return tuple(int(v) for v in array.reshape(-1))

    def scalar(self, index: int, what: str) -> float:
        """Contents of a constant with one element."""
        array = self.array(index, what)
        if array.size != 1:
            raise Refused(f"its {what} has {array.size} elements instead of one")
        return float(array.reshape(-1)[0])

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of an input, known or not."""
        name = self._present(index)
        if name in self.scope.known:
            return tuple(self.scope.known[name].shape)
        return self.scope.graph.types[self.scope.values[name]].shape

    def shape_of(self, value: str) -> tuple[int, ...]:
        """Shape of a value of the graph."""
        return self.scope.graph.types[value].shape

    def value(self, index: int) -> str:
        """Graph value of a float input; a known one becomes a float32 constant."""
        name = self._present(index)
        if name not in self.scope.values:
            self.scope.values[name] = self.scope.constant(
                name, self.floats(index, f"input '{name}'"), self.operand_grid(index))
        value = self.scope.values[name]
        dtype = self.scope.graph.types[value].dtype
        if dtype != "float32":
            raise Refused(f"its input '{name}' is of type {dtype}; only float32 is computed")
        return value

    def _present(self, index: int) -> str:
        if not self.has(index):
            raise Refused(f"its input {index} is missing", "check its inputs")
        return self.inputs[index]

    def ints(self, name: str, default: Sequence[int], count: int | None = None) -> tuple[int, ...]:
        """Attribute that is a list of integers, of a given length."""
        found = tuple(int(v) for v in self.attrs.get(name, default))
        if count is not None and len(found) != count:
            raise Refused(f"attribute {name} has {len(found)} numbers, {count} are needed")
        return found

    def constant(self, hint: str, array: NDArray[Any], grid: QParams | None = None) -> str:
        """Add a float32 constant (named ``hint`` where it is free); returns its value name."""
        return self.scope.constant(hint, array, grid)

    def operand_grid(self, index: int) -> QParams | None:
        """Parameters of a constant that the file quantizes per tensor."""
        grid = self.scope.grids.get(self.inputs[index])
        return grid if grid is not None and grid.axis is None else None

    def weight_grid(self, index: int, axis: int, repeat: int = 1, factor: float = 1.0) -> QParams | None:
        """Parameters along axis 0 of weights whose output channels are ``axis`` of a file's constant.

        ``repeat``: how often the channels of that axis occur in a row (groups); ``factor``: what the constant is
        multiplied by. None where the file does not quantize the constant, or nothing is left of it.
        """
        grid = self.scope.grids.get(self.inputs[index])
        if grid is None or factor == 0:
            return None
        shape = self.shape(index)
        if grid.axis not in (None, axis % len(shape)):
            raise Refused(f"its weights are quantized along axis {grid.axis} of {list(shape)}",
                          f"quantize them along axis {axis % len(shape)}, or per tensor")
        scales = grid.scale if isinstance(grid.scale, tuple) else (grid.scale,) * shape[axis]
        return QParams(tuple(s * abs(factor) for s in scales) * repeat, 0, 0)

    def emit(self, op: str, inputs: Mapping[str, str], **attrs: Attr) -> str:
        """Append a node; returns its value. An ill-formed one (``Op.infer``) is refused."""
        graph = self.scope.graph
        node = Node(self.scope.fresh(f"{self.outputs[0]}.{op}"), op, dict(inputs), attrs, self.source)
        graph.types[node.output] = result_type(graph, node, "check the shapes and attributes of this node")
        graph.nodes.append(node)
        self.emitted.append(node)
        return node.output

    def transpose(self, x: str, perm: Sequence[int]) -> str:
        """``x`` with its axes permuted."""
        if tuple(perm) == tuple(range(len(perm))):
            return x
        return self.emit("transpose", {"x": x}, perm=tuple(perm))

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """``x`` with another shape."""
        return x if tuple(shape) == self.shape_of(x) else self.emit("reshape", {"x": x}, shape=tuple(shape))

    def select(self, x: str, axis: int, indices: Sequence[int]) -> str:
        """Elements along one axis: a slice where the indices step evenly upwards, else a take."""
        shape = self.shape_of(x)
        step = indices[1] - indices[0] if len(indices) > 1 else 1
        even = range(indices[0], indices[-1] + 1, step) if step > 0 else range(0)
        if even == indices or (len(even) == len(indices) and all(a == b for a, b in zip(even, indices, strict=True))):
            if even == range(shape[axis]):
                return x
            begin, end, steps = [0] * len(shape), list(shape), [1] * len(shape)
            begin[axis], end[axis], steps[axis] = even.start, even.stop, step
            return self.emit("slice", {"x": x}, begin=tuple(begin), end=tuple(end), step=tuple(steps))
        if len(indices) > MAX_TAKEN:
            raise Refused(f"it picks {len(indices)} elements one by one", f"at most {MAX_TAKEN} are possible")
        return self.emit("take", {"x": x}, axis=axis, indices=tuple(indices))

    def bind(self, output: str, value: str) -> None:
        """Let an ONNX output stand for a graph value, which takes its name if this node made it."""
        graph = self.scope.graph
        made = next((n for n in self.emitted if n.output == value), None)
        if made is not None:
            graph.types[output] = graph.types.pop(value)
            made.output = output
            for node in self.emitted:
                node.inputs = {k: output if v == value else v for k, v in node.inputs.items()}
            value = output
        self.scope.values[output] = value


Importer = Callable[[OnnxNode], "str | list[str]"]
IMPORTERS: dict[str, Importer] = {}
"""By ONNX op type: emits the nodes that replace a node and returns the value (or values) of its outputs."""

importer = registry(IMPORTERS)
"""Register the decorated function for these ONNX operators."""


def label(proto: onnx.NodeProto) -> str:
    """The node's name, or that of its first output."""
    return proto.name or next(iter(proto.output), "")


def normal_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Sorted non-negative axes without repetition."""
    return tuple(sorted({normal_axis(a, rank) for a in axes}))


def _decode(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
