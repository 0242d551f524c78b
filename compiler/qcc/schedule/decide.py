"""Named decisions of a schedule: each has candidates and a default that is good without tuning.

Candidates depend on the kernel alone, never on another decision, so that a search may change one and keep the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class UnfitError(ValueError):
    """A decision was given a value that is not among its candidates, or that does not go with the others."""


class Decide:
    """Takes the ``chosen`` values, and every other default."""

    def __init__(self, chosen: Mapping[str, int] | None = None) -> None:
        self.chosen = dict(chosen or {})

    def __call__(self, name: str, candidates: Sequence[int], default: int) -> int:
        """The value of decision ``name``, one of ``candidates``. Raises UnfitError if another was chosen."""
        assert default in candidates, f"default {default} of '{name}' is not among {list(candidates)}"
        value = self.chosen.get(name, default)
        if value not in candidates:
            raise UnfitError(f"{value} is not among the candidates {list(candidates)} of '{name}'")
        return value
