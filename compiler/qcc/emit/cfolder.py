"""A folder of C99 for a firmware project: model, constants, header, README with exact sizes, CMakeLists.txt."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from qcc.data import data_folder
from qcc.emit.cheader import model_header
from qcc.emit.csource import Constants, model_source, offset_in_arena, parameters, weights_header, weights_source
from qcc.emit.library import MANIFEST, check_output, replacing
from qcc.emit.manifest import manifest
from qcc.emit.package import Package, one_line
from qcc.ir.text import save
from qcc.ops import OPS
from qcc.target import Target

REFERENCE = "reference"
"""Folder of the integer program, for ``qcc verify``."""


@dataclass(frozen=True)
class Sizes:
    """What the target's compiler made: bytes of code, of constants, and of stack at the deepest call."""

    compiler: str
    code: int
    constants: int
    stack: int


def emit_c(package: Package, folder: Path) -> None:
    """Write ``<prefix>.h``, ``<prefix>.c``, ``<prefix>_weights.{h,c}``, ``qcc.h``, ``README.md``, ``CMakeLists.txt``,
    ``manifest.json`` and the program into ``folder``; an earlier artifact there is replaced. Raises ArtifactError.
    """
    check_output(folder)
    constants = Constants(package)
    with replacing(folder) as new:
        texts = {
            f"{package.prefix}.h": model_header(package),
            f"{package.prefix}.c": model_source(package, constants),
            f"{package.prefix}_weights.h": weights_header(package, constants),
            f"{package.prefix}_weights.c": weights_source(package, constants),
            "qcc.h": (data_folder("runtime") / "mcu" / "qcc.h").read_text(),
            "CMakeLists.txt": _cmake(package),
        }
        for name, text in texts.items():
            (new / name).write_text(text)
        sizes = measure(new, package.prefix, package.target)
        (new / "README.md").write_text(_readme(package, constants, sizes))
        (new / REFERENCE).mkdir()
        save(package.graph, new / REFERENCE)
        facts = manifest(package)
        facts["constant_bytes"] = constants.nbytes
        for entry in (*facts["inputs"], *facts["outputs"]):
            entry["offset"] = offset_in_arena(package, entry["name"])
        if sizes is not None:
            facts["measured"] = {"compiler": sizes.compiler, "code_bytes": sizes.code, "stack_bytes": sizes.stack,
                                 "flash_bytes": sizes.code + sizes.constants}  # fmt: skip
        (new / MANIFEST).write_text(json.dumps(facts, indent=1) + "\n")


def measure(folder: Path, prefix: str, target: Target) -> Sizes | None:
    """Sizes of the generated files under the target's own compiler and flags; None if there is none."""
    compiler = next((found for cc in target.link.cc if (found := shutil.which(cc))), None)
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(prefix="qcc-") as scratch:
        sections: dict[str, int] = {}
        for name in (prefix, f"{prefix}_weights"):
            command = [compiler, "-std=c99", *target.link.flags, "-fstack-usage", "-c", str(folder / f"{name}.c"), "-o",
                       f"{name}.o"]  # fmt: skip
            if subprocess.run(command, cwd=scratch, capture_output=True, check=False).returncode != 0:
                return None
            sections[name] = _text_bytes(compiler, Path(scratch) / f"{name}.o")
        version = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=False)
        usage = Path(scratch, f"{prefix}.su")
        stack = _stack(usage.read_text(), f"{prefix}_run") if usage.exists() else 0
    name = f"{Path(compiler).name} {version.stdout.strip()} {' '.join(target.link.flags)}"
    return Sizes(name, sections[prefix], sections[f"{prefix}_weights"], stack)


def _text_bytes(compiler: str, file: Path) -> int:
    """Bytes of an object's code and constants."""
    said = subprocess.run([compiler, "-print-prog-name=size"], capture_output=True, text=True, check=False)
    tool = shutil.which(said.stdout.strip()) or "size"
    lines = subprocess.run([tool, str(file)], capture_output=True, text=True, check=True).stdout.splitlines()
    return int(lines[1].split()[0])


