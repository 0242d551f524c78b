"""Legality of float graphs and integer programs: what every stage may rely on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from qcc import numerics
from qcc.errors import QccError
from qcc.ir.graph import Attr, Graph, Node, TensorType
from qcc.numerics import QParams
from qcc.numerics_tflite import TFLITE
from qcc.ops import OPS, IllegalNode, Op
from qcc.ops.rounding import follows_tflite

CONSTANT_KEYS = ("w", "multiplier", "shift", "table", "slope", "mean", "variance", "weight", "bias")
RESIDUAL_ATTRIBUTES = ("residual_multiplier", "fraction")
MAX_SHIFT = 62
ZERO_POINTS = {"int8": (numerics.INT8_MIN, numerics.INT8_MAX), "uint8": (0, 255)}
"""Range of zero points by the dtype of values that have them (uint8 at the edges of a program)."""


class IllegalGraph(QccError):  # noqa: N818
    """Every violation found in a graph; a bug in the stage that wrote it, or a program file that was changed."""

    def __init__(self, graph: str, violations: list[str]) -> None:
        """One violation a line."""
        self.violations = tuple(violations)
        count = f"{len(violations)} violation" + ("s" if len(violations) != 1 else "")
        super().__init__("\n  ".join([count, *violations]), where=f"graph '{graph}'")


def verify(graph: Graph) -> None:
    """Raise one ``IllegalGraph`` that lists every violation.

    Names are unique and defined before use; every value has the type that its op infers; ops, inputs and attributes are
    known and complete. In an integer program int8 activations have parameters per tensor, weights one scale per output
    channel; ops that move data keep the parameters; accumulators cannot leave 32 bits.
    """
    violations = [*_names(graph), *_values(graph)]
    for node in graph.nodes:
        violations += [f"{node.output}: {what}" for what in _node(graph, node)]
    if violations:
        raise IllegalGraph(graph.name, violations)


def _names(graph: Graph) -> Iterator[str]:
    """Definitions and uses of names."""
    defined: set[str] = set()
    later = {node.output for node in graph.nodes}
    for value in [*graph.inputs, *graph.constants]:
        if value in defined:
            yield f"{value}: defined twice"
        defined.add(value)
    for node in graph.nodes:
        for key, value in node.inputs.items():
            if value not in defined:
                yield f"{node.output}: input {key} reads '{value}', which is " + (
                    "computed later" if value in later else "not defined"
                )
        if node.output in defined:
            yield f"{node.output}: defined twice"
        defined.add(node.output)
    if not graph.outputs:
        yield "the graph has no outputs"
    yield from (f"{value}: an output that is not defined" for value in graph.outputs if value not in defined)
    yield from (f"{value}: has no type" for value in sorted(defined - set(graph.types)))
    yield from (f"{value}: has a type but is not defined" for value in graph.types if value not in defined)


def _values(graph: Graph) -> Iterator[str]:
    """Types of values, and contents of constants."""
    for value, kind in graph.types.items():
        array, q = graph.constants.get(value), kind.qparams
        if array is not None and (array.shape, str(array.dtype)) != (kind.shape, kind.dtype):
            yield f"{value}: is {_show(kind)}, but its array is {array.dtype}{list(array.shape)}"
        if q is None:
            if array is None and kind.dtype == "int8":
                yield f"{value}: an int8 activation without quantization parameters"
            continue
        if kind.dtype not in ZERO_POINTS and not (array is not None and kind.dtype == "float32"):
            yield f"{value}: {kind.dtype} values have no quantization parameters"
            continue
        scales = q.scale if isinstance(q.scale, tuple) else (q.scale,)
        if not all(math.isfinite(s) and s > 0 for s in scales):
            yield f"{value}: scales must be positive and finite"
        low, high = ZERO_POINTS.get(kind.dtype, ZERO_POINTS["int8"])
        if not low <= q.zero_point <= high:
            yield f"{value}: zero point {q.zero_point} leaves {kind.dtype}"
        if (q.axis is None) == isinstance(q.scale, tuple):
            yield f"{value}: several scales need an axis, one scale has none"
        elif q.axis is not None and array is None:
            yield f"{value}: an activation has one scale, not one per channel"


def _node(graph: Graph, node: Node) -> Iterator[str]:
    """Op, inputs, attributes and type of a node."""
    op = OPS.get(node.op)
    if op is None:
        yield f"unknown op '{node.op}'"
        return
    if any(value not in graph.types for value in (*node.inputs.values(), node.output)):
        return
    integer = "int8" in {graph.types[value].dtype for value in node.inputs.values()}
    faults = [*_inputs(graph, node, op), *_attributes(node, op, integer)]
    yield from faults
    if faults:
        return
    out = graph.types[node.output]
    try:
        inferred = op.infer(node, graph.input_types(node))
    except IllegalNode as error:
        yield error.what
        return
    if (inferred.shape, inferred.dtype) != (out.shape, out.dtype):
        yield f"is {_show(out)}, but {node.op} gives {_show(inferred)}"
    elif integer:
        yield from _integer(graph, node, op, out)


def _inputs(graph: Graph, node: Node, op: Op) -> Iterator[str]:
    """Input keys, and which of them must be constants."""
    known = {*op.required, *op.optional}
    if op.required[0].endswith("*"):
        stem = op.required[0][:-1]
        known = {f"{stem}{i}" for i in range(max(len(node.inputs), 1))}
        missing = sorted(known - set(node.inputs))
    else:
        missing = [key for key in op.required if key not in node.inputs]
    yield from (f"{node.op} lacks input {key}" for key in missing)
    for key, value in node.inputs.items():
        if key not in known:
            yield f"{node.op} has no input {key}"
        elif (key in CONSTANT_KEYS or (key == "b" and "w" in known)) and value not in graph.constants:
            yield f"input {key} of {node.op} must be a constant"


def _attributes(node: Node, op: Op, integer: bool) -> Iterator[str]:
    """Attribute names of the float or of the integer form, and their kinds."""
    known = op.form_attributes(node, integer)
    for key in known:
        if key not in node.attrs and (key not in RESIDUAL_ATTRIBUTES or "residual" in node.inputs):
            yield f"{node.op} lacks attribute {key}"
    for key, value in node.attrs.items():
        if key not in known:
            yield f"{node.op} has no attribute {key}" + ("" if integer else " in a float graph")
        elif not _is_attr(value):
            yield f"attribute {key} is of type {type(value).__name__}"
    if node.attrs.get("rounding", TFLITE) != TFLITE:
        yield f"rounding {node.attrs['rounding']!r} is not known"
    shift, zero_point = node.attrs.get("shift", 0), node.attrs.get("zero_point", 0)
    if not 0 <= shift <= MAX_SHIFT:
        yield f"shift {shift} is not within 0..{MAX_SHIFT}"
    if not numerics.INT8_MIN <= zero_point <= numerics.INT8_MAX:
        yield f"attribute zero_point {zero_point} leaves int8"


def _is_attr(value: Attr) -> bool:
    """int, float, str, bool, None, or a tuple of those."""
    if isinstance(value, tuple):
        return all(map(_is_attr, value))
    return value is None or type(value) in (int, float, str, bool)


def _integer(graph: Graph, node: Node, op: Op, out: TensorType) -> Iterator[str]:
    """Parameters of the values around an integer node, and its overflow proof."""
    q = out.qparams
    kinds = {key: kind for key, kind in graph.input_types(node).items() if key not in CONSTANT_KEYS}
    for key, kind in kinds.items():
        if kind.dtype == "int8" and kind.qparams is None:
            yield f"input {key} has no quantization parameters"
        elif op.scale_rule == "same" and kind.dtype == out.dtype == "int8" and kind.qparams != q:
            yield f"{node.op} moves data, but input {key} has {_parameters(kind.qparams)}, the output {_parameters(q)}"
    if node.op == "softmax" and q != numerics.SOFTMAX_QPARAMS:
        yield f"softmax gives {_parameters(numerics.SOFTMAX_QPARAMS)}, not {_parameters(q)}"
    if "zero_point" in node.attrs and "table" not in node.inputs and q and node.attrs["zero_point"] != q.zero_point:
        yield f"attribute zero_point {node.attrs['zero_point']} is not the output's {q.zero_point}"
    if "w" in node.inputs:
        yield from _weights(graph, node)


def _weights(graph: Graph, node: Node) -> Iterator[str]:
    """Symmetric weights with a scale for each output channel, sums within 32 bits; TFLite's rules are weaker."""
    name = node.inputs["w"]
    weight, q = graph.constants[name], graph.types[name].qparams
    bias = 0 if "step" in node.inputs else graph.constants[node.inputs["b"]]
    tflite = follows_tflite(node)
    if q is None or q.axis != 0 or np.size(q.scale) != weight.shape[0] or (q.zero_point != 0 and not tflite):
        yield f"weights '{name}' need a scale for each of the {weight.shape[0]} output channels and zero point 0"
        return
    if int(weight.min(initial=0)) < -numerics.WEIGHT_MAX and not tflite:
        yield f"weights '{name}' hold {int(weight.min())}, the least is {-numerics.WEIGHT_MAX}"
    bound = int(numerics.storage_bound(weight, bias).max(initial=0))
    if bound > numerics.INT32_MAX and not tflite:
        yield f"an accumulator may reach {bound}, which leaves int32"


def _show(kind: TensorType) -> str:
    """Dtype and shape."""
    return f"{kind.dtype}{list(kind.shape)}"


def _parameters(q: QParams | None) -> str:
    """Scale and zero point."""
    return "none" if q is None else f"scale {q.scale} and zero point {q.zero_point}"
