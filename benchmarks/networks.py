"""Known networks as integer programs with random weights: cycles do not depend on values."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc import numerics
from qcc.ir.graph import Graph, Node, TensorType
from qcc.numerics import QParams
from qcc.ops import OPS

Q = QParams(0.05, -3)
Pad = tuple[int, int, int, int]
"""Top, left, bottom, right."""
VALID: Pad = (0, 0, 0, 0)


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
             dilation: int = 1, depthwise: bool = False, residual: str | None = None, pad: Pad | None = None) -> str:
        (kh, kw), (sh, sw) = ((v, v) if isinstance(v, int) else v for v in (kernel, stride))
        c = self.shape(x)[3]
        pad = pad or self._same(x, (kh, kw), (sh, sw), dilation)
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

    def _same(self, x: str, kernel: tuple[int, int], stride: tuple[int, int], dilation: int = 1) -> Pad:
        total = [max((-(-size // s) - 1) * s + (k - 1) * dilation + 1 - size, 0)
                 for size, k, s in zip(self.shape(x)[1:3], kernel, stride, strict=True)]
        return (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)

    def max_pool(self, x: str, kernel: int, stride: int, pad: Pad | None = None) -> str:
        sides = (kernel, kernel), (stride, stride)
        pad = pad or self._same(x, *sides)
        return self.node("max_pool", {"x": x}, kernel=sides[0], stride=sides[1], pad=pad, dilation=(1, 1))

    def avg_pool(self, x: str, kernel: int) -> str:
        """Of stride 1, as large as its input; the edges count their padding."""
        m, shift = numerics.requant_multipliers([1 / kernel**2])
        return self.node("avg_pool", {"x": x, "multiplier": self.graph.add_constant("m", m)}, kernel=(kernel, kernel),
                         stride=(1, 1), pad=self._same(x, (kernel, kernel), (1, 1)), shift=shift,
                         zero_point=Q.zero_point, clamp=(-128, 127))  # fmt: skip

    def concat(self, *values: str) -> str:
        return self.node("concat", {f"x{i}": v for i, v in enumerate(values)}, axis=3)

    def sized(self, x: str, size: int) -> str:
        """Rows and columns added at the end, or cut there."""
        n, h, w, c = self.shape(x)
        if size > h:
            ends = ((0, 0), (0, size - h), (0, size - w), (0, 0))
            return self.node("pad", {"x": x}, mode="constant", value=0.0, pads=ends)
        if size < h:
            return self.node("slice", {"x": x}, begin=(0,) * 4, end=(n, size, size, c), step=(1,) * 4)
        return x

    def output(self, *values: str) -> Graph:
        self.graph.outputs += values
        return self.graph


MOBILENET_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def mobilenet_v1(alpha: float, height: int, width: int | None = None, output_stride: int = 32) -> tuple[Net, str]:
    """The body, up to the last pointwise convolution; strides beyond ``output_stride`` become dilations."""
    net = Net(f"mobilenet_v1_{alpha}_{height}", 1, height, width or height, 3)
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


def mobilenet_v1_classifier(alpha: float, size: int, last: bool = True) -> Graph:
    net, x = mobilenet_v1(alpha, size)
    x = net.mean(x)
    return net.output(net.dense(x, 1001) if last else x)


def posenet(height: int, width: int) -> Graph:
    """MobileNetV1 0.75 with output stride 16 and the four heads of PoseNet (their decoder is not counted)."""
    net, x = mobilenet_v1(0.75, height, width, output_stride=16)
    return net.output(*(net.conv(x, n) for n in (17, 34, 32, 32)))


def mobilenet_v2(size: int = 224, classes: int = 1001) -> Graph:
    net, x = _mobilenet_v2(size)
    return net.output(net.dense(net.mean(net.conv(x, 1280)), classes))


def _mobilenet_v2(size: int, output_stride: int = 32) -> tuple[Net, str]:
    net = Net(f"mobilenet_v2_{size}", 1, size, size, 3)
    x, reached, dilation = net.conv("x", 32, 3, 2), 2, 1
    for expand, outputs, count, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                                           (6, 160, 3, 2), (6, 320, 1, 1)):
        step = stride if reached * stride <= output_stride else 1
        reached *= step
        for i in range(count):
            inner = net.conv(x, net.shape(x)[3] * expand) if expand > 1 else x
            inner = net.depthwise(inner, 3, step if i == 0 else 1, dilation)
            if i == 0 and stride > step:
                dilation *= stride
            x = net.conv(inner, outputs, residual=x if i else None)
    return net, x


def deeplab(size: int = 513, classes: int = 21) -> Graph:
    """DeepLabv3 on MobileNetV2, output stride 16, up to the logits (not enlarged to the image's size)."""
    net, x = _mobilenet_v2(size, output_stride=16)
    _, h, w, c = net.shape(x)
    pooled = net.conv(net.node("reshape", {"x": net.mean(x)}, shape=(1, 1, 1, c)), 256)
    near = net.concat(net.node("expand", {"x": pooled}, shape=(1, h, w, 256)), net.conv(x, 256))
    return net.output(net.conv(net.conv(near, 256), classes))


def _inverted(name: str, size: int, blocks: tuple[tuple[int, int, int, int, int, bool], ...],
              scale: float = 1.0, depth: float = 1.0) -> Graph:
    """Inverted residuals; ``fused`` ones expand by a full convolution. Blocks: repeats, kernel, stride, expansion,
    outputs, fused.
    """
    net = Net(name, 1, size, size, 3)

    def width(channels: float) -> int:
        return max(8, int(channels * scale + 4) // 8 * 8)

    x = net.conv("x", width(32), 3, 2)
    for repeats, kernel, stride, expand, outputs, fused in blocks:
        for i in range(int(np.ceil(repeats * depth))):
            step, wide = (stride if i == 0 else 1), net.shape(x)[3] * expand
            near = x if expand == 1 or fused else net.conv(x, wide)
            inner = net.conv(x, wide, kernel, step) if fused else net.depthwise(near, kernel, step)
            same = step == 1 and net.shape(x)[3] == width(outputs)
            x = net.conv(inner, width(outputs), residual=x if same else None)
    return net.output(net.dense(net.mean(net.conv(x, 1280)), 1001))


def mobilenet_edgetpu() -> Graph:
    return _inverted("mobilenet_edgetpu", 224, (
        (1, 3, 1, 1, 16, False), (1, 3, 2, 8, 32, True), (3, 3, 1, 4, 32, True), (1, 3, 2, 8, 48, True),
        (3, 3, 1, 4, 48, True), (1, 3, 2, 8, 96, False), (3, 3, 1, 4, 96, False), (1, 3, 1, 8, 96, False),
        (3, 3, 1, 4, 96, False), (1, 5, 2, 8, 160, False), (3, 5, 1, 4, 160, False), (1, 3, 1, 8, 192, False)),
        scale=0.75)  # fmt: skip


def efficientnet_edgetpu(size: int, depth: float) -> Graph:
    """S: 224, 1.0; M: 240, 1.1."""
    return _inverted("efficientnet_edgetpu", size, (
        (1, 3, 1, 3, 24, True), (2, 3, 2, 8, 32, True), (4, 3, 2, 8, 48, True), (5, 5, 2, 8, 96, False),
        (4, 5, 1, 8, 144, False), (2, 5, 2, 8, 192, False)), depth=depth)  # fmt: skip


def squeezenet(size: int = 224, classes: int = 1001) -> Graph:
    """Version 1.0."""
    net = Net("squeezenet", 1, size, size, 3)
    x = net.max_pool(net.conv("x", 96, 7, 2), 3, 2)
    for i, (squeeze, expand) in enumerate(((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256),
                                           (64, 256))):
        x = net.max_pool(x, 3, 2) if i in (3, 7) else x
        x = net.conv(x, squeeze)
        x = net.concat(net.conv(x, expand), net.conv(x, expand, 3))
    return net.output(net.mean(net.conv(x, classes)))


def vgg16(size: int = 224, classes: int = 1000) -> Graph:
    net, x = Net("vgg16", 1, size, size, 3), "x"
    for count, outputs in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(count):
            x = net.conv(x, outputs, 3)
        x = net.max_pool(x, 2, 2)
    x = net.node("reshape", {"x": x}, shape=(1, int(np.prod(net.shape(x)))))
    return net.output(net.dense(net.dense(net.dense(x, 4096), 4096), classes))


INCEPTION_V1 = ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), (192, 96, 208, 16, 48, 64),
                (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
                (256, 160, 320, 32, 128, 128), (256, 160, 320, 32, 128, 128),
                (384, 192, 384, 48, 128, 128))  # fmt: skip
"""Outputs of a block: 1x1; 1x1 and 3x3; 1x1 and 3x3; behind the pool."""


def inception_v1(size: int = 224, classes: int = 1001) -> Graph:
    net = Net("inception_v1", 1, size, size, 3)
    x = net.max_pool(net.conv("x", 64, 7, 2), 3, 2)
    x = net.max_pool(net.conv(net.conv(x, 64), 192, 3), 3, 2)
    for i, (a, b0, b1, c0, c1, d) in enumerate(INCEPTION_V1):
        x = net.max_pool(x, 3 if i == 2 else 2, 2) if i in (2, 7) else x
        x = net.concat(net.conv(x, a), net.conv(net.conv(x, b0), b1, 3), net.conv(net.conv(x, c0), c1, 3),
                       net.conv(net.max_pool(x, 3, 1), d))  # fmt: skip
    return net.output(net.dense(net.mean(x), classes))


def inception_v4(size: int = 299, classes: int = 1001) -> Graph:
    net = Net("inception_v4", 1, size, size, 3)

    def chain(x: str, *layers: tuple[int, int | tuple[int, int]]) -> str:
        for outputs, kernel in layers:
            x = net.conv(x, outputs, kernel)
        return x

    x = net.conv(net.conv(net.conv("x", 32, 3, 2, pad=VALID), 32, 3, pad=VALID), 64, 3)
    x = net.concat(net.max_pool(x, 3, 2, pad=VALID), net.conv(x, 96, 3, 2, pad=VALID))
    x = net.concat(net.conv(net.conv(x, 64), 96, 3, pad=VALID),
                   net.conv(chain(x, (64, 1), (64, (1, 7)), (64, (7, 1))), 96, 3, pad=VALID))
    x = net.concat(net.conv(x, 192, 3, 2, pad=VALID), net.max_pool(x, 3, 2, pad=VALID))
    for _ in range(4):
        x = net.concat(net.conv(x, 96), chain(x, (64, 1), (96, 3)), chain(x, (64, 1), (96, 3), (96, 3)),
                       net.conv(net.avg_pool(x, 3), 96))  # fmt: skip
    x = net.concat(net.conv(x, 384, 3, 2, pad=VALID), net.conv(chain(x, (192, 1), (224, 3)), 256, 3, 2, pad=VALID),
                   net.max_pool(x, 3, 2, pad=VALID))  # fmt: skip
    for _ in range(7):
        x = net.concat(net.conv(x, 384), chain(x, (192, 1), (224, (1, 7)), (256, (7, 1))),
                       chain(x, (192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))),
                       net.conv(net.avg_pool(x, 3), 128))  # fmt: skip
    x = net.concat(net.conv(chain(x, (192, 1)), 192, 3, 2, pad=VALID),
                   net.conv(chain(x, (256, 1), (256, (1, 7)), (320, (7, 1))), 320, 3, 2, pad=VALID),
                   net.max_pool(x, 3, 2, pad=VALID))  # fmt: skip
    for _ in range(3):
        a, b = net.conv(x, 384), chain(x, (384, 1), (448, (1, 3)), (512, (3, 1)))
        x = net.concat(net.conv(x, 256), net.conv(a, 256, (1, 3)), net.conv(a, 256, (3, 1)),
                       net.conv(b, 256, (1, 3)), net.conv(b, 256, (3, 1)), net.conv(net.avg_pool(x, 3), 256))
    return net.output(net.dense(net.mean(x), classes))


