"""Loads a compiled model on this machine and calls it through its C functions, as a C program would."""

from __future__ import annotations

import ctypes
import json
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.errors import ArtifactError, InputError
from qcc.ir.graph import TensorType

if TYPE_CHECKING:
    from qcc.ir.graph import Graph
    from qcc.npu.artifact import NpuModel

Arrays = Mapping[str, NDArray[Any]]
_HOOK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)
FORMAT = 2
"""Of manifest.json: raised whenever a key is added, removed, or changes its meaning."""
_KEYS = {"name", "prefix", "target", "inputs", "outputs", "macs", "weight_bytes", "arena", "layers", "remarks"}
"""What every manifest has."""
MOST_THREADS = 2**31 - 1
"""A C int; the library takes as many as it can start."""
_RECOMPILE = "compile the model again"
_LOCKS: dict[int, threading.RLock] = {}
"""One for each open library: models that share it share its arena."""


class Model:
    """A compiled model. One inference at a time: calls from several threads wait for each other.

    ``inputs`` and ``outputs`` are types by name; ``manifest`` is ``manifest.json``.
    """

    def __init__(self, folder: Path) -> None:
        """Load the artifact in ``folder``; raises ArtifactError."""
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.name: str = self.manifest["name"]
        self.inputs, self.outputs = (
            {e["name"]: TensorType(tuple(e["shape"]), e["dtype"]) for e in self.manifest[kind]}
            for kind in ("inputs", "outputs")
        )
        self._attach()

    def _attach(self) -> None:
        """Load the library; raises ArtifactError if this machine cannot run it."""
        check_machine(self.folder, self.manifest["target"])
        prefix = self.manifest["prefix"]
        self._source = self.manifest["target"]["emit"] == "c"
        self._library = _compiled(self.folder, self.manifest) if self._source else _open(self.folder, f"lib{prefix}.so")
        try:
            self._run, self._threads, self._hook, self._arena = (
                self._library[f"{prefix}_{'host_' if self._source else ''}{name}"]
                for name in ("run", "set_threads", "set_hook", "arena")
            )
        except AttributeError as error:
            raise ArtifactError(f"the library is not that of '{prefix}'", where=str(self.folder),
                                hint=_RECOMPILE) from error
        self._arena.restype = ctypes.c_void_p
        self._lock = _LOCKS.setdefault(self._library._handle, threading.RLock())

    def __repr__(self) -> str:
        """Name, target and types."""
        types = ", ".join(f"{n}: {t.dtype}{list(t.shape)}" for n, t in (*self.inputs.items(), *self.outputs.items()))
        return f"<qcc.Model {self.name} for {self.manifest['target']['name']}: {types}>"

    def __call__(self, x: NDArray[Any] | Arrays | None = None, /, **named: NDArray[Any]) -> Any:
        """Run one inference. ``x`` is the only input or a mapping by name; several inputs may be keywords.

        Returns the output array, or a dict by name where there are several. Raises InputError on a wrong name, shape or
        dtype, and on NaN.
        """
        outputs = self.run(named_inputs(self.inputs, x, named))
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs by name; raises as calling does."""
        arrays = self.checked(inputs)
        outputs = {name: np.empty(t.shape, t.dtype) for name, t in self.outputs.items()}
        self.run_into(arrays, list(outputs.values()))
        return outputs

    def run_into(self, inputs: Sequence[NDArray[Any]], outputs: Sequence[NDArray[Any]]) -> None:
        """Run on arrays in the model's order that ``checked`` returned or that are like them; nothing is checked.

        Raises ArtifactError if the system refuses the registers that the target needs.
        """
        sources = (ctypes.c_void_p * max(len(inputs), 1))(*(a.ctypes.data for a in inputs))
        targets = (ctypes.c_void_p * max(len(outputs), 1))(*(a.ctypes.data for a in outputs))
        with self._lock:
            status = self._run(sources, targets)
        if status != 0:
            raise ArtifactError("the system refuses AMX to this process", where=str(self.folder),
                                hint="it needs Linux 5.16 and no filter of arch_prctl; or compile for x86-vnni-vbmi")

    def checked(self, inputs: Arrays) -> list[NDArray[Any]]:
        """The arrays in the model's order, contiguous; raises InputError."""
        return list(checked_inputs(self.inputs, inputs).values())

    def set_threads(self, count: int) -> int:
        """Use ``count`` threads from now on; returns how many there are. Raises InputError if ``count`` is below 1."""
        if count < 1:
            raise InputError(f"{count} threads", hint="give 1 or more")
        with self._lock:
            return int(self._threads(min(count, MOST_THREADS)))

    def program(self) -> Graph:
        """The integer program that the library computes."""
        from qcc.ir.text import load as load_program

        whole = self.manifest["target"]["emit"] == "library"
        return load_program(self.folder if whole else self.folder / "reference")

    def trace(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once; int8 and int32 results of every node that lies in the arena, as they were when it had run."""
        found: dict[str, NDArray[Any]] = {}
        layers, start = self.manifest["layers"], self._arena()
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * self.manifest["arena"]["bytes"]).from_address(start))

        def keep(_: int | None, step: int) -> None:
            layer = layers[step]
            if layer["place"] is not None:
                found[layer["name"]] = read_layer(memory, layer)

        with self._hooked(keep):
            self.run(inputs)
        return found

    def measure(self, seconds: float, least: int = 10) -> list[float]:
        """Times (seconds) of inferences on zeros, after a warm-up: at least ``least``, and for ``seconds``."""
        inputs = [np.zeros(t.shape, t.dtype) for t in self.inputs.values()]
        outputs = [np.empty(t.shape, t.dtype) for t in self.outputs.values()]
        for _ in range(3):
            self.run_into(inputs, outputs)
        times: list[float] = []
        total = 0.0
        while len(times) < least or total < seconds:
            start = time.perf_counter()
            self.run_into(inputs, outputs)
            times.append(time.perf_counter() - start)
            total += times[-1]
        return times

    def measure_layers(self, seconds: float) -> dict[str, float]:
        """Median time (seconds) of each node with kernels; a microsecond of each is the measurement's own."""
        stamps: list[float] = []
        names: list[str] = []
        layers = self.manifest["layers"]

        def stamp(_: int | None, step: int) -> None:
            stamps.append(time.perf_counter())
            names.append(layers[step]["name"])

        rounds: dict[str, list[float]] = {}
        inputs = [np.zeros(t.shape, t.dtype) for t in self.inputs.values()]
        outputs = [np.empty(t.shape, t.dtype) for t in self.outputs.values()]
        end = time.perf_counter() + seconds
        with self._hooked(stamp):
            while not rounds or time.perf_counter() < end:
                names.clear()
                stamps[:] = [time.perf_counter()]
                self.run_into(inputs, outputs)
                for name, before, after in zip(names, stamps, stamps[1:], strict=False):
                    rounds.setdefault(name, []).append(after - before)
        return {name: float(np.median(times)) for name, times in rounds.items()}

    @contextmanager
    def _hooked(self, function: Any) -> Iterator[None]:
        """Have a function called after each node, of this thread's inferences only."""
        hook = _HOOK(function)
        with self._lock:
            self._hook(hook, None)
            try:
                yield
            finally:
                self._hook(_HOOK(), None)


def named_inputs(types: Mapping[str, TensorType], x: NDArray[Any] | Arrays | None, named: Arrays) -> Arrays:
    """The inputs of a call by name: a mapping and keywords, or one array. Raises InputError."""
    if x is None or isinstance(x, Mapping):
        return {**(x or {}), **named}
    if len(types) != 1 or named:
        names = ", ".join(types)
        raise InputError(f"one array without a name, but the inputs are {names}", hint="give a mapping by name")
    return {next(iter(types)): x}


def checked_inputs(types: Mapping[str, TensorType], inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Contiguous arrays in the order of ``types``; raises InputError on a wrong name, shape or dtype, and on NaN."""
    for name in inputs:
        if name not in types:
            raise InputError(f"the model has no input '{name}'", hint=f"its inputs are {', '.join(types)}")
    return {name: _checked(name, inputs.get(name), t) for name, t in types.items()}


def load(folder: str | Path) -> Model | NpuModel:
    """The compiled model in a folder; one for another machine is run by its target's ``[run] command``, one for an
    accelerator by its simulator.

    Raises ArtifactError if there is no model, or if this machine cannot run it and the target has no command.
    """
    from qcc.target import missing_here

    manifest = read_manifest(Path(folder))
    target = manifest["target"]
    if target.get("kind") == "npu":
        from qcc.npu.artifact import NpuModel

        return NpuModel(Path(folder), manifest)
    if target.get("emit") != "c" and target.get("run") and missing_here(target["arch"], target["requires"]):
        from qcc.remote import RemoteModel

        return RemoteModel(Path(folder))
    return Model(Path(folder))


def read_manifest(folder: Path) -> dict[str, Any]:
    """``manifest.json`` of an artifact; raises ArtifactError."""
    where, hint = str(folder), "name a folder that `qcc compile` wrote"
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        what = "holds no compiled model (no manifest.json)" if folder.is_dir() else "there is no such folder"
        raise ArtifactError(what, where=where, hint=hint) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ArtifactError(f"manifest.json cannot be read ({reason})", where=where, hint=_RECOMPILE) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError("manifest.json is of another version of qcc", where=where, hint=_RECOMPILE)
    lacking = sorted(_KEYS - manifest.keys())
    if lacking:
        raise ArtifactError(f"manifest.json lacks {', '.join(lacking)}", where=where, hint=_RECOMPILE)
    return manifest


def _open(folder: Path, name: str) -> ctypes.CDLL:
    """Load a library under a path that was never used: the loader knows open ones by path, and would take an earlier
    artifact of the same folder for this one.
    """
    with tempfile.TemporaryDirectory(prefix="qcc-") as fresh:
        link = Path(fresh) / name
        try:
            link.symlink_to((folder / name).absolute())
            return ctypes.CDLL(str(link))
        except OSError as error:
            what = f"{name} cannot be loaded ({str(error).replace(str(link), name)})"
            raise ArtifactError(what, where=str(folder), hint=_RECOMPILE) from error


def _compiled(folder: Path, manifest: Mapping[str, Any]) -> ctypes.CDLL:
    """The C source of an artifact for a microcontroller, compiled for this machine: the same bytes."""
    from qcc.emit.host import host_library

    with tempfile.TemporaryDirectory(prefix="qcc-") as fresh:
        return ctypes.CDLL(str(host_library(folder, manifest, Path(fresh))))


def check_machine(folder: Path, target: Mapping[str, Any]) -> None:
    """Refuse code that would end in an illegal instruction."""
    from qcc.target import missing_here

    lacking = [] if target.get("emit") == "c" else missing_here(target["arch"], target["requires"])
    if lacking:
        raise ArtifactError(f"compiled for {target['name']}, but this machine lacks {', '.join(lacking)}",
                            where=str(folder), hint="compile with --target host")


def _checked(name: str, value: Any, t: TensorType) -> NDArray[Any]:
    where, hint = f"input '{name}'", f"give {t.dtype}{list(t.shape)}"
    if value is None:
        raise InputError("this input is missing", where=where, hint=hint)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError("its rows differ in length", where=where, hint=hint) from error
    if array.shape != t.shape:
        raise InputError(f"shape {array.shape}, but the model wants {t.shape}", where=where, hint=hint)
    if array.dtype != t.dtype:
        raise InputError(f"dtype {array.dtype}, but the model wants {t.dtype}", where=where,
                         hint=f"convert it: x.astype('{t.dtype}')")
    # A sum is NaN wherever an element is, and cheap.
    with np.errstate(all="ignore"):
        suspicious = t.dtype == "float32" and np.isnan(array.sum())
    if suspicious and np.isnan(array).any():
        raise InputError("the array holds NaN", where=where, hint="an int8 model has no NaN: clean the input")
    return np.asarray(array, order="C")


def read_layer(memory: NDArray[np.uint8], layer: Mapping[str, Any]) -> NDArray[Any]:
    """A copy of a layer's result in the arena."""
    place = layer["place"]
    dtype = np.dtype(place["dtype"])
    start = place["buffer"] + place["offset"] * dtype.itemsize
    strides = tuple(s * dtype.itemsize for s in place["strides"])
    reach = sum((d - 1) * s for d, s in zip(layer["shape"], strides, strict=True)) + dtype.itemsize
    values = memory[start : start + reach].view(dtype)
    found = np.lib.stride_tricks.as_strided(values, layer["shape"], strides)
    return (found ^ 0x80).view(np.int8) if dtype == np.uint8 else found.copy()
