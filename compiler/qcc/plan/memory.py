"""The buffers of a layout as arrays: what NumPy reads and writes where kernels would."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.lower.kernel import BufferArg, View
from qcc.plan.layout import Layout


class Memory:
    """Values of a layout in ``bytes``: uint8 arrays by buffer, all or some. ``guard`` bytes of each array lie before
    its buffer, and as many behind it.
    """

    def __init__(self, layout: Layout, contents: dict[str, NDArray[np.uint8]], guard: int = 0) -> None:
        self.layout, self.bytes, self.guard = layout, contents, guard

    def copy(self) -> Memory:
        """The same contents in other arrays."""
        return Memory(self.layout, {name: array.copy() for name, array in self.bytes.items()}, self.guard)

    def at(self, place: tuple[View, BufferArg]) -> NDArray[Any]:
        """The part of a buffer that a kernel is given, as stored; writing to it writes the buffer."""
        view, arg = place
        flat = self._inside(arg.value).view(view.dtype)
        reach = sum((extent - 1) * stride for extent, stride in zip(view.shape, view.strides, strict=True))
        assert 0 <= arg.offset <= arg.offset + reach < flat.size, "a view leaves its buffer"
        strides = tuple(stride * flat.itemsize for stride in view.strides)
        return np.lib.stride_tricks.as_strided(flat[arg.offset :], view.shape, strides)

    def read_at(self, place: tuple[View, BufferArg]) -> NDArray[Any]:
        """A copy of a part; int8 where bytes are stored as uint8."""
        stored = self.at(place)
        return (stored ^ 0x80).view(np.int8) if stored.dtype == np.uint8 else stored.copy()

    def read(self, value: str) -> NDArray[Any]:
        """A copy of a value."""
        return self.read_at(self.layout.place(value))

    def write(self, value: str, array: NDArray[Any]) -> None:
        """Store a value."""
        place = self.at(self.layout.place(value))
        place[...] = array.view(np.uint8) ^ 0x80 if place.dtype == np.uint8 else array

    def fill(self, value: str) -> None:
        """The halos that are filled before ``value`` is written."""
        for fill in self.layout.fills.get(value, ()):
            buffer = self.layout.buffers[self.layout.places[fill.value].buffer]
            if buffer.name not in self.bytes:
                continue
            assert buffer.frame is not None, "only images have halos"
            (top, left, _, _), (_, h, w, _) = buffer.frame.halo, buffer.frame.shape
            image = self._inside(buffer.name).reshape(*buffer.frame.outer, np.dtype(buffer.dtype).itemsize)
            inside = image[:, top : top + h, left : left + w].copy()
            image[...] = fill.byte & 0xFF
            image[:, top : top + h, left : left + w] = inside

    def _inside(self, buffer: str) -> NDArray[np.uint8]:
        array = self.bytes[buffer]
        return array[self.guard : array.size - self.guard]
