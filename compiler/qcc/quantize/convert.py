"""Float graph and chosen parameters → integer graph; each op writes its own integer form through ``Converter``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics
from qcc.ir.graph import Attr, Graph, Node, TensorType
from qcc.numerics import QParams
from qcc.ops import OPS


@dataclass
class Converter:
    """What ``Op.quantize`` works with. Integer values keep the names of the float values they stand for."""

    source: Graph
    params: Mapping[str, QParams]
    graph: Graph
    remarks: list[str] = field(default_factory=list)

    def qparams(self, value: str) -> QParams:
        """Parameters of a float value (activation, or a constant used as one)."""
        if value not in self.params and value in self.source.constants:
            array = self.source.constants[value]
            return numerics.activation_qparams(float(array.min()), float(array.max()))
        return self.params[value]

    def value(self, value: str) -> str:
        """The integer value that stands for a float value; a constant is quantized per tensor on first use."""
        if value not in self.graph.types:
            q = self.qparams(value)
            self.graph.constants[value] = numerics.quantize(self.source.constants[value], q)
            self.graph.types[value] = TensorType(self.source.types[value].shape, "int8", q)
        return value

    def constant(self, value: str) -> NDArray[Any]:
        """Float array of a constant input."""
        return self.source.constants[value]

    def weight_scales(self, node: Node, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scale of each output channel (axis 0) of a weighted node."""
        return numerics.weight_scales(weight, 0)

    def emit_constant(self, hint: str, array: NDArray[Any], q: QParams | None = None) -> str:
        """Add an integer constant; returns its name."""
        return self.graph.add_constant(hint, array, q)

    def emit(self, node: Node, op: str, inputs: dict[str, str], attrs: dict[str, Attr]) -> str:
        """Append the integer node that produces ``node.output``, typed by its op's rule and the chosen parameters."""
        new = Node(node.output, op, inputs, attrs, node.source)
        inferred = OPS[op].infer(new, {key: self.graph.types[v] for key, v in inputs.items()})
        q = self.params[node.output] if inferred.dtype == "int8" else None
        self.graph.types[node.output] = TensorType(inferred.shape, inferred.dtype, q)
        self.graph.nodes.append(new)
        return node.output

    def remark(self, node: Node, text: str) -> None:
        """Something the user should read in the report."""
        self.remarks.append(f"{node.output}: {text}")
