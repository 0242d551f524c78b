"""Known networks as integer programs with random weights: cycles do not depend on values."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc import numerics
from qcc.ir.graph import Graph, Node, TensorType
from qcc.numerics import QParams
from qcc.ops import OPS

Q = QParams(0.05, -3)


class Net:
    """Appends integer nodes to a graph; images are NHWC, padding is TensorFlow's "same"."""

    def __init__(self, name: str, *shape: int, seed: int = 0) -> None:
        self.graph = Graph(name, ["x"], types={"x": TensorType(shape, "int8", Q)})
        self.rng = np.random.default_rng(seed)

    def node(self, op: str, inputs: dict[str, str], **attrs: Any) -> str:
        node = Node(self.graph.fresh(f"{op}{len(self.graph.nodes)}"), op, inputs, attrs)
        self.graph.types[node.output] = TensorType(OPS[op].infer(node, self.graph.input_types(node)).shape, "int8", Q)
        self.graph.nodes.append(node)
        return node.output

    def shape(self, value: str) -> tuple[int, ...]:
        return self.graph.types[value].shape

    def _weighted(self, op: str, x: str, w: tuple[int, ...], residual: str | None, attrs: dict[str, Any]) -> str:
        add, o = self.graph.add_constant, w[0]
        weight = self.rng.integers(-127, 128, w).astype(np.int8)
        real = np.full(o, 1 / (127 * np.sqrt(np.prod(w[1:]))))
        inputs = {"x": x, "w": add("w", weight, QParams((0.01,) * o, 0, 0)), "b": add("b", np.zeros(o, np.int32))}
        if residual:
            inputs["residual"] = residual
            attrs, real = attrs | {"residual_multiplier": 16, "fraction": 4}, real * 16
        multiplier, shift = numerics.requant_multipliers(real)
        inputs["multiplier"] = add("m", multiplier)
        return self.node(op, inputs, **attrs, shift=shift, zero_point=Q.zero_point, clamp=(-128, 127))

    def conv(self, x: str, channels: int, kernel: int | tuple[int, int] = 1, stride: int | tuple[int, int] = 1,
             dilation: int = 1, depthwise: bool = False, residual: str | None = None) -> str:
        (kh, kw), (sh, sw) = ((v, v) if isinstance(v, int) else v for v in (kernel, stride))
        _, h, w, c = self.shape(x)
        total = [max((-(-size // s) - 1) * s + (k - 1) * dilation + 1 - size, 0)
                 for size, k, s in ((h, kh, sh), (w, kw, sw))]
        pad = (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
        attrs = {"stride": (sh, sw), "pad": pad, "dilation": (dilation, dilation), "groups": c if depthwise else 1}
        return self._weighted("conv2d", x, (channels, kh, kw, 1 if depthwise else c), residual, attrs)

    def depthwise(self, x: str, kernel: int = 3, stride: int = 1, dilation: int = 1) -> str:
        return self.conv(x, self.shape(x)[3], kernel, stride, dilation, depthwise=True)

    def dense(self, x: str, outputs: int) -> str:
        return self._weighted("dense", x, (outputs, self.shape(x)[-1]), None, {})

    def mean(self, x: str) -> str:
        m, shift = numerics.requant_multipliers([1 / np.prod(self.shape(x)[1:3])])
        return self.node("reduce_mean", {"x": x, "multiplier": self.graph.add_constant("m", m)}, axes=(1, 2),
                         keepdims=False, shift=shift, zero_point=Q.zero_point, clamp=(-128, 127))

    def max_pool(self, x: str, kernel: int, stride: int) -> str:
        return self.node("max_pool", {"x": x}, kernel=(kernel, kernel), stride=(stride, stride), pad=(0, 0, 1, 1),
                         dilation=(1, 1))

    def output(self, *values: str) -> Graph:
        self.graph.outputs += values
        return self.graph


MOBILENET_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def mobilenet_v1(alpha: float, height: int, width: int | None = None, classes: int = 1001, channels: int = 3,
                 output_stride: int = 32) -> tuple[Net, str]:
    """The body, up to the last pointwise convolution; strides beyond ``output_stride`` become dilations."""
    net = Net(f"mobilenet_v1_{alpha}_{height}", 1, height, width or height, channels)
    x, reached, dilation = net.conv("x", int(32 * alpha), 3, 2), 2, 1
    for outputs, stride in MOBILENET_V1:
        if stride == 2 and reached == output_stride:
            x = net.depthwise(x, 3, 1, dilation)
            dilation *= 2
        else:
            x = net.depthwise(x, 3, stride, dilation)
            reached *= stride
        x = net.conv(x, int(outputs * alpha))
    return net, x


def mobilenet_v1_classifier(alpha: float, size: int, last: bool = True, classes: int = 1001) -> Graph:
    net, x = mobilenet_v1(alpha, size)
    x = net.mean(x)
    return net.output(net.dense(x, classes) if last else x)


def posenet(height: int, width: int) -> Graph:
    """MobileNetV1 0.75 with output stride 16 and the four heads of PoseNet (their decoder is not counted)."""
    net, x = mobilenet_v1(0.75, height, width, output_stride=16)
    return net.output(*(net.conv(x, n) for n in (17, 34, 32, 32)))


def mobilenet_v2(size: int = 224, classes: int = 1001) -> Graph:
    net = Net(f"mobilenet_v2_{size}", 1, size, size, 3)
    x = net.conv("x", 32, 3, 2)
    for expand, outputs, count, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                                           (6, 160, 3, 2), (6, 320, 1, 1)):
        for i in range(count):
            inner = net.conv(x, net.shape(x)[3] * expand) if expand > 1 else x
            inner = net.depthwise(inner, 3, stride if i == 0 else 1)
            x = net.conv(inner, outputs, residual=x if i else None)
    return net.output(net.dense(net.mean(net.conv(x, 1280)), classes))


def resnet50(size: int = 224) -> Graph:
    net = Net("resnet50", 1, size, size, 3)
    x = net.max_pool(net.conv("x", 64, 7, 2), 3, 2)
    for stage, (count, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        for i in range(count):
            stride = 2 if i == 0 and stage else 1
            short = net.conv(x, 4 * width, 1, stride) if i == 0 else x
            x = net.conv(net.conv(net.conv(x, width, 1, stride), width, 3), 4 * width, residual=short)
    return net.output(net.dense(net.mean(x), 1000))


def resnet8() -> Graph:
    net = Net("resnet8", 1, 32, 32, 3)
    x = net.conv("x", 16, 3)
    for outputs, stride in ((16, 1), (32, 2), (64, 2)):
        short = net.conv(x, outputs, 1, stride) if stride > 1 else x
        x = net.conv(net.conv(x, outputs, 3, stride), outputs, 3, residual=short)
    return net.output(net.dense(net.mean(x), 10))


def keyword_spotting() -> Graph:
    net = Net("kws", 1, 49, 10, 1)
    x = net.conv("x", 64, (10, 4), 2)
    for _ in range(4):
        x = net.conv(net.depthwise(x), 64)
    return net.output(net.dense(net.mean(x), 12))


def visual_wake_words() -> Graph:
    net, x = mobilenet_v1(0.25, 96)
    return net.output(net.dense(net.mean(x), 2))


def anomaly_detection() -> Graph:
    net = Net("ad", 1, 640)
    x = "x"
    for outputs in (128, 128, 128, 128, 8, 128, 128, 128, 128, 640):
        x = net.dense(x, outputs)
    return net.output(x)
