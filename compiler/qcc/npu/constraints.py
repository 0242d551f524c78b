"""What the accelerator asks of a node. A constraint's docstring is the rule: the message and the documentation.

Each returns None where the node keeps the rule, else (limit, actual value, suggestion).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qcc.errors import Unsupported
from qcc.ir.graph import Graph, Node
from qcc.npu.description import Description
from qcc.npu.lower import LOWERINGS, product_groups
from qcc.ops.rounding import follows_tflite

Finding = tuple[str, str, str] | None
Constraint = Callable[[Node, Graph, Description], Finding]
ON_HOST = "let the host compute it (--host), or change the model"
ADVICE = {
    "argmax": "its result is int32: take the class of the logits on the host (--host)",
    "resize_bilinear": "enlarge by nearest neighbours, which is a copy, or by a transposed convolution, or use --host",
}
"""What to do about ops for which there is more to say."""


def known_op(node: Node, graph: Graph, d: Description) -> Finding:
    """The accelerator has an instruction for the op."""
    known = {*LOWERINGS, "reshape", "conv_transpose2d"}
    return None if node.op in known else ("one of " + ", ".join(sorted(known)), node.op, ADVICE.get(node.op, ON_HOST))


def int8_data(node: Node, graph: Graph, d: Description) -> Finding:
    """Operands and result that are not constants are int8."""
    values = [v for v in (*node.inputs.values(), node.output) if v not in graph.constants]
    wrong = next((v for v in values if graph.types[v].dtype != "int8"), None)
    return None if wrong is None else ("int8", f"{graph.types[wrong].dtype} '{wrong}'", ON_HOST)


def known_rounding(node: Node, graph: Graph, d: Description) -> Finding:
    """The unit has the node's rounding: half_up for qcc's own; double for TFLite's, which some ops have not."""
    if not follows_tflite(node):
        return None if "half_up" in d.requant.rounding else ("requant.rounding", "half_up", "use another unit")
    if "double" not in d.requant.rounding:
        return "requant.rounding = " + ", ".join(d.requant.rounding), "double", "quantize the float model with qcc"
    known = ("conv2d", "conv_transpose2d", "dense", "avg_pool", "reduce_mean", "reduce_sum", "add", "sub", "softmax",
             "matmul")
    return None if node.op in known else ("one of " + ", ".join(known), node.op, ON_HOST)


def centred_weights(node: Node, graph: Graph, d: Description) -> Finding:
    """Weights have the zero point 0."""
    q = graph.types[node.inputs["w"]].qparams if "w" in node.inputs else None
    return None if q is None or q.zero_point == 0 else ("0", str(q.zero_point), "quantize the weights symmetrically")


def shift_in_range(node: Node, graph: Graph, d: Description) -> Finding:
    """The right shift of a requantization lies in the unit's range."""
    low, high = d.requant.shift_min, d.requant.shift_max
    shifts = [node.attrs[k] for k in ("shift", "fraction") if k in node.attrs]
    wrong = next((s for s in shifts if not low <= s <= high), None)
    if wrong is None:
        return None
    return f"{low} to {high} (requant.shift_min, shift_max)", str(wrong), "recalibrate, or widen the unit's range"


def multiplier_fits(node: Node, graph: Graph, d: Description) -> Finding:
    """The multipliers of a requantization fit the unit's bits."""
    found = [int(abs(graph.constants[node.inputs["multiplier"]].astype("int64")).max(initial=0))
             if "multiplier" in node.inputs else 0]
    found += [abs(node.attrs[k]) for k in ("multiplier", "multiplier_a", "multiplier_b", "residual_multiplier")
              if isinstance(node.attrs.get(k), int)]
    limit = 2 ** (d.requant.multiplier_bits - 1) - 1
    if max(found) <= limit:
        return None
    return f"at most {limit} ({d.requant.multiplier_bits} signed bits)", str(max(found)), "use a unit with more bits"


def residual_counts(node: Node, graph: Graph, d: Description) -> Finding:
    """The multiplier of a fused residual is not 0."""
    if node.attrs.get("residual_multiplier", 1) != 0:
        return None
    return "at least 1", "0 (its step is far below the result's)", "recalibrate, or drop the addition"


def constant_padding(node: Node, graph: Graph, d: Description) -> Finding:
    """Padding has one value: the loader cannot repeat edges or reflect."""
    if node.op != "pad" or node.attrs["mode"] == "constant":
        return None
    return "constant", str(node.attrs["mode"]), "pad with zeros"


def adjacent_axes(node: Node, graph: Graph, d: Description) -> Finding:
    """The axes of a reduction follow each other, so that it is a pool."""
    axes = node.attrs.get("axes", ())
    if not node.op.startswith("reduce") or axes == tuple(range(axes[0], axes[-1] + 1)):
        return None
    return "consecutive axes", str(axes), "transpose first, or reduce twice"


def constant_weights(node: Node, graph: Graph, d: Description) -> Finding:
    """Weights, biases, multipliers and tables are constants."""
    wrong = next((f"{k} '{v}'" for k, v in node.inputs.items()
                  if k in ("w", "b", "multiplier", "shift", "table") and v not in graph.constants
                  and node.op in ("conv2d", "conv_transpose2d", "dense", "lut", "prelu", "softmax", "avg_pool")), None)
    return None if wrong is None else ("a constant", f"computed {wrong}", ON_HOST)


def one_leading_axis(node: Node, graph: Graph, d: Description) -> Finding:
    """The leading axes of a product of two activations can be seen as one, in both operands."""
    if node.op != "matmul":
        return None
    a, b, out = (graph.types[v].shape for v in (node.inputs["a"], node.inputs["b"], node.output))
    axes, _ = product_groups(out[:-2], a, b)
    return None if len(axes) == 1 else ("1 axis", f"{len(axes)} axes, from {a} and {b}", "expand an operand first")


def small_window(node: Node, graph: Graph, d: Description) -> Finding:
    """Taps and strides of a window are below 32768."""
    values = [int(v) for k in ("kernel", "stride", "dilation", "pad") for v in node.attrs.get(k) or ()]
    largest = max(values, default=0)
    return None if largest < 32768 else ("below 32768", str(largest), "make the window smaller")


CONSTRAINTS: Sequence[Constraint] = (
    known_op, int8_data, constant_weights, centred_weights, constant_padding, adjacent_axes, small_window,
    known_rounding, shift_in_range, multiplier_fits, residual_counts,
    one_leading_axis,
)  # fmt: skip


def violation(node: Node, graph: Graph, d: Description) -> Unsupported | None:
    """The first rule that a node breaks."""
    for constraint in CONSTRAINTS:
        found = constraint(node, graph, d)
        if found is not None:
            limit, actual, hint = found
            rule = (constraint.__doc__ or "").strip().rstrip(".")
            return Unsupported(node.output, node.op, f"{rule} (limit: {limit}; here: {actual})", hint)
    return None
