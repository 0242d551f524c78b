"""Quantization-aware training for qcc: a quantizer for torchao's ``prepare_pt2e`` and ``prepare_qat_pt2e``.

    graph = torch.export.export(model, example_inputs).module()
    prepared = prepare_qat_pt2e(graph, QccQuantizer())      # or prepare_pt2e, for calibration alone
    …                                                       # train, or run samples
    compiled = qcc.compile(convert_pt2e(prepared), example_inputs=example_inputs)

Values are quantized exactly where qcc's integer program stores them in int8: not between a layer and the batch norm,
addition or clip that it does itself. The compiled model then computes what was trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.fx import Node
from torchao.quantization.pt2e import (
    FusedMovingAvgObsFakeQuantize,
    HistogramObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantizer import (
    DerivedQuantizationSpec,
    FixedQParamsQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    QuantizationSpecBase,
    Quantizer,
    SharedQuantizationSpec,
)

from qcc import numerics
from qcc.target import Target

__all__ = ["QccQuantizer"]

LAYERS = {"conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "convolution", "linear"}
NORMS = {"batch_norm", "_native_batch_norm_legit_no_training"}
CLIPS = {"relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_", "clamp", "clamp_", "clamp_min", "clamp_max"}
SUMS = {"add", "add_"}
CLIPPED = SUMS | {"sub", "sub_", "mul", "mul_"}
"""Operators without weights that a clip is fused into."""
MOVES = {"max_pool1d", "max_pool2d", "flatten", "view", "reshape", "unflatten", "permute", "transpose", "t", "slice",
         "select", "squeeze", "unsqueeze", "expand", "cat", "pad", "constant_pad_nd", "upsample_nearest2d",
         "pixel_shuffle", "adaptive_max_pool2d", "maximum", "minimum", "amax", "dropout", "clone",
         "contiguous"}  # fmt: skip
"""Operators whose result has the parameters of their operands."""
COMPUTED = CLIPS | CLIPPED | {
    "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "sigmoid", "silu", "silu_", "tanh", "gelu", "leaky_relu",
    "leaky_relu_", "elu", "elu_", "prelu", "mish", "softplus", "exp", "log", "sqrt", "abs", "neg", "div", "div_", "pow",
    "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean", "sum", "matmul", "bmm",
    "upsample_bilinear2d",
}  # fmt: skip
"""Operators whose operands and result each have parameters of their own."""


class QccQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates an exported graph with what qcc's integer programs do.

    Activations: int8, one scale and zero point; weights: int8 in [-127, 127], one scale for each output channel;
    biases: int32 in steps of both scales (those in front of a batch norm that still trains stay float, and become so
    in qcc). ``target``: a name, file or ``Target``; all targets compute the same program, so that it is only checked to
    exist. ``qat``: observers that train, for ``prepare_qat_pt2e``.
    """

    def __init__(self, target: str | Path | Target = "host", *, qat: bool = False) -> None:
        super().__init__()
        self.target = target if isinstance(target, Target) else Target.load(target)
        limits = {"quant_min": numerics.INT8_MIN, "quant_max": numerics.INT8_MAX}
        narrow = {"quant_min": -numerics.WEIGHT_MAX, "quant_max": numerics.WEIGHT_MAX}
        epsilon = {"eps": 2.0**-24}
        train = FusedMovingAvgObsFakeQuantize.with_args
        activation = (train(observer=MovingAverageMinMaxObserver, **limits, **epsilon) if qat
                      else HistogramObserver.with_args(**epsilon))
        weight = (train(observer=MovingAveragePerChannelMinMaxObserver, **narrow, **epsilon) if qat
                  else PerChannelMinMaxObserver.with_args(**epsilon))
        self.activation = QuantizationSpec(torch.int8, activation, **limits, qscheme=torch.per_tensor_affine)
        self.weights = {axis: QuantizationSpec(torch.int8, weight, **narrow, qscheme=torch.per_channel_symmetric,
                                               ch_axis=axis) for axis in (0, 1)}
        fixed = numerics.SOFTMAX_QPARAMS
        self.softmax = FixedQParamsQuantizationSpec(torch.int8, fixed.step, fixed.zero_point, **limits,
                                                    qscheme=torch.per_tensor_affine)

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Mark the nodes; returns the model."""
        fused = _fused(model.graph)
        for node in model.graph.nodes:
            name = _name(node)
            if not _is_float(node) or not _operands(node):
                continue
            if name in LAYERS:
                self._layer(node, fused)
            elif name in NORMS or node in fused.values():
                self._inputs(node, fused)
            elif name in ("softmax", "_softmax"):
                self._mark(node, {v: self.activation for v in _operands(node)}, self.softmax)
            elif name in MOVES:
                self._move(node)
            elif name in COMPUTED:
                self._inputs(node, fused)
        return model

    def validate(self, model: torch.fx.GraphModule) -> None:
        """Every graph is accepted: what is not annotated is quantized by qcc, from calibration samples."""

    def _layer(self, node: Node, fused: dict[Node, Node]) -> None:
        """Input and weights of a layer; its result, unless the next node is fused into it."""
        x, weight, *bias = node.args[:3]
        axis = 1 if "transpose" in _name(node) else 0
        operands = {x: self.activation, weight: self.weights[axis]}
        if bias and isinstance(bias[0], Node) and (node not in fused or _name(fused[node]) not in NORMS):
            operands[bias[0]] = DerivedQuantizationSpec(
                [(x, node), (weight, node)], _bias_qparams, torch.int32, -numerics.INT32_MAX, numerics.INT32_MAX,
                torch.per_channel_symmetric, 0)  # fmt: skip
        self._mark(node, operands, None if node in fused else self.activation)

    def _inputs(self, node: Node, fused: dict[Node, Node]) -> None:
        """Operands that are not fused into this node, and its result, unless it is fused into the next."""
        operands = {v: self.activation for v in _operands(node) if fused.get(v) is not node}
        self._mark(node, operands, None if node in fused else self.activation)

    def _move(self, node: Node) -> None:
        """All operands and the result share parameters."""
        first, *others = _operands(node)
        shared = SharedQuantizationSpec((first, node))
        self._mark(node, {first: self.activation, **dict.fromkeys(others, shared)}, shared)

    def _mark(
        self, node: Node, operands: dict[Node, QuantizationSpecBase], result: QuantizationSpecBase | None
    ) -> None:
        node.meta["quantization_annotation"] = QuantizationAnnotation(operands, result, _annotated=True)


def _bias_qparams(observers: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points of a bias from the observers of its layer's input and weights: in steps of both."""
    (step, _), (scales, zeros) = (observer.calculate_qparams() for observer in observers)
    return step * scales, torch.zeros_like(zeros, dtype=torch.int32)


