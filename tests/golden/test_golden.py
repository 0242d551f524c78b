"""What a small network becomes, as text to review: the integer program, C source, an accelerator program.

``pytest tests/golden --update-golden`` writes the files anew.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from float_graphs import Builder
from qcc import pipeline
from qcc.ir.graph import Graph
from qcc.ir.text import show
from qcc.npu.artifact import build as build_npu
from qcc.npu.description import Description
from qcc.passes import simplify
from qcc.quantize.assign import assign
from qcc.quantize.convert import convert
from qcc.target import Target

HERE = Path(__file__).parent


def network() -> Graph:
    """A residual block, pooled and classified; weights and ranges are exact in binary, so every machine agrees."""
    b = Builder(x=(1, 4, 4, 3))
    b.normal = lambda *shape: (np.arange(np.prod(shape)).reshape(shape) % 7 - 3).astype(np.float32) / 8  # type: ignore[method-assign]
    stem = b.conv("x", 4, clamp=(0.0, 6.0))
    inner = b.conv(stem, 4)
    block = b("add", "block", a=inner, b=stem, clamp=None)
    pooled = b("reduce_mean", "pooled", x=block, axes=(1, 2), keepdims=False)
    graph = simplify(b.done(b("dense", "logits", x=pooled, w=b.normal(5, 4), b=b.normal(5), clamp=None)))
    graph.name = "net"
    ranges = {value: (-2.0, 2.0) for value in graph.activations()}
    params, graph = assign(graph, ranges)
    return convert(graph, params, "int8")


def integer_program(folder: Path) -> str:
    return show(network())


def c_source(folder: Path) -> str:
    pipeline.build(network(), Target.load("c99"), folder / "net", jobs=1)
    return (folder / "net" / "net.c").read_text()


def accelerator_program(folder: Path) -> str:
    build_npu(network(), Description.load("ws16-mcu"), folder / "net")
    return (folder / "net" / "program.asm").read_text()


@pytest.mark.parametrize(
    ("file", "make"), [("net.qir", integer_program), ("net.c", c_source), ("net.asm", accelerator_program)]
)
def test_golden(file: str, make: Callable[[Path], str], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = make(tmp_path)
    if request.config.getoption("--update-golden"):
        (HERE / file).write_text(text)
    assert text == (HERE / file).read_text(), "if the change is meant: pytest tests/golden --update-golden"
