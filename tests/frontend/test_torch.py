"""Exported PyTorch programs: every operator computes what PyTorch computes; quantized ones keep their integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install qcc[torch]")
pytest.importorskip("torchao", reason="torchao is not installed: pip install qcc[torch]")

from torch import nn  # noqa: E402
from torch.nn import functional as f  # noqa: E402

from qcc import pipeline  # noqa: E402
from qcc.errors import ModelError, UnsupportedError  # noqa: E402
from qcc.frontend.torch import load  # noqa: E402
from qcc.ir.evaluate import run_float, run_integer  # noqa: E402
from qcc.ir.verify import verify  # noqa: E402


class Function(nn.Module):
    """A function with layers."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Any) -> Any:
        return self.function(x, *self.layers)


def normalized(channels: int) -> nn.Module:
    norm = nn.BatchNorm2d(channels)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


IMAGE = (2, 4, 8, 6)
OPERATORS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "conv": lambda: (nn.Conv2d(4, 6, 3, stride=2, padding=1), IMAGE),
    "conv_same": lambda: (nn.Conv2d(4, 6, 3, padding="same", bias=False), IMAGE),
    "conv_valid": lambda: (nn.Conv2d(4, 6, (3, 1), padding="valid", dilation=2), IMAGE),
    "conv_groups": lambda: (nn.Conv2d(4, 8, 3, groups=4), IMAGE),
    "conv1d": lambda: (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    "conv_transpose": lambda: (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), IMAGE),
    "batch_norm": lambda: (nn.Sequential(nn.Conv2d(4, 6, 3), normalized(6), nn.ReLU()), IMAGE),
    "linear": lambda: (nn.Linear(6, 5), (3, 6)),
    "linear_rank_3": lambda: (nn.Linear(6, 5, bias=False), (2, 3, 6)),
    "linear_rank_3_bias": lambda: (nn.Linear(6, 5), (2, 3, 6)),
    "matmul": lambda: (Function(lambda x: torch.matmul(x, x.transpose(1, 2))), (2, 3, 6)),
    "max_pool": lambda: (nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), IMAGE),
    "avg_pool": lambda: (nn.AvgPool2d(2, padding=1, count_include_pad=False), IMAGE),
    "adaptive": lambda: (nn.AdaptiveAvgPool2d(1), IMAGE),
    "adaptive_2": lambda: (nn.AdaptiveAvgPool2d((4, 2)), IMAGE),
    "mean": lambda: (Function(lambda x: x.mean((2, 3))), IMAGE),
    "sum": lambda: (Function(lambda x: x.sum(1, keepdim=True)), IMAGE),
    "amax": lambda: (Function(lambda x: x.amax(dim=(2, 3))), IMAGE),
    "softmax": lambda: (nn.Softmax(1), (3, 7)),
    "cat": lambda: (Function(lambda x: torch.cat([x, x * 2], 1)), IMAGE),
    "chunk": lambda: (Function(lambda x: torch.chunk(x, 2, 1)[0] - torch.split(x, [1, 3], 1)[0]), IMAGE),
    "slice": lambda: (Function(lambda x: x[:, 1:, ::2, -3:]), IMAGE),
    "select": lambda: (Function(lambda x: x[:, -1]), IMAGE),
    "view": lambda: (Function(lambda x: x.view(2, -1).unsqueeze(1).squeeze(1)), IMAGE),
    "permute": lambda: (Function(lambda x: x.permute(0, 2, 3, 1).transpose(1, -1)), IMAGE),
    "pad": lambda: (Function(lambda x: f.pad(x, (1, 2, 0, 1), value=0.5)), IMAGE),
    "reflect": lambda: (Function(lambda x: f.pad(x, (1, 2, 0, 1), mode="reflect")), IMAGE),
    "nearest": lambda: (nn.Upsample(scale_factor=2), IMAGE),
    "bilinear": lambda: (nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE),
    "bilinear_corners": lambda: (nn.Upsample(size=(15, 11), mode="bilinear", align_corners=True), IMAGE),
    "pixel_shuffle": lambda: (nn.PixelShuffle(2), IMAGE),
    "scalars": lambda: (Function(lambda x: 2 - (x * 3 + 1) / 4), IMAGE),
    "alpha": lambda: (Function(lambda x: torch.add(x, x * x, alpha=0.5)), IMAGE),
    "minmax": lambda: (Function(lambda x: torch.maximum(x, torch.minimum(-x, x * 0.5))), IMAGE),
    "dropout": lambda: (nn.Sequential(nn.Conv2d(4, 6, 3), nn.Dropout(0.5)), IMAGE),
    "prelu": lambda: (nn.PReLU(4, init=0.3), IMAGE),
    "prelu_1": lambda: (nn.PReLU(), IMAGE),
    **{name.lower(): lambda layer=layer: (layer(), IMAGE) for name, layer in {
        n: getattr(nn, n) for n in ("ReLU", "ReLU6", "Hardtanh", "Hardswish", "Hardsigmoid", "Sigmoid", "Tanh", "SiLU",
                                    "GELU", "LeakyReLU", "ELU", "SELU", "Softplus", "Mish")}.items()},
    "gelu_tanh": lambda: (nn.GELU(approximate="tanh"), IMAGE),
    "functions": lambda: (Function(lambda x: torch.sqrt(x.abs() + 1) * torch.exp(-x) + (x * x + 1).rsqrt()), IMAGE),
}  # fmt: skip


