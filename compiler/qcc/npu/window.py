"""Convolutions, dense layers and pools: blocks of output pixels and channels, with the windows they read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from qcc.npu import timing
from qcc.npu.description import Description
from qcc.npu.emitter import Emitter, Ring
from qcc.npu.jobs import Job, Plan, Shortage, extents, overlapped, sizes

if TYPE_CHECKING:
    from qcc.npu.walk import Operand

Kind = Literal["matmul", "depthwise", "max_pool", "avg_pool"]


@dataclass(frozen=True)
class Tile:
    """Output rows, columns and channels of a block, input channels of one matmul; which loop is outside; buffers."""

    rows: int
    columns: int
    outputs: int
    channels: int
    outer: Literal["pixels", "channels"]
    depth: int
    """How many buffers each operand in DRAM has."""


@dataclass
class WindowJob(Job):
    """x [batch, H, W, C] → out [batch, OH, OW, O] by windows."""

    layer: int
    name: str
    kind: Kind
    x: str
    out: str
    image: tuple[int, int, int, int]
    result: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int]
    """Top, left."""
    zero_point: int
    requant: dict[str, int]
    """Operands of configure.requant without addresses and strides."""
    weight: NDArray[np.int8] | None = None
    """matmul: [groups, KH, KW, C / groups, O / groups]; depthwise: [KH * KW, O]."""
    bias: NDArray[np.int32] | None = None
    multiplier: NDArray[np.int32] | None = None
    """By output channel; avg_pool: [1] or [OH * OW]."""
    shifts: NDArray[np.int32] | None = None
    """With double rounding, by multiplier."""
    table: NDArray[np.int8] | None = None
    residual: str | None = None
    weight_zero: int = 0
    """Zero point of the weights."""

    def __post_init__(self) -> None:
        """Derive what other stages ask for."""
        self.reads = tuple(dict.fromkeys(v for v in (self.x, self.residual) if v))
        self.writes = self.out
        self.over = (self.residual,) if self.residual and self.residual != self.x else ()
        parts = (a for a in (self.weight, self.bias, self.multiplier, self.shifts, self.table) if a is not None)
        self.weight_bytes = sum(a.nbytes for a in parts)
        self.streamed_bytes = self.weight_bytes

    # ---- geometry ------------------------------------------------------------------------------------------------

    @property
    def groups(self) -> int:
        """Groups of a matmul."""
        return self.weight.shape[0] if self.kind == "matmul" and self.weight is not None else 1

    @property
    def repeat(self) -> int:
        """Outputs of each input channel of a depthwise convolution or pool."""
        return self.result[2] // self.image[3]

    def _reach(self, axis: int, size: int) -> int:
        window = (self.kernel[axis] - 1) * self.dilation[axis] + 1
        return min(self.image[1 + axis], (size - 1) * self.stride[axis] + window)

    def param_bytes(self, t: Tile) -> int:
        """Parameters of one block."""
        if self.multiplier is None:
            return 0
        if self.kind == "avg_pool":
            return 8 if self.multiplier.size == 1 else 4 * t.rows * t.columns
        return (8 if self.shifts is None else 12) * t.outputs + (256 if self.table is not None else 0)

    # ---- search --------------------------------------------------------------------------------------------------

    def plans(self, d: Description, on_chip: frozenset[str], cached: bool) -> list[Plan] | Shortage:
        """Tilings by estimated cycles."""
        shortage = self._shortage(d)
        if shortage:
            return shortage
        found = [self._plan(d, t, on_chip, cached) for t in self._tiles(d, on_chip)]
        return sorted(found, key=lambda p: (p.cycles, sum(p.buffers)))

    def _shortage(self, d: Description) -> Shortage | None:
        least = Tile(1, 1, self.repeat if self.kind == "depthwise" else 1, 1, "pixels", 1)
        if self.param_bytes(least) > d.memory.param.slot_bytes:
            return Shortage("param", f"parameters of '{self.name}'", self.param_bytes(least) * d.memory.param.slots)
        if self.weight is None:
            return None
        weights = self.kernel[0] * self.kernel[1] * least.outputs
        if weights > d.memory.weight.slot_bytes:
            return Shortage("weight", f"weights of '{self.name}'", weights * d.memory.weight.slots)
        if 4 * least.outputs > d.memory.acc.slot_bytes:
            return Shortage("acc", f"sums of '{self.name}'", 4 * least.outputs * d.memory.acc.slots)
        return None

    def _tiles(self, d: Description, on_chip: frozenset[str]) -> Iterator[Tile]:
        OH, OW, _ = self.result
        taps = self.kernel[0] * self.kernel[1]
        inputs = self.image[3] // self.groups
        all_outputs = self.result[2] // self.groups
        if self.kind == "matmul":
            width = d.array.lanes if d.array.dataflow == "tiled" else d.array.columns
            outputs = {min(all_outputs, timing.up(n, width) * width) for n in extents(all_outputs)} | {
                n for n in extents(all_outputs) if n <= width}
        else:
            outputs = {n * self.repeat for n in extents(all_outputs // self.repeat)}
        spatial = [(r, OW) for r in extents(OH)] + [(1, c) for c in extents(OW)[1:]]
        depths = (2, 1) if {*self.reads, self.out} - on_chip else (1,)
        for (rows, columns), n in itertools.product(spatial, sorted(outputs, reverse=True)):
            if self.weight is not None and 4 * rows * columns * n > d.memory.acc.slot_bytes:
                continue
            if self.param_bytes(Tile(rows, columns, n, 1, "pixels", 1)) > d.memory.param.slot_bytes:
                continue
            channels = inputs
            if self.kind == "matmul":
                room = d.memory.weight.slot_bytes // (taps * n)
                fitting = [k for k in extents(inputs) if k <= room]
                if not fitting:
                    continue
                channels = fitting[0]
                if d.array.dataflow in ("weight", "input") and channels < inputs and taps == 1:
                    channels = max(channels // d.array.rows * d.array.rows, min(channels, d.array.rows))
            elif self.weight is not None and taps * n > d.memory.weight.slot_bytes:
                continue
            orders: tuple[Literal["pixels", "channels"], ...] = ("pixels", "channels")
            single = n == self.result[2] or (rows, columns) == (OH, OW)
            for order, depth in itertools.product(orders[: 1 if single else 2], depths):
                yield Tile(rows, columns, n, channels, order, depth)

    def _plan(self, d: Description, t: Tile, on_chip: frozenset[str], cached: bool) -> Plan:
        batch, _, W, C = self.image
        OH, OW, OC = self.result
        taps = self.kernel[0] * self.kernel[1]
        pixels = [(r, c, batch * nr * nc) for r, nr in sizes(OH, t.rows) for c, nc in sizes(OW, t.columns)]
        tiles = sum(n for *_, n in pixels)
        outputs = [(n, count * self.groups) for n, count in sizes(OC // self.groups, t.outputs)]
        parts = sum(count for _, count in outputs)
        inputs = C // self.groups
        depths = sizes(inputs, t.channels) if self.kind == "matmul" else ((1, 1),)
        k_parts = sum(count for _, count in depths)
        compute = 0
        for (r, c, n), (o, no) in itertools.product(pixels, outputs):
            if self.kind == "matmul":
                compute += n * no * sum(nk * timing.gemm(d, r, c, o, taps * k).total for k, nk in depths)
            elif self.kind == "depthwise":
                compute += n * no * timing.depthwise(d, r, c, o, taps).total
        results = batch * OH * OW * OC
        once = timing.vector(d, results, taps) if self.weight is None else timing.requantize(d, results)
        vector = (tiles * parts - 1) * d.vector.startup + once

        xc = C if self.kind == "matmul" else max(t.outputs // self.repeat, 1)
        x_rows, x_columns = self._reach(0, t.rows), self._reach(1, t.columns)
        external, streamed, latency, trips, buffers = 0, 0, 0, 0, []
        if self.x not in on_chip:
            loads = tiles * (parts if self.kind != "matmul" or (t.outer == "channels" and tiles > t.depth) else 1)
            runs, run = self._runs(x_rows, x_columns, xc, W, C)
            external += loads * timing.dram(d, runs, run)
            trips = max(trips, loads)
            buffers += [x_rows * x_columns * xc] * t.depth
            latency += d.dram.latency_cycles
        for value in (self.residual, self.out):
            if value and value not in on_chip:
                runs, run = self._runs(t.rows, t.columns, t.outputs, OW, OC)
                external += tiles * parts * timing.dram(d, runs, run)
                trips = max(trips, tiles * parts)
                buffers += [t.rows * t.columns * t.outputs] * t.depth
                latency += d.dram.latency_cycles
        weights = parts * k_parts
        if self.weight is not None:
            slots = d.memory.weight.slots
            again = tiles if weights > slots and (t.outer == "pixels" or k_parts > 1) else 1
            nbytes = again * self.streamed_bytes
            if cached:
                streamed = timing.local(d.cache.bytes_per_cycle, nbytes)
            else:
                external += timing.dram(d, weights * again, max(self.streamed_bytes // weights, 1))
                trips = max(trips, weights * again)
                latency += d.dram.latency_cycles
        steps = tiles * parts
        serial = [compute, vector]
        if not d.memory.acc.double_buffered or steps == 1:
            serial = [compute + vector]
        if self.weight is not None and (not d.memory.weight.double_buffered):
            serial = [sum(serial) + streamed]
            streamed = 0
        units = [*serial, streamed, external]
        cycles = overlapped(units, steps) if t.depth == 2 or not external else sum(units)
        if external:
            # A buffer is filled again when what it held has been used: each waits for DRAM's latency.
            cycles = max(cycles, (compute + vector + external + trips * d.dram.latency_cycles) / t.depth)
        text = f"{t.rows}x{t.columns}x{t.outputs}" + (f" k{t.channels}" if k_parts > 1 else "")
        return Plan(tuple(buffers), cycles + latency, t, text)

    @staticmethod
    def _runs(rows: int, columns: int, channels: int, width: int, depth: int) -> tuple[int, int]:
        """Contiguous runs of a block of an image, and their bytes."""
        if channels < depth:
            return rows * columns, channels
        if columns < width:
            return rows, columns * channels
        return 1, rows * columns * channels

    # ---- lowering ------------------------------------------------------------------------------------------------

    def emit(self, plan: Plan, buffers: Sequence[int], e: Emitter) -> None:
        """Schedule, then walk."""
        from qcc.npu import schedule
        from qcc.npu.walk import Walker

        t: Tile = plan.tile
        order = (0, 1, 2, 3, 4) if t.outer == "pixels" else (3, 4, 0, 1, 2)
        registers = {f"{name}_{axis}": getattr(self, name)[i]
                     for name in ("kernel", "stride", "dilation") for i, axis in enumerate("hw")}
        operands = self._operands()
        result, tile = operands["out"].shape, (1, t.rows, t.columns, 1, t.outputs)
        windows = {**registers, "zero_point": self.zero_point, "weight_zero": self.weight_zero}
        if self.weight is None:
            factors = operands["m"].shape if "m" in operands else ()
            func = schedule.pool(self.kind, result, tile, order, windows, self.requant, factors)
        else:
            func = schedule.weighted(
                self.kind, result, tile, order, windows, self.requant, inputs=self.image[3] // self.groups,
                channels=t.channels, repeat=self.repeat if self.kind == "depthwise" else 1,
                rows=operands["p"].shape[0], residual=self.residual is not None,
                table=self.table is not None)  # fmt: skip
        rings, left = {}, list(buffers)
        for key, value in (("x", self.x), ("residual", self.residual), ("out", self.out)):
            if value and e.homes[value].memory == "dram":
                rings[key], left = Ring(left[: t.depth]), left[t.depth :]
        Walker(e, operands, rings, self.weight_bytes).run(func)

    def _operands(self) -> dict[str, Operand]:
        """Images as [batch, row, column, group, channel]; constants."""
        from qcc.npu.walk import Operand

        (batch, H, W, C), (OH, OW, OC), g = self.image, self.result, self.groups
        operands = {"x": Operand(self.x, (batch, H, W, g, C // g), (H * W * C, W * C, C, C // g, 1),
                                 origin=(0, *self.pad, 0, 0))}  # fmt: skip
        strides = (OH * OW * OC, OW * OC, OC, OC // g, 1)
        if self.residual:
            operands["residual"] = Operand(self.residual, (batch, OH, OW, g, OC // g), strides)
        operands |= {k: Operand(v, v.shape) for k, v in self._constants().items()}
        operands["out"] = Operand(self.out, (batch, OH, OW, g, OC // g), strides)
        return operands

    def _constants(self) -> dict[str, NDArray[Any]]:
        """Weights [group, ky, kx, channel, output], parameters [row, group, output], pool factors, table."""
        found: dict[str, NDArray[Any]] = {}
        if self.weight is not None:
            kernel, outputs = self.kernel, self.result[2]
            found["w"] = self.weight if self.kind == "matmul" else self.weight.reshape(1, *kernel, 1, outputs)
            rows = [a for a in (self.bias, self.multiplier, self.shifts) if a is not None]
            found["p"] = np.stack(rows).astype(np.int32).reshape(len(rows), self.groups, -1)
        elif self.multiplier is not None:
            pixels = self.result[:2] if self.multiplier.size > 1 else (1, 1)
            rows = [a for a in (self.multiplier, self.shifts) if a is not None]
            found["m"] = np.stack(rows, axis=-1).astype(np.int32).reshape(*pixels, len(rows))
        if self.table is not None:
            found["table"] = self.table.reshape(1, 1, 1, 1, -1)
        return found


@dataclass
class ProductJob(WindowJob):
    """A product of two activations for each group: [group, rows, K] by [group, K, N].

    The first is an image of rows x 1 pixels, the second is gathered into the weight memory; ``weight`` has its shape.
    """

    second: str = ""
    lead: tuple[int, int] = (0, 0)
    """Bytes between the groups of either operand; 0 where all have the same."""
    second_strides: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """Derive what other stages ask for."""
        super().__post_init__()
        assert self.weight is not None, "the second operand has a shape"
        self.reads = tuple(dict.fromkeys((self.x, self.second)))
        self.weight_bytes -= self.weight.nbytes

    def _operands(self) -> dict[str, Operand]:
        from qcc.npu.walk import Operand

        rows, g = self.result[0], self.groups
        k, n = self.image[3] // g, self.result[2] // g
        found = {"x": Operand(self.x, (1, rows, 1, g, k), (0, k, 0, self.lead[0], 1)),
                 "w": Operand(self.second, (g, 1, 1, k, n), (self.lead[1], 0, 0, *self.second_strides))}  # fmt: skip
        found["p"] = Operand(p := self._constants()["p"], p.shape)
        return found | {"out": Operand(self.out, (1, rows, 1, g, n), (0, n, 0, rows * n, 1))}
