"""PyTorch models in qcc: the same function, and each layer beside fake-quantized PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from qcc import pipeline
from qcc.frontend.torch import exported
from qcc.ir.graph import Graph
from qcc.ops import OPS


class Recorder(torch.fx.Interpreter):
    """Runs an exported graph and keeps every value by its name."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.values: dict[str, Any] = {}

    def run_node(self, n: Any) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self.values[n.name] = result.detach().numpy()
        return result


def layer_distances(converted: Any, inputs: tuple[Any, ...]) -> dict[str, float]:
    """Largest distance of each integer node from a converted PT2E model, in steps, both given PyTorch's operands."""
    program = exported(converted, inputs)
    stages: dict[str, Graph] = dict(pipeline.stages(program))
    graph, integer = stages["simplify"], stages["quantize"]
    recorder = Recorder(program.module())
    recorder.run(*inputs)
    known: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op != "fake_quant":
            continue
        (name,) = {v for v in recorder.values if node.source.endswith(f"'{v}'")} or {""}
        value = f"{node.output}.int8" if node.output in graph.outputs else node.inputs["x"]
        q = integer.types.get(value)
        if name and q is not None and q.qparams is not None:
            levels = recorder.values[name]
            known[value] = np.asarray(levels.transpose(0, 2, 3, 1) if levels.ndim == 4 else levels)
    for value in [v for v in graph.inputs if v in known]:
        users = [n.output for n in integer.nodes if n.inputs.get("x") == value]
        known[users[0]] = known.pop(value)
    found: dict[str, float] = {}
    for node in integer.nodes:
        operands = {k: integer.constants.get(v, known.get(v)) for k, v in node.inputs.items()}
        if node.op in ("quantize", "dequantize") or any(a is None for a in operands.values()):
            continue
        y = OPS[node.op].integer(node, operands, integer.input_types(node), integer.types[node.output])
        if node.output in known:
            found[node.output] = float(np.abs(y.astype(int) - known[node.output].astype(int)).max())
        else:
            known[node.output] = y  # a move: PyTorch does not quantize its result again
    return found
