"""Convolutions, dense layers and pools: blocks of output pixels and channels, with the windows they read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qcc.npu import timing
from qcc.npu.description import Description
from qcc.npu.emitter import Emitter, Home, Ring
from qcc.npu.jobs import Job, Plan, Shortage, blocks, extents, overlapped, sizes

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


@dataclass(frozen=True)
class Block:
    """Output channels [o0, o1) and the input channels [c0, c1) they read; ``group`` selects the weights."""

    o0: int
    o1: int
    c0: int
    c1: int
    group: int = 0


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

    def __post_init__(self) -> None:
        """Derive what other stages ask for."""
        self.reads = tuple(dict.fromkeys(v for v in (self.x, self.residual) if v))
        self.writes = self.out
        self.over = (self.residual,) if self.residual and self.residual != self.x else ()
        parts = (a for a in (self.weight, self.bias, self.multiplier, self.shifts, self.table) if a is not None)
        self.weight_bytes = sum(a.nbytes for a in parts)

    # ---- geometry ------------------------------------------------------------------------------------------------

    @property
    def groups(self) -> int:
        """Groups of a matmul."""
        return self.weight.shape[0] if self.kind == "matmul" and self.weight is not None else 1

    @property
    def repeat(self) -> int:
        """Outputs of each input channel of a depthwise convolution or pool."""
        return self.result[2] // self.image[3]

    def channel_blocks(self, outputs: int) -> list[Block]:
        """Blocks of output channels; none crosses a group."""
        if self.kind != "matmul":
            return [Block(a, b, a // self.repeat, b // self.repeat) for a, b in blocks(self.result[2], outputs)]
        c, o = self.image[3] // self.groups, self.result[2] // self.groups
        return [Block(g * o + a, g * o + b, g * c, (g + 1) * c, g)
                for g in range(self.groups) for a, b in blocks(o, outputs)]

    def inputs_of(self, axis: int, begin: int, end: int) -> tuple[int, int, int]:
        """Input rows or columns [low, high) that outputs [begin, end) read, and the padding before them."""
        k, s, d, p = self.kernel[axis], self.stride[axis], self.dilation[axis], self.pad[axis]
        first, last = begin * s - p, (end - 1) * s - p + (k - 1) * d
        low = min(max(first, 0), self.image[1 + axis])
        high = max(min(last + 1, self.image[1 + axis]), low)
        return low, high, low - first

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
        depths = sizes(inputs, t.channels) if self.kind == "matmul" else [(1, 1)]
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
        external, streamed, latency, buffers = 0, 0, 0, []
        if self.x not in on_chip:
            loads = tiles * (parts if self.kind != "matmul" or (t.outer == "channels" and tiles > t.depth) else 1)
            runs, run = self._runs(x_rows, x_columns, xc, W, C)
            external += loads * timing.dram(d, runs, run)
            buffers += [x_rows * x_columns * xc] * t.depth
            latency += d.dram.latency_cycles
        for value in (self.residual, self.out):
            if value and value not in on_chip:
                runs, run = self._runs(t.rows, t.columns, t.outputs, OW, OC)
                external += tiles * parts * timing.dram(d, runs, run)
                buffers += [t.rows * t.columns * t.outputs] * t.depth
                latency += d.dram.latency_cycles
        weights = parts * k_parts
        if self.weight is not None:
            slots = d.memory.weight.slots
            again = tiles if weights > slots and (t.outer == "pixels" or k_parts > 1) else 1
            nbytes = again * self.weight_bytes
            if cached:
                streamed = timing.local(d.cache.bytes_per_cycle, nbytes)
            else:
                external += timing.dram(d, weights * again, max(self.weight_bytes // weights, 1))
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

    # ---- instructions --------------------------------------------------------------------------------------------

    def emit(self, plan: Plan, buffers: Sequence[int], e: Emitter) -> None:
        """Loops over blocks of pixels and channels."""
        _Writer(self, plan.tile, buffers, e).run()


class _Writer:
    """Emits one job; the rings remember which tile each buffer holds."""

    def __init__(self, job: WindowJob, tile: Tile, buffers: Sequence[int], e: Emitter) -> None:
        self.job, self.tile, self.e = job, tile, e
        self.channels = job.channel_blocks(tile.outputs)
        left = list(buffers)
        self.rings: dict[str, Ring] = {}
        for key, value in (("x", job.x), ("residual", job.residual), ("out", job.out)):
            if value and e.homes[value].memory == "dram":
                self.rings[key] = Ring(left[: tile.depth])
                left = left[tile.depth :]
        self.blobs: dict[Any, tuple[int, int]] = {}
        self._store_constants()

    def _store_constants(self) -> None:
        """Weights and parameters by tile; all into the cache, or none."""
        job, data = self.job, dict[Any, bytes]()
        for block in self.channels:
            if job.kind == "matmul":
                assert job.weight is not None
                o = job.result[2] // job.groups
                part = job.weight[block.group][..., block.o0 - block.group * o : block.o1 - block.group * o]
                for k0, k1 in self._depths(block):
                    data["w", block, k0] = part[:, :, k0:k1].tobytes()
            elif job.weight is not None:
                data["w", block, 0] = job.weight[:, block.o0 : block.o1].tobytes()
            if job.bias is not None and job.multiplier is not None:
                table = b"" if job.table is None else job.table.tobytes()
                columns = [a for a in (job.bias, job.multiplier, job.shifts) if a is not None]
                data["p", block] = b"".join(a[block.o0 : block.o1].tobytes() for a in columns) + table
        if job.kind == "avg_pool":
            assert job.multiplier is not None
            m = job.multiplier
            if m.size == 1:
                data["p", None] = m.tobytes() + (b"" if job.shifts is None else job.shifts.tobytes())
            else:
                grid = m.reshape(job.result[:2])
                for (r0, r1), (c0, c1) in itertools.product(*self._spatial()):
                    data["p", (r0, c0)] = grid[r0:r1, c0:c1].tobytes()
        self.blobs = {key: (self.e.blob(value), len(value)) for key, value in data.items()}
        if sum(n for _, n in self.blobs.values()) <= self.e.d.cache.bytes - self.e.cache_used:
            for address, nbytes in self.blobs.values():
                self.e.cache(address, nbytes)

    def _depths(self, block: Block) -> list[tuple[int, int]]:
        return blocks(block.c1 - block.c0, self.tile.channels)

    def _spatial(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        return blocks(self.job.result[0], self.tile.rows), blocks(self.job.result[1], self.tile.columns)

    def run(self) -> None:
        pixels = [(b, *rows, *columns) for b in range(self.job.image[0])
                  for rows, columns in itertools.product(*self._spatial())]
        if self.tile.outer == "pixels":
            pairs = [(p, c) for p in pixels for c in self.channels]
        else:
            pairs = [(p, c) for c in self.channels for p in pixels]
        for pixel, block in pairs:
            self._block(*pixel, block)

    def _block(self, b: int, r0: int, r1: int, c0: int, c1: int, block: Block) -> None:
        job, e = self.job, self.e
        rows, columns, outputs = r1 - r0, c1 - c0, block.o1 - block.o0
        x = self._window(b, r0, r1, c0, c1, block)
        out, row, pixel = self._place("out", job.out, b, r0, c0, columns, block)
        if job.kind.endswith("_pool"):
            self._pool(x, out, (rows, columns, outputs), (row, pixel), (r0, c0))
        else:
            sums = self._sums(x, rows, columns, block)
            residual = {}
            if job.residual:
                address, r_row, r_pixel = self._place("residual", job.residual, b, r0, c0, columns, block)
                if "residual" in self.rings:
                    self._move(job.residual, address, b, r0, r1, c0, c1, block, into=True)
                residual = {"residual_row": r_row, "residual_pixel": r_pixel}
            param = self._param(("p", block))
            table = -1 if job.table is None else param + (8 if job.shifts is None else 12) * outputs
            e.configure("requant", **job.requant, **residual, table=table)
            operands = {"residual": address} if job.residual else {}
            e("requantize", "residual" if job.residual else "plain", acc=sums, param=param, out=out, rows=rows,
              columns=columns, outputs=outputs, row=row, pixel=pixel, **operands)
        if "out" in self.rings:
            self._move(job.out, out, b, r0, r1, c0, c1, block, into=False)

    def _window(self, b: int, r0: int, r1: int, c0: int, c1: int, block: Block) -> int:
        """Configure the windows of a block; address of its first input pixel and channel."""
        job, e = self.job, self.e
        _, H, W, C = job.image
        top, bottom, pad_top = job.inputs_of(0, r0, r1)
        left, right, pad_left = job.inputs_of(1, c0, c1)
        if "x" in self.rings:
            low, high = (0, C) if job.kind == "matmul" else (block.c0, block.c1)
            address, held = self.rings["x"].get((b, r0, c0, low))
            shape = (bottom - top, right - left, high - low)
            if not held and min(shape) > 0:
                home = e.homes[job.x]
                start = Home(home.memory, home.address + ((b * H + top) * W + left) * C + low)
                e.fetch(start, address, shape, (W * C, C, 1))
            row, pixel = shape[1] * shape[2], shape[2]
            address += block.c0 - low
        else:
            address = e.homes[job.x].address + ((b * H + top) * W + left) * C + block.c0
            row, pixel = W * C, C
        names = ("kernel", "stride", "dilation")
        geometry = {f"{name}_{axis}": getattr(job, name)[i] for name in names for i, axis in enumerate("hw")}
        e.configure("pool" if job.kind.endswith("_pool") else "window", height=bottom - top, width=right - left,
                    row_stride=row, pixel_stride=pixel, pad_top=pad_top, pad_left=pad_left, zero_point=job.zero_point,
                    **geometry)
        return address

    def _place(self, key: str, value: str, b: int, r0: int, c0: int, columns: int,
               block: Block) -> tuple[int, int, int]:
        """Address, row and pixel strides of a block of an image of the result's shape."""
        OH, OW, OC = self.job.result
        if key in self.rings:
            n = block.o1 - block.o0
            return self.rings[key].get((b, r0, c0, block.o0))[0], columns * n, n
        return self.e.homes[value].address + ((b * OH + r0) * OW + c0) * OC + block.o0, OW * OC, OC

    def _move(self, value: str, buffer: int, b: int, r0: int, r1: int, c0: int, c1: int, block: Block, *,
              into: bool) -> None:
        """Between a buffer and an image of the result's shape in DRAM."""
        OH, OW, OC = self.job.result
        home = self.e.homes[value]
        image = Home(home.memory, home.address + ((b * OH + r0) * OW + c0) * OC + block.o0)
        shape = (r1 - r0, c1 - c0, block.o1 - block.o0)
        near, far = (shape[1] * shape[2], shape[2], 1), (OW * OC, OC, 1)
        if into:
            self.e.copy(image, Home("act", buffer), shape, far, near)
        else:
            self.e.copy(Home("act", buffer), image, shape, near, far)

    def _param(self, key: Any) -> int:
        address, held = self.e.params.get((self.job.layer, key))
        if not held:
            self.e.loadw("param", *self.blobs[key], address)
        return address

    def _sums(self, x: int, rows: int, columns: int, block: Block) -> int:
        """Emit the products of a block; address of its accumulators."""
        job, e = self.job, self.e
        acc, _ = e.sums.get(object())
        outputs = block.o1 - block.o0
        common = {"acc": acc, "rows": rows, "columns": columns, "outputs": outputs}
        for k0, k1 in self._depths(block) if job.kind == "matmul" else [(0, 0)]:
            address, held = e.weights.get((job.layer, block, k0))
            if not held:
                e.loadw("weight", *self.blobs["w", block, k0], address)
            if job.kind == "matmul":
                e("matmul", "accumulate" if k0 else "write", x=x + k0, w=address, channels=k1 - k0, **common)
            else:
                e("depthwise", "write", x=x, w=address, channels=block.c1 - block.c0, multiplier=job.repeat, **common)
        return acc

    def _pool(self, x: int, out: int, shape: tuple[int, int, int], strides: tuple[int, int],
              origin: tuple[int, int]) -> None:
        job, e = self.job, self.e
        param, entries = 0, (0, 0)
        if job.multiplier is not None:
            each = job.multiplier.size > 1
            param = self._param(("p", origin if each else None))
            entries = (shape[1], 1) if each else (0, 0)
            e.configure("requant", **job.requant, table=-1)
        e("elementwise", job.kind, a=x, b=param, out=out, n0=shape[0], n1=shape[1], n2=shape[2], b0=entries[0],
          b1=entries[1], o0=strides[0], o1=strides[1], o2=1)
