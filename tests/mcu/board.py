"""Runs a C artifact on QEMU's boards: output bytes, executed instructions, stack used."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.runtime import read_manifest

HERE = Path(__file__).parents[2] / "runtime" / "board"


@dataclass(frozen=True)
class Tools:
    """Compiler, emulator, and flags for linking without start files against a small C library."""

    gcc: str
    qemu: str
    link: tuple[str, ...]
    emulate: tuple[str, ...] = ()


ARM = Tools("arm-none-eabi-gcc", "qemu-system-arm", ("-specs=nano.specs", "-specs=nosys.specs", "-Wl,-ereset"))
RISCV = Tools("riscv64-unknown-elf-gcc", "qemu-system-riscv32", ("-Wl,-e_start",),
              ("-bios", "none"))  # fmt: skip


@dataclass(frozen=True)
class Board:
    """A machine of QEMU, its compiler flags, and (origin, bytes) of its code and data memory."""

    machine: str
    flags: tuple[str, ...]
    code: tuple[int, int]
    data: tuple[int, int]
    tools: Tools = ARM


def _mps2(machine: str, *flags: str) -> Board:
    return Board(machine, ("-mthumb", *flags), (0, 4 << 20), (0x20000000, 4 << 20))


BOARDS = {
    "cortex-m0plus": Board("microbit", ("-mthumb", "-mcpu=cortex-m0", "-mfloat-abi=soft"), (0, 256 << 10),
                           (0x20000000, 16 << 10)),
    "cortex-m3": _mps2("mps2-an385", "-mcpu=cortex-m3", "-mfloat-abi=soft"),
    "cortex-m4": _mps2("mps2-an386", "-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    "cortex-m7": _mps2("mps2-an500", "-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"),
    "cortex-m33": Board("mps2-an505", ("-mthumb", "-mcpu=cortex-m33", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"),
                        (0x10000000, 4 << 20), (0x38000000, 2 << 20)),
    "cortex-m55": Board("mps3-an547", ("-mthumb", "-mcpu=cortex-m55", "-mfloat-abi=hard"), (0, 512 << 10),
                        (0x20000000, 512 << 10)),
    "riscv32": Board("virt", ("-march=rv32imac", "-mabi=ilp32", "-specs=picolibc.specs"), (0x80000000, 4 << 20),
                     (0x80400000, 4 << 20), RISCV),
}  # fmt: skip

MAIN = """\
#include "board.h"
#include "{p}.h"

#include <string.h>

{arrays}

int board_main(void)
{{
    const {p}_context context = {{{regions}, 0}};
{copies}
    board_paint_stack();
    const uint32_t before = board_stack_pointer();
    COUNT_START();
    const int32_t status = {p}_run(&context, {arguments});
    COUNT_END();
    board_print_number("stack", board_stack_used(before));
    {prints}
    return (int)status;
}}
"""
C_TYPES = {"int8": "int8_t", "float32": "float", "int32": "int32_t"}


@dataclass(frozen=True)
class Run:
    """What an inference did; ``flash`` are bytes of code and constants in the linked image by file."""

    outputs: dict[str, NDArray[Any]]
    instructions: int
    stack: int
    flash: dict[str, int]
    image: int
    """Bytes of code and constants of the model with the library functions that it needs."""


def missing(*names: str) -> list[str]:
    """Programs that the boards need and that are absent."""
    tools = [BOARDS[name].tools for name in names or ("cortex-m4",)]
    return [tool for tool in ("cc", *(t for x in tools for t in (x.gcc, x.qemu))) if shutil.which(tool) is None]


def run(folder: Path, inputs: Mapping[str, NDArray[Any]], board: Board, work: Path, optimize: str = "-O2") -> Run:
    """One inference of the artifact in ``folder`` on ``board``."""
    manifest = read_manifest(folder)
    work.mkdir(parents=True, exist_ok=True)
    write_main(manifest, inputs, work)
    image = build(folder, manifest, board, work, [optimize])
    said = emulate(board, image)
    found = re.findall(r"output ([0-9a-f]+)", said)
    outputs = {
        entry["name"]: np.frombuffer(bytes.fromhex(text), entry["dtype"]).reshape(entry["shape"])
        for entry, text in zip(manifest["outputs"], found, strict=True)
    }
    instructions, stack = (int(re.findall(rf"{word} (\d+)", said)[0]) for word in ("instructions", "stack"))
    flash = flash_of(image.with_suffix(".map").read_text())
    ours = {"main.c", "start.c"}
    return Run(outputs, instructions, stack, flash, sum(n for file, n in flash.items() if file not in ours))


def layers(folder: Path, inputs: Mapping[str, NDArray[Any]], board: Board, work: Path) -> dict[int, int]:
    """Instructions of each layer by its number."""
    manifest = read_manifest(folder)
    prefix = manifest["prefix"]
    work.mkdir(parents=True, exist_ok=True)
    write_main(manifest, inputs, work)
    with (work / "main.c").open("a") as file:
        file.write(f"""
