"""Digits, trained in float, quantized after training, and trained again with quantization: what each is worth in int8.

The network is made hostile to quantization on purpose: the channels of its depthwise layer differ in scale by powers of
two, which changes nothing in float (the next layer divides by them), but leaves a few levels of int8 to the small ones.

    python3 -m venv torchvenv && torchvenv/bin/pip install "qcc[torch]" scikit-learn
    torchvenv/bin/python examples/04_qat/train.py [--reference]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torchao.quantization.pt2e import (
    allow_exported_model_train_eval,
    move_exported_model_to_eval,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e

import qcc
from qcc.torch import QccQuantizer

EPOCHS, QAT_EPOCHS, BATCH, RATE = 15, 10, 64, 3e-3
SPREAD = 5
"""The channels' scales go from 2^-SPREAD to 2^SPREAD."""

Program = Callable[[np.ndarray], np.ndarray]


class Digits(nn.Module):
    """[N, 1, 8, 8] in [0, 1] to ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.depthwise, self.depthwise_norm = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16)
        self.pointwise, self.pointwise_norm = nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32)
        self.residual, self.residual_norm = nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.classify = nn.Linear(32 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem_norm(self.stem(x)))
        x = functional.relu(self.depthwise_norm(self.depthwise(x)))
        x = functional.max_pool2d(functional.relu(self.pointwise_norm(self.pointwise(x))), 2)
        x = functional.relu(self.residual_norm(self.residual(x)) + x)
        return self.classify(torch.flatten(functional.max_pool2d(x, 2), 1))


def make_hostile(model: Digits) -> None:
    """Scale the depthwise layer's channels, and the weights behind them by the inverse: the same float function."""
    exponents = torch.linspace(-SPREAD, SPREAD, 16)[torch.randperm(16)]
    with torch.no_grad():
        model.depthwise_norm.weight *= 2**exponents
        model.depthwise_norm.bias *= 2**exponents
        model.pointwise.weight /= (2**exponents).reshape(1, -1, 1, 1)


def train(model: Any, x: Tensor, y: Tensor, epochs: int, rate: float) -> None:
    """Cross entropy by Adam, the rate falling to nothing."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for batch in torch.randperm(len(x))[: len(x) // BATCH * BATCH].reshape(-1, BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        schedule.step()


def exported(model: nn.Module, x: Tensor) -> Any:
    """The graph that torchao prepares; batches may have any size."""
    return torch.export.export(model, (x[:BATCH],), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()


def after_training(model: nn.Module, x: Tensor) -> Any:
    """Quantized from the ranges that the training images show."""
    prepared = prepare_pt2e(exported(model.eval(), x), QccQuantizer())
    for batch in x[: 8 * BATCH].split(BATCH):
        prepared(batch)
    return convert_pt2e(prepared)


def with_training(model: nn.Module, x: Tensor, y: Tensor, epochs: int = QAT_EPOCHS, rate: float = RATE) -> Any:
    """Trained further with every rounding in place."""
    prepared = prepare_qat_pt2e(exported(model.train(), x), QccQuantizer(qat=True))
    allow_exported_model_train_eval(prepared)
    train(prepared, x, y, epochs, rate)
    move_exported_model_to_eval(prepared)
    return convert_pt2e(prepared)


def built(model: Any, reference: bool) -> Program:
    """The model compiled for this machine; or its integer program in NumPy, which computes the same bytes."""
    example = (torch.zeros(1, 1, 8, 8),)
    if not reference:
        compiled = qcc.compile(model, example_inputs=example)
        return lambda x: np.concatenate([np.asarray(compiled(image[None])) for image in x])
    from qcc.ir.evaluate import run_integer
    from qcc.pipeline import quantize

    program = quantize(model, example_inputs=example)
    (name,), (output,) = program.inputs, program.outputs
    return lambda x: np.concatenate([run_integer(program, {name: image[None]})[output] for image in x])


def report(title: str, model: Any, program: Program | None, x: Tensor, y: Tensor) -> float:
    """Print the accuracy of the PyTorch model and of the compiled one, and how often they agree."""
    with torch.no_grad():
        scores = model(x).numpy()
    found = scores.argmax(1)
    line = f"{title:28} PyTorch {np.mean(found == y.numpy()):.2%}"
    if program is None:
        print(line)
        return float(np.mean(found == y.numpy()))
    compiled = program(x.numpy())
    chosen = compiled.argmax(1)
    line += f"   qcc {np.mean(chosen == y.numpy()):.2%}   same class {np.mean(chosen == found):.2%}"
    print(f"{line}   largest difference {np.abs(compiled - scores).max():.3f} of {np.abs(scores).max():.1f}")
    return float(np.mean(chosen == y.numpy()))


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and labels for training, and for testing."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = torch.tensor(digits.images[order, None] / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target[order])
    return images[:-360], labels[:-360], images[-360:], labels[-360:]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--reference", action="store_true", help="run the integer programs in NumPy")
    reference = options.parse_args().reference
    torch.manual_seed(0)
    torch.set_num_threads(1)  # layers this small wait for other threads longer than they compute
    x, y, x_test, y_test = data()
    model = Digits()
    train(model, x, y, EPOCHS, RATE)
    make_hostile(model)
    report("float", model.eval(), None, x_test, y_test)
    quantized = after_training(model, x)
    worse = report("quantized after training", quantized, built(quantized, reference), x_test, y_test)
    trained = with_training(model, x, y)
    better = report("trained with quantization", trained, built(trained, reference), x_test, y_test)
    print(f"training with quantization wins back {better - worse:.2%}")


if __name__ == "__main__":
    main()
