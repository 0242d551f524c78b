"""Elementwise ATen operators as ONNX nodes."""

from __future__ import annotations

import math

import numpy as np
from torch.fx import Node as Fx

from qcc.frontend.refused import Refused
from qcc.frontend.torch_node import Writer, arguments, operator, shape

SIMPLE = {
    "relu": "Relu", "relu_": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "erf": "Erf", "exp": "Exp", "log": "Log",
    "sqrt": "Sqrt", "neg": "Neg", "abs": "Abs", "floor": "Floor", "ceil": "Ceil", "reciprocal": "Reciprocal",
    "hardswish": "HardSwish", "hardswish_": "HardSwish", "mish": "Mish", "softplus": "Softplus", "selu": "Selu",
    "hardsigmoid": "HardSigmoid", "hardsigmoid_": "HardSigmoid",
}  # fmt: skip


def _simple(w: Writer, node: Fx) -> None:
    name = str(node.target).split(".")[1]
    attributes = {"alpha": 1 / 6} if SIMPLE[name] == "HardSigmoid" else {}
    if name == "softplus" and (arguments(node)["beta"], arguments(node)["threshold"]) != (1, 20):
        raise Refused("only beta 1 and threshold 20 are supported")
    w.write(node, SIMPLE[name], [w.value(node.args[0])], **attributes)


for _name in SIMPLE:
    operator(f"{_name}.default")(_simple)


@operator("relu6.default", "relu6_.default", "hardtanh.default", "hardtanh_.default", "clamp.default", "clamp_.default",
          "clamp_min.default", "clamp_max.default")
def _clip(w: Writer, node: Fx) -> None:
    a, name = arguments(node), str(node.target)
    low, high = a.get("min", a.get("min_val")), a.get("max", a.get("max_val"))
    if "relu6" in name:
        low, high = 0.0, 6.0
    bounds = ["" if b is None else w.constant(np.float32(b)) for b in (low, high)]
    w.write(node, "Clip", [w.value(a["self"]), *bounds])


@operator("silu.default", "silu_.default")
def _silu(w: Writer, node: Fx) -> None:
    x = w.value(node.args[0])
    w.write(node, "Mul", [x, w.emit("Sigmoid", [x])])


@operator("gelu.default")
def _gelu(w: Writer, node: Fx) -> None:
    a = arguments(node)
    w.write(node, "Gelu", [w.value(a["self"])], approximate=a["approximate"])


@operator("leaky_relu.default", "leaky_relu_.default")
def _leaky_relu(w: Writer, node: Fx) -> None:
    a = arguments(node)
    w.write(node, "LeakyRelu", [w.value(a["self"])], alpha=float(a["negative_slope"]))


@operator("elu.default", "elu_.default")
def _elu(w: Writer, node: Fx) -> None:
    a = arguments(node)
    if (a["scale"], a["input_scale"]) != (1, 1):
        raise Refused("only scale 1 and input_scale 1 are supported")
    w.write(node, "Elu", [w.value(a["self"])], alpha=float(a["alpha"]))


@operator("prelu.default", "_prelu_kernel.default")
def _prelu(w: Writer, node: Fx) -> None:
    x, slope = node.args[:2]
    if not isinstance(slope, Fx):
        raise Refused("its slope is not a tensor")
    size = math.prod(shape(slope))
    wide = [size] + [1] * (len(shape(x)) - 2) if size > 1 else [1]
    w.write(node, "PRelu", [w.value(x), w.emit("Reshape", [w.value(slope), w.ints(wide)])])


@operator("rsqrt.default")
def _rsqrt(w: Writer, node: Fx) -> None:
    w.write(node, "Reciprocal", [w.emit("Sqrt", [w.value(node.args[0])])])


@operator("pow.Tensor_Scalar")
def _pow(w: Writer, node: Fx) -> None:
    w.write(node, "Pow", [w.value(node.args[0]), w.value(node.args[1])])


@operator("add.Tensor", "add_.Tensor", "add.Scalar", "sub.Tensor", "sub_.Tensor", "sub.Scalar", "rsub.Scalar",
          "mul.Tensor", "mul_.Tensor", "mul.Scalar", "div.Tensor", "div_.Tensor", "div.Scalar", "maximum.default",
          "minimum.default")
def _binary(w: Writer, node: Fx) -> None:
    a, name = arguments(node), str(node.target).split(".")[1].rstrip("_")
    left, right = w.value(a["self"]), w.value(a["other"])
    if a.get("alpha", 1) != 1:
        right = w.emit("Mul", [right, w.value(a["alpha"])])
    if name == "rsub":
        left, right, name = right, left, "sub"
    names = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "maximum": "Max", "minimum": "Min"}
    w.write(node, names[name], [left, right])
