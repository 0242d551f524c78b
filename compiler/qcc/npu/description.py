"""What an accelerator is: ``targets/*.toml`` with ``kind = "npu"``, or a user's own file of the same form.

The compiler tiles by these numbers, the simulator enforces them, the cycle model counts with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qcc.data import data_folder, read_table
from qcc.errors import TargetError

Dataflow = Literal["weight", "output", "input", "tiled"]
Rounding = Literal["half_up", "double"]


class _Table(BaseModel):
    """A TOML table: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Array(_Table):
    """The multiply-accumulate array."""

    dataflow: Dataflow
    """What stays in the cells: "weight", "output" or "input" stationary (systolic, rows x columns cells), or "tiled"
    (rows x columns tiles, one output pixel each, of ``lanes`` output channels with ``dot`` products a cycle)."""
    rows: int = Field(ge=1, le=1024)
    """Rows of cells, or of tiles."""
    columns: int = Field(ge=1, le=1024)
    """Columns of cells, or of tiles."""
    lanes: int = Field(default=1, ge=1, le=1024)
    """Output channels of a tile (tiled only)."""
    dot: int = Field(default=1, ge=1, le=1024)
    """Products that a lane adds in a cycle (tiled only)."""
    interval: float = Field(default=1.0, ge=0.01, le=100.0)
    """Cycles between two steps of a tile (tiled only): below 1 would be better than the stated cells."""
    depthwise_interval: float = Field(default=1.0, ge=0.01, le=100.0)
    """The same for depthwise convolution (tiled only)."""
    startup: int = Field(default=0, ge=0, le=1_000_000)
    """Cycles before the first step of each instruction (tiled only; the other dataflows' fill is in their formula)."""
    clock_mhz: float = Field(gt=0, le=10_000)
    """Clock of the whole accelerator."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a cycle."""
        return self.rows * self.columns * self.lanes * self.dot


class Memory(_Table):
    """An on-chip memory."""

    bytes: int = Field(ge=64, le=2**31)
    """Size."""
    banks: int = Field(default=1, ge=1, le=256)
    """Banks with one port each, one after the other (weight, accumulator and parameter memories), or interleaved by
    word (activation memory, where they only add up to ``bytes_per_cycle``)."""
    bytes_per_cycle: float = Field(gt=0, le=65536)
    """What each unit moves to or from it in a cycle."""
    double_buffered: bool = False
    """Whether the compiler keeps two halves, so that one is filled while the other is used; wants 2 or more banks."""

    @model_validator(mode="after")
    def _halves(self) -> Memory:
        if self.double_buffered and (self.banks < 2 or self.banks % 2):
            raise ValueError("an even number of banks when double_buffered is true (each half has its own banks)")
        if self.bytes % self.banks:
            raise ValueError(f"bytes that are a multiple of banks ({self.banks})")
        return self

    @property
    def slots(self) -> int:
        """Parts that are used in turn."""
        return 2 if self.double_buffered else 1

    @property
    def slot_bytes(self) -> int:
        """Bytes of a part."""
        return self.bytes // self.slots


class Memories(_Table):
    """The on-chip memories."""

    act: Memory
    """Activations, int8."""
    weight: Memory
    """Weights that the array reads, int8."""
    acc: Memory
    """Accumulators, int32."""
    param: Memory
    """Biases, multipliers and lookup tables."""


class Cache(_Table):
    """Memory for weights that stay from one inference to the next."""

    bytes: int = Field(ge=0, le=2**31)
    """Size; 0 for none."""
    bytes_per_cycle: float = Field(default=64.0, gt=0, le=65536)
    """What it gives to the weight and parameter memories."""


class Dram(_Table):
    """The memory outside the chip, which holds inputs, outputs, streamed weights and what does not fit."""

    mb_per_s: float = Field(gt=0, le=10_000_000)
    """Bandwidth (10^6 bytes a second), shared by all transfers."""
    latency_cycles: int = Field(ge=0, le=1_000_000)
    """From a request to its first byte; transfers in a row overlap it."""
    burst_bytes: int = Field(ge=1, le=65536)
    """Transfers take whole bursts; each contiguous run of bytes begins one."""


class Link(_Table):
    """Between the host and the accelerator."""

    mb_per_s: float = Field(ge=0, le=10_000_000)
    """Bandwidth for inputs and outputs (10^6 bytes a second); 0 where DRAM is the host's memory."""
    fixed_us: float = Field(ge=0, le=1_000_000)
    """Cost of an inference whatever its size, in microseconds."""


class Vector(_Table):
    """The unit that requantizes, adds, pools and looks up."""

    lanes: int = Field(ge=1, le=65536)
    """Elements (or taps of a pool) of a cycle."""
    startup: int = Field(default=0, ge=0, le=1_000_000)
    """Cycles before the first element of each instruction."""


