"""Importers of operators that move data: shapes, parts, joins, padding."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from qcc import numerics_tflite
from qcc.frontend.refused import MAX_TAKEN, Refused, normal_axis
from qcc.frontend.tflite_node import TfliteNode, importer

MAX_PAD = 2**16


@importer("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
def reshape(n: TfliteNode) -> str:
    """The file says the shape of the result."""
    n.same_parameters(0)
    return n.reshape(n.value(0), n.result().shape)


@importer("TRANSPOSE")
def transpose(n: TfliteNode) -> str:
    """Constant permutation."""
    n.same_parameters(0)
    rank = len(n.shape(0))
    perm = tuple(normal_axis(a, rank) for a in n.integers(1, "permutation"))
    if sorted(perm) != list(range(rank)):
        raise Refused(f"{perm} does not permute {rank} axes", "check this operator's permutation")
    return n.transpose(n.value(0), perm)


@importer("BROADCAST_TO")
def broadcast_to(n: TfliteNode) -> str:
    """NumPy's rule."""
    n.same_parameters(0)
    return n.move("expand", {"x": n.value(0)}, shape=n.result().shape)


@importer("CONCATENATION")
def concatenation(n: TfliteNode) -> str:
    """Operands in other parameters (the uint8 scheme allows them) are rescaled first."""
    if n.limits() is not None:
        raise Refused("it has a fused activation function", "use a separate operator")
    axis = normal_axis(n.option("Axis"), len(n.shape(0)))
    count = range(len(n.operator.inputs))
    if n.integer and n.result().dtype == "int8":
        n.same_parameters(*count)
    parts = [_in_result_parameters(n, i) if n.integer else n.value(i) for i in count]
    return parts[0] if len(parts) == 1 else n.emit("concat", {f"x{i}": v for i, v in enumerate(parts)}, axis=axis)


def _in_result_parameters(n: TfliteNode, index: int) -> str:
    """A uint8 operand as the first scheme rescales it: in float32, half away from zero."""
    q, out = n.q(index), n.out_q()
    if q == out:
        return n.value(index)
    scale = np.float32(q.step) * (np.float32(1) / np.float32(out.step))
    bias = np.float32(-(q.zero_point + 128)) * scale
    real = np.arange(256).astype(np.float32) * scale + bias
    moved = [numerics_tflite.round_away(float(v)) + out.zero_point for v in real]
    return n.look_up(n.value(index), np.clip(moved, -128, 127).astype(np.int8))


@importer("PACK")
def pack(n: TfliteNode) -> str:
    """A new axis, along which the operands are joined."""
    count = range(len(n.operator.inputs))
    n.same_parameters(*count)
    rank = len(n.shape(0))
    axis = normal_axis(n.option("Axis"), rank + 1)
    shape = (*n.shape(0)[:axis], 1, *n.shape(0)[axis:])
    parts = {f"x{i}": n.reshape(n.value(i), shape) for i in count}
    return parts["x0"] if len(parts) == 1 else n.emit("concat", parts, axis=axis)


@importer("UNPACK")
def unpack(n: TfliteNode) -> list[str]:
    """One result for each element of an axis, which goes."""
    n.same_parameters(0)
    axis = normal_axis(n.option("Axis"), len(n.shape(0)))
    x, shape = n.value(0), n.shape(0)
    if len(n.operator.outputs) != shape[axis]:
        raise Refused(f"it has {len(n.operator.outputs)} results for {shape[axis]} elements")
    rest = shape[:axis] + shape[axis + 1 :]
    return [n.reshape(n.select(x, axis, range(i, i + 1)), rest) for i in range(shape[axis])]


