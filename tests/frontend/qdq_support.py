"""Small models quantized by ONNX Runtime, and the distance of qcc's integer program from ONNX Runtime's result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx_support import floats, runtime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from qcc import pipeline
from qcc.ir.evaluate import run_integer
from qcc.ir.graph import Graph

TYPES = {
    "u8s8": (QuantType.QUInt8, QuantType.QInt8),
    "s8s8": (QuantType.QInt8, QuantType.QInt8),
    "u8u8": (QuantType.QUInt8, QuantType.QUInt8),
}


class Reader(CalibrationDataReader):
    """Feeds given inputs, one after another."""

    def __init__(self, feeds: list[dict[str, Any]]) -> None:
        self.left: Iterator[dict[str, Any]] = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        return next(self.left, None)


def feeds(proto: onnx.ModelProto, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Random inputs of a model in [-2, 2]."""
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in proto.graph.input}
    return [{k: floats(*s, seed=seed + 97 * n + m) for m, (k, s) in enumerate(shapes.items())} for n in range(count)]


def quantized(proto: onnx.ModelProto, folder: Path, types: str = "u8s8", per_channel: bool = True,
              operators: bool = False, **extra: Any) -> onnx.ModelProto:
    """The model quantized by ONNX Runtime, with random calibration data; ``operators``: in the operator form.

    That form has its range of weights reduced, because its kernels saturate on machines without VNNI.
    """
    activations, weights = TYPES[types]
    path = folder / "quantized.onnx"
    quantize_static(proto, path, Reader(feeds(proto, 8)), per_channel=per_channel, reduce_range=operators,
                    quant_format=QuantFormat.QOperator if operators else QuantFormat.QDQ,
                    activation_type=activations, weight_type=weights, extra_options=extra)
    return onnx.load(path)


def compiled(proto: onnx.ModelProto, **options: Any) -> Graph:
    """The integer program."""
    return pipeline.quantize(proto.SerializeToString(), **options)


def steps_off(proto: onnx.ModelProto, program: Graph, count: int = 4) -> float:
    """Largest difference from ONNX Runtime, in steps of the output, over random inputs."""
    (output,) = program.outputs
    q = program.types[program.node_of()[output].inputs["x"]].qparams
    assert q is not None
    worst = 0.0
    for feed in feeds(proto, count, seed=5000):
        want, found = runtime(proto, feed)[output], run_integer(program, feed)[output]
        assert want.shape == found.shape
        worst = max(worst, float(np.abs(want - found).max()) / q.step)
    return worst
