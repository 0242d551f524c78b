"""Named decisions of a schedule: each has candidates and a default that is good without tuning."""

from __future__ import annotations

from collections.abc import Sequence


class Decide:
    """Takes every default. A tuner subclasses this and samples from the candidates; a record replays what it found."""

    def __call__(self, name: str, candidates: Sequence[int], default: int) -> int:
        """The value of decision ``name``, one of ``candidates``."""
        assert default in candidates, f"default {default} of '{name}' is not among {list(candidates)}"
        return default
