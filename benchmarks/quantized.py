"""Models quantized by ONNX Runtime, in ONNX Runtime and in qcc: top-1 on labelled samples, distance of each operator.

    QCC_DATA=… python benchmarks/quantized.py [--models resnet20_cifar10] [--types u8s8,op] [--limit 100]

Per operator: both get the same operands, those that ONNX Runtime computes (unoptimized: in float32 between quantize and
dequantize); the distance is in steps of the result. Exits with 1 where top-1 differs by more than half a point or an
operator by more than one step.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from accuracy import data_folder, load_evaluation
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from qcc import numerics, pipeline
from qcc.ir.evaluate import run_integer
from qcc.ir.graph import Graph
from qcc.ir.to_onnx import to_onnx
from qcc.ops import OPS

MODELS = {"mobilenet_v1_0.75_224": ("u8s8",), "mobilenet_v2_1.0_224_deq": ("u8s8",),
          "resnet20_cifar10": ("u8s8", "s8s8", "u8u8", "op")}
TYPES = {"u8s8": (QuantType.QUInt8, QuantType.QInt8), "s8s8": (QuantType.QInt8, QuantType.QInt8),
         "u8u8": (QuantType.QUInt8, QuantType.QUInt8), "op": (QuantType.QUInt8, QuantType.QInt8)}
"""Activations and weights. Weights per channel, but for u8u8; ``op`` is u8s8 in the operator form."""


class Reader(CalibrationDataReader):
    """Calibration inputs, one after another."""

    def __init__(self, name: str, samples: Any) -> None:
        self.left: Iterator[Any] = iter([{name: sample} for sample in samples])

    def get_next(self) -> Any:
        return next(self.left, None)


def quantized(path: Path, folder: Path, samples: Any, types: str) -> Path:
    """The model as ONNX Runtime quantizes it."""
    activations, weights = TYPES[types]
    name = onnx.load(path, load_external_data=False).graph.input[0].name
    made = folder / f"{path.stem}.{types}.onnx"
    quantize_static(path, made, Reader(name, samples), activation_type=activations, weight_type=weights,
                    per_channel=types != "u8u8",
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
    """Largest distance of each integer node from ONNX Runtime in steps of its output, by op, given equal operands."""
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


def agree(evaluation: Any, name: str, path: Path, limit: int | None) -> bool:
    """Print one line for each labelled set; whether ONNX Runtime and qcc are within half a point on all of them."""
    entry, program, near = evaluation.E[name], pipeline.quantize(path), True
    exact = evaluation.runner(str(path))
    for dataset in entry["sets"]:
        samples, labels = evaluation.load(dataset)
        labels = labels[:limit]
        classes = {"ort": [], "qcc": []}
        for sample in samples[:limit]:
            x = evaluation.prepare(sample, entry)
            for kind, y in (("ort", exact(x)), ("qcc", integer(program, x))):
                classes[kind].append(int(np.ravel(y)[entry["off"] :].argmax()))
        top = {kind: float((np.array(c) == labels).mean()) for kind, c in classes.items()}
        same = float(np.equal(classes["ort"], classes["qcc"]).mean())
        print(f"{path.stem:32} {dataset:17} n={len(labels):<5} ONNX Runtime {top['ort']:.4f}  qcc {top['qcc']:.4f}  "
              f"same class {same:.4f}", flush=True)
        near &= abs(top["ort"] - top["qcc"]) <= 0.005 + 1e-9
    return near


def integer(program: Graph, x: Any) -> Any:
    """The output of the integer program."""
    return run_integer(program, {program.inputs[0]: x})[program.outputs[0]]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--models", default=",".join(MODELS), help="comma-separated names")
    options.add_argument("--types", default=",".join(TYPES), help="comma-separated, of those that a model is for")
    options.add_argument("--limit", type=int, help="first samples of each set only")
    given = options.parse_args()
    evaluation, good = load_evaluation(data_folder()), True
    with tempfile.TemporaryDirectory() as folder:
        for name in given.models.split(","):
            samples = evaluation.calibration(name, 50)
            for types in [t for t in MODELS[name] if t in given.types.split(",")]:
                path = quantized(data_folder() / "models" / f"{name}.onnx", Path(folder), samples, types)
                good &= agree(evaluation, name, path, given.limit)
                worst = operator_distances(path, samples[:4])
                print(f"{path.stem:32} steps per operator: {worst}", flush=True)
                # Weights of uint8 that lie further than 127 from their zero point have to be rounded.
                good &= max(worst.values()) <= 1 or types == "u8u8"
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
