"""Train the digits model and write ``digits.onnx``: convolutions, a depthwise-separable and a residual block.

The file is committed, so this need not be run. It wants packages that qcc does not:

    python3 -m venv torchvenv && torchvenv/bin/pip install torch==2.13.0 onnx onnxscript scikit-learn
    torchvenv/bin/python examples/01_digits/train.py
"""

from __future__ import annotations

from pathlib import Path

import data
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

EPOCHS, BATCH = 80, 64


def conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """``relu(x + f(x))`` with two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_bn_relu(channels, channels, 3)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)))


class Digits(nn.Module):
    """[N, 1, 8, 8] in [0, 1] to ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn_relu(1, 16, 3)
        self.depthwise = conv_bn_relu(16, 16, 3, groups=16)
        self.pointwise = conv_bn_relu(16, 32, 1)
        self.down = conv_bn_relu(32, 32, 3, stride=2)
        self.residual = Residual(32)
        self.classify = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(self.pointwise(self.depthwise(self.stem(x))))
        return self.classify(self.residual(x).mean((2, 3)))


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """The batch moved by up to one pixel each way."""
    down, right = torch.randint(-1, 2, (2,), generator=generator).tolist()
    return torch.roll(functional.pad(x, (1, 1, 1, 1)), (down, right), (2, 3))[:, :, 1:-1, 1:-1]


def train(model: nn.Module, x: Tensor, y: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
    steps = EPOCHS * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = functional.cross_entropy(model(shifted(x[rows], generator)), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def export(model: nn.Module, path: Path) -> None:
    """Opset 18, batch 1; layers named as in the model, without the exporter's notes on source lines."""
    program = torch.onnx.export(
        model, (torch.zeros(1, 1, 8, 8),), input_names=["image"], output_names=["logits"], opset_version=18, dynamo=True
    )
    proto = program.model_proto
    graph = proto.graph
    for item in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    graph.ClearField("value_info")
    graph.name = "digits"
    proto.producer_name, proto.producer_version = "", ""
    name_layers(graph)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def name_layers(graph: onnx.GraphProto) -> None:
    """Name nodes and their outputs after the layer whose weights they use; a Relu after what it follows."""
    renamed: dict[str, str] = {}
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        layers = [name.removesuffix(".weight").removesuffix(".0") for name in node.input if name.endswith(".weight")]
        if layers:
            node.name = layers[0]
        else:
            node.name = f"{node.input[0]}.relu" if node.op_type == "Relu" else node.op_type.lower()
        if node.output[0] != "logits":
            renamed[node.output[0]] = node.name
            node.output[0] = node.name


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    (train_x, train_y), (test_x, test_y) = data.load()
    model = Digits()
    train(model, torch.from_numpy(train_x), torch.from_numpy(train_y))
    model.eval()
    with torch.no_grad():
        correct = model(torch.from_numpy(test_x)).argmax(1) == torch.from_numpy(test_y)
    print(f"test accuracy {correct.float().mean():.4f} ({correct.sum()} of {len(correct)})")
    path = Path(__file__).with_name("digits.onnx")
    export(model, path)
    print(f"wrote {path.name}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