def _stack(usage: str, entry: str) -> int:
    """Bytes of the entry's frame and the largest of what it calls, from GCC's ``-fstack-usage``."""
    frames: dict[str, int] = {}
    for line in usage.splitlines():
        place, size, _ = line.split("\t")
        frames[place.rsplit(":", 1)[1]] = int(size)
    own = frames.pop(entry, 0)
    return own + max(frames.values(), default=0)


def _cmake(p: Package) -> str:
    return f"""# Adds the library `{p.prefix}`: target_link_libraries(firmware PRIVATE {p.prefix})
cmake_minimum_required(VERSION 3.13)
project({p.prefix} LANGUAGES C)

add_library({p.prefix} STATIC {p.prefix}.c {p.prefix}_weights.c)
target_include_directories({p.prefix} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
set_target_properties({p.prefix} PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON)

option({p.prefix.upper()}_PROFILE "Call {p.prefix}_layer_done after each layer" OFF)
if({p.prefix.upper()}_PROFILE)
  target_compile_definitions({p.prefix} PUBLIC QCC_PROFILE)
endif()
"""


def _readme(p: Package, constants: Constants, sizes: Sizes | None) -> str:
    upper = p.prefix.upper()
    lines = [f"# {one_line(p.name)}", "", f"A neural network as C99 for `{p.target.name}`, made by qcc.", "",
             "| memory | bytes |", "|---|---|"]  # fmt: skip
    if sizes is not None:
        lines += [f"| flash: code of `{p.prefix}.c` | {sizes.code} |"]
    lines += [f"| flash: constants of `{p.prefix}_weights.c` | {sizes.constants if sizes else constants.nbytes} |",
              f"| RAM: arena (`{upper}_ARENA_BYTES`), given by you | {max(p.arena_bytes, p.target.alignment)} |"]
    if sizes is not None:
        lines += [f"| RAM: stack of `{p.prefix}_run`, library functions aside | {sizes.stack} |"]
    lines += ["", *([f"Measured with `{sizes.compiler}`."] if sizes else
                    [f"Code and stack were not measured: no {p.target.link.cc[0]} was found."]),
              "Nothing else is kept in RAM: there is no other data, and no allocation. Of the C library",
              "only `memcpy` and `memset` are used.", "", "## Use", "", "```c", f'#include "{p.prefix}.h"']  # fmt: skip
    arrays = parameters(p)
    sizes_of = {**{("input", i): p.graph.types[v].size for i, v in enumerate(p.graph.inputs)},
                **{("output", i): p.graph.types[v].size for i, v in enumerate(p.graph.outputs)}}  # fmt: skip
    lines += [f"static uint32_t arena[({upper}_ARENA_BYTES + 3) / 4];"]
    counts = {"input": 0, "output": 0}
    for kind, name, declaration in arrays:
        c_type = declaration.removeprefix("const ").split(" ")[0]
        lines.append(f"static {c_type} {name}[{sizes_of[kind, counts[kind]]}];")
        counts[kind] += 1
    lines += ["", f"const {p.prefix}_context context = {{arena, 0}};",
              f"{p.prefix}_run(&context, {', '.join(name for _, name, _ in arrays)}); /* 0: done */", "```", "",
              f"An int8 input that is written into the arena, at its `…_OFFSET` of `{p.prefix}.h`, needs no array of",
              "its own and is not copied; so with outputs, which stay there until the next run.", "",
              "`qcc.h` has `qcc_quantize` and `qcc_dequantize` for the edges; scales and zero points are constants of",
              f"`{p.prefix}.h`. Define `QCC_PROFILE` and a function `{p.prefix}_layer_done` to time the layers.", "",
              "## Layers", "", "| layer | | output | MACs | kernel |", "|---|---|---|---|---|"]  # fmt: skip
    for step, node in enumerate(p.graph.nodes):
        out = p.graph.types[node.output]
        kernels = ", ".join(dict.fromkeys(f"`{p.built[c.kernel.digest].symbol}`" for c in p.calls_of[node.output]))
        macs = OPS[node.op].macs(node, p.graph.input_types(node), out)
        shape = "x".join(map(str, out.shape))
        lines.append(f"| {step} | {node.op}, {one_line(node.source or node.output)} | {shape} | {macs} | {kernels} |")
    return "\n".join(lines) + "\n"
