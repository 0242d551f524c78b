"""What the emitters are given, and the names and numbers that the files of an artifact share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Graph, Node
from qcc.lower.kernel import BufferArg, Call, Operand
from qcc.numerics import QParams
from qcc.plan.arena import Arena
from qcc.plan.layout import Layout

if TYPE_CHECKING:
    from qcc.lower.build import Built
    from qcc.target import Target

C_TYPES = {"float32": "float", "int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "uint16": "uint16_t",
           "int32": "int32_t", "uint32": "uint32_t", "int64": "int64_t", "bool": "uint8_t",
           "float16": "uint16_t"}  # fmt: skip
KEYWORDS = frozenset(
    """auto break case char const continue default do double else enum extern float for goto if inline int long main
    register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
    asm bool catch class delete explicit export false friend mutable namespace new operator private protected public
    template this throw true try typeid typename using virtual
    """.split()  # noqa: SIM905
)
TAKEN = frozenset(
    """arena caller context done hook hook_context inputs io main outputs weights
    qcc qcc_amx qcc_dsp qcc_halo qcc_mve qcc_numerics qcc_scalar qcc_threads
    assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdarg stdbool stddef stdint
    stdio stdlib string tgmath time wchar wctype
    abort abs ceil clock cos exit exp floor free index log malloc memchr memcmp memcpy memmove memset pow printf raise
    rand read remove rename round scanf sin sqrt system tan write
    """.split()  # noqa: SIM905
)
"""What no model's functions and files may be called, in lower case: names of the generated files themselves, of qcc's
own headers, of C's headers (``-I`` of the folder would hide them), and of functions that programs use."""
LOCALS = frozenset(("NULL", "from", "memcpy", "to", *C_TYPES.values()))
"""Names that the bodies of generated functions use: no parameter may hide them."""
READ_AHEAD = 64
"""Readable bytes behind the last byte that a kernel's views reach: vectors may read so far beyond it."""


def identifier(name: str) -> str:
    """``name`` as an identifier of C and C++."""
    text = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "model"
    return f"model_{text}" if text[0].isdigit() or text in KEYWORDS else text


def parameter_name(wanted: str, other: str, taken: set[str]) -> str:
    """A name that is added to ``taken``: ``wanted``, or ``other`` with as many ``_`` behind it as make it new."""
    name = other if wanted in taken else wanted
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def symbol_prefix(name: str) -> str:
    """``name`` as the prefix of a model's symbols and files."""
    text = identifier(name)
    return f"model_{text}" if text.lower() in TAKEN else text


@dataclass(frozen=True)
class Package:
    """One compiled model: the integer program, where its values lie, and the calls that compute them, in node order.

    ``built`` is keyed by ``Kernel.digest``; ``remarks`` are lines for the report.
    """

    name: str
    graph: Graph
    layout: Layout
    arena: Arena
    calls: Sequence[Call]
    built: Mapping[str, Built]
    target: Target
    remarks: Sequence[str] = field(default=())

    @cached_property
    def prefix(self) -> str:
        """Prefix of every exported symbol."""
        return symbol_prefix(self.name)

    @cached_property
    def calls_of(self) -> dict[str, list[Call]]:
        """The calls that compute each node."""
        found: dict[str, list[Call]] = {n.output: [] for n in self.graph.nodes}
        for call in self.calls:
            found[call.node].append(call)
        return found

    @cached_property
    def weights(self) -> Weights:
        """Every packed constant, equal ones once."""
        weights = Weights(self.target.alignment)
        for call in self.calls:
            for arg in call.args:
                if not isinstance(arg, BufferArg):
                    weights.add(arg)
        for value in self.graph.outputs:
            if value in self.graph.constants:
                weights.add(self.graph.constants[value])
        return weights

    @cached_property
    def arena_bytes(self) -> int:
        """Bytes of the arena with what kernels may read behind its last buffer."""
        ends = [self.arena.nbytes]
        for call in self.calls:
            for operand, arg in zip(call.kernel.operands, call.args, strict=True):
                if isinstance(arg, BufferArg):
                    ends.append(self._end(call, operand, arg))
        unit = self.target.alignment
        return -(-max(ends) // unit) * unit

    @property
    def read_ahead(self) -> int:
        """Bytes that kernels may read behind a view: none where C source says what is read."""
        return 0 if self.target.firmware else READ_AHEAD

    def _end(self, call: Call, operand: Operand, arg: BufferArg) -> int:
        """The arena byte up to which a kernel may touch an operand."""
        view, buffer = operand.view, self.layout.buffers[arg.value]
        size = np.dtype(view.dtype).itemsize
        reach = sum((extent - 1) * stride for extent, stride in zip(view.shape, view.strides, strict=True)) + 1
        if buffer.kind != "arena":
            inside = operand.role == "out" or arg.offset + reach <= buffer.size
            assert inside, f"{call.node}: '{operand.key}' leaves the caller's array"
            return 0
        return self.arena.offsets[arg.value] + (arg.offset + reach) * size + self.read_ahead

    def edges(self) -> Iterator[tuple[str, int, str, QParams | None]]:
        """See ``edges``."""
        return edges(self.graph)

    def headline(self, node: Node) -> str:
        """One line about a node, for comments: op, shape, origin."""
        t = self.graph.types[node.output]
        source = f", from {node.source}" if node.source else ""
        return one_line(f"{node.output} = {node.op} {t.dtype}{list(t.shape)}{source}")


def edges(graph: Graph) -> Iterator[tuple[str, int, str, QParams | None]]:
    """("input" or "output", index, value, int8 parameters) of each; a float value's are those behind the edge."""
    users, producers = graph.users(), graph.node_of()
    for index, value in enumerate(graph.inputs):
        behind = [n.output for n in users[value] if n.op == "quantize"]
        yield "input", index, value, graph.types[behind[0] if behind else value].qparams
    for index, value in enumerate(graph.outputs):
        producer = producers.get(value)
        before = producer.inputs["x"] if producer is not None and producer.op == "dequantize" else value
        yield "output", index, value, graph.types[before].qparams


def one_line(text: str) -> str:
    """Text from a model file that cannot end a C comment or a line."""
    return re.sub(r"[^\x20-\x7e]", "?", text).replace("*/", "* /").replace("\\", "/")


class Weights:
    """Constants one after the other in a blob, each aligned; equal bytes are stored once."""

    def __init__(self, alignment: int) -> None:
        """An empty blob."""
        self._alignment = alignment
        self._offsets: dict[bytes, int] = {}
        self._parts: list[bytes] = []
        self.nbytes = 0

    def add(self, array: NDArray[Any]) -> None:
        """Store an array, unless an equal one is there."""
        data = np.ascontiguousarray(array).tobytes()
        key = hashlib.sha256(data).digest()
        if key not in self._offsets:
            padded = data + bytes(-len(data) % self._alignment)
            self._offsets[key] = self.nbytes
            self._parts.append(padded)
            self.nbytes += len(padded)

    def offset(self, array: NDArray[Any]) -> int:
        """Byte offset of an array that was added."""
        return self._offsets[hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()]

    def blob(self) -> bytes:
        """All constants, and what kernels may read behind the last one."""
        return b"".join([*self._parts, bytes(READ_AHEAD)])
