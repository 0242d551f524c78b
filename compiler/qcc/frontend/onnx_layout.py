"""Importers of operators that move, copy or drop data: reshapes, slices, concatenations, padding."""

from __future__ import annotations

import math

import numpy as np

from qcc.frontend.onnx_elementwise import full_rank
from qcc.frontend.onnx_node import OnnxNode, importer, normal_axes
from qcc.frontend.refused import Refused, normal_axis

MAX_TILES = 4096
_FLOATS = {1, 10, 11, 16}
_INTEGERS = {6, 7}


@importer("Identity", "Dropout")
def identity(n: OnnxNode) -> str:
    """Dropout does nothing at inference."""
    if n.op == "Dropout" and n.has(2) and n.scalar(2, "training_mode"):
        raise Refused("training_mode is not supported", "export the model for inference")
    return n.scope.values[n.inputs[0]]


@importer("Cast")
def cast(n: OnnxNode) -> str:
    """Between float types, or between the integer types of an ArgMax: nothing happens, int8 decides the precision."""
    value = n.scope.values[n.inputs[0]]
    kept = _FLOATS if n.scope.graph.types[value].dtype == "float32" else _INTEGERS
    if n.attrs["to"] not in kept:
        raise Refused(f"a cast of {n.scope.graph.types[value].dtype} to type {n.attrs['to']} is not supported",
                      "convert outside the model")
    return value


@importer("Reshape")
def reshape(n: OnnxNode) -> str:
    """0 copies an axis (unless allowzero), -1 is what remains."""
    x, wanted = n.value(0), list(n.integers(1, "shape"))
    shape = n.shape(0)
    if not n.attrs.get("allowzero", 0):
        if any(d == 0 and i >= len(shape) for i, d in enumerate(wanted)):
            raise Refused(f"its shape {wanted} copies an axis that the input {list(shape)} lacks")
        wanted = [shape[i] if d == 0 else d for i, d in enumerate(wanted)]
    rest = math.prod(d for d in wanted if d != -1)
    if wanted.count(-1) == 1 and rest > 0:
        wanted[wanted.index(-1)] = math.prod(shape) // rest
    if min(wanted, default=1) < 1 or math.prod(wanted) != math.prod(shape):
        raise Refused(f"shape {list(shape)} cannot become {list(n.integers(1, 'shape'))}", "check this node's shape")
    return n.reshape(x, wanted)