void {prefix}_layer_done(const {prefix}_context *context, int32_t layer)
{{
    (void)context;
    COUNT_END();
    board_print_number("layer", (uint32_t)layer);
    COUNT_START();
}}
""")
    said = emulate(board, build(folder, manifest, board, work, ["-O2", "-DQCC_PROFILE"]))
    return {int(n): int(count) for count, n in re.findall(r"instructions (\d+)\s+layer (\d+)", said)}


def write_main(manifest: Mapping[str, Any], inputs: Mapping[str, NDArray[Any]], work: Path) -> None:
    """``main.c``, which runs the model on ``inputs`` and prints its outputs."""
    prefix = manifest["prefix"]
    arrays, arguments, prints, copies = [], [], [], []
    memory = manifest["memory"]
    for name in memory:
        arrays.append(f"static uint32_t {name}[{prefix.upper()}_{name.upper()}_BYTES / 4 + 1];")
    for index, entry in enumerate(manifest["inputs"]):
        values = inputs[entry["name"]]
        text = ", ".join(float(v).hex() + "F" if values.dtype == np.float32 else str(v) for v in values.reshape(-1))
        arrays.append(f"static const {C_TYPES[entry['dtype']]} in{index}[] = {{{text}}};")
        if entry["dtype"] == "int8" and entry.get("offset") is not None:
            place = f"{prefix}_input{index if len(manifest['inputs']) > 1 else ''}_in_place(&context)"
            copies.append(f"    memcpy({place}, in{index}, sizeof in{index});")
            arguments.append(place)
        else:
            arguments.append(f"in{index}")
    for index, entry in enumerate(manifest["outputs"]):
        c_type, size = C_TYPES[entry["dtype"]], max(1, int(np.prod(entry["shape"])))
        if entry.get("offset") is not None:
            place = f"{prefix}_output{index if len(manifest['outputs']) > 1 else ''}_in_place(&context)"
            arrays.append(f"#define out{index} {place}")
        else:
            arrays.append(f"static {c_type} out{index}[{size}];")
        arguments.append(f"out{index}")
        prints.append(f'board_print("output "); board_print_bytes(out{index}, {size} * sizeof({c_type}));')
    text = MAIN.format(p=prefix, arrays="\n".join(arrays), prints="\n    ".join(prints),
                       arguments=", ".join(arguments), copies="\n".join(copies), regions=", ".join(memory))  # fmt: skip
    (work / "main.c").write_text(text)


def build(folder: Path, manifest: Mapping[str, Any], board: Board, work: Path, options: Sequence[str]) -> Path:
    """The linked image; the linker map is beside it."""
    prefix, tools = manifest["prefix"], board.tools
    places = manifest.get("sources", {"headers": ".", "sources": "."})
    headers, inside = (folder / places[key] for key in ("headers", "sources"))
    library = [str(folder / f"lib{prefix}.a")] if manifest["target"]["emit"] == "object" else []
    (code, code_size), (data, data_size) = board.code, board.data
    (work / "memory.ld").write_text(f"MEMORY {{ CODE (rx) : ORIGIN = {code}, LENGTH = {code_size}\n"
                                    f" DATA (rwx) : ORIGIN = {data}, LENGTH = {data_size} }}\nINCLUDE link.ld\n")
    image = work / "image.elf"
    flags = [tools.gcc, "-std=c99", *board.flags, *options]
    sources = [HERE / "start.c", work / "main.c"]
    sources += [] if library else [inside / f"{prefix}.c", inside / f"{prefix}_weights.c"]
    for source in sources:
        warnings = ["-Wall", "-Wextra", "-Wconversion", "-Werror"] if source.parent == inside else []
        _call([*flags, *warnings, f"-I{HERE}", f"-I{headers}", "-c", str(source), "-o", str(work / f"{source.name}.o")])
    _call([*flags, "-Wl,--gc-sections", "-nostartfiles", *tools.link, f"-L{HERE}", "-T",
           str(work / "memory.ld"), f"-Wl,-Map={image.with_suffix('.map')}",
           *(str(work / f"{s.name}.o") for s in sources), *library, "-o", str(image)])  # fmt: skip
    return image


def emulate(board: Board, image: Path) -> str:
    """What the program and the plugin print."""
    done = subprocess.run(
        [board.tools.qemu, "-M", board.machine, *board.tools.emulate, "-nographic",
         "-monitor", "none", "-serial", "none", "-semihosting-config",
         "enable=on,target=native", "-plugin", str(plugin()), "-kernel", str(image)],
        capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"exit code {done.returncode}: {said}"
    return said


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


def plugin() -> Path:
    """The counting plugin, built once."""
    digest = hashlib.sha256((HERE / "count.c").read_bytes()).hexdigest()[:12]
    library = Path(tempfile.gettempdir()) / f"qcc-count-{digest}.so"
    if not library.exists():
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", str(HERE / "count.c"), "-o", str(library)], check=True)
    return library


def flash_of(text: str) -> dict[str, int]:
    """Bytes of code and constants of each object, by file, from a linker map."""
    sizes: dict[str, int] = {}
    for _, size, file in re.findall(r"^ (\.(?:text|s?rodata)\S*)\s+0x[0-9a-f]+\s+(0x[0-9a-f]+) (\S+)$", text, re.M):
        name = Path(file).name.removesuffix(".o")
        sizes[name] = sizes.get(name, 0) + int(size, 16)
    return sizes
