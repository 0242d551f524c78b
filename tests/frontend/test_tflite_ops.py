"""Every operator, in random single-operator models: the reference equals TFLite's interpreters to the byte.

TensorFlow Lite Micro is what is meant for int8, LiteRT's reference resolver for the first, uint8 scheme, which Micro
does not have. Where LiteRT follows another rule, ``OTHER_RULE`` says which.
"""

from __future__ import annotations

import numpy as np
import pytest

from qcc.frontend.tflite import load
from qcc.ir.evaluate import run_integer
from qcc.ir.text import parse, show
from qcc.ir.verify import verify
from tflite_cases import CASES, inputs_of
from tflite_writer import litert, micro

pytest.importorskip("tflite_micro")
pytest.importorskip("ai_edge_litert")

SEEDS = 8
OTHER_RULE = {
    ("mul", "int8"): "LiteRT computes the multiplier in float32, Micro in float64",
    ("sum_", "int8"): "LiteRT's kernel for int8 gives other sums than its definition and Micro",
    ("fully_connected", "int8"): "LiteRT's reference kernel rounds in float",
    ("fully_connected", "uint8"): "LiteRT's reference kernel rounds in float",
}
UNSUPPORTED = {("resize_bilinear", "uint8"), ("batch_matmul", "uint8")}


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_bytes_equal(name: str, dtype: str) -> None:
    if (name, dtype) in UNSUPPORTED:
        pytest.skip("computed in float32, or not at all, by TFLite")
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        model = CASES[name](rng, dtype)
        graph = load(model)
        verify(graph)
        inputs = inputs_of([graph.types[v] for v in graph.inputs], rng)
        found = run_integer(graph, dict(zip(graph.inputs, inputs, strict=True)))
        oracles = [micro] if dtype == "int8" else []
        oracles += [] if (name, dtype) in OTHER_RULE else [litert]
        for oracle in oracles:
            for value, expected in zip(graph.outputs, oracle(model, inputs), strict=True):
                np.testing.assert_array_equal(found[value], expected, f"seed {seed}, {oracle.__name__}")


@pytest.mark.parametrize("name", sorted(CASES))
def test_printed_form_reads_back(name: str) -> None:
    graph = load(CASES[name](np.random.default_rng(0), "int8"))
    assert show(parse(show(graph), graph.constants)) == show(graph)
