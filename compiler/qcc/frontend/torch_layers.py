"""ATen layers, products, pools and reductions as ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.fx import Node as Fx

from qcc.frontend.refused import Refused
from qcc.frontend.torch_node import Writer, arguments, operator, several, shape


@operator("conv1d.default", "conv2d.default", "conv1d.padding", "conv2d.padding")
def _conv(w: Writer, node: Fx) -> None:
    a = arguments(node)
    rank = len(shape(a["input"])) - 2
    geometry: dict[str, Any] = {"strides": several(a["stride"], rank), "dilations": several(a["dilation"], rank)}
    if a["padding"] == "same":
        geometry["auto_pad"] = "SAME_UPPER"
    elif a["padding"] != "valid":
        geometry["pads"] = several(a["padding"], rank) * 2
    _convolve(w, node, "Conv", a, geometry)


@operator("conv_transpose1d.default", "conv_transpose2d.input")
def _conv_transpose(w: Writer, node: Fx) -> None:
    a = arguments(node)
    rank = len(shape(a["input"])) - 2
    _convolve(w, node, "ConvTranspose", a, {
        "strides": several(a["stride"], rank), "dilations": several(a["dilation"], rank),
        "pads": several(a["padding"], rank) * 2, "output_padding": several(a["output_padding"], rank)})


@operator("convolution.default")
def _convolution(w: Writer, node: Fx) -> None:
    a = arguments(node)
    rank = len(shape(a["input"])) - 2
    geometry = {"strides": several(a["stride"], rank), "dilations": several(a["dilation"], rank),
                "pads": several(a["padding"], rank) * 2}
    if a["transposed"]:
        geometry["output_padding"] = several(a["output_padding"], rank)
    _convolve(w, node, "ConvTranspose" if a["transposed"] else "Conv", a, geometry)


def _convolve(w: Writer, node: Fx, op: str, a: dict[str, Any], geometry: dict[str, Any]) -> None:
    inputs = [w.value(a["input"]), w.value(a["weight"])] + ([w.value(a["bias"])] if a.get("bias") is not None else [])
    w.write(node, op, inputs, group=int(a["groups"]), **geometry)


@operator("linear.default")
def _linear(w: Writer, node: Fx) -> None:
    a = arguments(node)
    turned = w.emit("Transpose", [w.value(a["weight"])], perm=[1, 0])
    inputs = [w.value(a["input"]), turned]
    if a["bias"] is None:
        w.write(node, "MatMul", inputs)
    elif len(shape(a["input"])) == 2:
        w.write(node, "Gemm", [*inputs, w.value(a["bias"])])
    else:
        w.write(node, "Add", [w.emit("MatMul", inputs), w.value(a["bias"])])


@operator("addmm.default")
def _addmm(w: Writer, node: Fx) -> None:
    a = arguments(node)
    w.write(node, "Gemm", [w.value(a["mat1"]), w.value(a["mat2"]), w.value(a["self"])], alpha=float(a["alpha"]),
            beta=float(a["beta"]))


@operator("mm.default", "bmm.default", "matmul.default")
def _matmul(w: Writer, node: Fx) -> None:
    w.write(node, "MatMul", [w.value(v) for v in node.args[:2]])


@operator("batch_norm.default", "_native_batch_norm_legit_no_training.default", "_native_batch_norm_legit.default")
def _batch_norm(w: Writer, node: Fx) -> None:
    a = arguments(node)
    if a.get("training", False):
        raise Refused("it takes its statistics from the batch",
                      "export the model in eval mode (after prepare_qat_pt2e: move_exported_model_to_eval)")
    channels = shape(a["input"])[1]
    defaults = (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0))
    statistics = [w.constant(np.full(channels, d, np.float32)) if a.get(k) is None else w.value(a[k])
                  for k, d in defaults]
    w.write(node, "BatchNormalization", [w.value(a["input"]), *statistics], epsilon=float(a["eps"]))
    w.lists[node] = [node.name]


@operator("max_pool1d.default", "max_pool2d.default", "max_pool2d_with_indices.default")
def _max_pool(w: Writer, node: Fx) -> None:
    a = arguments(node)
    w.write(node, "MaxPool", [w.value(a["self"])], dilations=several(a["dilation"], _windows(a)), **_window(a))
    w.lists[node] = [node.name]


@operator("avg_pool1d.default", "avg_pool2d.default")
def _avg_pool(w: Writer, node: Fx) -> None:
    a = arguments(node)
    if a.get("divisor_override") is not None:
        raise Refused("divisor_override is not supported", "multiply the result instead")
    w.write(node, "AveragePool", [w.value(a["self"])], count_include_pad=int(a["count_include_pad"]), **_window(a))


def _windows(a: dict[str, Any]) -> int:
    """How many axes a pool has windows along."""
    return len(shape(a["self"])) - 2


def _window(a: dict[str, Any]) -> dict[str, Any]:
    kernel = several(a["kernel_size"], _windows(a))
    return {"kernel_shape": kernel, "strides": several(a["stride"] or kernel, _windows(a)),
            "pads": several(a["padding"], _windows(a)) * 2, "ceil_mode": int(a["ceil_mode"])}


@operator("adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default", "_adaptive_avg_pool2d.default",
          "adaptive_max_pool2d.default")
def _adaptive_pool(w: Writer, node: Fx) -> None:
    a = arguments(node)
    before = shape(a["self"])[2:]
    after = several(a["output_size"], len(before))
    if any(b % n for b, n in zip(before, after, strict=True)):
        raise Refused(f"{before} is not a multiple of {after}", "choose an output size that divides the input")
    kernel = [b // n for b, n in zip(before, after, strict=True)]
    op = "MaxPool" if "max" in str(node.target) else "AveragePool"
    x = w.value(a["self"])
    if set(after) == {1}:
        w.write(node, f"Global{op}", [x])
    else:
        w.write(node, op, [x], kernel_shape=kernel, strides=kernel)
    w.lists[node] = [node.name]


@operator("mean.dim", "mean.default", "sum.dim_IntList", "amax.default")
def _reduce(w: Writer, node: Fx) -> None:
    a, name = arguments(node), str(node.target).split(".")[1]
    axes = a.get("dim")
    axes = list(range(len(shape(a["self"])))) if axes is None or axes == [] else several(axes, 1)
    op = {"mean": "ReduceMean", "sum": "ReduceSum", "amax": "ReduceMax"}[name]
    w.write(node, op, [w.value(a["self"]), w.ints(axes)], keepdims=int(a.get("keepdim", False)))


@operator("argmax.default")
def _argmax(w: Writer, node: Fx) -> None:
    a = arguments(node)
    if a["dim"] is None:
        raise Refused("it needs an axis", "give argmax a dim")
    w.write(node, "ArgMax", [w.value(a["self"])], axis=int(a["dim"]), keepdims=int(a["keepdim"]))


@operator("softmax.int", "_softmax.default")
def _softmax(w: Writer, node: Fx) -> None:
    a = arguments(node)
    w.write(node, "Softmax", [w.value(a["self"])], axis=int(a["dim"]))
