"""C kernels counted on an emulated board: decisions that cost flash and save instructions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from integer_programs import Builder
from qcc import pipeline
from qcc.errors import TuningError
from qcc.ir.graph import Graph
from qcc.target import Target
from qcc.tune.job import run_job
from qcc.tune.records import load_records
from qcc.verify import random_samples, verify_model

pytest.importorskip("xgboost", reason="tuning needs qcc[tune]")
TOOLS = [tool for tool in ("arm-none-eabi-gcc", "qemu-system-arm") if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(bool(TOOLS), reason=f"not installed: {', '.join(TOOLS)}")


def network() -> Graph:
    """A pointwise convolution, one with taps and an odd number of channels, and rows of a matrix."""
    b = Builder("net", 6)
    x = b.conv(b.input((1, 5, 5, 8)), 6, kernel=1, pad=(0, 0, 0, 0))
    y = b.conv(b.conv(x, 7), 9, kernel=5, pad=(0, 0, 0, 0))
    return b.output(y)


def test_weights_as_int16(tmp_path: Path) -> None:
    graph, target, records = network(), Target.load("cortex-m4"), tmp_path / "m4.tune"
    result = run_job(graph, target, records, trials=20)
    assert (result.failed, result.unit) == (0, "instructions")
    assert all(row.decisions == {"weight_bytes": 2} and row.tuned < row.default for row in result.rows)
    assert len(result.rows) == 3

    again = tmp_path / "again.tune"
    run_job(graph, target, again, trials=20)
    assert again.read_text() == records.read_text(), "counts are the same every time"

    tuned = pipeline.build(graph, target, tmp_path / "tuned", records=records)
    plain = pipeline.build(graph, target, tmp_path / "plain")
    assert "qcc_dot_2x2_words" in (tmp_path / "tuned" / "net.c").read_text()
    assert "_words" not in (tmp_path / "plain" / "net.c").read_text()
    assert verify_model(tuned, random_samples(tuned, 2)) is None
    sample = random_samples(plain, 1)[0]
    for a, b in zip(tuned.run(sample).values(), plain.run(sample).values(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert {r.unit for r in load_records(records)} == {"instructions"}


def test_a_family_without_decisions(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="leaves nothing to be decided in this model"):
        run_job(network(), Target.load("cortex-m0plus"), tmp_path / "m0.tune")
