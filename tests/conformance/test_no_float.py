"""No instruction of a library computes in floating point, but for those that convert float inputs and outputs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.frontend.onnx import load
from qcc.ops import OPS
from qcc.runtime import Model
from random_graphs import FAMILIES, random_model, random_samples

pytestmark = pytest.mark.skipif(not shutil.which("objdump"), reason="no objdump")

DIGITS = Path(__file__).parents[2] / "examples" / "01_digits" / "digits.onnx"
MOBILENET = "mobilenet_v2_1.0_224_deq"
SCALAR_OR_PACKED = "(ss|sd|ps|pd|sh|ph|nepbf16)"
FLOAT = re.compile(
    rf"v?(add|sub|mul|div|sqrt|rsqrt|rcp|min|max|hadd|hsub|addsub|dp|cmp\w*|u?comi|round|rndscale|reduce|range|scalef|"
    rf"getexp|getmant|fixupimm|fn?m(add|sub|addsub|subadd)\d*){SCALAR_OR_PACKED}"
    r"|v?cvt\w+|v?rsqrt\w+|v?rcp\w+|f(?!ence)\w+"
)
"""Arithmetic, comparison and conversion; moves, shuffles and bit operations named after floats do integers as well."""
EDGES = {"quantize", "dequantize"}


def float_functions(library: Path) -> dict[str, set[str]]:
    """Names of the functions that compute in floating point, with the instructions."""
    command = ["objdump", "-d", "--no-show-raw-insn", str(library)]
    text = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, set[str]] = defaultdict(set)
    function = ""
    for line in text.stdout.splitlines():
        if label := re.fullmatch(r"[0-9a-f]+ <(.+)>:", line):
            function = label[1]
            found.setdefault(function, set())
        elif instruction := re.match(r"\s+[0-9a-f]+:\t(?:\{\w+\} )?(\w+)", line):
            found[function] |= {instruction[1]} if FLOAT.fullmatch(instruction[1]) else set()
    return dict(found)


@pytest.mark.parametrize("name", ["digits", MOBILENET])
def test_only_the_edges_of_real_models(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    file = DIGITS if name == "digits" else request.getfixturevalue("data_dir") / "models" / f"{name}.onnx"
    graph = load(file)
    (value,) = graph.inputs
    samples = np.random.default_rng(0).normal(size=(2, *graph.types[value].shape)).astype(np.float32)
    check(qcc.compile(file, calib=samples, out=tmp_path / "model", jobs=1))


def test_only_the_edges_of_any_op(tmp_path: Path) -> None:
    """Random graphs until every op was there."""
    wanted = OPS.keys() - {"batch_norm", "fake_quant", "pointwise", "recentre", "dynamic_steps", "dynamic_quantize"}
    for seed in range(7 * len(FAMILIES)):
        model = random_model(seed)
        if {node.op for node in load(model).nodes} & wanted:
            made = qcc.compile(model, calib=random_samples(model, 2, seed), out=tmp_path / str(seed), jobs=1)
            check(made)
            wanted -= {layer["op"] for layer in made.manifest["layers"]}
    assert not wanted


def check(model: Model) -> None:
    """No function but the kernels of the edges computes in floating point; and those do, so that this test can tell."""
    functions = float_functions(next(model.folder.glob("*.so")))
    edges, inner = kernels(model, edges=True), kernels(model, edges=False)
    assert (edges | inner) <= functions.keys()
    assert edges <= {f for f, instructions in functions.items() if instructions}
    assert {f: i for f, i in functions.items() if i and f not in edges} == {}


def kernels(model: Model, edges: bool) -> set[str]:
    """Kernels of the nodes that convert floats, or of the others."""
    return {k for layer in model.manifest["layers"] if (layer["op"] in EDGES) == edges for k in layer["kernels"]}
