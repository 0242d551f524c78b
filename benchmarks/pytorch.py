"""PyTorch models, float, quantized by PT2E and trained with quantization (QAT), in PyTorch and in qcc."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
TIE = 2.1
"""Steps of the output (of 256) by which scores may differ that count as a tie."""
sys.path[:0] = [str(ROOT / "examples" / "04_qat"), str(ROOT / "tests" / "frontend")]

import train as example  # noqa: E402
from torch_support import ResNet20, layer_distances  # noqa: E402

import qcc  # noqa: E402


@dataclass
class Case:
    """A network in a state: what PyTorch runs, what qcc was given, and the labelled images."""

    name: str
    state: str
    module: Any
    dataset: str
    images: Any
    labels: Any
    calib: Any = None
    """Samples for a float module."""

    def compare(self, limit: int | None) -> tuple[Any, Any, float]:
        """Classes by PyTorch and by the compiled model, and the largest gap in steps of the output: how far PyTorch's
        score of the compiled model's class is below its best one. A gap of 0 where classes differ is a tie; roundings
        that fall otherwise in many layers may add up to a step or two.
        """
        images = torch.tensor(self.images[:limit])
        with torch.no_grad():
            scores = torch.cat([self.module(x) for x in images.split(64)]).numpy()
        compiled = qcc.compile(self.module, example_inputs=(images[:1],), calib=self.calib)
        found = np.array([compiled(x[None].numpy()).argmax() for x in images])
        chosen = np.take_along_axis(scores, found[:, None], 1)[:, 0]
        step = compiled.manifest["outputs"][0]["scale"]
        return scores.argmax(1), found, float((scores.max(1) - chosen).max() / step)

    def steps(self) -> float | None:
        """Largest distance of a layer of the integer program from fake-quantized PyTorch, in steps of its result."""
        if self.calib is not None:
            return None
        return max(max(layer_distances(self.module, (torch.tensor(x[None]),)).values()) for x in self.images[:4])


def states(
    name: str, network: Callable[[], Any], train: Any, test: Any, dataset: str, calib: int, epochs: int, rate: float
) -> Iterator[Case]:
    """A network as it is, quantized after training, and trained further with quantization."""
    (x, y), (images, labels) = train, (np.asarray(v) for v in test)
    torch.manual_seed(0)
    yield Case(name, "float", network().eval(), dataset, images, labels, x[:calib].numpy())
    yield Case(name, "PT2E", example.after_training(network(), x[:calib]), dataset, images, labels)
    yield Case(name, "QAT", example.with_training(network(), x, y, epochs, rate), dataset, images, labels)


def resnet20(data: Path, evaluation: Any) -> Iterator[Case]:
    """From its state dict. The images to train with went through strong JPEG, unlike those to test with."""
    entry = evaluation.E["resnet20_cifar10"]

    def prepared(dataset: str) -> tuple[Any, Any]:
        images, labels = evaluation.load(dataset)
        return np.concatenate([evaluation.prepare(image, entry) for image in images]), labels

    x, y = (torch.tensor(v) for v in prepared("cifar10_calib"))
    yield from states("resnet20", lambda: ResNet20(data / "models"), (x, y.long()), prepared("cifar10_lossless"),
                      "cifar10_lossless", 128, 1, 1e-5)


def digits() -> Iterator[Case]:
    """The example's hostile network."""
    x, y, x_test, y_test = example.data()
    torch.manual_seed(0)
    network = example.Digits()
    example.train(network, x, y, example.EPOCHS, example.RATE)
    example.make_hostile(network)

    def copy() -> Any:
        made = example.Digits()
        made.load_state_dict(network.state_dict())
        return made

    yield from states("digits (hostile)", copy, (x, y), (x_test, y_test), "scikit-learn digits", 512,
                      example.QAT_EPOCHS, example.RATE)


def cases(data: Path, evaluation: Any) -> Iterator[Case]:
    yield from resnet20(data, evaluation)
    yield from digits()
