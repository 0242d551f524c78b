"""Samples in files: ``.npy``, ``.npz``, or a folder of those, for calibration and for running a compiled model.

An ``.npz`` holds one array for each input, under its name. Where the model has one input, the array may also be called
``x`` or be the only one; further arrays (labels, say) are ignored.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from qcc.errors import CalibrationError, InputError, QccError
from qcc.ir.graph import TensorType

Arrays = dict[str, NDArray[Any]]
FORMS = "give a .npy file, a .npz file, or a folder of those"


@dataclass(frozen=True)
class FolderSamples(Sequence[Arrays]):
    """The files of a folder, by name: one mapping from input name to array for each, read when its turn comes."""

    files: tuple[Path, ...]
    inputs: tuple[str, ...]

    def __len__(self) -> int:
        """Number of files."""
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        """The arrays of a file, or the samples of a slice."""
        if isinstance(index, slice):
            return FolderSamples(self.files[index], self.inputs)
        return _read(self.files[index], self.inputs, CalibrationError)


def load_samples(path: str | Path, inputs: Sequence[str]) -> Any:
    """Calibration data (``quantize.calibrate.Samples``) from a file or folder. Raises CalibrationError."""
    path = Path(path)
    if not path.is_dir():
        arrays = _read(path, inputs, CalibrationError)
        return arrays[inputs[0]] if len(inputs) == 1 else arrays
    try:
        files = tuple(sorted(f for f in path.iterdir() if f.suffix in (".npy", ".npz")))
    except OSError as error:
        raise CalibrationError(f"the folder cannot be read ({error.strerror})", where=str(path), hint=FORMS) from error
    if not files:
        raise CalibrationError("the folder holds no .npy or .npz file", where=str(path), hint=FORMS)
    return FolderSamples(files, tuple(inputs))


def load_inputs(path: str | Path, inputs: Sequence[str]) -> Arrays:
    """Arrays by input name from a file. Raises InputError."""
    return _read(Path(path), inputs, InputError)


def save_arrays(file: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an ``.npz``. ``numpy.savez`` takes its own parameters for names, and so has no array called ``file``."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def runs(arrays: Mapping[str, NDArray[Any]], types: Mapping[str, TensorType]) -> list[Arrays]:
    """Inputs of one inference after another: whole inputs as they are, longer arrays cut along the first axis.

    An array [n * B, …] or [n, B, …] of a model with inputs [B, …] gives n inferences. Raises InputError.
    """
    counts = {name: _count(name, arrays[name], t) for name, t in types.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"the inputs have different numbers of samples: {counts}", hint="give n of every input")
    count = next(iter(counts.values()), 1)
    return [
        {name: np.asarray(arrays[name].reshape(count, *t.shape)[i], order="C") for name, t in types.items()}
        for i in range(count)
    ]


def _count(name: str, array: NDArray[Any], t: TensorType) -> int:
    batch = t.shape[0] if t.shape else 1
    if array.size == 0:
        raise InputError("the array is empty", where=f"input '{name}'", hint=f"give {t.dtype}{list(t.shape)}")
    if array.ndim == 0 and t.shape == ():
        return 1
    if array.ndim > 0 and array.shape[1:] == t.shape:
        return len(array)
    if t.shape and array.shape[1:] == t.shape[1:] and len(array) % batch == 0:
        return len(array) // batch
    hint = f"give {t.dtype}{list(t.shape)}, or n of them one after the other"
    raise InputError(f"shape {array.shape} does not fit {t.shape}", where=f"input '{name}'", hint=hint)


def _read(path: Path, inputs: Sequence[str], kind: type[QccError]) -> Arrays:
    """Arrays of one file by input name; raises ``kind``."""
    where = str(path)
    if path.suffix not in (".npy", ".npz"):
        raise kind("not a file of arrays", where=where, hint=FORMS)
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
        if isinstance(loaded, np.ndarray):
            found, names = {"x": loaded}, ["one array without a name"]
        else:
            with loaded:
                names = list(loaded.files)
                wanted = {n for n in names if n in inputs} or {n for n in names if n == "x" or len(names) == 1}
                found = {name: np.asanyarray(loaded[name]) for name in wanted}
    except FileNotFoundError as error:
        raise kind("there is no such file", where=where, hint=FORMS) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise kind(f"the file cannot be read ({error})", where=where, hint=FORMS) from error
    if all(name in found for name in inputs):
        return {name: found[name] for name in inputs}
    if len(inputs) == len(found) == 1:
        return {inputs[0]: next(iter(found.values()))}
    have = ", ".join(names) or "nothing"
    raise kind(f"the file holds {have}; the model's inputs are {', '.join(inputs)}", where=where,
               hint="name each array after its input")
