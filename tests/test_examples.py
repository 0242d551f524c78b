"""The examples run, from a folder that is not theirs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(*command: str | Path, folder: Path) -> str:
    """Standard output; COLUMNS keeps tables from wrapping."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where the demo ran, and what it printed."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("demo")
    return folder, run(sys.executable, EXAMPLES / "01_digits" / "demo.py", folder=folder)


def test_digits(demo: tuple[Path, str]) -> None:
    rows = dict(re.findall(r"│ (\S[^│]*?) +│[^│]*│ +([^│]*?) │", demo[1]))
    assert float(rows["accuracy"].rstrip("%")) >= 98
    assert {"latency, one thread", "model", "activations (arena)"} <= set(rows)


def test_python_api(tmp_path: Path) -> None:
    assert "bytes of the integer reference" in run(sys.executable, EXAMPLES / "02_python_api.py", folder=tmp_path)


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_link_from_c(demo: tuple[Path, str]) -> None:
    folder, artifact = demo[0], demo[0] / "build" / "digits"
    source = EXAMPLES / "03_link_from_c" / "main.c"
    run("cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", source, "-o", "main", f"-I{artifact}",
        f"-L{artifact}", "-ldigits", f"-Wl,-rpath,{artifact}", folder=folder)
    assert run("./main", folder=folder).splitlines()[-1] == "this is a 6"


def test_committed_model_is_small_and_clean() -> None:
    file = EXAMPLES / "01_digits" / "digits.onnx"
    assert file.stat().st_size < 200_000
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert all(not node.doc_string and not node.metadata_props for node in model.graph.node)


def test_qat(tmp_path: Path) -> None:
    """Training with quantization wins back most of what quantizing the hostile network loses."""
    for package in ("torch", "torchao", "sklearn"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install qcc[torch] scikit-learn")
    text = run(sys.executable, EXAMPLES / "04_qat" / "train.py", "--reference", folder=tmp_path)
    before, after = (float(v) for v in re.findall(r"qcc ([\d.]+)%", text))
    assert before < 90
    assert after > 94
    assert all(float(v) > 96 for v in re.findall(r"same class ([\d.]+)%", text))
