"""What the importers of all formats share: registry, refusing a node, and limits beyond which a file is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from qcc.errors import QccError

REWRITE = "change the model, or cut it in front of this node"
MAX_ELEMENTS = 2**28
"""Of one value: beyond that a file is broken, and evaluating it would exhaust the memory."""
MAX_TAKEN = 2**20
"""Indices of one ``take``: they are stored one by one."""


class Refused(QccError):  # noqa: N818
    """This node cannot be imported: why, and what the user can do. A front end's ``load`` gathers them."""

    def __init__(self, what: str, hint: str = REWRITE) -> None:
        """See ``QccError``."""
        super().__init__(what, hint=hint)


Importer = TypeVar("Importer", bound=Callable[..., object])


def registry(importers: dict[str, Importer]) -> Callable[..., Callable[[Importer], Importer]]:
    """A decorator that enters a function in ``importers`` under the names of operators that it is given."""

    def importer(*operators: str) -> Callable[[Importer], Importer]:
        def register(function: Importer) -> Importer:
            importers.update(dict.fromkeys(operators, function))
            return function

        return register

    return importer


def normal_axis(axis: int, rank: int) -> int:
    """A non-negative axis; refuses one out of range."""
    if not -rank <= axis < rank:
        raise Refused(f"axis {axis} is out of range for rank {rank}", "check this node's axis")
    return axis % rank
