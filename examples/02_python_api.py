"""Compile from Python: samples from a generator, the compiled model as a function, proof that it is exact."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import qcc
from qcc.verify import verify_model

MODEL = Path(__file__).resolve().parent / "01_digits" / "digits.onnx"


def samples(count: int) -> Iterator[NDArray[np.float32]]:
    """Stand-ins for real samples, one at a time: memory does not grow with their number."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield rng.random((1, 1, 8, 8), np.float32)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        qcc.compile(MODEL, target="host", calib=samples(50), out=folder)
        model = qcc.load(folder)  # as a program that only runs the model would
        x = next(samples(1))
        logits = model(x)
        print("logits", np.array2string(logits, precision=2))
        difference = verify_model(model, [{"image": x}])
        print(difference or "the library computes the bytes of the integer reference")


if __name__ == "__main__":
    main()
