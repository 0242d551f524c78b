"""ATen operators that move data, or do nothing, as ONNX nodes."""

from __future__ import annotations

import numpy as np
from onnx import helper
from torch.fx import Node as Fx

from qcc.frontend.refused import Refused
from qcc.frontend.torch_node import Writer, arguments, operator, shape


@operator("cat.default")
def _cat(w: Writer, node: Fx) -> None:
    a = arguments(node)
    w.write(node, "Concat", [w.value(v) for v in a["tensors"]], axis=int(a["dim"]))


@operator("split.Tensor", "split_with_sizes.default", "chunk.default")
def _split(w: Writer, node: Fx) -> None:
    axis, parts = int(arguments(node)["dim"]), node.meta["val"]
    names = [f"{node.name}_{i}" for i in range(len(parts))]
    sizes = w.ints([int(p.shape[axis]) for p in parts])
    w.nodes.append(helper.make_node("Split", [w.value(node.args[0]), sizes], names, node.name, axis=axis))
    w.lists[node] = names


@operator("getitem")
def _getitem(w: Writer, node: Fx) -> None:
    source, index = node.args
    if not isinstance(source, Fx) or source not in w.lists or int(index) >= len(w.lists[source]):
        raise Refused("this result of its operator is not supported")
    w.names[node] = w.lists[source][int(index)]


@operator("slice.Tensor")
def _slice(w: Writer, node: Fx) -> None:
    a = arguments(node)
    begin, end = a["start"] or 0, a["end"]
    limits = [w.ints([v]) for v in (begin, np.iinfo(np.int64).max if end is None else end, a["dim"], a["step"])]
    w.write(node, "Slice", [w.value(a["self"]), *limits])


@operator("select.int")
def _select(w: Writer, node: Fx) -> None:
    a = arguments(node)
    w.write(node, "Gather", [w.value(a["self"]), w.constant(np.array(a["index"], np.int64))], axis=int(a["dim"]))


@operator("view.default", "_unsafe_view.default", "reshape.default", "flatten.using_ints", "unflatten.int",
          "squeeze.default", "squeeze.dim", "squeeze.dims", "unsqueeze.default")
def _reshape(w: Writer, node: Fx) -> None:
    w.write(node, "Reshape", [w.value(node.args[0]), w.ints(shape(node))])


@operator("permute.default", "transpose.int", "t.default")
def _permute(w: Writer, node: Fx) -> None:
    rank, a = len(shape(node)), arguments(node)
    perm = list(range(rank))
    if "dims" in a:
        perm = [int(d) % rank for d in a["dims"]]
    elif rank > 1:
        first, second = (int(a.get(key, i)) % rank for i, key in enumerate(("dim0", "dim1")))
        perm[first], perm[second] = second, first
    w.write(node, "Transpose", [w.value(a["self"])], perm=perm)


@operator("expand.default")
def _expand(w: Writer, node: Fx) -> None:
    w.write(node, "Expand", [w.value(node.args[0]), w.ints(shape(node))])


@operator("pad.default", "constant_pad_nd.default")
def _pad(w: Writer, node: Fx) -> None:
    a = arguments(node)
    rank = len(shape(a["self"]))
    pads = [int(p) for p in a["pad"]]
    before, after = [0] * rank, [0] * rank
    for i in range(len(pads) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
    mode = a.get("mode", "constant")
    if mode not in modes:
        raise Refused(f"mode '{mode}' is not supported", "use constant, reflect or replicate")
    value = w.constant(np.float32(a.get("value") or 0.0))
    w.write(node, "Pad", [w.value(a["self"]), w.ints([*before, *after]), value], mode=modes[mode])


@operator("pixel_shuffle.default")
def _pixel_shuffle(w: Writer, node: Fx) -> None:
    a = arguments(node)
    w.write(node, "DepthToSpace", [w.value(a["self"])], blocksize=int(a["upscale_factor"]), mode="CRD")


@operator("upsample_nearest2d.vec", "upsample_nearest2d.default", "upsample_bilinear2d.vec",
          "upsample_bilinear2d.default")
def _upsample(w: Writer, node: Fx) -> None:
    a = arguments(node)
    x = next(iter(a.values()))
    bilinear = "bilinear" in str(node.target)
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if bilinear:
        aligned = "align_corners" if a["align_corners"] else "pytorch_half_pixel"
        attributes = {"mode": "linear", "coordinate_transformation_mode": aligned}
    w.write(node, "Resize", [w.value(x), "", "", w.ints(shape(node))], **attributes)


@operator("dropout.default", "dropout_.default", "clone.default", "contiguous.default", "detach.default",
          "detach_.default", "alias.default", "lift_fresh_copy.default", "to.dtype", "to.dtype_layout",
          "_to_copy.default", "feature_dropout.default")
def _nothing(w: Writer, node: Fx) -> None:
    a = arguments(node)
    if a.get("train", False):
        raise Refused("dropout in training mode", "export the model in eval mode")
    dtype = a.get("dtype")
    if dtype is not None and not dtype.is_floating_point:
        raise Refused(f"a conversion to {dtype} is not supported")
    w.alias(node, node.args[0])
