"""A folder with a shared library, its header, the manifest and the integer program, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qcc.data import data_folder
from qcc.emit.entry import entry_source
from qcc.emit.header import header_source
from qcc.emit.manifest import manifest
from qcc.emit.package import Package
from qcc.errors import ArtifactError, ToolError
from qcc.ir.text import save
from qcc.target import Target

MANIFEST = "manifest.json"
VERSIONS = "{{ global: {0}_run; {0}_set_threads; {0}_set_hook; {0}_arena; local: *; }};\n"


def emit_library(package: Package, folder: Path) -> None:
    """Write ``lib<prefix>.so``, ``<prefix>.h``, ``<prefix>.c``, ``manifest.json`` and the program into ``folder``.

    A target with ``[link] binutils`` has ``lib<prefix>.a`` as well, and with ``[run] command`` the program
    ``run_<prefix>`` around it.

    An earlier artifact there is replaced. Raises ArtifactError (the folder cannot be written, or holds something else)
    and ToolError (no C compiler, or it failed).
    """
    check_output(folder)
    with replacing(folder) as new, tempfile.TemporaryDirectory(prefix="qcc-") as scratch:
        work = Path(scratch)
        (work / "weights.bin").write_bytes(package.weights.blob())
        (work / "exports.map").write_text(VERSIONS.format(package.prefix))
        (new / f"{package.prefix}.c").write_text(entry_source(package))
        (new / f"{package.prefix}.h").write_text(header_source(package))
        objects = dict.fromkeys(str(package.built[c.kernel.digest].object) for c in package.calls)
        sources = [str(new / f"{package.prefix}.c"), *objects]
        _link(package.target, sources, work, new / f"lib{package.prefix}.so")
        if package.target.link.binutils is not None:
            static = new / f"lib{package.prefix}.a"
            _archive(package, sources, work, static)
            if package.target.run.command:
                _link_runner(package, static, work, new / f"run_{package.prefix}")
        save(package.graph, new)
        (new / MANIFEST).write_text(json.dumps(manifest(package), indent=1) + "\n")


def check_output(folder: Path) -> None:
    """Raise ArtifactError unless an artifact can be written as ``folder``; worth asking before a long compilation."""
    hint = "choose another folder with -o"
    if folder.exists():
        if not folder.is_dir():
            raise ArtifactError("the output exists and is not a folder", where=str(folder), hint=hint)
        if not os.access(folder, os.R_OK | os.X_OK):
            raise ArtifactError("the folder cannot be read", where=str(folder), hint=hint)
        if any(folder.iterdir()) and not (folder / MANIFEST).is_file():
            raise ArtifactError("the folder is not empty and holds no compiled model", where=str(folder), hint=hint)
    parent = folder.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise ArtifactError(f"the output cannot be written: {parent} is not a folder", where=str(folder), hint=hint)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ArtifactError(f"the output cannot be written: no permission in {parent}", where=str(folder), hint=hint)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``folder`` when the block ends without an error."""
    folder = folder.absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise ArtifactError(f"the output cannot be written: {error.strerror}", where=str(folder),
                            hint="choose another folder with -o") from error
    new, old = staging / "new", staging / "old"
    try:
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        raise ArtifactError(f"the output cannot be written: {error.strerror}", where=str(folder),
                            hint="is there space left?") from error
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(staging, ignore_errors=True)


def _link(target: Target, sources: list[str], work: Path, library: Path) -> None:
    """Compile the entry and link it with the kernels; the working folder holds the weights."""
    options = ["-Wl,--as-needed", "-Wl,--version-script=exports.map", "-Wl,-z,noexecstack", "-o", str(library)]
    call_tool([*compiler_command(target), "-shared", "-fPIC", *sources, *_threads(target), *options], work)


def _archive(package: Package, sources: list[str], work: Path, library: Path) -> None:
    """A static library of one object, whose only global symbols are the functions of the header."""
    target, prefix = package.target, package.prefix
    single, names = f"{prefix}.o", ("run", "set_threads", "set_hook", "arena")
    call_tool([*compiler_command(target), "-fPIC", "-r", "-nostdlib", *sources, *_threads(target), "-o", single], work)
    tool = target.link.binutils or ""
    call_tool([f"{tool}objcopy", *(f"--keep-global-symbol={prefix}_{name}" for name in names), single], work)
    call_tool([f"{tool}ar", "rcs", str(library), single], work)


def _link_runner(package: Package, static: Path, work: Path, program: Path) -> None:
    """The program around the static library that ``qcc.remote`` talks to; it needs no shared library of its machine."""
    names = [f"-Dmodel_{name}={package.prefix}_{name}" for name in ("run", "set_threads", "set_hook", "arena")]
    source = str(data_folder("runtime") / "runner.c")
    call_tool([*compiler_command(package.target), *names, "-static", source, str(static), "-pthread", "-o",
               str(program)], work)  # fmt: skip


def compiler_command(target: Target) -> list[str]:
    """The C compiler and the flags of every call."""
    compiler = next((found for cc in target.link.cc if (found := shutil.which(cc))), None)
    if compiler is None:
        raise ToolError(f"no C compiler was found (tried {', '.join(target.link.cc)})",
                        hint="install gcc or clang, or name yours under [link] cc in a target file")
    return [compiler, "-std=c99", "-Wall", "-Wextra", *target.link.flags, "-I", str(data_folder("runtime") / "include")]


def _threads(target: Target) -> list[str]:
    return [str(data_folder("runtime") / "threads.c"), "-pthread"] if target.link.threads else []


LINK_HINT = "check [link] flags of the target file, and free space"


def call_tool(command: list[str], work: Path, hint: str = LINK_HINT) -> str:
    """Run a tool in ``work``; returns what it prints. Raises ToolError with its first complaint, and ``hint``."""
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise ToolError(f"'{command[0]}' cannot be started ({error.strerror})",
                        hint="install it, or change [link] in a target file") from error
    if done.returncode != 0:
        said = done.stderr.splitlines() or [f"exit code {done.returncode}"]
        first = next((line for line in said if "error" in line.lower()), said[0])
        raise ToolError(f"{command[0]} failed: {first}", hint=hint)
    return done.stdout
