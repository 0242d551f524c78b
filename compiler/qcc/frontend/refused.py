"""What the importers of all formats share: registry, refusing a node, and limits beyond which a file is broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from qcc.errors import ModelError, QccError
from qcc.ir.graph import Graph, Node, TensorType
from qcc.ops import OPS
from qcc.ops.base import IllegalNode

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


def read_model(path: Path) -> bytes:
    """A model file. Raises ``ModelError``."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", where=str(path), hint="check the path") from error


def result_type(graph: Graph, node: Node, hint: str) -> TensorType:
    """Type of a new node's result. Refuses an ill-formed node (``Op.infer``), and results that are empty or too large.

    ``hint``: what to check then.
    """
    try:
        result = OPS[node.op].infer(node, graph.input_types(node))
    except IllegalNode as error:
        raise Refused(error.what, hint) from error
    if min(result.shape, default=1) <= 0:
        raise Refused(f"its result is empty, shape {list(result.shape)}")
    if result.size > MAX_ELEMENTS:
        raise Refused(f"its result has {result.size} elements", f"at most {MAX_ELEMENTS} are possible")
    return result


def normal_axis(axis: int, rank: int) -> int:
    """A non-negative axis; refuses one out of range."""
    if not -rank <= axis < rank:
        raise Refused(f"axis {axis} is out of range for rank {rank}", "check this node's axis")
    return axis % rank
