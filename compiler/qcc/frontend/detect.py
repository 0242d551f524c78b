"""Which front end a model calls for, by its contents."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

TFLITE_IDENTIFIER = b"TFL3"
"""Bytes 4 to 8 of a TFLite file."""


def is_tflite(model: Any) -> bool:
    """Whether a path or bytes hold a TFLite file; False for whatever cannot be read."""
    if isinstance(model, str | PathLike):
        try:
            with Path(model).open("rb") as file:
                model = file.read(8)
        except OSError:
            return False
    return isinstance(model, bytes) and model[4:8] == TFLITE_IDENTIFIER
