"""Folders that are not Python: ``targets/`` and ``runtime/``, in the source tree or inside an installed wheel."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from qcc.errors import TargetError


def data_folder(name: str) -> Path:
    """``targets`` or ``runtime``: the wheel's copy (``qcc/_data``), else the source tree's."""
    package = Path(__file__).resolve().parent
    installed = package / "_data" / name
    return installed if installed.is_dir() else package.parents[1] / name


def read_table(path: Path) -> dict[str, Any]:
    """Contents of a target's TOML file; raises TargetError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise TargetError(f"cannot be read ({reason})", where=str(path), hint="give the path of a file") from error
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"not valid TOML: {error}", where=str(path), hint="see targets/*.toml") from error
