"""Ranges → quantization parameters of every activation, and rescalings where values of one scale must meet another.

Parameters that the model itself gives (``fake_quant`` nodes) are taken as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qcc import numerics
from qcc.errors import CalibrationError
from qcc.ir.graph import Graph, Node, TensorType
from qcc.numerics import QParams
from qcc.ops import OPS, pointwise
from qcc.ops.fake_quant import mark
from qcc.passes.rewrite import bypass, clip_limits, sole_user
from qcc.quantize.observers import Range

SPREAD = 2.0
"""Values whose ranges differ in width by at most this factor share parameters without further thought."""


@dataclass(eq=False)
class Group:
    """Values that share parameters: the union of their ranges with 0, and the parameters if an op or the model does."""

    low: float = 0.0
    high: float = 0.0
    narrowest: float = math.inf
    """Width of the narrowest range among members whose precision matters to other readers."""
    members: list[str] = field(default_factory=list)
    fixed: QParams | None = None
    unknown: list[str] = field(default_factory=list)
    """Members without the range that they need if nothing fixes the parameters."""

    @property
    def width(self) -> float:
        """Of the range."""
        return self.high - self.low

    @property
    def qparams(self) -> QParams:
        """Parameters of every member."""
        return self.fixed or numerics.activation_qparams(self.low, self.high)

    def include(self, low: float, high: float) -> None:
        """Widen the range."""
        self.low, self.high = min(self.low, low), max(self.high, high)

    def fix(self, q: QParams) -> None:
        """Give the group parameters, and the range that they represent."""
        low, high = numerics.dequantize([numerics.INT8_MIN, numerics.INT8_MAX], q)
        self.fixed, self.low, self.high = q, float(low), float(high)
        self.narrowest = self.width


def assign(
    graph: Graph, ranges: Mapping[str, Range], remarks: list[str] | None = None
) -> tuple[dict[str, QParams], Graph]:
    """Parameters of every int8 value, and the graph (a changed copy) that they are for.

    ``ranges`` holds the values of ``calibrate.observed(graph)``; those whose parameters the graph gives may be missing.
    Values joined by same-scale ops form one group, which has the union of their ranges, or the parameters of a member
    that fake_quant or its op fixes. Where such an op joins groups of different ranges, a narrower operand that others
    read too keeps its precision for them: a rescaling (``pointwise`` of ``x``) is inserted in front of the op. A
    fake_quant of a value that has other parameters already becomes a rescaling; the other ones are dropped. Appends to
    ``remarks`` what the user should read. Raises ``CalibrationError``, which lists the values without parameters and
    range.
    """
    graph = graph.copy()
    grouping = _Grouping(graph, ranges)
    groups = grouping.groups
    _require_ranges(groups)
    if remarks is not None and grouping.marks:
        remarks += [
            f"{value}: the model does not quantize this value; its range is from the calibration samples"
            for value in ranges
            if value in groups and groups[value].fixed is None
        ]
    for node in [n for n in graph.nodes if n.op == "fake_quant"]:
        _drop(graph, node)
    _narrow_before_saturation(graph, groups)
    if remarks is not None:
        remarks += [
            f"{value}: every calibration sample gives the constant {low:g} here"
            for value, (low, high) in ranges.items()
            if low == high
        ]
    return {value: group.qparams for value, group in groups.items() if value in graph.types}, graph


def _require_ranges(groups: Mapping[str, Group]) -> None:
    """Raise ``CalibrationError`` if a group has neither parameters nor all ranges."""
    unknown = dict.fromkeys(v for group in groups.values() if group.fixed is None for v in group.unknown)
    if unknown:
        raise CalibrationError(
            f"the model does not quantize {len(unknown)} values: {', '.join(unknown)}",
            hint="give calibration samples (--calib, or calib=…) to choose their ranges, or quantize them in the model",
        )


def _drop(graph: Graph, node: Node) -> None:
    """Take a fake_quant node out, or, where the graph returns both its operand and its result, let it only copy."""
    bypass(graph, node)
    if node in graph.nodes:
        node.op, node.attrs = "reshape", {"shape": graph.types[node.output].shape}


class _Grouping:
    """Walks the nodes in order and joins values into groups; inserts rescalings into the graph it is given."""

    def __init__(self, graph: Graph, ranges: Mapping[str, Range]) -> None:
        self.graph, self.users, self.groups, self.ranges = graph, graph.users(), dict[str, Group](), ranges
        self.marks: dict[str, QParams] = {}
        """Parameters that the first fake_quant that reads a value gives it."""
        for node in graph.nodes:
            if node.op == "fake_quant":
                self.marks.setdefault(node.inputs["x"], mark(node))
        self.nodes: list[Node] = []
        for value in graph.inputs:
            if graph.types[value].dtype == "float32":
                self._group(value)
        for node in graph.nodes:
            if graph.types[node.output].dtype == "float32":
                rule = OPS[node.op].scale_rule
                if node.op == "fake_quant":
                    self._mark(node)
                elif rule == "same":
                    self._move(node)
                elif rule == "fixed":
                    self._group(node.output, numerics.SOFTMAX_QPARAMS)
                else:
                    self._group(node.output, self._through_clip(node), node.attrs.get("clamp"))
            self.nodes.append(node)
        graph.nodes = self.nodes

    def _group(self, value: str, fixed: QParams | None = None, clamp: Range | None = None) -> None:
        """A new group of one value, its range within the clamp; one that is always 0 fits any scale."""
        group = self.groups[value] = Group(members=[value])
        fixed = fixed or self.marks.get(value)
        if fixed is not None:
            group.fix(fixed)
        elif value in self.ranges:
            low, high = clamp or (-math.inf, math.inf)
            group.include(*(min(max(limit, low), high) for limit in self.ranges[value]))
            group.narrowest = group.width or math.inf
        else:
            group.unknown.append(value)

    def _mark(self, node: Node) -> None:
        """Let the operand's group have the node's parameters; where it has others, the node becomes a rescaling."""
        group, q = self.groups[node.inputs["x"]], mark(node)
        if group.fixed is None:
            group.fix(q)
        if group.fixed == q:
            group.members.append(node.output)
            self.groups[node.output] = group
        else:
            node.op, node.attrs = "pointwise", {"expr": "x"}
            self._group(node.output, q)

    def _through_clip(self, node: Node) -> QParams | None:
        """Parameters that a value has because a clip separates it from a value with these, or None.

        Rounding commutes with clipping: the operand takes what the model gives the clip's result, if nothing else reads
        it; a result that has neither parameters nor a range takes the operand's.
        """
        if clip_limits(node) is None:
            return None
        x, given = node.inputs["x"], self.marks.get(node.output)
        group = self.groups[x]
        if given is not None and group.fixed is None and sole_user(self.graph, x, self.users):
            group.fix(given)
        return group.fixed if given is None and node.output not in self.ranges else None

    def _move(self, node: Node) -> None:
        """Join the operands' groups and the output of a same-scale op, which quantizes constant operands like both."""
        union, groups = Group(), list(dict.fromkeys(self.groups[v] for v in node.inputs.values() if v in self.groups))
        for group in groups:
            union.include(group.low, group.high)
        for value in node.inputs.values():
            if value in self.graph.constants:
                array = self.graph.constants[value]
                union.include(float(array.min()), float(array.max()))
        if math.isfinite(padding := node.attrs.get("value", 0.0)):
            union.include(padding, padding)
        fixed = [g for g in groups if g.fixed]
        if fixed and fixed[0].low <= union.low and union.high <= fixed[0].high:
            union.low, union.high, union.fixed = fixed[0].low, fixed[0].high, fixed[0].fixed
        given = self.marks.get(node.output)
        if given is not None and (len(groups) > 1 or not fixed):
            union.fix(given)
        for group in groups:
            private = self._private(group, node)
            fits = private or union.width <= SPREAD * group.narrowest
            joins = group.fixed == union.fixed if group.fixed else fits
            if joins and not private:
                union.narrowest = min(union.narrowest, group.narrowest)
            union.members += group.members if joins else self._rescaled(group, node)
            union.unknown += group.unknown if joins else []
        if node.output in self.ranges and union.fixed is None:
            union.include(*self.ranges[node.output])
        union.narrowest = min(union.narrowest, union.width or math.inf)
        union.members.append(node.output)
        self.groups.update(dict.fromkeys(union.members, union))

    def _private(self, group: Group, node: Node) -> bool:
        """Whether only this node, and moves within the group, read the group's values."""
        readers = (user.output for member in group.members for user in self.users.get(member, ()))
        return set(readers) <= {*group.members, node.output} and not set(group.members) & set(self.graph.outputs)

    def _rescaled(self, group: Group, node: Node) -> list[str]:
        """Copies of the group's operands in another scale, which the node reads in their place."""
        copies: dict[str, str] = {}
        for key, value in node.inputs.items():
            if self.groups.get(value) is group:
                if value not in copies:
                    copies[value] = name = self.graph.fresh(f"{value}.rescaled")
                    self.graph.types[name] = TensorType(self.graph.types[value].shape)
                    self.nodes.append(Node(name, "pointwise", {"x": value}, {"expr": "x"}, node.source))
                node.inputs[key] = copies[value]
        return list(copies.values())


