"""Trained networks from PyTorch, float, quantized by PT2E and trained with quantization: what PyTorch computes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install qcc[torch]")
pytest.importorskip("torchao", reason="torchao is not installed: pip install qcc[torch]")
pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install scikit-learn")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import pytorch
from accuracy import load_evaluation


def test_resnet20(data_dir: Path) -> None:
    """Each layer is within a step, and the class is PyTorch's, or one that it scores as high but for two steps."""
    for case in pytorch.resnet20(data_dir, load_evaluation(data_dir)):
        want, found, gap = case.compare(None)
        top = [(classes == case.labels).mean() for classes in (want, found)]
        steps = case.steps()
        print(f"{case.state}: PyTorch {top[0]:.4f}, qcc {top[1]:.4f}, gap {gap} steps, layers within {steps}")
        assert min(top) >= 0.92
        if steps is not None:
            assert steps <= 1
            assert gap <= pytorch.TIE
