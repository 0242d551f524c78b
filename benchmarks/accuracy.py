"""Top-1 of the float model and of the integer program on labelled samples, and the bars that must be reached.

    QCC_DATA=… python benchmarks/accuracy.py [--models resnet20_cifar10,mnist_cnn] [--limit 100] [--method minmax]

The samples and models are those of the folder ``QCC_DATA`` (by default ``../shared/data`` beside the checkout). The
integer program runs in the NumPy reference, which every target equals to the byte. Exits with 1 below a bar.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from qcc.frontend import onnx
from qcc.ir.evaluate import run_integer
from qcc.ir.graph import Graph
from qcc.passes import SIMPLIFY
from qcc.quantize.assign import assign
from qcc.quantize.calibrate import calibrate
from qcc.quantize.convert import convert
from qcc.quantize.observers import METHODS

BARS = {
    ("mobilenet_v1_0.75_224", "imagenet224"): 0.835,
    ("mobilenet_v2_1.0_224_deq", "imagenet224"): 0.89,
    ("resnet20_cifar10", "cifar10_lossless"): 0.932,
    ("resnet20_cifar10_bn", "cifar10_lossless"): 0.932,
    ("mnist_cnn", "mnist"): 0.985,
}
"""Least top-1 of the integer program with 100 calibration samples, by model and set."""


def data_folder() -> Path:
    return Path(os.environ.get("QCC_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def load_evaluation(folder: Path) -> Any:
    """The module ``evaluate`` of the data folder: sample sets, preprocessing, float runner."""
    sys.path.insert(0, str(folder))
    return importlib.import_module("evaluate")


def quantized(path: Path, samples: Any, method: str) -> Graph:
    """The integer program of a model file."""
    graph = onnx.load(path)
    for simplify in SIMPLIFY:
        graph = simplify(graph)
    start = time.perf_counter()
    calibration = calibrate(graph, samples, method)
    print(f"{path.stem}: calibrated with {len(samples)} samples in {time.perf_counter() - start:.2f} s", flush=True)
    params, graph = assign(graph, calibration.ranges)
    return convert(graph, params, means=calibration.means)


def runner(program: Graph) -> Callable[[Any], Any]:
    """One float input to the float output."""
    return lambda x: run_integer(program, {program.inputs[0]: x})[program.outputs[0]]


def compare(evaluation: Any, name: str, method: str, limit: int | None) -> bool:
    """Print one line for each labelled set of a model; whether all reach their bars."""
    entry, path = evaluation.E[name], data_folder() / "models" / f"{name}.onnx"
    exact, program = evaluation.runner(str(path)), runner(quantized(path, evaluation.calibration(name, 100), method))
    reached = True
    for dataset in entry["sets"]:
        samples, labels = evaluation.load(dataset)
        chosen: dict[str, Any] = {"float": [], "int8": []}
        for sample in samples[:limit]:
            x = evaluation.prepare(sample, entry)
            for kind, run in (("float", exact), ("int8", program)):
                chosen[kind].append(int(np.ravel(run(x))[entry["off"] :].argmax()))
        hits = {kind: np.array(found) == labels[:limit] for kind, found in chosen.items()}
        line = f"{name:26} {dataset:17} n={len(samples[:limit]):<5} float {hits['float'].mean():.4f}  "
        line += f"int8 {hits['int8'].mean():.4f}  same class {np.equal(*chosen.values()).mean():.4f}"
        bar = BARS.get((name, dataset))
        if bar and limit is None:
            ok = bool(hits["int8"].mean() >= bar)
            reached &= ok
            line += f"  bar {bar} {'reached' if ok else 'MISSED'}"
        print(line, flush=True)
    return reached


def main() -> int:
    models = list(dict.fromkeys(model for model, _ in BARS))
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--models", default=",".join(models), help="comma-separated names")
    options.add_argument("--limit", type=int, help="first samples of each set only; bars are not checked then")
    options.add_argument("--method", default="mse", choices=list(METHODS))
    given = options.parse_args()
    if not data_folder().is_dir():
        print(f"no labelled samples: {data_folder()} does not exist (set QCC_DATA)", file=sys.stderr)
        return 1
    evaluation = load_evaluation(data_folder())
    return 0 if all([compare(evaluation, m, given.method, given.limit) for m in given.models.split(",")]) else 1


if __name__ == "__main__":
    sys.exit(main())
