"""Models as ONNX Runtime quantizes them, and how far each of their operators is from ONNX Runtime in qcc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from qcc import numerics, pipeline
from qcc.ir.to_onnx import to_onnx
from qcc.ops import OPS

U8, S8 = QuantType.QUInt8, QuantType.QInt8
TYPES = {"u8s8": (U8, S8), "s8s8": (S8, S8), "u8u8": (U8, U8), "trt": (S8, S8), "op": (U8, S8)}
"""Activations and weights, by form. Weights per channel, but for u8u8; ``op`` is the operator form."""
TENSORRT = {"ActivationSymmetric": True, "WeightSymmetric": True, "AddQDQPairToWeight": True, "QuantizeBias": False,
            "DedicatedQDQPair": True}
"""What ``trt`` adds: zero points 0, weights and biases in float, a pair for each reader."""
PER_CHANNEL_OPSET = 13
"""The oldest in which DequantizeLinear has an axis."""


class Reader(CalibrationDataReader):
    """Calibration inputs, one after another."""

    def __init__(self, name: str, samples: Any) -> None:
        self.left: Iterator[Any] = iter([{name: sample} for sample in samples])

    def get_next(self) -> Any:
        return next(self.left, None)


def quantized(path: Path, folder: Path, samples: Any, types: str) -> Path:
    """The model as ONNX Runtime quantizes it, ranges by MinMax."""
    activations, weights = TYPES[types]
    model = onnx.load(path)
    if model.opset_import[0].version < PER_CHANNEL_OPSET:
        model = onnx.version_converter.convert_version(model, PER_CHANNEL_OPSET)
    made = folder / f"{path.stem}.{types}.onnx"
    quantize_static(model, made, Reader(model.graph.input[0].name, samples), per_channel=types != "u8u8",
                    activation_type=activations, weight_type=weights,
                    extra_options=TENSORRT if types == "trt" else None,
                    quant_format=QuantFormat.QOperator if types == "op" else QuantFormat.QDQ)
    return made


def session(model: bytes) -> Any:
    """Unoptimized, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def operator_distances(path: Path, samples: Any) -> dict[str, float]:
    """Largest distance of each integer node from ONNX Runtime in steps of its output, by op, given equal operands.

    Both get the operands that ONNX Runtime computes (unoptimized: in float32 between quantize and dequantize).
    """
    found = dict(pipeline.stages(path))
    graph, program = found["simplify"], found["quantize"]
    values = [v for v in graph.types if v not in graph.constants and v not in graph.inputs]
    run = session(to_onnx(graph, values).SerializeToString())
    worst: dict[str, float] = {}
    for x in samples:
        feed = {graph.inputs[0]: x}
        real = {**feed, **dict(zip(values, run.run(values, feed), strict=True))}
        # What ONNX Runtime made of a value, not what we would: at ties the two may differ.
        real |= {n.inputs["x"]: real[n.output] for n in reversed(graph.nodes) if n.op == "fake_quant"}
        known = {v: numerics.quantize(real[v], t.qparams) for v, t in program.types.items()
                 if v in real and t.dtype == "int8" and t.qparams}
        for node in program.nodes:
            operands = {k: program.constants.get(v, known.get(v)) for k, v in node.inputs.items()}
            if node.output in known and all(a is not None for a in operands.values()):
                y = OPS[node.op].integer(node, operands, program.input_types(node), program.types[node.output])
                distance = np.abs(y.astype(int) - known[node.output]).max()
                worst[node.op] = max(worst.get(node.op, 0.0), float(distance))
    return worst
