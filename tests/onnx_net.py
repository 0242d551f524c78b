"""A builder of ONNX models for tests, with random weights of sensible size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

Array = NDArray[Any]
Shape = tuple[int, ...]
OPSET = 20


def integers(*values: int) -> Array:
    return np.array(values, np.int64)


def scalar(value: float) -> Array:
    return np.array(value, np.float32)


class Net:
    """Appends ONNX nodes and knows their shapes: ``net("Add", x, array)``; arrays become initializers."""

    def __init__(self, seed: int) -> None:
        self.seed, self.rng = seed, np.random.default_rng(seed)
        self.inputs: list[str] = []
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.shapes: dict[str, Shape] = {}

    def __call__(self, op: str, *operands: str | Array | None, outputs: int = 1, **attributes: Any) -> Any:
        """The output's name, or a list of them where there are several; None leaves an operand out."""
        names = [self._operand(x) for x in operands]
        results = [f"{op.lower()}{len(self.nodes)}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs)]
        node = helper.make_node(op, names, results, name=f"{op}_{len(self.nodes)}", **attributes)
        self.nodes.append(node)
        self.shapes.update(self._shapes(node))
        return results if outputs > 1 else results[0]

    def _operand(self, x: str | Array | None) -> str:
        if not isinstance(x, np.ndarray):
            return x or ""
        name = f"c{len(self.constants)}"
        self.constants[name] = x
        return name

    def _shapes(self, node: onnx.NodeProto) -> dict[str, Shape]:
        arrays = {name: self.constants[name] for name in node.input if name in self.constants}
        types = {v: helper.make_tensor_type_proto(1, self.shapes[v]) for v in node.input if v in self.shapes}
        types |= {k: helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                  for k, a in arrays.items()}
        found = shape_inference.infer_node_outputs(
            onnx.defs.get_schema(node.op_type, OPSET), node, types,
            {k: numpy_helper.from_array(a, k) for k, a in arrays.items()},
            opset_imports=[helper.make_opsetid("", OPSET)])
        return {k: tuple(d.dim_value for d in t.tensor_type.shape.dim) for k, t in found.items()}

    def input(self, *shape: int) -> str:
        name = f"in{len(self.inputs)}"
        self.inputs.append(name)
        self.shapes[name] = shape
        return name

    def pick(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        return (scale * self.rng.normal(size=shape)).astype(np.float32)

    def weights(self, *shape: int) -> Array:
        """Rows that keep the variance, sometimes of very different sizes, sometimes with one of zeros."""
        w = self.normal(*shape) / math.sqrt(max(1, math.prod(shape[1:])))
        if self.chance(0.3):
            w *= (2.0 ** self.rng.uniform(-5, 1, (shape[0], *[1] * (len(shape) - 1)))).astype(np.float32)
        if self.chance(0.1):
            w[0] = 0
        return w

    def model(self, *outputs: str) -> onnx.ModelProto:
        integers = {n.output[0] for n in self.nodes if n.op_type == "ArgMax"}
        graph = helper.make_graph(
            self.nodes, f"random_{self.seed}",
            [helper.make_tensor_value_info(v, 1, self.shapes[v]) for v in self.inputs],
            [helper.make_tensor_value_info(v, 7 if v in integers else 1, self.shapes[v]) for v in outputs],
            [numpy_helper.from_array(a, k) for k, a in self.constants.items()])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(made, full_check=True)
        return made