@importer("SPLIT", "SPLIT_V")
def split(n: TfliteNode) -> list[str]:
    """SPLIT: axis, x. SPLIT_V: x, sizes, axis; one size may be -1 (the rest)."""
    source, place = (1, 0) if n.op == "SPLIT" else (0, 2)
    n.same_parameters(source)
    x, shape = n.value(source), n.shape(source)
    axis = normal_axis(_single(n, place, "axis"), len(shape))
    results = len(n.operator.outputs)
    if n.op == "SPLIT":
        sizes = [shape[axis] // results] * results
    else:
        sizes = list(n.integers(1, "sizes"))
        if sizes.count(-1) == 1:
            sizes[sizes.index(-1)] = shape[axis] - sum(sizes) - 1
    if sum(sizes) != shape[axis] or len(sizes) != results or min(sizes, default=0) < 1:
        raise Refused(f"sizes {sizes} do not split axis {axis} of {list(shape)} into {results}")
    starts = np.cumsum([0, *sizes]).tolist()
    return [n.select(x, axis, range(a, b)) for a, b in pairwise(starts)]


def _single(n: TfliteNode, index: int, what: str) -> int:
    values = n.integers(index, what)
    if len(values) != 1:
        raise Refused(f"its {what} has {len(values)} elements instead of one")
    return values[0]


@importer("SLICE")
def slice_(n: TfliteNode) -> str:
    """Begin and size; -1 is the rest."""
    n.same_parameters(0)
    x, shape = n.value(0), n.shape(0)
    begins, sizes = n.integers(1, "begin"), n.integers(2, "size")
    if not len(begins) == len(sizes) == len(shape):
        raise Refused(f"begin {begins} and size {sizes} do not fit {list(shape)}")
    for axis, (begin, size) in enumerate(zip(begins, sizes, strict=True)):
        x = n.select(x, axis, range(begin, shape[axis] if size == -1 else begin + size))
    return x


@importer("STRIDED_SLICE")
def strided_slice(n: TfliteNode) -> str:
    """NumPy's ``begin:end:stride`` with masks; axes of the shrink mask go."""
    n.same_parameters(0)
    if n.option("EllipsisMask") or n.option("NewAxisMask"):
        raise Refused("an ellipsis or new axis is not supported", "use RESHAPE")
    if n.option("Offset"):
        raise Refused("ends that are offsets are not supported")
    x, shape = n.value(0), n.shape(0)
    triples = list(zip(*(n.integers(i, w) for i, w in ((1, "begin"), (2, "end"), (3, "strides"))), strict=False))
    if len(triples) > len(shape):
        raise Refused(f"it slices {len(triples)} axes of {len(shape)}")
    kept = []
    for axis, extent in enumerate(shape):
        if axis >= len(triples):
            kept.append(extent)
            continue
        begin, end, step = triples[axis]
        if step == 0:
            raise Refused("a stride is 0")
        bit = 1 << axis
        if n.option("ShrinkAxisMask") & bit:
            at = begin + extent if begin < 0 else begin
            x = n.select(x, axis, range(at, at + 1))
            continue
        window = slice(None if n.option("BeginMask") & bit else begin, None if n.option("EndMask") & bit else end, step)
        positions = range(*window.indices(extent))
        x = n.select(x, axis, positions)
        kept.append(len(positions))
    return n.reshape(x, kept)


@importer("GATHER")
def gather(n: TfliteNode) -> str:
    """Constant indices along one axis; an index of rank 0 drops the axis."""
    n.same_parameters(0)
    if n.option("BatchDims"):
        raise Refused("batch_dims is not supported")
    x, shape = n.value(0), n.shape(0)
    axis, indices = normal_axis(n.option("Axis"), len(shape)), n.array(1, "indices")
    chosen = n.integers(1, "indices")
    if len(chosen) > MAX_TAKEN:
        raise Refused(f"it picks {len(chosen)} elements one by one", f"at most {MAX_TAKEN} are possible")
    y = n.move("take", {"x": x}, axis=axis, indices=chosen)
    return n.reshape(y, (*shape[:axis], *indices.shape, *shape[axis + 1 :]))


@importer("PAD", "PADV2", "MIRROR_PAD")
def pad(n: TfliteNode) -> str:
    """With zeros (the zero point), a constant, or a reflection."""
    n.same_parameters(0)
    x, rank = n.value(0), len(n.shape(0))
    pads = n.integers(1, "paddings")
    if len(pads) != 2 * rank or min(pads, default=0) < 0 or max(pads, default=0) > MAX_PAD:
        raise Refused(f"paddings {pads} are not possible for {rank} axes")
    pairs = tuple(zip(pads[::2], pads[1::2], strict=True))
    mode, value = "constant", 0.0
    if n.op == "MIRROR_PAD":
        if n.option("Mode") != 0:
            raise Refused("symmetric padding is not supported", "use REFLECT")
        mode = "reflect"
    elif n.op == "PADV2":
        if n.integer:
            n.same_parameters(2)
        value = float(n.reals(2, "padding value").reshape(-1)[0])
    return n.move("pad", {"x": x}, pads=pairs, mode=mode, value=value)


@importer("DEPTH_TO_SPACE", "SPACE_TO_DEPTH")
def depth_space(n: TfliteNode) -> str:
    """Reshape, transpose, reshape; deep channels are (row, column, C) of a block."""
    n.same_parameters(0)
    if len(n.shape(0)) != 4:
        raise Refused(f"its input has shape {list(n.shape(0))} instead of four axes")
    x, (batch, height, width, channels) = n.value(0), n.shape(0)
    block, deep = n.option("BlockSize"), n.op == "DEPTH_TO_SPACE"
    if block < 1 or (channels % (block * block) if deep else height % block + width % block):
        raise Refused(f"block size {block} does not fit shape {list(n.shape(0))}")
    if deep:
        x = n.reshape(x, (batch, height, width, block, block, channels // (block * block)))
    else:
        x = n.reshape(x, (batch, height // block, block, width // block, block, channels))
    return n.reshape(n.transpose(x, (0, 1, 3, 2, 4, 5)), n.result().shape)
