"""The examples run, from a folder that is not theirs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(program: Path, folder: Path) -> str:
    done = subprocess.run([sys.executable, str(program)], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "COLUMNS": "100"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    output = run(EXAMPLES / "01_digits" / "demo.py", tmp_path)
    for row in ("accuracy", "latency", "model", "arena"):
        assert row in output


def test_python_api(tmp_path: Path) -> None:
    assert "logits" in run(EXAMPLES / "02_python_api.py", tmp_path)


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_link_from_c(tmp_path: Path) -> None:
    assert "digit" in run(EXAMPLES / "03_link_from_c" / "build.py", tmp_path)


def test_committed_model_is_small_and_clean() -> None:
    file = EXAMPLES / "01_digits" / "digits.onnx"
    assert file.stat().st_size < 200_000
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert all(not node.doc_string and not node.metadata_props for node in model.graph.node)
