"""The real models, compiled: bytes of the integer reference, and top-1 on labelled samples."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcc
from qcc.runtime import Model
from qcc.verify import verify_model

BARS = {
    "mobilenet_v1_0.75_224": ("imagenet224", 0.835),
    "mobilenet_v2_1.0_224_deq": ("imagenet224", 0.89),
    "resnet20_cifar10": ("cifar10_lossless", 0.932),
    "resnet20_cifar10_bn": ("cifar10_lossless", 0.932),
    "mnist_cnn": ("mnist", 0.985),
}
"""Labelled set and least top-1 of each model, with 100 calibration samples."""
IDENTICAL = 10
"""Inputs on which every byte is compared."""


@pytest.mark.parametrize("name", BARS)
def test_bytes_and_top1(name: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(data_dir), *sys.path])
    evaluation = importlib.import_module("evaluate")
    dataset, bar = BARS[name]
    entry, (images, labels) = evaluation.E[name], evaluation.load(dataset)
    samples = np.concatenate(evaluation.calibration(name, 100))
    model = qcc.compile(data_dir / "models" / f"{name}.onnx", calib=samples, out=tmp_path / "model", jobs=1)

    def prepared(image: Any) -> Any:
        return {next(iter(model.inputs)): evaluation.prepare(image, entry)}

    for threads, chosen in ((1, images[: IDENTICAL // 2]), (2, images[IDENTICAL // 2 : IDENTICAL])):
        model.set_threads(threads)
        assert verify_model(model, [prepared(x) for x in chosen]) is None
    correct = [top1(model, prepared(x), entry["off"]) == label for x, label in zip(images, labels, strict=True)]
    print(f"{name} on {dataset} ({len(labels)}): top-1 {np.mean(correct):.4f}, at least {bar}")
    assert np.mean(correct) >= bar


def top1(model: Model, sample: dict[str, Any], first: int) -> int:
    """The class of the largest score; scores begin at ``first``."""
    (scores,) = model.run(sample).values()
    return int(scores.ravel()[first:].argmax())