class RequantUnit(_Table):
    """Fixed-point scaling of accumulators."""

    multiplier_bits: int = Field(ge=8, le=32)
    """Signed bits of a multiplier."""
    shift_min: int = Field(ge=0, le=62)
    """Smallest right shift."""
    shift_max: int = Field(ge=0, le=62)
    """Largest right shift."""
    rounding: list[Rounding] = Field(min_length=1)
    """Roundings it has: "half_up" is qcc's own, "double" is TFLite's."""


class Fetch(_Table):
    """Instruction fetch and dispatch, in program order."""

    bytes_per_cycle: float = Field(gt=0, le=65536)
    """Instruction bytes decoded in a cycle."""
    queue: int = Field(ge=1, le=65536)
    """Instructions that wait in front of each unit."""


class Description(_Table):
    """One accelerator."""

    kind: Literal["npu"]
    name: str = Field(min_length=1)
    """What reports call it."""
    description: str
    """One line."""
    array: Array
    memory: Memories
    cache: Cache
    dram: Dram
    link: Link
    vector: Vector
    requant: RequantUnit
    fetch: Fetch
    provenance: dict[str, str] = {}
    """Where a number comes from, by dotted key: a source, or "inferred: …"."""

    @model_validator(mode="after")
    def _consistent(self) -> Description:
        if self.requant.shift_min > self.requant.shift_max:
            raise ValueError("requant.shift_min not above requant.shift_max")
        known = {key for key, *_ in fields()}
        for key in self.provenance:
            if key not in known:
                raise ValueError(f"provenance only of keys that exist, not of '{key}'")
        if self.array.dataflow != "tiled" and (self.array.lanes, self.array.dot) != (1, 1):
            raise ValueError("array.lanes and array.dot only with the tiled dataflow")
        return self

    @staticmethod
    def load(name: str | Path) -> Description:
        """A shipped accelerator by name, or a file by path (ends in ``.toml``). Raises TargetError."""
        path = target_path(name)
        if path is None or (not str(name).endswith(".toml") and name not in known_npus()):
            raise TargetError(f"unknown accelerator '{name}'",
                              hint=f"one of {', '.join(known_npus())}, or the path of a .toml file")
        return parse(read_table(path), str(path))

    def vary(self, changes: Mapping[str, Any]) -> Description:
        """A copy with other values by dotted key (``array.rows``). Raises TargetError."""
        table = self.model_dump()
        for key, value in changes.items():
            *parents, last = key.split(".")
            inner: Any = table
            for part in parents:
                inner = inner.get(part) if isinstance(inner, dict) else None
            if not isinstance(inner, dict) or last not in inner:
                raise TargetError(f"unknown key '{key}'", where=self.name,
                                  hint="known keys: " + ", ".join(k for k, *_ in fields()))
            inner[last] = value
        return parse(table, self.name)

    @property
    def dram_bytes_per_cycle(self) -> float:
        """Bandwidth of DRAM by cycle of the accelerator."""
        return self.dram.mb_per_s / self.array.clock_mhz


def fields(model: type[BaseModel] = Description, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted key, allowed values, meaning) of every field."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, _allowed(field), " ".join((field.description or "").split())


def _allowed(field: Any) -> str:
    choices = get_args(field.annotation)
    if choices and all(isinstance(c, str) for c in choices):
        return " or ".join(f'"{c}"' for c in choices)
    signs = {"ge": "≥", "gt": ">", "le": "≤"}
    bounds = [f"{sign} {getattr(rule, key):,}" for rule in field.metadata for key, sign in signs.items()
              if hasattr(rule, key)]
    return f"{getattr(field.annotation, '__name__', 'list')} " + ", ".join(bounds)


def is_npu(name: str | Path) -> bool:
    """Whether a target's name or file is an accelerator's."""
    path = target_path(name)
    return path is not None and path.is_file() and read_table(path).get("kind") == "npu"


@cache
def known_npus() -> tuple[str, ...]:
    """Names of the shipped accelerators."""
    paths = sorted(data_folder("targets").glob("*.toml"))
    return tuple(p.stem for p in paths if read_table(p).get("kind") == "npu")


def target_path(name: str | Path) -> Path | None:
    """File of a shipped target or a user's; None for a name that is not shipped."""
    if str(name).endswith(".toml"):
        return Path(name)
    path = data_folder("targets") / f"{name}.toml"
    return path if path.is_file() else None


def parse(table: Mapping[str, Any], where: str) -> Description:
    """A validated description; raises TargetError with the file, the key and the range."""
    try:
        return Description.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        rule = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            hint = "known keys: " + ", ".join(k for k, *_ in fields())
            raise TargetError(f"unknown key '{key}'", where=where, hint=hint) from error
        if first["type"] == "missing":
            raise TargetError(f"key '{key}' is missing", where=where, hint="see targets/edge-npu.toml") from error
        value = "" if isinstance(first["input"], dict) else f" {first['input']!r}"
        subject = f"key '{key}' has the wrong value{value}" if key else "the keys contradict each other"
        raise TargetError(subject, where=where, hint=f"allowed: {rule}") from error
