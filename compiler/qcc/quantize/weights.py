"""Weights of the layers: their scales, and the mean error that rounding them leaves in the output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcc import numerics
from qcc.ir.graph import Graph, Node
from qcc.numerics import QParams

SMALLEST_MULTIPLIER = 2.0**-16
"""``numerics.requant_multipliers`` keeps its shift, and its error bound, for multipliers from here."""
NEGLIGIBLE = 0.25
"""Steps of the output."""


def scales(weight: NDArray[np.float64], input_step: float, output_step: float) -> NDArray[np.float64]:
    """Scale of each output channel (axis 0): ``max |w| / 127``, or more where finer weights would not show.

    A channel that hardly depends on its input (training switches some off) would get a tiny multiplier and a huge bias.
    Its scale is raised to the smallest one with an ordinary multiplier, if that moves no output by more than
    ``NEGLIGIBLE``: by at most half a weight step, or the whole weight, for each tap, at the widest input.
    """
    taps = np.abs(weight).reshape(len(weight), -1)
    floor = SMALLEST_MULTIPLIER * output_step / input_step
    error = np.minimum(taps.shape[1] * floor / 2, taps.sum(axis=1)) * 255 * input_step / output_step
    exact = np.where(taps.any(axis=1), numerics.weight_scales(weight, 0), 0.0)
    return np.where(error <= NEGLIGIBLE, np.maximum(exact, floor), exact)


def cancelling(weight: NDArray[np.float64], q: QParams) -> NDArray[np.int8]:
    """Weights [O, …] in int8, rounded so that the errors of each output channel add up to at most half a step.

    Where nothing is known of a layer's input, its channels may be expected to have means alike, as after a rectifier:
    then this is what keeps the output's mean. The weights that lie nearest to half-way are rounded the other way (as in
    Guo et al., SQuant, 2022, section 3.3).
    """
    steps = (weight.T / np.asarray(q.scale)).T.reshape(len(weight), -1)
    rounded = np.clip(np.rint(steps), -numerics.WEIGHT_MAX, numerics.WEIGHT_MAX)
    error = rounded - steps
    for row, errors in zip(rounded, error, strict=True):
        total = errors.sum()
        sign = np.sign(total)
        turned = np.argsort(-errors * sign, kind="stable")[: round(abs(total))]
        turned = turned[np.abs(row[turned] - sign) <= numerics.WEIGHT_MAX]
        row[turned] -= sign
    return np.asarray(rounded.reshape(weight.shape), np.int8)


def mean_shift(graph: Graph, node: Node, error: NDArray[np.float64], mean: ArrayLike) -> NDArray[np.float64]:
    """Mean over samples and positions of what the weight error [O, …] adds to each output channel of a layer.

    ``mean`` [C] is the mean of the input's channels. Subtracting the shift from the bias is bias correction (as in
    Nagel et al., Data-Free Quantization, 2019, section 4.2). A tap counts as often as it meets the image, not padding.
    """
    means = np.asarray(mean, np.float64)
    if node.op == "dense":
        return np.asarray(error @ means)
    groups, channels, kh, kw, depth = node.attrs["groups"], *error.shape
    share = tap_shares(graph, node, (kh, kw))
    per_tap = error.reshape(groups, channels // groups, kh, kw, depth)
    return np.asarray(np.einsum("gokli,gi,k,l->go", per_tap, means.reshape(groups, depth), *share).reshape(channels))


def tap_shares(graph: Graph, node: Node, kernel: Sequence[int]) -> list[NDArray[np.float64]]:
    """For rows and columns, the share of outputs to which each tap contributes: ``[KH], [KW]``."""
    before, after = graph.types[node.inputs["x"]].shape[1:3], graph.types[node.output].shape[1:3]
    starts, ends = (after, before) if node.op == "conv2d" else (before, after)
    shares = []
    for axis in (0, 1):
        start = np.arange(starts[axis]) * node.attrs["stride"][axis] - node.attrs["pad"][axis]
        position = start[:, None] + np.arange(kernel[axis]) * node.attrs["dilation"][axis]
        shares.append(((position >= 0) & (position < ends[axis])).sum(axis=0) / after[axis])
    return shares
