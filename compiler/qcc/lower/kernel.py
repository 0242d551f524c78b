"""Kernels and their calls, described without TVM: what a node asks of code generation.

A ``Kernel`` is a static description and the cache key of its object code. A ``Call`` binds it to buffers and packed
constants. Several calls may compute one node (a main part and a tail), several nodes may share one kernel.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from numpy.typing import NDArray

from qcc.ir.graph import Attr, TensorType

if TYPE_CHECKING:
    from qcc.target import Target


@dataclass(frozen=True)
class View:
    """How a kernel sees memory: logical shape, strides in elements (views may overlap), dtype as stored."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    @property
    def dense(self) -> bool:
        """Row-major without gaps."""
        expected = 1
        for extent, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if extent != 1 and stride != expected:
                return False
            expected *= extent
        return True


def dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


@dataclass(frozen=True)
class Operand:
    """One pointer parameter of a kernel: ``in`` reads a buffer, ``out`` writes one, ``const`` reads a packed
    constant."""

    key: str
    role: Literal["in", "const", "out"]
    view: View


@dataclass(frozen=True)
class Kernel:
    """``compute`` names a function of ``lower.compute``; ``params`` are its static parameters."""

    compute: str
    params: tuple[tuple[str, Attr], ...]
    operands: tuple[Operand, ...]

    def param(self, key: str) -> Any:
        """A static parameter."""
        return dict(self.params)[key]

    def get(self, key: str) -> Any:
        """A static parameter, or None."""
        return dict(self.params).get(key)

    def view(self, key: str) -> View:
        """View of an operand."""
        return next(o.view for o in self.operands if o.key == key)

    @property
    def digest(self) -> str:
        """Stable name of this description: 16 hex digits of SHA-256."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class BufferArg:
    """A pointer ``offset`` elements into the buffer that holds ``value``."""

    value: str
    offset: int


@dataclass
class Call:
    """One kernel call; ``args`` go with ``kernel.operands``: a place in a buffer, or the packed array of a constant."""

    kernel: Kernel
    args: list[BufferArg | NDArray[Any]]
    node: str
    macs: int = 0


@dataclass(frozen=True)
class Fill:
    """Before ``node`` writes its buffer: set the buffer's halo to ``byte`` (the stored zero point)."""

    value: str
    byte: int


class LowerContext(Protocol):
    """What an op may ask while it describes its kernels."""

    target: Target

    @property
    def storage(self) -> str:
        """dtype in which activations are stored: ``int8``, or ``uint8`` holding q + 128."""

    def type(self, value: str) -> TensorType:
        """Type of a value of the integer program."""

    def constant(self, value: str) -> NDArray[Any]:
        """Array of a constant value."""

    def is_constant(self, value: str) -> bool:
        """Whether a value is a constant."""

    def place(self, value: str) -> tuple[View, BufferArg]:
        """Where a value lies: its logical view and the pointer to its first element."""

    def part(self, value: str, begin: tuple[int, ...], end: tuple[int, ...]) -> tuple[View, BufferArg]:
        """Where the part [begin, end) of a value lies; a concat's input is there if this equals its ``place``."""

    def overlay(self, value: str) -> int:
        """1 or -1 where a node's output may lie over its input x, if its kernel goes forward or backward; else 0."""

    def window(self, value: str, pad: tuple[int, int, int, int]) -> tuple[View, BufferArg]:
        """As ``place`` for an NHWC value, extended by (top, left, bottom, right) into the buffer's halo."""


@dataclass
class CallBuilder:
    """Collects operands and arguments of one call in order."""

    compute: str
    node: str
    params: dict[str, Attr] = field(default_factory=dict)
    macs: int = 0
    operands: list[Operand] = field(default_factory=list)
    args: list[BufferArg | NDArray[Any]] = field(default_factory=list)

    def read(self, key: str, place: tuple[View, BufferArg]) -> None:
        """Add a buffer that is read."""
        self.operands.append(Operand(key, "in", place[0]))
        self.args.append(place[1])

    def write(self, key: str, place: tuple[View, BufferArg]) -> None:
        """Add the buffer that is written."""
        self.operands.append(Operand(key, "out", place[0]))
        self.args.append(place[1])

    def const(self, key: str, array: NDArray[Any]) -> None:
        """Add a packed constant."""
        shape = tuple(int(d) for d in array.shape)
        self.operands.append(Operand(key, "const", View(shape, dense_strides(shape), str(array.dtype))))
        self.args.append(array)

    def call(self) -> Call:
        """The finished call."""
        kernel = Kernel(self.compute, tuple(sorted(self.params.items())), tuple(self.operands))
        return Call(kernel, self.args, self.node, self.macs)
