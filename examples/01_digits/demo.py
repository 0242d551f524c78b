"""Compile the digits model for this machine and compare it with the float original: accuracy, latency, size, memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import data
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import qcc

HERE = Path(__file__).resolve().parent
OUT = Path("build") / "digits"
CALIBRATION_SAMPLES = 100


def microseconds(run: Callable[[], object], repeat: int = 2000) -> float:
    """Median time of one call."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def accuracy(run: Callable[[NDArray[np.float32]], NDArray[np.float32]], images: NDArray[np.float32],
             labels: NDArray[np.int64]) -> float:
    """Share of the images, one at a time, whose largest logit is the label's."""
    return float(np.mean([run(image[None]).argmax() == label for image, label in zip(images, labels, strict=True)]))


def main() -> None:
    (train_x, _), (test_x, test_y) = data.load()
    file = HERE / "digits.onnx"
    start = time.perf_counter()
    model = qcc.compile(file, target="host", calib=train_x[:CALIBRATION_SAMPLES], out=OUT)
    seconds = time.perf_counter() - start

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    x = test_x[:1]

    table = Table(title=f"digits, {len(test_y)} test images, target {model.manifest['target']['name']}")
    for heading in ("", "float32 (ONNX Runtime)", "int8 (qcc)"):
        table.add_column(heading, justify="right" if heading else "left")
    float_accuracy = accuracy(lambda image: session.run(None, {"image": image})[0], test_x, test_y)
    table.add_row("accuracy", f"{float_accuracy:.2%}", f"{accuracy(model, test_x, test_y):.2%}")
    float_time = microseconds(lambda: session.run(None, {"image": x}))
    table.add_row("latency, one thread", f"{float_time:.1f} µs", f"{microseconds(lambda: model(x)):.1f} µs")
    weights = model.manifest["weight_bytes"]
    table.add_row("model", f"{file.stat().st_size / 1024:.1f} KiB", f"{weights / 1024:.1f} KiB")
    table.add_row("activations (arena)", "", f"{model.manifest['arena']['bytes'] / 1024:.1f} KiB")
    Console().print(table)
    print(f"compiled in {seconds:.1f} s into {OUT}; see also: qcc inspect {OUT}")


if __name__ == "__main__":
    main()
