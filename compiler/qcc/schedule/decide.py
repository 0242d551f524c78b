"""Named decisions of a schedule: each has candidates and a default that is good without tuning."""

from __future__ import annotations

from collections.abc import Sequence


class Decide:
    """Takes every default. A tuner subclasses this and samples from the candidates; a record replays what it found."""

    def __call__(self, name: str, candidates: Sequence[int], default: int) -> int:
        """The value of decision ``name``, one of ``candidates``."""
        assert default in candidates, f"default {default} of '{name}' is not among {list(candidates)}"
        return default


def divisors(n: int, at_most: int | None = None) -> list[int]:
    """Divisors of ``n`` in ascending order, none above ``at_most``."""
    limit = n if at_most is None else min(n, at_most)
    return [d for d in range(1, limit + 1) if n % d == 0]


def nearest_divisor(n: int, wanted: int) -> int:
    """The largest divisor of ``n`` that is at most ``wanted`` (1 at least)."""
    return max(d for d in divisors(n, max(1, wanted)))
