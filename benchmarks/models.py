"""Well-known classifiers as float32 ONNX graphs with seeded random weights: right for speed, useless for accuracy.

The graphs look as an export of the trained network in inference mode does: batch 1, NCHW, batch norms folded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Activation = Literal["relu", "relu6"]


@dataclass
class Builder:
    """Appends layers to one graph; a value's channels are remembered by its name."""

    name: str
    size: int = 224
    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    channels: dict[str, int] = field(default_factory=lambda: {"input": 3})

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def _node(self, op: str, inputs: list[str], channels: int, **attributes: object) -> str:
        value = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [value], name=value, **attributes))
        self.channels[value] = channels
        return value

    def _weight(self, array: np.ndarray) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv(
        self,
        x: str,
        out: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = None,
        gain: float = 1.0,
    ) -> str:
        """Convolution with "same" padding; weights of variance ``2 * gain^2 / fan_in`` keep activations level."""
        fan_in = self.channels[x] // groups * kernel * kernel
        weight = self.rng.normal(0, gain * np.sqrt(2 / fan_in), (out, self.channels[x] // groups, kernel, kernel))
        inputs = [x, self._weight(weight), self._weight(self.rng.normal(0, 0.05, out))]
        y = self._node("Conv", inputs, out, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4,
                       dilations=[1, 1], group=groups)
        return self.activate(y, activation)

    def activate(self, x: str, activation: Activation | None) -> str:
        """Relu, ReLU6 (a Clip) or nothing."""
        if activation == "relu":
            return self._node("Relu", [x], self.channels[x])
        if activation == "relu6":
            low, high = self._weight(np.array(0.0)), self._weight(np.array(6.0))
            return self._node("Clip", [x, low, high], self.channels[x])
        return x

    def add(self, a: str, b: str, activation: Activation | None = None) -> str:
        """Residual addition."""
        return self.activate(self._node("Add", [a, b], self.channels[a]), activation)

    def max_pool(self, x: str) -> str:
        """3x3, stride 2, padding 1."""
        return self._node("MaxPool", [x], self.channels[x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    def classify(self, x: str, classes: int = 1000) -> onnx.ModelProto:
        """Global average pool, dense layer; returns the finished, shape-inferred model."""
        flat = self._node("Flatten", [self._node("GlobalAveragePool", [x], self.channels[x])], self.channels[x], axis=1)
        weight = self.rng.normal(0, np.sqrt(1 / self.channels[x]), (classes, self.channels[x]))
        inputs = [flat, self._weight(weight), self._weight(np.zeros(classes))]
        self.nodes.append(helper.make_node("Gemm", inputs, ["output"], name="classifier", transB=1))
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, self.size, self.size])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, classes])],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        return onnx.shape_inference.infer_shapes(model)


def mobilenet_v1(width: float) -> onnx.ModelProto:
    """MobileNetV1, 224x224; at width 0.75 325 M multiply-accumulates."""
    b = Builder(f"mobilenet_v1_{round(width * 100):03}")
    x = b.conv("input", int(32 * width), 3, stride=2, activation="relu6")
    stages = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for out, stride in stages:
        x = b.conv(x, b.channels[x], 3, stride=stride, groups=b.channels[x], activation="relu6")
        x = b.conv(x, int(out * width), 1, activation="relu6")
    return b.classify(x)


RESIDUAL_GAIN = 0.4
"""Of a block's last convolution: a sum of many unit-variance branches would grow with depth."""


def mobilenet_v2() -> onnx.ModelProto:
    """MobileNetV2 1.0, 224x224, 300 M multiply-accumulates."""
    b = Builder("mobilenet_v2")
    x = b.conv("input", 32, 3, stride=2, activation="relu6")
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expansion, out, repeats, first_stride in stages:
        for index in range(repeats):
            stride, hidden = (first_stride if index == 0 else 1), b.channels[x] * expansion
            y = b.conv(x, hidden, 1, activation="relu6") if expansion > 1 else x
            y = b.conv(y, hidden, 3, stride=stride, groups=hidden, activation="relu6")
            same = stride == 1 and b.channels[x] == out
            y = b.conv(y, out, 1, gain=RESIDUAL_GAIN if same else 1.0)
            x = b.add(x, y) if same else y
    return b.classify(b.conv(x, 1280, 1, activation="relu6"))


def resnet(name: str, repeats: tuple[int, ...], bottleneck: bool) -> onnx.ModelProto:
    """ResNet with basic or bottleneck blocks (the stride is in the 3x3, projection shortcuts)."""
    b = Builder(name)
    x = b.max_pool(b.conv("input", 64, 7, stride=2, activation="relu"))
    for stage, count in enumerate(repeats):
        width = 64 << stage
        out = width * 4 if bottleneck else width
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            if bottleneck:
                y = b.conv(x, width, 1, activation="relu")
                y = b.conv(y, width, 3, stride=stride, activation="relu")
                y = b.conv(y, out, 1, gain=RESIDUAL_GAIN)
            else:
                y = b.conv(x, width, 3, stride=stride, activation="relu")
                y = b.conv(y, out, 3, gain=RESIDUAL_GAIN)
            same = stride == 1 and b.channels[x] == out
            shortcut = x if same else b.conv(x, out, 1, stride=stride, gain=0.7)
            x = b.add(y, shortcut, "relu")
    return b.classify(x)


BUILDERS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mobilenet_v1_075": lambda: mobilenet_v1(0.75),
    "mobilenet_v2": mobilenet_v2,
    "resnet18": lambda: resnet("resnet18", (2, 2, 2, 2), bottleneck=False),
    "resnet50": lambda: resnet("resnet50", (3, 4, 6, 3), bottleneck=True),
}


def count_macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of the Conv, Gemm and MatMul nodes of a static model."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {t.name: list(t.dims) for t in graph.initializer}
    for info in (*graph.input, *graph.value_info, *graph.output):
        shapes[info.name] = [d.dim_value for d in info.type.tensor_type.shape.dim]
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            per_output = np.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            per_output = shapes[node.input[0]][0 if transposed else -1]
        else:
            continue
        total += int(np.prod(shapes[node.output[0]]) * per_output)
    return total
