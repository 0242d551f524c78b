"""What writes ATen operators as ONNX nodes: the writer, and the registry of the functions that use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch.fx import Node as Fx

from qcc.frontend.refused import Refused

Operator = Callable[["Writer", Fx], None]


class Writer:
    """The ONNX nodes written so far, and what each node of the exported graph is called among them."""

    def __init__(self) -> None:
        self.names: dict[Fx, str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.arrays: dict[str, NDArray[Any]] = {}
        self.lists: dict[Fx, list[str]] = {}
        """Results of operators that return several tensors."""
        self.current: Fx | None = None
        self.count = 0

    def label(self, node: Fx) -> str:
        """The module that a node belongs to, with the node's own name; or that name alone."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = str(stack[-1][0]).removeprefix("L['self'].") if stack else ""
        return path or node.name

    def add(self, name: str, tensor: Any) -> str:
        """Store a constant."""
        array = tensor.to(torch.float32 if tensor.dtype.is_floating_point else tensor.dtype).cpu().numpy()
        self.arrays[name] = np.asarray(array, order="C")
        self.initializers.append(numpy_helper.from_array(self.arrays[name], name))
        return name

    def array(self, item: Any) -> NDArray[Any]:
        """Contents of an operand that must be a parameter or buffer."""
        name = self.names.get(item)
        if name not in self.arrays:
            raise Refused("its parameters are not constant")
        return self.arrays[name]

    def constant(self, array: Any) -> str:
        """Name of a new constant."""
        self.count += 1
        name = f"_c{self.count}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def ints(self, values: Sequence[int]) -> str:
        """A constant list of integers."""
        return self.constant(np.array([int(v) for v in values], np.int64))

    def value(self, item: Any) -> str:
        """Name of an operand: a node's result, or a number."""
        if isinstance(item, Fx):
            if item not in self.names:
                raise Refused("its operand is not a tensor")
            return self.names[item]
        if isinstance(item, int | float):
            return self.constant(np.float32(item))
        raise Refused(f"its operand is a {type(item).__name__}")

    def emit(self, op: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """Append a node; without a name, its result is an intermediate one."""
        self.count += 1
        name = output or f"_t{self.count}"
        label = self.label(self.current) if self.current is not None else name
        self.nodes.append(helper.make_node(op, list(inputs), [name], label, **attributes))
        return name

    def write(self, node: Fx, op: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Append the ONNX node whose result is the node's."""
        self.names[node] = self.emit(op, inputs, node.name, **attributes)

    def alias(self, node: Fx, value: Any) -> None:
        """The node does nothing."""
        self.names[node] = self.value(value)


def shape(item: Any) -> list[int]:
    """Shape of a node's result."""
    return [int(d) for d in item.meta["val"].shape]


OPERATORS: dict[str, Operator] = {}
"""By name of the overload: writes a node."""


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Register the decorated function for overloads, ``conv2d.default`` being one of ``aten``."""

    def register(function: Operator) -> Operator:
        for name in names:
            OPERATORS[name if name.count(".") != 1 else f"aten.{name}"] = function
        return function

    return register


def arguments(node: Fx) -> dict[str, Any]:
    """All arguments of a call by name, with the defaults of the operator's schema."""
    schema = node.target._schema
    found: dict[str, Any] = {}
    for position, argument in enumerate(schema.arguments):
        if position < len(node.args):
            found[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            found[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            found[argument.name] = argument.default_value
    return found


def several(value: Any, count: int) -> list[int]:
    """A list of ``count`` integers, of which a single one stands for all."""
    items = [value] if isinstance(value, int) else list(value)
    return [int(v) for v in (items * count if len(items) == 1 else items)]
