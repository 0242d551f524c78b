"""Errors a user can cause. Each says what happened, where, and what to do.

The command line prints ``str(error)`` on one line (``UnsupportedError`` on one line per node) and exits with 1;
anything that is not a ``QccError`` is a bug in qcc and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class QccError(Exception):
    """What happened, where (file, node, key), and a hint what to do about it."""

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what)

    def __str__(self) -> str:
        """One line: ``where: what. Hint: …``."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}. Hint: {self.hint}" if self.hint else text


class ModelError(QccError):
    """The model file cannot be read, or is not a legal model."""


class CalibrationError(QccError):
    """The calibration samples are missing, of another shape or dtype, or not finite."""


class InputError(QccError):
    """An input given to a compiled model does not fit it."""


class TargetError(QccError):
    """An unknown target, or a target description with a wrong field."""


class ToolError(QccError):
    """A program that qcc calls (the linker, say) is missing or failed."""


class RecordsError(QccError):
    """A file of tuning records cannot be read or written, or is no such file."""


class TuningError(QccError):
    """A tuning job cannot start: nothing to decide, no device, or a library that is not installed."""


class ArtifactError(QccError):
    """A folder that should hold a compiled model does not, or an output cannot be written."""


@dataclass(frozen=True)
class Unsupported:
    """One node that cannot be compiled: its name, op, the reason, and what to do."""

    node: str
    op: str
    reason: str
    hint: str

    def __str__(self) -> str:
        """One line of the list."""
        return f"{self.op} '{self.node}': {self.reason}. Hint: {self.hint}"


class UnsupportedError(ModelError):
    """Every node of a model that cannot be compiled, listed at once."""

    def __init__(self, items: Sequence[Unsupported], *, where: str = "") -> None:
        self.items = tuple(items)
        count = f"{len(items)} unsupported node" + ("s" if len(items) != 1 else "")
        super().__init__("\n  ".join([count, *map(str, items)]), where=where)
