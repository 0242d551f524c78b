"""Sizes of generated C under the target's own compiler: flash, and stack at the deepest call."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from qcc.emit.library import call_tool
from qcc.target import Target


@dataclass(frozen=True)
class Sizes:
    """Bytes of code, of constants, and of stack (None: the compiler does not say)."""

    compiler: str
    code: int
    constants: int
    stack: int | None

    @property
    def flash(self) -> int:
        """Bytes of both files."""
        return self.code + self.constants


def measure(sources: Sequence[Path], includes: Sequence[Path], target: Target, entry: str) -> Sizes | None:
    """Sizes of the ``sources`` (code, constants) with the target's flags; None without a compiler, or if it fails.

    The stack is that of ``entry`` and what it calls; functions of the C library come on top.
    """
    compiler = next((found for cc in target.link.cc if (found := shutil.which(cc))), None)
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(prefix="qcc-") as scratch:
        sizes, graph = [], ""
        options = [compiler, "-std=c99", *target.link.flags, *(f"-I{i}" for i in includes)]
        for source in sources:
            command = [*options, "-c", str(source), "-o", "out.o"]
            done = subprocess.run([*command, "-fcallgraph-info=su"], cwd=scratch, capture_output=True, check=False)
            if done.returncode != 0:
                done = subprocess.run(command, cwd=scratch, capture_output=True, check=False)
            if done.returncode != 0:
                return None
            sizes.append(_text_bytes(compiler, Path(scratch) / "out.o"))
            graph += "".join(file.read_text() for file in Path(scratch).glob("*.ci"))
        version = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=False)
    name = f"{Path(compiler).name} {version.stdout.strip()} {' '.join(target.link.flags)}"
    return Sizes(name, sizes[0], sizes[1], deepest(graph, entry) if graph else None)


def deepest(graph: str, entry: str) -> int | None:
    """Bytes of stack on the deepest path from a function, from GCC's ``-fcallgraph-info=su``."""
    nodes = re.findall(r'node: \{ title: "([^"]+)" label: "[^"]*\\n(\d+) bytes', graph)
    frames = {name: int(size) for name, size in nodes}
    calls: Mapping[str, list[str]] = {name: [] for name in frames}
    for caller, callee in re.findall(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"', graph):
        if caller in frames and callee in frames:
            calls[caller].append(callee)

    @cache
    def below(name: str) -> int:
        return frames[name] + max(map(below, calls[name]), default=0)

    return below(entry) if entry in frames else None


def _text_bytes(compiler: str, file: Path) -> int:
    """Bytes of an object's code and constants."""
    said = subprocess.run([compiler, "-print-prog-name=size"], capture_output=True, text=True, check=False)
    lines = call_tool([shutil.which(said.stdout.strip()) or "size", str(file)], file.parent).splitlines()
    return int(lines[1].split()[0])