@importer("Flatten")
def flatten(n: OnnxNode) -> str:
    """Two axes, split at ``axis``."""
    shape = n.shape(0)
    axis = int(n.attrs.get("axis", 1))
    if not -len(shape) <= axis <= len(shape):
        raise Refused(f"axis {axis} is out of range for shape {list(shape)}")
    axis += len(shape) if axis < 0 else 0
    return n.reshape(n.value(0), (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _axes(n: OnnxNode) -> tuple[int, ...]:
    """Input 1, or before opset 13 the attribute."""
    return n.integers(1, "axes") if n.has(1) else n.ints("axes", ())


@importer("Squeeze")
def squeeze(n: OnnxNode) -> str:
    """Drop axes of size 1: the given ones, or all."""
    shape = n.shape(0)
    axes = normal_axes(_axes(n), len(shape)) or tuple(i for i, d in enumerate(shape) if d == 1)
    if any(shape[a] != 1 for a in axes):
        raise Refused(f"axes {axes} of shape {list(shape)} are not all of size 1")
    return n.reshape(n.value(0), [d for i, d in enumerate(shape) if i not in axes])


@importer("Unsqueeze")
def unsqueeze(n: OnnxNode) -> str:
    """Axes count in the result."""
    shape, given = list(n.shape(0)), _axes(n)
    rank = len(shape) + len(given)
    axes = normal_axes(given, rank)
    if len(axes) != len(given):
        raise Refused(f"axes {given} repeat")
    remaining = iter(shape)
    return n.reshape(n.value(0), [1 if i in axes else next(remaining) for i in range(rank)])


@importer("Transpose")
def transpose(n: OnnxNode) -> str:
    """Without perm the axes are reversed."""
    rank = len(n.shape(0))
    perm = n.ints("perm", range(rank)[::-1], rank)
    if sorted(perm) != list(range(rank)):
        raise Refused(f"perm {perm} is not a permutation")
    return n.transpose(n.value(0), perm)


@importer("Expand")
def expand(n: OnnxNode) -> str:
    """Broadcasts both ways."""
    shape, wanted = n.shape(0), n.integers(1, "shape")
    try:
        target = tuple(int(d) for d in np.broadcast_shapes(shape, wanted))
    except ValueError as error:
        raise Refused(f"shape {list(shape)} does not broadcast to {list(wanted)}", "check this node's shape") from error
    x = n.reshape(n.value(0), full_rank(shape, len(target)))
    return x if n.shape_of(x) == target else n.emit("expand", {"x": x}, shape=target)


@importer("Tile")
def tile(n: OnnxNode) -> str:
    """Concatenations of copies."""
    x, repeats = n.value(0), n.integers(1, "repeats")
    if len(repeats) != len(n.shape(0)) or min(repeats, default=1) < 1 or max(repeats, default=1) > MAX_TILES:
        raise Refused(f"repeats {repeats} do not fit shape {list(n.shape(0))}")
    for axis, count in enumerate(repeats):
        if count > 1:
            x = n.emit("concat", {f"x{i}": x for i in range(count)}, axis=axis)
    return x


@importer("Concat")
def concat(n: OnnxNode) -> str:
    """Constant parts are allowed."""
    axis = normal_axis(int(n.attrs["axis"]), len(n.shape(0)))
    values = [n.value(i) for i in range(len(n.inputs))]
    return values[0] if len(values) == 1 else n.emit("concat", {f"x{i}": v for i, v in enumerate(values)}, axis=axis)


@importer("Split")
def split(n: OnnxNode) -> list[str]:
    """One slice per output; sizes from input or attribute ``split``, else equal (the last one takes what remains)."""
    x, shape = n.value(0), n.shape(0)
    axis = normal_axis(int(n.attrs.get("axis", 0)), len(shape))
    size, count = shape[axis], len(n.outputs)
    sizes = n.integers(1, "split") if n.has(1) else n.ints("split", ())
    if not sizes:
        each = -(-size // count)
        sizes = (each,) * (count - 1) + (size - each * (count - 1),)
    if len(sizes) != count or sum(sizes) != size or min(sizes) < 1:
        raise Refused(f"parts {sizes} do not fit {count} outputs and an axis of {size}")
    starts = [sum(sizes[:i]) for i in range(count)]
    return [n.select(x, axis, range(a, a + d)) for a, d in zip(starts, sizes, strict=True)]


@importer("Slice")
def slice_(n: OnnxNode) -> str:
    """Attributes before opset 10, then inputs; a negative step takes the elements one by one."""
    x, shape = n.value(0), n.shape(0)
    if n.opset < 10:
        starts, ends = n.ints("starts", ()), n.ints("ends", ())
        axes, steps = n.ints("axes", range(len(starts))), (1,) * len(starts)
    else:
        starts, ends = n.integers(1, "starts"), n.integers(2, "ends")
        axes = n.integers(3, "axes") if n.has(3) else tuple(range(len(starts)))
        steps = n.integers(4, "steps") if n.has(4) else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise Refused(f"starts {starts}, ends {ends}, axes {axes}, steps {steps} do not fit together")
    begin, end, step = [0] * len(shape), list(shape), [1] * len(shape)
    for first, last, axis, stride in zip(starts, ends, axes, steps, strict=True):
        axis = normal_axis(axis, len(shape))
        chosen = range(*slice(first, last, stride).indices(shape[axis]))
        if not chosen:
            raise Refused(f"its result is empty along axis {axis}", "check its starts and ends")
        if stride < 0:
            x = n.select(x, axis, chosen)
        else:
            begin[axis], end[axis], step[axis] = chosen[0], chosen[-1] + 1, stride
    if not any(begin) and tuple(end) == shape and set(step) <= {1}:
        return x
    # Axes taken above keep their new size: their end is that of the value, not of the input.
    end = [now if before != now else e for e, before, now in zip(end, shape, n.shape_of(x), strict=True)]
    return n.emit("slice", {"x": x}, begin=tuple(begin), end=tuple(end), step=tuple(step))


def _padding_value(n: OnnxNode) -> float:
    """The constant; where the operand is quantized, the real number that its integer stands for."""
    if n.inputs[0] not in n.scope.quantized:
        return n.scalar(2, "padding value")
    q, kind = n.scope.quantized[n.inputs[0]]
    return q.step * (n.scalar(2, "padding value") - (128 if kind == "uint8" else 0) - q.zero_point)


@importer("Pad")
def pad(n: OnnxNode) -> str:
    """Attributes before opset 11, then inputs; negative pads cut."""
    x, rank = n.value(0), len(n.shape(0))
    if n.opset < 11:
        pads, value, axes = n.ints("pads", ()), float(n.attrs.get("value", 0.0)), tuple(range(rank))
    else:
        pads, value = n.integers(1, "pads"), _padding_value(n) if n.has(2) else 0.0
        axes = tuple(normal_axis(a, rank) for a in n.integers(3, "axes")) if n.has(3) else tuple(range(rank))
    mode = n.attrs.get("mode", "constant")
    if mode not in ("constant", "edge", "reflect"):
        raise Refused(f"mode '{mode}' is not supported", "use constant, edge or reflect")
    if not math.isfinite(value):
        raise Refused(f"the padding value {value} is not finite", "pad with a finite number")
    if len(pads) != 2 * len(axes):
        raise Refused(f"{len(pads)} pads for {len(axes)} axes")
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[i + len(axes)]
    shape = n.shape_of(x)
    if min((*before, *after), default=0) < 0:
        begin = tuple(max(-b, 0) for b in before)
        end = tuple(d - max(-a, 0) for d, a in zip(shape, after, strict=True))
        x = n.emit("slice", {"x": x}, begin=begin, end=end, step=(1,) * rank)
    widths = tuple((max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True))
    if not any(map(any, widths)):
        return x
    return n.emit("pad", {"x": x}, pads=widths, mode=mode, value=value)


@importer("Gather")
def gather(n: OnnxNode) -> str:
    """Constant indices of any shape."""
    if n.is_known(0):
        raise Refused("its indices are not constant", "look up tables outside the model")
    x, shape = n.value(0), n.shape(0)
    axis = normal_axis(int(n.attrs.get("axis", 0)), len(shape))
    array, size = n.array(1, "indices"), shape[axis]
    indices = n.integers(1, "indices")
    if not indices or min(indices) < -size or max(indices) >= size:
        raise Refused(f"its indices leave the range of an axis of {size}", "check its indices")
    y = n.select(x, axis, [i % size for i in indices])
    return n.reshape(y, (*shape[:axis], *array.shape, *shape[axis + 1 :]))
