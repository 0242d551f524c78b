"""QccQuantizer: values are quantized where the integer program stores them, and both compute the same."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install qcc[torch]")
pytest.importorskip("torchao", reason="torchao is not installed: pip install qcc[torch]")

from torch import nn  # noqa: E402
from torch.nn import functional as f  # noqa: E402
from torchao.quantization.pt2e import move_exported_model_to_eval  # noqa: E402
from torchao.quantization.pt2e.quantize_pt2e import (  # noqa: E402
    convert_pt2e,
    prepare_pt2e,
    prepare_qat_pt2e,
)

from qcc import pipeline  # noqa: E402
from qcc.errors import TargetError  # noqa: E402
from qcc.ir.evaluate import run_integer  # noqa: E402
from qcc.torch import QccQuantizer  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent / "frontend"))
from torch_support import layer_distances  # noqa: E402

SHAPE = (2, 3, 12, 12)


class Network(nn.Module):
    """Everything that is fused: conv-bn-relu, depthwise relu6, residual, hard-swish, pools and concat, softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.a_norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.b, self.b_norm = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8)
        self.c, self.c_norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.d = nn.Conv2d(8, 8, 3, padding=1)
        self.e = nn.Linear(16 * 9, 10)

    def forward(self, x: Any) -> Any:
        a = torch.relu(self.a_norm(self.a(x)))
        b = f.relu6(self.b_norm(self.b(a)))
        c = torch.relu(self.c_norm(self.c(b)) + a)
        d = f.hardswish(self.d(c))
        y = torch.cat([f.avg_pool2d(f.max_pool2d(v, 2), 2) for v in (c, d)], 1)
        return torch.softmax(self.e(torch.flatten(y, 1)), 1)


class Sums(nn.Module):
    """Both operands of the sum are layers; a value that two read; a sum without layers; a product, a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3)
        self.c, self.d = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.a(x) + self.b(x))
        z = self.c(y)
        y = torch.relu(z) * torch.sigmoid(self.d(y))
        return torch.relu(y + f.max_pool2d(y, 1)).mean((2, 3))


@cache
def converted(network: type[nn.Module], qat: bool) -> Any:
    """The network quantized with random data; with QAT, after a few training steps."""
    torch.manual_seed(3)
    module = network().train()
    for _ in range(4):
        module(torch.randn(8, *SHAPE[1:]))
    example = (torch.randn(SHAPE),)
    if qat:
        prepared = prepare_qat_pt2e(torch.export.export(module, example).module(), QccQuantizer(qat=True))
        optimizer = torch.optim.SGD(prepared.parameters(), 0.01)
        for _ in range(4):
            optimizer.zero_grad()
            prepared(torch.randn(SHAPE)).square().sum().backward()
            optimizer.step()
        move_exported_model_to_eval(prepared)
    else:
        prepared = prepare_pt2e(torch.export.export(module.eval(), example).module(), QccQuantizer())
        for _ in range(4):
            prepared(torch.randn(SHAPE))
    return convert_pt2e(prepared)


@pytest.mark.parametrize("qat", [False, True])
@pytest.mark.parametrize("network", [Network, Sums])
def test_each_layer_is_within_one_step(network: type[nn.Module], qat: bool) -> None:
    model = converted(network, qat)
    x = torch.randn(SHAPE)
    distances = layer_distances(model, (x,))
    print(distances)
    assert len(distances) >= 5
    assert max(distances.values()) <= 1


@pytest.mark.parametrize("qat", [False, True])
def test_layers_are_fused_as_annotated(qat: bool) -> None:
    """No value of the program lacks parameters (there are no samples), and no layer is split."""
    remarks: list[str] = []
    *_, (_, program) = pipeline.stages(converted(Network, qat), example_inputs=(torch.randn(SHAPE),),
                                       remarks=remarks)
    assert remarks == []
    ops = [n.op for n in program.nodes if n.op not in ("quantize", "dequantize", "reshape")]
    assert ops == ["conv2d", "conv2d", "conv2d", "conv2d", *["max_pool", "avg_pool"] * 2, "concat", "dense", "softmax"]
    layers = [n for n in program.nodes if n.op == "conv2d"]
    assert ["residual" in n.inputs for n in layers] == [False, False, True, False]
    assert ["table" in n.inputs for n in layers] == [False, False, False, True]


def test_the_last_of_two_layers_takes_the_sum() -> None:
    program = pipeline.quantize(converted(Sums, False), example_inputs=(torch.randn(SHAPE),))
    first, second, *others = (n for n in program.nodes if n.op == "conv2d")
    assert second.inputs["residual"] == first.output
    assert not any("residual" in n.inputs for n in others)


@pytest.mark.parametrize("qat", [False, True])
def test_top_1_is_that_of_pytorch(qat: bool) -> None:
    model = converted(Network, qat)
    program = pipeline.quantize(model, example_inputs=(torch.randn(SHAPE),))
    for seed in range(20):
        torch.manual_seed(seed)
        x = torch.randn(SHAPE)
        want = model(x).detach().numpy()
        found = run_integer(program, {"x": x.numpy()})[program.outputs[0]]
        chosen = np.take_along_axis(want, found.argmax(1)[:, None], 1)[:, 0]
        assert (want.max(1) - chosen <= 2 / 256 + 1e-6).all(), f"seed {seed}"


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(TargetError):
        QccQuantizer("no-such-target")
