"""Target descriptions: ``targets/*.toml``, or a user's own file of the same form."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qcc.data import data_folder, read_table
from qcc.errors import TargetError


class _Table(BaseModel):
    """A TOML table: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LlvmTarget(_Table):
    """What TVM's LLVM back end is told."""

    kind: Literal["llvm"]
    mtriple: str
    mcpu: str
    mattr: list[str] = []
    mfloat_abi: Literal["soft", "hard"] | None = None
    """How 32-bit ARM passes floats."""

    def options(self) -> dict[str, Any]:
        """As ``tvm.target.Target`` takes them."""
        return {key.replace("_", "-"): value for key, value in self if value is not None}


class Link(_Table):
    """How objects and the C entry become a library: the first program of ``cc`` that exists, called with ``flags``.

    With ``binutils``, the prefix of ``ar`` and ``objcopy``, there is a static library too.
    """

    cc: list[str] = Field(min_length=1)
    flags: list[str] = []
    threads: bool = False
    binutils: str | None = None


class Run(_Table):
    """How a program for the target is started from a machine that cannot run it itself.

    ``command``: words, in which ``{runner}`` stands for the program's path: an emulator, or a user's own script over
    ssh or adb, which copies the program to its board and connects standard input and output. Empty: not at all.
    """

    command: list[str] = []