def _narrow_before_saturation(graph: Graph, groups: Mapping[str, Group]) -> None:
    """Leave out of a group's range what all of its readers, pointwise functions, map to one output step.

    Hard-swish is 0 below -3, so a layer in front of it needs no steps there. Moving data commutes with that saturation;
    interpolating it does not.
    """
    users, seen = graph.users(), set[str]()
    for node in reversed(graph.nodes):
        group = groups.get(node.inputs.get("x", ""))
        if node.op != "pointwise" or group is None or group.fixed or set(group.members) & set(graph.outputs):
            continue
        seen.add(node.output)
        all_users = [user for member in group.members for user in users[member]]
        readers = [user for user in all_users if groups.get(user.output) is not group]
        if all(r.output in seen for r in readers) and not any(user.op == "resize_bilinear" for user in all_users):
            wanted = [_moving_part(reader, group, groups[reader.output].qparams) for reader in readers]
            group.low, group.high = min(low for low, _ in wanted), max(high for _, high in wanted)


def _moving_part(node: Node, group: Group, out: QParams) -> Range:
    """The part of the group's range outside of which the function moves by less than half a step of the output."""
    x = np.linspace(group.low, group.high, 2049)
    y = np.nan_to_num(np.asarray(pointwise.evaluate(node.attrs["expr"], x), np.float64))
    step = np.clip(y / out.step + out.zero_point, numerics.INT8_MIN, numerics.INT8_MAX)

    def flat(values: NDArray[np.float64]) -> int:
        """How many leading values lie within half a step."""
        return int((np.maximum.accumulate(values) - np.minimum.accumulate(values) <= 0.5).sum())

    first, last = flat(step) - 1, len(x) - flat(step[::-1])
    return (float(x[first]), float(x[last])) if first < last else (group.low, group.high)
