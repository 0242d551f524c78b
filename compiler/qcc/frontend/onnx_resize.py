"""Importers of Resize and Upsample: nearest is a choice of elements along each axis, linear a mixture of two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.frontend.onnx_node import OnnxNode, importer
from qcc.frontend.onnx_spatial import channels_first, channels_last
from qcc.frontend.refused import MAX_TAKEN, Refused, normal_axis

F32 = NDArray[np.float32]
WEIGHT_ONE = 2048
TIE = 1e-6
"""So near to a half, a position counts as one (ONNX Runtime's tolerance: float32 positions are not exact)."""


@dataclass(frozen=True)
class Axis:
    """One axis to resize: sizes, the scale, and the region of interest (start, end) as fractions."""

    size: int
    result: int
    scale: float
    roi: tuple[float, float] = (0.0, 1.0)

    @property
    def same(self) -> bool:
        """Whether nothing happens along it."""
        return self.size == self.result and self.scale == 1


def coordinates(axis: Axis, mode: str) -> F32:
    """Real position in the input of every output element, by ONNX's formula for ``mode``, in float32 like the peers."""
    out = np.arange(axis.result, dtype=np.float32)
    scale, half = np.float32(axis.scale), np.float32(0.5)
    last, steps = np.float32(axis.size - 1), np.float32(max(axis.result - 1, 1))
    centred: F32 = (out + half) / scale - half
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and axis.result > 1):
        return centred
    if mode == "pytorch_half_pixel":
        return np.zeros(1, np.float32)
    if mode == "tf_half_pixel_for_nn":
        return np.asarray((out + half) / scale)
    if mode == "asymmetric":
        return np.asarray(out / scale)
    if mode == "align_corners":
        return np.asarray(out * last / steps)
    if mode == "half_pixel_symmetric":
        adjustment = np.float32(axis.result / (axis.scale * axis.size))
        return np.asarray(np.float32(axis.size / 2) * (1 - adjustment) + centred)
    if mode == "tf_crop_and_resize":
        start, end = (np.float32(v) for v in axis.roi)
        found = start * last + out * (end - start) * last / steps if axis.result > 1 else (start + end) * last / 2
        found = np.atleast_1d(found)
        if found.min() < 0 or found.max() > last:
            raise Refused("its region of interest leaves the image", "crop within the image")
        return np.asarray(found, np.float32)
    raise Refused(f"coordinate_transformation_mode '{mode}' is not known")


def nearest(axis: Axis, mode: str, rounding: str) -> list[int]:
    """The element that each output copies."""
    position = coordinates(axis, mode).astype(np.float64)
    if rounding == "simple":
        chosen = np.ceil(position) if axis.scale < 1 else np.floor(position)
    elif rounding == "round_prefer_floor":
        chosen = np.ceil(position - 0.5 - TIE)
    elif rounding == "round_prefer_ceil":
        chosen = np.floor(position + 0.5 + TIE)
    elif rounding in ("floor", "ceil"):
        chosen = np.floor(position) if rounding == "floor" else np.ceil(position)
    else:
        raise Refused(f"nearest_mode '{rounding}' is not known")
    return [int(i) for i in np.clip(chosen, 0, axis.size - 1)]