MASKED = {"reflect", "prelu", "prelu_1", "selu", "softplus", "mish"}
"""What core operators write with comparisons and masks, or indices."""


CASES = [(n, c) for n in OPERATORS for c in (False, True) if not (c and n in MASKED)]


@pytest.mark.parametrize(("name", "core"), CASES)
def test_operator(name: str, core: bool) -> None:
    """As exported, and taken apart into core operators."""
    torch.manual_seed(0)
    module, shape = OPERATORS[name]()
    module.eval()
    x = torch.randn(shape)
    program = torch.export.export(module, (x,))
    graph = load(program.run_decompositions() if core else program)
    verify(graph)
    (value,), (output,) = graph.inputs, graph.outputs
    found = run_float(graph, {value: x.numpy()})[output]
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=0, atol=1e-3 if "bilinear" in name else 2e-5)


class Digits(nn.Module):
    """A small convolutional network, named layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = normalized(8)
        self.last = nn.Linear(8 * 16, 10)

    def forward(self, image: Any) -> Any:
        return self.last(torch.flatten(f.max_pool2d(torch.relu(self.norm(self.first(image))), 2), 1))


def test_a_module_is_imported_in_eval_mode_and_keeps_its_own() -> None:
    torch.manual_seed(0)
    module = Digits().train()
    x = torch.randn(3, 1, 8, 8)
    graph = load(module, (x,))
    assert all(m.training for m in module.modules())
    assert (graph.name, graph.inputs) == ("Digits", ["image"])
    assert {"Conv 'first'", "Gemm 'last'"} <= {n.source for n in graph.nodes}
    module.eval()
    found = run_float(graph, {"image": x.numpy()})[graph.outputs[0]]
    np.testing.assert_allclose(found, module(x).detach().numpy(), atol=2e-5)


def test_a_float_module_is_quantized() -> None:
    torch.manual_seed(0)
    module = Digits().eval()
    samples = torch.randn(64, 1, 8, 8)
    program = pipeline.quantize(module, example_inputs=(samples[:1],), calib=samples.numpy())
    verify(program)
    same = [int(run_integer(program, {"image": x[None].numpy()})[program.outputs[0]].argmax()
                == module(x[None]).argmax()) for x in samples]
    assert np.mean(same) > 0.9


def test_what_cannot_be_imported_is_listed() -> None:
    module = Function(lambda x: torch.cumsum(torch.sort(x)[0], 1) + torch.special.i0(x))
    with pytest.raises(UnsupportedError) as caught:
        load(module, (torch.randn(2, 3),))
    listed = {item.op for item in caught.value.items}
    assert len(listed) == 3
    assert {"aten.sort.default", "aten.cumsum.default"} < listed
    assert all(item.hint for item in caught.value.items)


def test_mistakes() -> None:
    with pytest.raises(ModelError, match="needs example_inputs"):
        pipeline.quantize(nn.Linear(3, 2))
    sizes = ({0: torch.export.Dim("batch", min=2)},)
    with pytest.raises(ModelError, match="dynamic shape"):
        load(torch.export.export(nn.Linear(3, 2), (torch.randn(4, 3),), dynamic_shapes=sizes))
    with pytest.raises(ModelError, match="inputs are float tensors"):
        load(Function(lambda x: x * 2), (torch.ones(3, dtype=torch.int64),))
    with pytest.raises(ModelError, match=r"torch\.export cannot trace it"):
        load(Function(lambda x: x if x.sum() > 0 else -x), (torch.randn(3),))
    with pytest.raises(UnsupportedError, match="statistics from the batch"):
        load(torch.export.export(nn.BatchNorm2d(3).train(), (torch.randn(2, 3, 4, 4),)))
