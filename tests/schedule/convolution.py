"""One integer convolution, compiled for a target, run on random bytes and compared with the reference."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from permission import ask_for
from qcc.ir.graph import Node, TensorType
from qcc.lower.build import Built, build_kernels
from qcc.lower.kernel import BufferArg, Call, View
from qcc.lower.weighted import convolution_calls
from qcc.numerics import QParams
from qcc.ops import OPS
from qcc.target import Target

TARGETS = ("x86-amx", "x86-vnni", "x86-avx2")
READABLE = 4096
"""Bytes behind a buffer that a kernel may read."""


def runnable(name: str) -> Target:
    """The target, or a skip that says why."""
    target = Target.load(name)
    if target.missing():
        pytest.skip(f"CANNOT RUN {name} HERE: the CPU lacks {', '.join(target.missing())}")
    return target


@dataclass
class Case:
    """Sizes of an already padded input and what is done with it; ``gap`` channels lie between pixels."""

    seed: int
    shape: tuple[int, int, int, int]
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    residual: bool = False
    clamp: tuple[int, int] = (-128, 127)
    shift: int = 31
    fraction: int = 0
    gap: int = 0
    extreme: bool = False
    """Bytes and weights of the largest magnitude only, all products of one sign."""
    in_place: bool = False
    """The output lies where the residual was."""


@dataclass
class Prepared:
    """Memory, calls and the expected memory of a case."""

    case: Case
    target: Target
    storage: str = ""
    buffers: dict[str, NDArray[Any]] = field(default_factory=dict)
    places: dict[str, tuple[View, BufferArg]] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Draw everything, describe the calls and compute what memory must hold afterwards."""
        case, self.storage = self.case, self.target.storage
        rng = np.random.default_rng(case.seed)
        batch, height, width, depth = case.shape
        zero = int(rng.choice([-128, -3, 0, 127]))
        x = rng.integers(-128, 128, case.shape).astype(np.int8)
        w = rng.integers(-127, 128, (case.channels, *case.kernel, depth // case.groups)).astype(np.int8)
        if case.extreme:
            x[...], w[...] = -128 if self.storage == "int8" else 127, -127
        spread = max(1.0, float(np.sqrt(w[0].size)) * 74 * 73)
        real = rng.uniform(10, 120, case.channels) / spread
        real[::2] = 2.0 ** np.floor(np.log2(real[::2]))  # ties are common
        multiplier = np.clip(np.rint(real * 2.0 ** (case.shift + case.fraction)), 1, 2**31 - 1).astype(np.int32)
        bias = rng.integers(-3000, 3000, case.channels).astype(np.int32)
        attrs: dict[str, Any] = {
            "stride": case.stride, "dilation": case.dilation, "groups": case.groups, "pad": (0, 0, 0, 0),
            "clamp": case.clamp, "zero_point": int(rng.integers(-128, 128)), "shift": case.shift,
        }  # fmt: skip
        inputs = {"x": "x", "w": "w", "b": "b", "multiplier": "m"}
        out = tuple((e - (k - 1) * d - 1) // s + 1 for e, k, s, d in
                    zip((height, width), case.kernel, case.stride, case.dilation, strict=True))  # fmt: skip
        shape = (batch, *out, case.channels)
        arrays = {"x": x, "w": w, "b": bias, "multiplier": multiplier}
        self.types["x"] = TensorType(case.shape, "int8", QParams(0.1, zero))
        self.types["y"] = TensorType(shape, "int8", QParams(0.1, attrs["zero_point"]))
        self.constants = {"w": w, "b": bias, "m": multiplier}
        if case.residual:
            arrays["residual"] = rng.integers(-128, 128, shape).astype(np.int8)
            inputs["residual"] = "r"
            self.types["r"] = TensorType(shape, "int8", QParams(0.1, int(rng.integers(-128, 128))))
            attrs |= {"fraction": case.fraction, "residual_multiplier": int(rng.integers(1, 3 << case.fraction))}
            self._store("r", arrays["residual"], rng)
        self._store("x", x, rng)
        self._store("y", np.zeros(shape, np.int8), rng)
        if case.in_place:
            self.buffers["y"], self.places["y"] = self.buffers["r"], self.places["r"]
        node = Node("y", "conv2d", inputs, attrs, "test")
        self.calls = convolution_calls(node, self)
        self.expected = self.buffers["y"].copy()
        types = {"x": self.types["x"], **({"residual": self.types["r"]} if case.residual else {})}
        for key, name in {"w": "w", "b": "b", "multiplier": "m"}.items():
            types[key] = TensorType(self.constants[name].shape, str(self.constants[name].dtype))
        self._write(self.expected, "y", OPS["conv2d"].integer(node, arrays, types, self.types["y"]))

    def _store(self, name: str, array: NDArray[np.int8], rng: np.random.Generator) -> None:
        """Put an array into a buffer of its own, with noise between its pixels and behind it."""
        batch, height, width, channels = array.shape
        pixel = channels + self.case.gap
        strides = (height * width * pixel, width * pixel, pixel, 1)
        behind = READABLE + 3 * self.case.dilation[0] * width * pixel
        self.buffers[name] = rng.integers(0, 256, batch * strides[0] + behind).astype(np.uint8)
        self.places[name] = (View(array.shape, strides, self.storage), BufferArg(name, 0))
        self._write(self.buffers[name], name, array)

    def _write(self, buffer: NDArray[np.uint8], name: str, array: NDArray[np.int8]) -> None:
        view = self.places[name][0]
        stored = array.view(np.uint8) ^ (0x80 if self.storage == "uint8" else 0)
        np.lib.stride_tricks.as_strided(buffer, view.shape, view.strides)[...] = stored

    def type(self, value: str) -> TensorType:
        return self.types[value]

    def constant(self, value: str) -> NDArray[Any]:
        return self.constants[value]

    def is_constant(self, value: str) -> bool:
        return value in self.constants

    def place(self, value: str) -> tuple[View, BufferArg]:
        return self.places[value]

    def window(self, value: str, pad: tuple[int, int, int, int]) -> tuple[View, BufferArg]:
        return self.places[value]

    def run(self, library: ctypes.CDLL, built: dict[str, Built]) -> None:
        """All calls, each as two halves, as two threads would share it."""
        for call in self.calls:
            kernel = built[call.kernel.digest]
            arrays = [self.buffers[a.value][a.offset :] if isinstance(a, BufferArg) else a for a in call.args]
            pointers = [ctypes.c_void_p(a.ctypes.data) for a in arrays]
            middle = kernel.extent // 2
            for begin, end in ((0, middle), (middle, kernel.extent)):
                library[kernel.symbol](*pointers, begin, end)


def compiled(prepared: Sequence[Prepared], target: Target) -> dict[str, Built]:
    """Objects of all calls."""
    return build_kernels([c.kernel for p in prepared for c in p.calls], target, jobs=1)


def check(cases: Sequence[Case], target: Target, folder: Path) -> None:
    """Compile and run the cases; raises AssertionError at the first byte that is not the reference's."""
    prepared = [Prepared(case, target) for case in cases]
    built = compiled(prepared, target)
    library = folder / "kernels.so"
    subprocess.run(["cc", "-shared", "-o", str(library), *sorted({str(b.object) for b in built.values()})], check=True)
    ask_for(target)
    loaded = ctypes.CDLL(str(library))
    for p in prepared:
        p.run(loaded, built)
        wrong = np.flatnonzero(p.buffers["y"] != p.expected)
        view = p.places["y"][0]
        inside = np.zeros(p.expected.size, bool)
        np.lib.stride_tricks.as_strided(inside, view.shape, view.strides)[...] = True
        assert not wrong.size, f"{p.case}: {wrong.size} bytes wrong, {(~inside[wrong]).sum()} of them outside y"