def linear(axis: Axis, mode: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """(lower elements, upper elements, weights of the upper ones in 1/2048)."""
    if axis.same and mode != "tf_crop_and_resize":
        position = np.arange(axis.size, dtype=np.float32)
    else:
        position = np.clip(coordinates(axis, mode), 0, axis.size - 1)
    low = np.floor(position).astype(int)
    weight = np.rint((position - low) * WEIGHT_ONE).astype(int)
    high = np.minimum(low + 1, axis.size - 1)
    return _ints(low), _ints(high), _ints(weight)


def _ints(values: NDArray[Any]) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


@importer("Resize", "Upsample")
def resize(n: OnnxNode) -> str:
    """Opset 7 to 10 know neither sizes nor modes: asymmetric, nearest rounds down when enlarging, up when reducing."""
    old = n.op == "Upsample" or n.opset < 11
    mode = n.attrs.get("mode", "nearest")
    where = "asymmetric" if old else n.attrs.get("coordinate_transformation_mode", "half_pixel")
    rounding = "simple" if old else n.attrs.get("nearest_mode", "round_prefer_floor")
    axes = _geometry(n, old)
    changed = [i for i, a in enumerate(axes) if not a.same or (where == "tf_crop_and_resize" and a.roi != (0.0, 1.0))]
    if n.attrs.get("antialias", 0) and mode != "nearest" and any(a.scale < 1 for a in axes):
        raise Refused("antialias is not supported", "export it with antialias = 0, or use average pooling")
    x, rank = n.value(0), len(axes)
    if not changed:
        return x
    if mode == "nearest":
        spatial = rank == 4 and min(changed) >= 2
        x = channels_last(n, x) if spatial else x
        for i in changed:
            x = n.select(x, i - 1 if spatial else i, nearest(axes[i], where, rounding))
        return channels_first(n, x, 4) if spatial else x
    if mode not in ("linear", "bilinear"):
        raise Refused(f"mode '{mode}' is not supported", "use nearest or linear")
    if rank not in (3, 4) or min(changed) < 2:
        raise Refused(f"linear resizing of axes {changed} of {rank}",
                      "resize one or two spatial axes behind the channels")
    rows = linear(axes[2], where) if rank == 4 else ((0,), (0,), (0,))
    y = n.emit("resize_bilinear", {"x": channels_last(n, x)}, rows=rows, cols=linear(axes[-1], where))
    return channels_first(n, y, rank)


def _geometry(n: OnnxNode, old: bool) -> list[Axis]:
    """Every axis of the input with its new size."""
    shape = n.shape(0)
    rank = len(shape)
    named = [normal_axis(a, rank) for a in n.ints("axes", range(rank))]
    sizes: tuple[int, ...] = ()
    if n.op == "Upsample" and n.opset < 9:
        scales = [float(s) for s in n.attrs["scales"]]
    elif not old and n.has(3) and n.shape(3) != (0,):
        sizes = n.integers(3, "sizes")
        scales = _aspect(n, [s / shape[a] for s, a in zip(sizes, named, strict=False)])
    else:
        index = 1 if old else 2
        scales = [float(s) for s in n.array(index, "scales").reshape(-1)]
    roi = _roi(n, old, len(named))
    if len(scales) != len(named) or not all(math.isfinite(s) and s > 0 for s in scales):
        raise Refused(f"scales {scales or list(sizes)} do not fit {len(named)} axes", "check its scales or sizes")
    axes = [Axis(size, size, 1.0) for size in shape]
    stretched = bool(sizes) and n.attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    for position, (axis, scale) in enumerate(zip(named, scales, strict=True)):
        size = shape[axis]
        exact = float(np.float32(scale) * np.float32(size))
        if exact > MAX_TAKEN:
            raise Refused(f"it resizes an axis to {exact:.0f} elements", f"at most {MAX_TAKEN} are possible")
        result = sizes[position] if stretched else math.floor(scale * size + 0.5) if sizes else math.floor(exact)
        if result < 1:
            raise Refused(f"its result is empty along axis {axis}", "check its scales or sizes")
        axes[axis] = Axis(size, result, scale, roi[position])
    return axes


def _aspect(n: OnnxNode, scales: list[float]) -> list[float]:
    """One scale for all axes, the smallest or largest, where the policy asks for it."""
    policy = n.attrs.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch" or not scales:
        return scales
    if policy not in ("not_larger", "not_smaller"):
        raise Refused(f"keep_aspect_ratio_policy '{policy}' is not known")
    return [min(scales) if policy == "not_larger" else max(scales)] * len(scales)


def _roi(n: OnnxNode, old: bool, count: int) -> list[tuple[float, float]]:
    """Start and end of each axis; only tf_crop_and_resize reads them."""
    if old or n.attrs.get("coordinate_transformation_mode") != "tf_crop_and_resize":
        return [(0.0, 1.0)] * count
    values = [float(v) for v in n.array(1, "region of interest").reshape(-1)]
    if len(values) != 2 * count:
        raise Refused(f"its region of interest has {len(values)} numbers, {2 * count} are needed")
    return list(zip(values[:count], values[count:], strict=True))
