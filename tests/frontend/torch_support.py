"""PyTorch models in qcc: each layer beside fake-quantized PyTorch, and a network with trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from qcc import pipeline
from qcc.frontend.torch import exported
from qcc.ir.graph import Graph
from qcc.ops import OPS

torch.set_num_threads(1)  # tests run beside each other, and small layers wait for threads longer than they compute


class Block(nn.Module):
    """Two convolutions beside a shortcut that drops rows and pads channels."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.extra = (outer - inner) // 2

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
        return torch.relu(y + x)


class ResNet20(nn.Module):
    """For CIFAR-10: [N, 3, 32, 32] to ten logits. ``models`` holds the file of its trained weights."""

    def __init__(self, models: Path) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)
        self.load_state_dict(torch.load(models / "resnet20_cifar10_state.pt", weights_only=True))

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


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
