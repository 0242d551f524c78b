"""What the entry of a library asks the system for, for tests that call kernels themselves."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from qcc.data import data_folder
from qcc.target import Target


def ask_for(target: Target) -> None:
    """Get this process the registers of a target."""
    if target.permission:
        _allow_tiles()


@cache
def _allow_tiles() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "allow.c"), Path(folder, "allow.so")
        source.write_text('#include "qcc/amx.h"\nint allow(void) { return qcc_amx_allowed(); }\n')
        include = str(data_folder("runtime") / "include")
        flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I", include]
        subprocess.run(["cc", *flags, str(source), "-o", str(library)], check=True)
        assert ctypes.CDLL(str(library)).allow(), "the system refuses AMX to this process"