def _name(node: Node) -> str:
    """ATen's name of the operator that a node calls, without the overload."""
    parts = str(node.target).split(".")
    return parts[1] if node.op == "call_function" and parts[0] == "aten" else ""


def _operands(node: Node) -> list[Node]:
    """Float operands that are computed: no parameters or buffers."""
    return [v for v in node.all_input_nodes if v.op != "get_attr" and _is_float(v)]


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return not isinstance(value, torch.Tensor) or value.dtype.is_floating_point


def _fused(graph: Any) -> dict[Node, Node]:
    """Node to the node after it, where the two are one operation of the integer program."""
    fused: dict[Node, Node] = {}
    bare: set[Node] = set()
    """Results of layers, possibly normalized, that nothing else was fused into."""
    for node in graph.nodes:
        name = _name(node)
        before = _operands(node)
        if name in LAYERS:
            bare.add(node)
        elif name in NORMS and before and _name(before[0]) in LAYERS and len(before[0].users) == 1:
            fused[before[0]] = node
            bare.add(node)
        elif name in SUMS and len(before) == 2 and _shape(before[0]) == _shape(before[1]):
            layers = [v for v in before if v in bare and len(v.users) == 1]
            if layers:  # where both are layers, the later one takes the addition
                order = {v: i for i, v in enumerate(graph.nodes)}
                fused[max(layers, key=order.__getitem__)] = node
        elif name in CLIPS and before and len(before[0].users) == 1:
            source = before[0]
            if source in bare or _name(source) in CLIPPED:
                fused[source] = node
    return fused


def _shape(node: Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()
