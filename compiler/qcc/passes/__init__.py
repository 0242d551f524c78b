"""Rewrites, graph to graph; each keeps its argument and returns a new graph. The order matters and is written here."""

from __future__ import annotations

from collections.abc import Callable

from qcc.ir.graph import Graph
from qcc.passes.fold_batch_norm import fold_batch_norm
from qcc.passes.fold_constants import fold_constants
from qcc.passes.fuse_clamp import fuse_clamp
from qcc.passes.fuse_pointwise import fuse_pointwise
from qcc.passes.fuse_residual import fuse_residual
from qcc.passes.fuse_table import fuse_table
from qcc.passes.merge_fake_quants import merge_fake_quants
from qcc.passes.merge_pads import merge_pads
from qcc.passes.remove_identities import remove_identities
from qcc.passes.sink_transposes import sink_transposes

Pass = Callable[[Graph], Graph]

SIMPLIFY: tuple[Pass, ...] = (
    fold_constants,
    merge_fake_quants,
    remove_identities,
    sink_transposes,
    remove_identities,
    fold_batch_norm,
    fuse_pointwise,
    fuse_clamp,
    merge_pads,  # after fuse_clamp: a clamp at 0 lets max pools take zero padding
    fuse_residual,  # after fuse_clamp: it takes the addition's clamp along
    remove_identities,
)
"""Float graph, as imported, to the float graph that is calibrated and quantized."""

FUSE_INTEGER: tuple[Pass, ...] = (fuse_table,)
"""For integer programs, after quantization."""


def simplify(graph: Graph) -> Graph:
    """The float graph that is calibrated and quantized: every pass of ``SIMPLIFY`` in order."""
    for rewrite in SIMPLIFY:
        graph = rewrite(graph)
    return graph


__all__ = ["FUSE_INTEGER", "SIMPLIFY", "Pass", "simplify"]
