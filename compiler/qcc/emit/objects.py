"""A static library for firmware: kernels that LLVM compiled, behind the header of the C source."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from qcc.data import data_folder
from qcc.emit.cfolder import REFERENCE
from qcc.emit.cheader import model_header, region_bytes
from qcc.emit.csource import SUPPORT, Constants, ModelSource, offset_in_arena, weights_header, weights_source
from qcc.emit.library import MANIFEST, call_tool, check_output, compiler_command, replacing
from qcc.emit.manifest import manifest
from qcc.emit.package import Package
from qcc.emit.readme import object_readme, parameter_bytes
from qcc.ir.text import save


def emit_objects(package: Package, folder: Path) -> None:
    """Write ``lib<prefix>.a``, ``<prefix>.h``, ``qcc.h``, ``README.md``, ``manifest.json`` and the program.

    Only the function that runs the model is visible in the library. Raises ArtifactError and ToolError.
    """
    check_output(folder)
    p, constants = package, Constants(package)
    source = ModelSource(p, constants)
    runtime = data_folder("runtime") / "mcu"
    with replacing(folder) as new, tempfile.TemporaryDirectory(prefix="qcc-") as scratch:
        work = Path(scratch)
        header = model_header(p)
        (new / f"{p.prefix}.h").write_text(header)
        (new / "qcc.h").write_text((runtime / "qcc.h").read_text())
        texts = {
            f"{p.prefix}.h": header,
            f"{p.prefix}.c": source.text(definitions=False),
            f"{p.prefix}_weights.h": weights_header(p, constants),
            f"{p.prefix}_weights.c": weights_source(p, constants),
            "support.c": support_source(runtime, ("qcc.h", *SUPPORT[p.target.family])),
        }
        for name, text in texts.items():
            (work / name).write_text(text)
        size = _archive(p, source.functions, work, new / f"lib{p.prefix}.a")
        (new / "README.md").write_text(object_readme(p, source, size))
        (new / REFERENCE).mkdir()
        save(p.graph, new / REFERENCE)
        facts = manifest(p, source.functions)
        facts |= {"memory": region_bytes(p), "measured": {"flash_bytes": size},
                  "flash": {"constants": constants.nbytes, "parameters": parameter_bytes(p)}}
        for entry in (*facts["inputs"], *facts["outputs"]):
            entry["offset"] = offset_in_arena(p, entry["name"])
        (new / MANIFEST).write_text(json.dumps(facts, indent=1) + "\n")


def support_source(runtime: Path, headers: tuple[str, ...]) -> str:
    """C text that gives the functions of the headers global names, with parameters of whole words.

    Callers in LLVM's objects do not extend narrower integers as the ABI asks.
    """
    from qcc.lower.source import OUTSIDE  # imports TVM

    lines = [f'#include "{header}"' for header in headers]
    for header in headers:
        text = (runtime / header).read_text()
        functions = re.findall(r"^(?:static inline|QCC_ONCE) (\w+) (qcc_\w+)\(([^)]*)\)\n", text, re.M)
        for kind, name, parameters in functions:
            declared = [" ".join(parameter.split()) for parameter in parameters.split(",")]
            if any("int32x4_t" in d for d in (kind, *declared)):
                continue  # a part of others, inside the header
            wide = [re.sub(r"^int(8|16)_t (?=\w)", "int32_t ", d) for d in declared]
            given = [f"({d.split()[0]}){d.split()[1]}" if d != w else re.split(r"[ *]", d)[-1]
                     for d, w in zip(declared, wide, strict=True)]  # fmt: skip
            result = "" if kind == "void" else "return "
            outside = f"{kind} {name}{OUTSIDE}({', '.join(wide)})"
            lines += ["", f"{outside};", outside, "{", f"    {result}{name}({', '.join(given)});", "}"]
    return "\n".join(lines) + "\n"


def _archive(p: Package, functions: Mapping[str, str], work: Path, library: Path) -> int:
    """The library; bytes of its code and constants. ``functions``: names of kernels in the C file, by symbol."""
    tools = p.target.link.binutils or ""
    flags = [*compiler_command(p.target), "-ffunction-sections", "-fdata-sections"]
    objects = {b.symbol: str(b.object.with_suffix(".o")) for b in p.built.values()}
    # Kernels keep the symbols that LLVM gave them: the C file calls them by the names of its own.
    renamed = [f"-D{name}={symbol}" for symbol, name in functions.items()]
    files = [f"{p.prefix}.c", f"{p.prefix}_weights.c", "support.c"]
    for file in files:
        call_tool([*flags, *renamed, f"-I{data_folder('runtime') / 'mcu'}", "-c", file], work)
    linked = [f"{Path(f).stem}.o" for f in files]
    # Partial linking keeps only what the entry reaches; a C library's linker script has no place in it.
    entry, plain = f"{p.prefix}_run", [flag for flag in flags if "specs" not in flag]
    call_tool([*plain, "-r", "-nostdlib", "-Wl,--gc-sections", f"-Wl,-u,{entry}", f"-Wl,-e,{entry}", *linked,
               *(objects[s] for s in functions), "-o", "all.o"], work)  # fmt: skip
    # Neither unwinding nor a note about the stack has a use in firmware; linkers ask for their counterparts.
    unused = [option for section in (".note.GNU-stack", ".ARM.exidx*", ".rel.ARM.exidx*") for option in ("-R", section)]
    call_tool([f"{tools}objcopy", f"--keep-global-symbol={entry}", *unused, "--strip-unneeded", "all.o"], work)
    call_tool([f"{tools}ar", "rcs", str(library), "all.o"], work)
    said = call_tool([f"{tools}size", "all.o"], work).splitlines()
    return int(said[1].split()[0])

