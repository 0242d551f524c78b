"""What a user can get wrong when compiling: one clear line with a hint, exit code 1, and nothing is left behind."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from onnx_net import Net
from qcc.cli import main

SHAPE = (3, 1, 3, 6, 5)


def network() -> onnx.ModelProto:
    net = Net(0)
    x = net.input(*SHAPE[1:])
    return net.model(net("Relu", net("Conv", x, net.weights(4, 3, 3, 3))))


def normal() -> Any:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def dynamic(axis: int) -> bytes:
    model = network()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[axis].dim_param = "n"
    return model.SerializeToString()


def exploding() -> bytes:
    """A float model that divides by zero."""
    net = Net(0)
    x = net.input(*SHAPE[1:])
    zero = net("Relu", net("Sub", x, np.full(1, 1e6, np.float32)))
    return net.model(net("Reciprocal", zero)).SerializeToString()


MODELS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is not an ONNX file"),
    "truncated": (lambda: network().SerializeToString()[:300], "is not an ONNX file, or is truncated or corrupt"),
    "text": (lambda: b"a text, not a model\n" * 9, "is not an ONNX file"),
    "torch": (lambda: b"PK\x03\x04" + bytes(99), "is not an ONNX file, but an archive, as torch.save .* Hint: load it"),
    "keras": (lambda: b"\x89HDF\r\n" + bytes(99), "is not an ONNX file, but HDF5, as Keras writes it. Hint: convert"),
    "corrupt": (lambda: network().SerializeToString().replace(b"Conv", b"C\xffnv"), "corrupt"),
    "dynamic_batch": (lambda: dynamic(0), r"input 'in0' has no fixed size along axis 0 \('n'\)"),
    "dynamic_size": (lambda: dynamic(2), r"input 'in0' has no fixed size along axis 2 \('n'\)"),
    "exploding": (exploding, "calibration sample 0: the float model computes a NaN or an infinity"),
}
"""Contents of the model file, and what the error says."""

SAMPLES: dict[str, tuple[Callable[[], Any], str]] = {
    "other_size": (lambda: normal()[..., :4], r"calibration sample 0: input 'in0' has shape \(1, 3, 6, 4\)"),
    "channels_last": (lambda: normal().transpose(0, 1, 3, 4, 2), "Hint: transpose the samples"),
    "bytes": (lambda: normal().astype(np.uint8), "has dtype uint8, the model wants float32. Hint: preprocess"),
    "text": (lambda: np.full(SHAPE, "x"), "dtype <U1"),
    "nan": (lambda: np.where(normal() > 1, np.nan, normal()), "calibration sample 0: input 'in0' holds a NaN"),
    "infinite": (lambda: np.where(normal() > 1, np.inf, normal()), "holds a NaN or an infinity. Hint: clean"),
    "none": (lambda: normal()[:0], "there are no calibration samples. Hint: give at least one"),
    "scalar": (lambda: np.float32(1), r"has shape \(\)"),
    "objects": (lambda: np.array([None, {}], object), "the file cannot be read"),
}
"""The calibration array, and what the error says."""


class Case:
    """A folder with a good model and good samples, and the command that compiles them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model, self.calib, self.out = folder, folder / "m.onnx", folder / "x.npy", folder / "out"
        self.model.write_bytes(network().SerializeToString())
        np.save(self.calib, normal())

    def arguments(self, **changed: Any) -> list[str]:
        options = {"--calib": self.calib, "-o": self.out, "--jobs": 1} | {f"--{k}": v for k, v in changed.items()}
        return ["compile", str(self.model), *(str(p) for k, v in options.items() if v is not None for p in (k, v))]

    def refused(self, message: str, **changed: Any) -> None:
        """One line on stderr that matches, exit code 1, and the folder as before."""
        before = self.contents()
        result = CliRunner().invoke(main, self.arguments(**changed))
        check_refusal(result.exit_code, result.stdout, result.stderr, message)
        assert self.contents() == before, "nothing is written"

    def contents(self) -> dict[str, bytes | None]:
        return {str(p.relative_to(self.folder)): None if p.is_dir() else p.read_bytes() for p in self.folder.rglob("*")}


