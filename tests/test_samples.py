"""Samples in files, and every message for files that do not fit."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from qcc.errors import CalibrationError, InputError
from qcc.ir.graph import TensorType
from qcc.quantize.calibrate import fingerprint
from qcc.samples import load_inputs, load_samples, runs

A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 4), np.float32)


def test_one_input(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", A)
    np.savez(tmp_path / "only.npz", anything=A)
    np.savez(tmp_path / "named.npz", image=A, y=B)
    np.savez(tmp_path / "x.npz", x=A, y=B)
    for name in ("a.npy", "only.npz", "named.npz", "x.npz"):
        np.testing.assert_array_equal(load_samples(tmp_path / name, ["image"]), A)
        np.testing.assert_array_equal(load_inputs(str(tmp_path / name), ["image"])["image"], A)


def test_several_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "both.npz", left=A, right=B, label=A)
    assert list(load_samples(tmp_path / "both.npz", ["left", "right"])) == ["left", "right"]


def test_a_folder_is_read_file_by_file(tmp_path: Path) -> None:
    for i in range(3):
        np.save(tmp_path / f"{2 - i}.npy", A + i)
    (tmp_path / "notes.txt").write_text("not a sample")
    samples = load_samples(tmp_path, ["image"])
    assert len(samples) == 3
    assert [float(s["image"][0, 0]) for s in samples] == [2.0, 1.0, 0.0]
    assert len(list(samples)) == 3, "it can be read again"
    assert fingerprint(samples) == fingerprint(list(samples)), "its ranges are cached as those of arrays are"
    (tmp_path / "3.npy").write_bytes(b"")
    with pytest.raises(CalibrationError, match="cannot be read"):
        list(load_samples(tmp_path, ["image"]))


@pytest.mark.parametrize("kind", [CalibrationError, InputError])
def test_files_that_do_not_fit(kind: type[CalibrationError | InputError], tmp_path: Path) -> None:
    load = load_samples if kind is CalibrationError else load_inputs
    np.savez(tmp_path / "two.npz", a=A, b=B)
    np.savez(tmp_path / "none.npz")
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:100])
    (tmp_path / "image.jpg").write_bytes(b"x")
    np.savez_compressed(tmp_path / "damaged.npz", image=np.arange(1000))
    whole = (tmp_path / "damaged.npz").read_bytes()
    (tmp_path / "damaged.npz").write_bytes(whole[:200] + b"\xff" * 100 + whole[300:])
    for name, message in [
        ("absent.npz", r"absent.npz: there is no such file\. Hint: give a \.npy file"),
        ("image.jpg", "not a file of arrays. Hint: give a .npy file, a .npz file, or a folder"),
        ("two.npz", "the file holds a, b; the model's inputs are image. Hint: name each array after its input"),
        ("none.npz", "the file holds nothing"),
        ("object.npy", "cannot be read"),
        ("cut.npz", "cannot be read"),
        ("damaged.npz", "cannot be read"),
    ]:
        with pytest.raises(kind, match=message):
            load(tmp_path / name, ["image"])
    np.save(tmp_path / "a.npy", A)
    with pytest.raises(kind, match="holds one array without a name; the model's inputs are a, b"):
        load(tmp_path / "a.npy", ["a", "b"])


def test_an_archive_of_other_things(tmp_path: Path) -> None:
    """The text is an array of dtype bytes, which whoever wants floats will refuse."""
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("x", "hello")
    with pytest.raises(InputError, match="does not fit"):
        runs(load_inputs(tmp_path / "text.npz", ["x"]), {"x": TensorType((1, 3))})


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"the folder holds no \.npy or \.npz file"):
        load_samples(tmp_path, ["x"])


@pytest.mark.parametrize(("shape", "count"), [((2, 3), 1), ((6, 3), 3), ((5, 2, 3), 5)])
def test_runs(shape: tuple[int, ...], count: int) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    found = runs({"x": x}, {"x": TensorType((2, 3))})
    assert len(found) == count
    np.testing.assert_array_equal(np.concatenate([f["x"] for f in found]).ravel(), x.ravel())


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 3), r"shape \(3, 3\) does not fit \(2, 3\)"), ((2, 4), "does not fit"), ((0, 3), "the array is empty")],
)
def test_runs_that_do_not_fit(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        runs({"x": np.zeros(shape, np.float32)}, {"x": TensorType((2, 3))})


def test_runs_of_scalars() -> None:
    types = {"x": TensorType(())}
    assert len(runs({"x": np.array(3.0, np.float32)}, types)) == 1
    assert [float(f["x"]) for f in runs({"x": np.arange(2.0, dtype=np.float32)}, types)] == [0, 1]


def test_runs_of_different_length() -> None:
    with pytest.raises(InputError, match="different numbers of samples"):
        runs({"a": np.zeros((2, 3)), "b": np.zeros((1, 3))}, {"a": TensorType((1, 3)), "b": TensorType((1, 3))})