def resnet50(size: int = 224) -> Graph:
    net = Net("resnet50", 1, size, size, 3)
    x = net.max_pool(net.conv("x", 64, 7, 2), 3, 2)
    for stage, (count, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        for i in range(count):
            stride = 2 if i == 0 and stage else 1
            short = net.conv(x, 4 * width, 1, stride) if i == 0 else x
            x = net.conv(net.conv(net.conv(x, width, 1, stride), width, 3), 4 * width, residual=short)
    return net.output(net.dense(net.mean(x), 1000))


def resnet50_topology() -> Graph:
    """ResNet-50 with the layer sizes of SCALE-Sim's topology file: 53 convolutions and the dense layer; no pools.

    The file's convolutions are not padded, and have ``ceil((size - kernel) / stride) + 1`` outputs; where the next
    one's stated input is of another size, rows and columns are added or cut.
    """
    net = Net("resnet50_topology", 1, 224, 224, 3)

    def conv(x: str, size: int, outputs: int, kernel: int, stride: int = 1, residual: str | None = None) -> str:
        end = -(size - kernel) % stride
        return net.conv(net.sized(x, size), outputs, kernel, stride, residual=residual, pad=(0, 0, end, end))

    x, size = net.sized(net.max_pool(conv("x", 224, 64, 7, 2), 3, 2), 56), 56
    for stage, (count, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        for i in range(count):
            before, stride = (2 * size, 2) if i == 0 and stage else (size, 1)
            inner = conv(conv(x, before, width, 1, stride), size, width, 3)
            short = net.sized(conv(x, before, 4 * width, 1, stride), size) if i == 0 else x
            x = conv(inner, size, 4 * width, 1, residual=short)
        size //= 2
    return net.output(net.dense(net.mean(x), 1000))