class Memory(_Table):
    """A region of RAM in which C code for a microcontroller works: its pointer in the context, and its budget."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    bytes: int = Field(ge=1)


class Board(_Table):
    """QEMU's board with such a processor, on which tuning counts instructions: ``-M machine``, and the [origin, bytes]
    of its memory for code and for data.
    """

    machine: str
    code: list[int] = Field(min_length=2, max_length=2)
    data: list[int] = Field(min_length=2, max_length=2)


class Target(_Table):
    """One kind of machine. Every target computes the same bytes; these fields say how."""

    name: str = Field(min_length=1)
    description: str
    arch: str
    """As ``platform.machine()`` says it."""
    requires: list[str]
    """CPU flags as in /proc/cpuinfo, all of which the machine must have."""
    emit: Literal["library", "c", "object"] = "library"
    """What is made: a shared library; C99 source for a microcontroller's firmware, or a static library for it."""
    family: Literal["amx", "vnni", "avx2", "c99", "dsp", "mve", "neon", "neon32"]
    """The module of schedules in ``qcc.schedule``."""
    storage: Literal["uint8", "int8"]
    """How int8 activations are kept in memory: as they are, or as q + 128."""
    lanes: int = Field(ge=1, le=64)
    """int32 elements of a vector."""
    dot: int = Field(ge=1, le=64)
    """Products that one instruction adds into an int32 lane."""
    rows: int = Field(1, ge=1, le=64)
    """Pixels that one instruction multiplies with such a vector of weights."""
    accumulators: int = Field(ge=1, le=256)
    """Vectors of sums that a register tile may hold: the registers, less those for operands."""
    requant_shift: Literal[31, 32]
    """The shift with which requantization is cheapest; multipliers are scaled to it where that is exact."""
    vector_bytes: int = Field(ge=1, le=256)
    alignment: int = Field(ge=1, le=4096)
    """Bytes to which buffers and packed weights are aligned."""
    llvm: LlvmTarget | None = None
    """None: there are no objects, only source."""
    link: Link
    run: Run = Run()
    board: Board | None = None
    memory: list[Memory] = []
    """Regions of a microcontroller's RAM, the fastest first. Empty: one, ``arena``, of any size."""
    flash: int | None = Field(None, ge=1)
    """Bytes of a microcontroller's flash that the model may take. None: any."""

    @property
    def firmware(self) -> bool:
        """Whether code is for a microcontroller's firmware: it works in memory that the caller gives."""
        return self.emit != "library"

    @property
    def halos(self) -> bool:
        """Whether images are kept with their padding around them: it costs memory and saves conditions."""
        return not self.firmware

    def with_emit(self, emit: str) -> Target:
        """The target with another form of output, for microcontrollers: "c" or "object". Raises TargetError."""
        if emit == self.emit:
            return self
        if not self.firmware or emit not in ("c", "object"):
            raise TargetError(f"{self.name} has no form '{emit}'", hint="choose a microcontroller, or leave --emit out")
        if emit == "object" and (self.llvm is None or self.link.binutils is None):
            raise TargetError(f"there are no objects for {self.name}: its file has no [llvm] and [link] binutils",
                              hint="use --emit c")
        return self.model_copy(update={"emit": emit})

    @property
    def float_fault(self) -> str:
        """Why the modes that run float are not for it; empty where float32 follows IEEE 754 and multiply-adds fuse."""
        if self.firmware:
            return "its programs are integer-only C"
        return "its float vectors take subnormal numbers for zeros" if self.family == "neon32" else ""

    @property
    def products(self) -> int:
        """Products in a cycle, roughly: an instruction with many rows takes one for each, and pairs with no other."""
        return self.lanes * self.dot * max(1, self.rows // 4)

    @property
    def permission(self) -> bool:
        """Whether a process must ask the system before it uses all of the target's registers."""
        return self.family == "amx"

    @staticmethod
    def load(name: str | Path) -> Target:
        """A shipped target by name, ``host``, or a file by path (ends in ``.toml``). Raises TargetError."""
        text = str(name)
        if text == "host":
            return host_target()
        if text.endswith(".toml"):
            return _read(Path(text))
        path = data_folder("targets") / f"{text}.toml"
        if text not in known_targets():
            from qcc.npu.description import known_npus

            if text in known_npus():
                raise TargetError(f"'{text}' is an accelerator, here a CPU is wanted",
                                  hint=f"one of {', '.join(known_targets())}, host, or the path of a .toml file")
            known = ", ".join([*known_targets(), *known_npus()])
            raise TargetError(f"unknown target '{text}'", hint=f"one of {known}, host, or the path of a .toml file")
        return _read(path)

    def codegen_key(self) -> dict[str, Any]:
        """Everything that object code depends on, for the cache: JSON values."""
        outside = {"name", "description", "arch", "requires", "link", "run", "board", "memory", "flash"}
        return self.model_dump(exclude=outside)

    def missing(self) -> list[str]:
        """What this machine lacks to run code for the target; source is compiled for any."""
        return [] if self.emit == "c" else missing_here(self.arch, self.requires)


@cache
def known_targets() -> tuple[str, ...]:
    """Names of the shipped targets that run compiled code (accelerators: ``npu.description.known_npus``)."""
    from qcc.npu.description import known_npus

    return tuple(sorted({p.stem for p in data_folder("targets").glob("*.toml")} - set(known_npus())))


@cache
def cpu_flags() -> frozenset[str]:
    """CPU flags of this machine (empty where there is no /proc/cpuinfo)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line.split(":", 1)[1] for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(flags.split())


def missing_here(arch: str, requires: Iterable[str]) -> list[str]:
    """Those of the required CPU flags that this machine does not have, or the architecture if it has another."""
    if platform.machine() != arch:
        return [f"architecture {arch}"]
    return [flag for flag in requires if flag not in cpu_flags()]


def host_target() -> Target:
    """The shipped target with the most products per instruction among those that run here."""
    fitting = [t for t in map(Target.load, known_targets()) if t.emit == "library" and not t.missing()]
    if not fitting:
        raise TargetError(f"no shipped target runs on this machine ({platform.machine()})",
                          hint="choose one with --target to compile for another machine: " + ", ".join(known_targets()))
    return max(fitting, key=lambda t: (t.rows * t.lanes * t.dot, t.name))


def _read(path: Path) -> Target:
    try:
        target = Target.model_validate(read_table(path))
    except ValidationError as error:
        raise _explain(error, path) from error
    names = [region.name for region in target.memory]
    if len(set(names)) != len(names) or "user" in names:
        raise TargetError(f"the regions of memory are named {', '.join(names)}", where=str(path),
                          hint="give each [[memory]] a name of its own, other than 'user'")
    return target


def _explain(error: ValidationError, path: Path) -> TargetError:
    """The first wrong field: file, key, what is wrong, what is allowed."""
    first = error.errors()[0]
    *tables, key = [str(part) for part in first["loc"]]
    where, dotted = str(path), ".".join([*tables, key])
    if first["type"] == "extra_forbidden":
        model: Any = Target
        for table in tables:
            if not table.isdigit():
                annotation = model.model_fields[table].annotation
                model = next((a for a in get_args(annotation) if a is not type(None)), annotation)
        return TargetError(f"unknown key '{dotted}'", where=where, hint="known keys: " + ", ".join(model.model_fields))
    if first["type"] == "missing":
        return TargetError(f"key '{dotted}' is missing", where=where, hint="see targets/*.toml for an example")
    rule = first["msg"].removeprefix("Input should be ")
    return TargetError(f"key '{dotted}' has the wrong value {first['input']!r}", where=where, hint=f"allowed: {rule}")
