"""Two small real models on every ARM Linux target, in an emulator (all of them: ``benchmarks/identical.py``)."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import qcc
from emulators import emulator_is_here
from qcc.target import Target
from qcc.verify import random_samples, verify_model


@pytest.mark.parametrize("name", ["armv7-neon", "arm-neon", "arm-dotprod", "arm-i8mm"])
@pytest.mark.parametrize("file", ["mnist_cnn.onnx", "kws_int8.tflite"])
def test_bytes(file: str, name: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target.load(name)
    if not emulator_is_here(target):
        pytest.skip(f"NOT TESTED: {name}; {target.link.cc[0]} or {target.run.command[0]} is missing")
    monkeypatch.setattr(sys, "path", [str(data_dir), *sys.path])
    samples = None
    if file.endswith(".onnx"):
        samples = np.concatenate(importlib.import_module("evaluate").calibration(Path(file).stem, 16))
    model = qcc.compile(data_dir / "models" / file, target=name, calib=samples, out=tmp_path / "model", jobs=1)
    for threads, sample in enumerate(random_samples(model, 2)):
        model.set_threads(1 + threads)
        assert verify_model(model, [sample]) is None
