"""Every real model on every ARM Linux target and accelerator: are its bytes those of the integer reference?

    QCC_DATA=… python benchmarks/identical.py [--targets arm-neon,edge-npu] [--models kws_int8.tflite]

ONNX and float TFLite models are calibrated and quantized, integer TFLite models keep TFLite's arithmetic. Each runs on
random inputs that reach every int8 value and, where there are some, on real ones, with one thread and with two. ARM
needs its compilers and emulators, an accelerator runs on its simulator. Exits with 1 where a byte differs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import pipeline
from qcc.ir.graph import Graph
from qcc.npu.description import known_npus
from qcc.verify import random_samples, verify_model

TARGETS = ("armv7-neon", "arm-neon", "arm-dotprod", "arm-i8mm", *known_npus())
CALIBRATION = 16
RANDOM, REAL = 2, 2
"""Inputs of each kind on which bytes are compared."""

Samples = list[NDArray[Any]]


def data_folder() -> Path:
    """The folder of real models and labelled data."""
    return Path(os.environ.get("QCC_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def real_samples(name: str) -> Samples:
    """Float inputs of a model, preprocessed as in training; none for an unknown one."""
    folder = data_folder()
    if name.startswith("ad_"):
        frames = np.load(folder / "ad_normal_id01.npy")
        return [frames[i : i + 5].reshape(1, 640) for i in range(CALIBRATION)]
    sys.path.insert(0, str(folder))
    evaluation = importlib.import_module("evaluate")
    if name.startswith("vww_"):
        entry = {"pre": "unit", "layout": "NHWC", "size": 96}
        return [evaluation.prepare(x, entry) for x in evaluation.load("imagenet224_calib")[0][:CALIBRATION]]
    return list(evaluation.calibration(name, CALIBRATION)) if name in evaluation.E else []


def program(file: Path) -> tuple[Graph, Samples]:
    """The integer program of a model file, and real inputs as it takes them."""
    samples = real_samples(file.stem)
    graph = pipeline.quantize(file, calib=np.concatenate(samples) if samples else None)
    (value,) = graph.inputs
    t = graph.types[value]
    if t.dtype == "float32":
        return graph, [x.reshape(t.shape) for x in samples]
    q, limits = t.qparams, np.iinfo(t.dtype)
    assert q is not None
    stored = [np.clip(np.rint(x / q.step) + q.zero_point, limits.min, limits.max) for x in samples]
    return graph, [x.astype(t.dtype).reshape(t.shape) for x in stored]


def difference(graph: Graph, real: Samples, target: str, folder: Path) -> str | None:
    """Where the bytes of a program differ on a target, if anywhere."""
    model = pipeline.compile(graph, target=target, out=folder)
    (value,) = graph.inputs
    samples: Iterable[dict[str, Any]] = [*random_samples(model, RANDOM), *({value: x} for x in real[:REAL])]
    for threads, sample in enumerate(samples):
        model.set_threads(1 + threads % 2)
        if (found := verify_model(model, [sample])) is not None:
            return found
    return None


def main() -> int:
    files = sorted(p for p in (data_folder() / "models").iterdir() if p.suffix in (".onnx", ".tflite"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--models", default=",".join(p.name for p in files))
    options = parser.parse_args()
    targets, wanted, good = options.targets.split(","), options.models.split(","), True
    print(f"{'':38}" + "".join(f"{t:13}" for t in targets))
    with tempfile.TemporaryDirectory() as scratch:
        for file in (p for p in files if p.name in wanted):
            graph, real = program(file)
            found = {t: difference(graph, real, t, Path(scratch) / "model") for t in targets}
            cells = (f"{'differs' if d else 'identical':13}" for d in found.values())
            print(f"{file.name:38}" + "".join(cells), flush=True)
            for target, what in found.items():
                if what is not None:
                    print(f"  {target}: {what}")
                    good = False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
