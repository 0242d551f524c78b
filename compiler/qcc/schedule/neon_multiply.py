"""Register tiles of a GEMM on aarch64, one class for each way to multiply int8.

A tile is ``rows`` pixels x ``lanes`` channels. Weights are packed [groups, lanes, dot]; a step takes up to ``per_step``
groups, for which it loads 16 bytes of each pixel. Sums lie in a local buffer that LLVM keeps in registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from qcc.schedule.neon_vectors import Epilogue, Vector, intrinsic, lane, load

Result = tuple[int, int, int, list[Vector]]
"""(pixel, first channel, channels, requantized int32x4)."""


class Tile:
    """What the tiles have in common."""

    dot: int
    """Products of a lane that lie side by side in the packed weights."""
    per_step: int

    def __init__(self, acc: Any, rows: int, lanes: int, x: Any, w: Any, step: int) -> None:
        """``acc`` holds the sums; pixels are ``step`` elements apart in x."""
        self.acc, self.rows, self.lanes, self.x, self.w, self.distance = acc, rows, lanes, x, w, step

    def get(self, index: int) -> Vector:
        """A vector of sums."""
        return self.acc[T.ramp(T.int32(4 * index), 1, 4)]

    def put(self, index: int, value: Vector) -> None:
        """Replace a vector of sums."""
        T.buffer_store(self.acc, value, [T.ramp(T.int32(4 * index), 1, 4)])


class Sdot(Tile):
    """``sdot v.4s, v.16b, v.4b[lane]``: four channels, four products each."""

    dot, per_step = 4, 4

    @staticmethod
    def registers(rows: int, lanes: int) -> int:
        """Vectors of sums."""
        return rows * lanes // 4

    @property
    def cost(self) -> int:
        """Multiplications of a group."""
        return self.registers(self.rows, self.lanes)

    def start(self, bias: Any, channel: Any) -> None:
        """Sums begin with the bias."""
        for j in range(self.lanes // 4):
            for p in range(self.rows):
                self.put(p * (self.lanes // 4) + j, load(bias, channel + 4 * j, 4))

    def step(self, x: Any, w: Any, groups: int) -> None:
        """Add ``groups`` groups that begin at elements x and w."""
        pixels = [T.bind(load(self.x, x + p * self.distance)) for p in range(self.rows)]
        for g in range(groups):
            for j in range(self.lanes // 4):
                weights = T.bind(load(self.w, w + (g * self.lanes + 4 * j) * 4))
                for p in range(self.rows):
                    i = p * (self.lanes // 4) + j
                    operands = self.get(i), weights, lane(pixels[p], g)
                    self.put(i, intrinsic("aarch64.neon.sdot.v4i32.v16i8", "int32x4", *operands))

    def results(self, multiplier: Any, channel: Any, epilogue: Epilogue) -> Iterator[Result]:
        """Requantized sums, up to 16 channels of a pixel at a time."""
        for p in range(self.rows):
            yield from row_results(p, self.lanes, lambda j, p=p: self.get(p * (self.lanes // 4) + j),  # type: ignore[misc]
                                   multiplier, channel, epilogue)


def row_results(
    pixel: int, lanes: int, value: Any, multiplier: Any, channel: Any, epilogue: Epilogue
) -> Iterator[Result]:
    """Results of a pixel whose sums of channels [4 * j, 4 * j + 4) are ``value(j)``."""
    first = 0
    while first < lanes:
        count = next(c for c in (16, 8, 4) if c <= lanes - first)
        vectors = [
            epilogue.requantize(value(first // 4 + i), load(multiplier, channel + first + 4 * i, 4))
            for i in range(count // 4)
        ]
        yield pixel, first, count, vectors
        first += count


MULTIPLY: dict[int, type[Sdot]] = {4: Sdot}
"""By products side by side."""
