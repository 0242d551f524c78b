"""Where precision is lost: the integer program beside the float graph, value by value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from qcc import numerics
from qcc.ir.evaluate import run_float, run_integer
from qcc.ir.graph import Graph
from qcc.quantize.calibrate import Samples, feeds


@dataclass(frozen=True)
class Quality:
    """Signal-to-quantization-noise ratio in dB of one value, with everything that was lost before it; inf if exact."""

    value: str
    op: str
    sqnr: float


def layer_quality(graph: Graph, integer: Graph, samples: Samples, limit: int = 4) -> list[Quality]:
    """Compare the first ``limit`` samples in both graphs, for every real value that both know, in order of computation.

    ``graph`` is the float graph that ``assign`` returned, ``integer`` its program with float inputs and outputs.
    """
    nodes = [n for n in integer.nodes if n.output in graph.types and integer.types[n.output].dtype != "int32"]
    values = [n.output for n in nodes]
    signal, noise = dict.fromkeys(values, 0.0), dict.fromkeys(values, 0.0)
    for feed in islice(feeds(graph, samples), limit):
        exact, found = run_float(graph, feed, keep=values), run_integer(integer, feed, keep=values)
        for value in values:
            q = integer.types[value].qparams
            real = found[value] if q is None else numerics.dequantize(found[value], q)
            signal[value] += float(np.square(exact[value], dtype=np.float64).sum())
            noise[value] += float(np.square(exact[value].astype(np.float64) - real).sum())
    return [Quality(n.output, n.op, _decibels(signal[n.output], noise[n.output])) for n in nodes]


def _decibels(signal: float, noise: float) -> float:
    """Ratio of two energies; -inf without a signal."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def quality_table(rows: Sequence[Quality]) -> str:
    """One line for each value: ratio, op, name."""
    return "\n".join([f"{'dB':>6}  {'op':16}  value", *(f"{r.sqnr:6.1f}  {r.op:16}  {r.value}" for r in rows)])
