"""Folders that are not Python: ``targets/`` and ``runtime/``, in the source tree or inside an installed wheel."""

from __future__ import annotations

from pathlib import Path


def data_folder(name: str) -> Path:
    """``targets`` or ``runtime``: the wheel's copy (``qcc/_data``), else the source tree's."""
    package = Path(__file__).resolve().parent
    installed = package / "_data" / name
    return installed if installed.is_dir() else package.parents[1] / name
