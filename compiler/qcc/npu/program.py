"""A compiled program: instruction words, the constants they load, and where inputs and outputs lie. One binary file."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

from qcc.errors import ArtifactError
from qcc.npu import isa
from qcc.npu.description import Description, parse
from qcc.npu.isa import Instruction

MAGIC = b"QNPU"
VERSION = 1
HEADER = struct.Struct("<4sIIIIII")
"""Magic, version, CRC-32 of the rest, bytes of JSON, of constants, words of the setup, words of the body."""


@dataclass(frozen=True)
class Port:
    """An input or output of the device: its value and where it lies in DRAM."""

    name: str
    address: int
    bytes: int


@dataclass(frozen=True)
class Layer:
    """What reports say about a node."""

    name: str
    op: str
    macs: int
    weight_bytes: int
    weights: str
    """"cached", "streamed", or "" where there are none."""
    tiling: str
    on_chip: bool
    """Whether its result stays in the activation memory."""


@dataclass
class Program:
    """``setup`` runs once and fills the cache; ``body`` runs for each inference. In DRAM ``constants`` follow
    ``data_bytes`` for inputs, outputs and what does not stay on chip.
    """

    name: str
    description: Description
    constants: bytes
    data_bytes: int
    inputs: list[Port]
    outputs: list[Port]
    layers: list[Layer]
    setup: list[Instruction]
    body: list[Instruction]
    occupancy: list[int] = field(default_factory=list)
    """Bytes of activation memory in use while each layer runs."""

    @property
    def dram_bytes(self) -> int:
        """Bytes of DRAM in use."""
        return self.data_bytes + len(self.constants)

    def check_words(self, where: str) -> None:
        """Raise ArtifactError on a word that names no layer, or waits for what never runs."""
        counts = dict.fromkeys(isa.UNITS, 0)
        for number, ins in enumerate((*self.setup, *self.body)):
            late = ins.op == "sync" and any(n > counts[unit] for unit, n in ins.operands.items())
            if ins.layer >= len(self.layers) or late or (ins.op == "sync" and min(ins.args) < 0):
                what = "waits for what never runs" if late else "is of no layer"
                raise ArtifactError(f"instruction {number} ({ins}) {what}", where=where, hint="compile the model again")
            if number >= len(self.setup):
                counts[ins.unit] += 1

    def to_bytes(self) -> bytes:
        """The file."""
        meta = {
            "name": self.name, "description": self.description.model_dump(), "data_bytes": self.data_bytes,
            "inputs": [vars(p) for p in self.inputs], "outputs": [vars(p) for p in self.outputs],
            "layers": [vars(x) for x in self.layers], "occupancy": self.occupancy,
        }  # fmt: skip
        text = json.dumps(meta, separators=(",", ":")).encode()
        payload = b"".join([text, self.constants, isa.encode(self.setup), isa.encode(self.body)])
        sizes = (len(text), len(self.constants), len(self.setup), len(self.body))
        return HEADER.pack(MAGIC, VERSION, zlib.crc32(payload), *sizes) + payload

    @staticmethod
    def from_bytes(data: bytes, where: str = "program.npu") -> Program:
        """Read a file; raises ArtifactError if it is not one, or is damaged."""
        hint = "compile the model again"
        if len(data) < HEADER.size or data[:4] != MAGIC:
            raise ArtifactError("not an accelerator program", where=where, hint=hint)
        _, version, crc, text, constants, setup, body = HEADER.unpack_from(data)
        payload = data[HEADER.size :]
        if version != VERSION:
            raise ArtifactError(f"program format {version}, this is {VERSION}", where=where, hint=hint)
        if len(payload) != text + constants + (setup + body) * isa.WORD.size:
            raise ArtifactError("the file is cut off, or longer than its header says", where=where, hint=hint)
        if zlib.crc32(payload) != crc:
            raise ArtifactError("the checksum does not fit: the file is damaged", where=where, hint=hint)
        words = text + constants
        try:
            meta: dict[str, Any] = json.loads(payload[:text])
            made = Program(
                str(meta["name"]), parse(meta["description"], where), payload[text:words], int(meta["data_bytes"]),
                [_port(p) for p in meta["inputs"]], [_port(p) for p in meta["outputs"]],
                [Layer(**x) for x in meta["layers"]],
                isa.decode(payload[words : words + setup * isa.WORD.size]),
                isa.decode(payload[words + setup * isa.WORD.size :]), list(meta["occupancy"]),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"the header cannot be read ({error})", where=where, hint=hint) from error
        made.check_words(where)
        if made.data_bytes < 0:
            raise ArtifactError("DRAM has a negative size", where=where, hint=hint)
        for port in (*made.inputs, *made.outputs):
            if port.bytes < 0 or port.address < 0 or port.address + port.bytes > made.dram_bytes:
                raise ArtifactError(f"'{port.name}' lies outside DRAM", where=where, hint=hint)
        return made


def _port(entry: dict[str, Any]) -> Port:
    return Port(str(entry["name"]), int(entry["address"]), int(entry["bytes"]))


def memory_sizes(program: Program) -> dict[str, int]:
    """Bytes of every memory."""
    m = program.description.memory
    return {"dram": program.dram_bytes, "act": m.act.bytes, "weight": m.weight.bytes, "acc": m.acc.bytes,
            "param": m.param.bytes, "cache": program.description.cache.bytes}  # fmt: skip


def tracked(d: Description, data_bytes: int) -> dict[str, tuple[int, int]]:
    """Bytes and one-port banks (0: none) of each memory that is written while the body runs."""
    m = d.memory
    return {"dram": (data_bytes, 0), "act": (m.act.bytes, 0), "weight": (m.weight.bytes, m.weight.banks),
            "acc": (m.acc.bytes, m.acc.banks), "param": (m.param.bytes, m.param.banks)}  # fmt: skip