def check_refusal(code: int, stdout: str, stderr: str, message: str) -> None:
    assert (code, stdout) == (1, ""), stderr
    assert re.fullmatch(r"error: [^\n]+\. Hint: [^\n]+\n", stderr), stderr
    assert re.search(message, stderr), stderr
    assert "Traceback" not in stderr


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Temporary files go into the folder that is watched."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return Case(tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, case: Case) -> None:
    content, message = MODELS[name]
    case.model.write_bytes(content())
    case.refused(message)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name: str, case: Case) -> None:
    array, message = SAMPLES[name]
    np.save(case.calib, array())
    case.refused(message)


def test_missing_files(case: Case) -> None:
    case.refused("x.npz: there is no such file", calib=case.folder / "x.npz")
    case.refused("a float model needs calibration samples. Hint: give some with --calib", calib=None)
    case.calib.write_bytes(case.calib.read_bytes()[:200])
    case.refused("x.npy: the file cannot be read")
    (case.folder / "nothing").mkdir()
    case.refused("the folder holds no .npy or .npz file", calib=case.folder / "nothing")
    case.model.unlink()
    case.refused("m.onnx: cannot be read")


def test_names_of_inputs(case: Case) -> None:
    np.savez(case.folder / "x.npz", image=normal(), mask=normal())
    case.refused("the file holds image, mask; the model's inputs are in0", calib=case.folder / "x.npz")


def test_targets(case: Case) -> None:
    case.refused("unknown target 'x86'. Hint: one of .*x86-avx2", target="x86")
    case.refused("mine.toml: cannot be read", target=case.folder / "mine.toml")
    (case.folder / "mine.toml").write_text("name = 3")
    case.refused("mine.toml: key '.+' (has the wrong value|is missing)", target=case.folder / "mine.toml")


def test_outputs_that_cannot_be_written(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.out.write_text("a file")
    case.refused("the output exists and is not a folder")
    case.out = case.model / "out"
    case.refused("the output cannot be written")
    case.out = case.folder / "tmp" / "thesis"
    case.out.mkdir()
    (case.out / "thesis.tex").write_text("years of work")
    case.refused("the folder is not empty and holds no compiled model. Hint: choose another folder")


def test_a_full_disk(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qcc.emit.library.save", full)
    case.refused("the output cannot be written: No space left on device")


def test_unsupported_nodes_are_listed_all(case: Case) -> None:
    net = Net(0)
    x = net.input(*SHAPE[1:])
    y = net("Sin", net("LayerNormalization", x, np.ones(5, np.float32)))
    case.model.write_bytes(net.model(y).SerializeToString())
    result = CliRunner().invoke(main, case.arguments())
    assert result.exit_code == 1
    first, *lines = result.stderr.splitlines()
    assert first.endswith("m.onnx: 2 unsupported nodes")
    assert [line.split(":")[0] for line in lines] == ["  LayerNormalization 'LayerNormalization_0'", "  Sin 'Sin_1'"]
    assert all(". Hint: " in line for line in lines)
    assert not case.out.exists()


def test_constant_activations_compile(case: Case) -> None:
    """Legal, though surely not what was meant: the report says so."""
    np.save(case.calib, np.zeros(SHAPE, np.float32))
    result = CliRunner().invoke(main, case.arguments())
    assert (result.exit_code, result.stderr) == (0, "")
    assert "every calibration sample gives the constant 0" in result.stdout
    assert (case.out / "manifest.json").is_file()


def test_in_a_process_of_its_own(case: Case) -> None:
    case.model.write_bytes(case.model.read_bytes()[:300])
    command = [sys.executable, "-c", "from qcc.cli import main; main()", *case.arguments()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    check_refusal(done.returncode, done.stdout, done.stderr, "m.onnx: is not an ONNX file, or is truncated or corrupt")
    assert not case.out.exists()
