"""What the importers of all formats share: refusing a node, and the limits beyond which a file is broken."""

from __future__ import annotations

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
