"""ATen operators written as ONNX nodes: those of ``torch.export`` as it gives them, and the core set behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch.fx import Node as Fx

from qcc.frontend.onnx_node import Refused

Operator = Callable[["Writer", Fx], None]


class Writer:
    """The ONNX nodes written so far, and what each node of the exported graph is called among them."""

    def __init__(self) -> None:
        self.names: dict[Fx, str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.arrays: dict[str, NDArray[Any]] = {}
        self.lists: dict[Fx, list[str]] = {}
        """Results of operators that return several tensors."""
        self.current: Fx | None = None
        self.count = 0

    def label(self, node: Fx) -> str:
        """The module that a node belongs to, with the node's own name; or that name alone."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = str(stack[-1][0]).removeprefix("L['self'].") if stack else ""
        return path or node.name

    def add(self, name: str, tensor: Any) -> str:
        """Store a constant."""
        array = tensor.to(torch.float32 if tensor.dtype.is_floating_point else tensor.dtype).cpu().numpy()
        self.arrays[name] = np.asarray(array, order="C")
        self.initializers.append(numpy_helper.from_array(self.arrays[name], name))
        return name

    def array(self, item: Any) -> NDArray[Any]:
        """Contents of an operand that must be a parameter or buffer."""
        name = self.names.get(item)
        if name not in self.arrays:
            raise Refused("its parameters are not constant")
        return self.arrays[name]

    def constant(self, array: Any) -> str:
        """Name of a new constant."""
        self.count += 1
        name = f"_c{self.count}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def ints(self, values: Sequence[int]) -> str:
        """A constant list of integers."""
        return self.constant(np.array([int(v) for v in values], np.int64))

    def value(self, item: Any) -> str:
        """Name of an operand: a node's result, or a number."""
        if isinstance(item, Fx):
            if item not in self.names:
                raise Refused("its operand is not a tensor")
            return self.names[item]
        if isinstance(item, int | float):
            return self.constant(np.float32(item))
        raise Refused(f"its operand is a {type(item).__name__}")

    def emit(self, op: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """Append a node; without a name, its result is an intermediate one."""
        self.count += 1
        name = output or f"_t{self.count}"
        label = self.label(self.current) if self.current is not None else name
        self.nodes.append(helper.make_node(op, list(inputs), [name], label, **attributes))
        return name

    def write(self, node: Fx, op: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Append the ONNX node whose result is the node's."""
        self.names[node] = self.emit(op, inputs, node.name, **attributes)

    def alias(self, node: Fx, value: Any) -> None:
        """The node does nothing."""
        self.names[node] = self.value(value)


def shape(item: Any) -> list[int]:
    """Shape of a node's result."""
    return [int(d) for d in item.meta["val"].shape]


OPERATORS: dict[str, Operator] = {}
"""By name of the overload: writes a node."""


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Register the decorated function for overloads, ``conv2d.default`` being one of ``aten``."""

    def register(function: Operator) -> Operator:
        for name in names:
            OPERATORS[name if name.count(".") != 1 else f"aten.{name}"] = function
        return function

    return register


def arguments(node: Fx) -> dict[str, Any]:
    """All arguments of a call by name, with the defaults of the operator's schema."""
    schema = node.target._schema
    found: dict[str, Any] = {}
    for position, argument in enumerate(schema.arguments):
        if position < len(node.args):
            found[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            found[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            found[argument.name] = argument.default_value
    return found


def several(value: Any, count: int) -> list[int]:
    """A list of ``count`` integers, of which a single one stands for all."""
    items = [value] if isinstance(value, int) else list(value)
    return [int(v) for v in (items * count if len(items) == 1 else items)]


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


@operator("cat.default")
def _cat(w: Writer, node: Fx) -> None:
    a = arguments(node)
    w.write(node, "Concat", [w.value(v) for v in a["tensors"]], axis=int(a["dim"]))


@operator("split.Tensor", "split_with_sizes.default", "chunk.default")
def _split(w: Writer, node: Fx) -> None:
    axis, parts = int(arguments(node)["dim"]), node.meta["val"]
    names = [f"{node.name}_{i}" for i in range(len(parts))]
    sizes = w.ints([int(p.shape[axis]) for p in parts])
    w.nodes.append(helper.make_node("Split", [w.value(node.args[0]), sizes], names, node.name, axis=axis))
    w.lists[node] = names


@operator("getitem")
def _getitem(w: Writer, node: Fx) -> None:
    source, index = node.args
    if not isinstance(source, Fx) or source not in w.lists or int(index) >= len(w.lists[source]):
        raise Refused("this result of its operator is not supported")
    w.names[node] = w.lists[source][int(index)]


@operator("slice.Tensor")
def _slice(w: Writer, node: Fx) -> None:
    a = arguments(node)
    begin, end = a["start"] or 0, a["end"]
    limits = [w.ints([v]) for v in (begin, np.iinfo(np.int64).max if end is None else end, a["dim"], a["step"])]
    w.write(node, "Slice", [w.value(a["self"]), *limits])


@operator("select.int")
def _select(w: Writer, node: Fx) -> None:
    a = arguments(node)
    w.write(node, "Gather", [w.value(a["self"]), w.constant(np.array(a["index"], np.int64))], axis=int(a["dim"]))


@operator("view.default", "_unsafe_view.default", "reshape.default", "flatten.using_ints", "unflatten.int",
          "squeeze.default", "squeeze.dim", "squeeze.dims", "unsqueeze.default")
def _reshape(w: Writer, node: Fx) -> None:
    w.write(node, "Reshape", [w.value(node.args[0]), w.ints(shape(node))])


@operator("permute.default", "transpose.int", "t.default")
def _permute(w: Writer, node: Fx) -> None:
    rank, a = len(shape(node)), arguments(node)
    perm = list(range(rank))
    if "dims" in a:
        perm = [int(d) % rank for d in a["dims"]]
    elif rank > 1:
        first, second = (int(a.get(key, i)) % rank for i, key in enumerate(("dim0", "dim1")))
        perm[first], perm[second] = second, first
    w.write(node, "Transpose", [w.value(a["self"])], perm=perm)


@operator("expand.default")
def _expand(w: Writer, node: Fx) -> None:
    w.write(node, "Expand", [w.value(node.args[0]), w.ints(shape(node))])


@operator("pad.default", "constant_pad_nd.default")
def _pad(w: Writer, node: Fx) -> None:
    a = arguments(node)
    rank = len(shape(a["self"]))
    pads = [int(p) for p in a["pad"]]
    before, after = [0] * rank, [0] * rank
    for i in range(len(pads) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
    mode = a.get("mode", "constant")
    if mode not in modes:
        raise Refused(f"mode '{mode}' is not supported", "use constant, reflect or replicate")
    value = w.constant(np.float32(a.get("value") or 0.0))
    w.write(node, "Pad", [w.value(a["self"]), w.ints([*before, *after]), value], mode=modes[mode])


@operator("pixel_shuffle.default")
def _pixel_shuffle(w: Writer, node: Fx) -> None:
    a = arguments(node)
    w.write(node, "DepthToSpace", [w.value(a["self"])], blocksize=int(a["upscale_factor"]), mode="CRD")


@operator("upsample_nearest2d.vec", "upsample_nearest2d.default", "upsample_bilinear2d.vec",
          "upsample_bilinear2d.default")
def _upsample(w: Writer, node: Fx) -> None:
    a = arguments(node)
    x = next(iter(a.values()))
    bilinear = "bilinear" in str(node.target)
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if bilinear:
        aligned = "align_corners" if a["align_corners"] else "pytorch_half_pixel"
        attributes = {"mode": "linear", "coordinate_transformation_mode": aligned}
    w.write(node, "Resize", [w.value(x), "", "", w.ints(shape(node))], **attributes)


@operator("dropout.default", "dropout_.default", "clone.default", "contiguous.default", "detach.default",
          "detach_.default", "alias.default", "lift_fresh_copy.default", "to.dtype", "to.dtype_layout",
          "_to_copy.default", "feature_dropout.default")
def _nothing(w: Writer, node: Fx) -> None:
    a = arguments(node)
    if a.get("train", False):
        raise Refused("dropout in training mode", "export the model in eval mode")
    dtype = a.get("dtype")
    if dtype is not None and not dtype.is_floating_point:
        raise Refused(f"a conversion to {dtype} is not supported")
    w.alias(node, node.args[0])


LEVELS = {torch.int8: np.int8, torch.uint8: np.uint8, torch.int32: np.int32, torch.int16: np.int16}


def _levels(a: dict[str, Any]) -> Any:
    """NumPy's dtype of the integers; raises ``Refused``."""
    if a["dtype"] not in LEVELS:
        raise Refused(f"it quantizes to {a['dtype']}", "quantize to int8 or uint8")
    return LEVELS[a["dtype"]]


def _limited(w: Writer, x: str, a: dict[str, Any], scale: NDArray[Any], zero: NDArray[Any]) -> str:
    """x within what the quantizer's own limits represent, where they are narrower than the dtype."""
    limits = np.iinfo(_levels(a))
    if (a["quant_min"], a["quant_max"]) == (limits.min, limits.max) or a["dtype"] == torch.int32:
        return x
    bounds = [(q - zero.astype(np.float64)) * scale for q in (a["quant_min"], a["quant_max"])]
    if scale.ndim == 0:
        return w.emit("Clip", [x, *(w.constant(np.float32(b)) for b in bounds)])
    for op, bound in zip(("Max", "Min"), bounds, strict=True):
        x = w.emit(op, [x, w.constant(bound.astype(np.float32))])
    return x


@operator("quantized_decomposed.quantize_per_tensor.default")
def _quantize(w: Writer, node: Fx) -> None:
    a = arguments(node)
    scale, zero = np.asarray(a["scale"], np.float32), np.asarray(a["zero_point"], _levels(a))
    x = _limited(w, w.value(a["input"]), a, scale, zero)
    w.write(node, "QuantizeLinear", [x, w.constant(scale), w.constant(zero)])


@operator("quantized_decomposed.dequantize_per_tensor.default")
def _dequantize(w: Writer, node: Fx) -> None:
    a = arguments(node)
    scale, zero = np.asarray(a["scale"], np.float32), np.asarray(a["zero_point"], _levels(a))
    w.write(node, "DequantizeLinear", [w.value(a["input"]), w.constant(scale), w.constant(zero)])


@operator("quantized_decomposed.quantize_per_channel.default", "quantized_decomposed.dequantize_per_channel.default")
def _per_channel(w: Writer, node: Fx) -> None:
    a = arguments(node)
    scale, zero = (w.array(a[key]) for key in ("scales", "zero_points"))
    parameters = [w.constant(scale.astype(np.float32)), w.constant(zero.astype(_levels(a)))]
    x, op = w.value(a["input"]), "DequantizeLinear" if "dequantize" in str(node.target) else "QuantizeLinear"
    if op == "QuantizeLinear":
        wide = [-1 if i == a["axis"] else 1 for i in range(len(shape(a["input"])))]
        x = _limited(w, x, a, scale.reshape(wide), zero.reshape(wide))
    w.write(node, op, [x, *parameters], axis=int(a["axis"]))
