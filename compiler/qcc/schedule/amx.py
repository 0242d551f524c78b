"""Schedules for x86 with AMX: GEMMs in tile registers, everything else as for AVX-512 VNNI.

A tile of sums is ``rows`` pixels of one image row x 16 channels. A step of the reduction multiplies a tile of pixels,
read where they lie in the image (one row of the tile for each pixel, at most 64 bytes of its run), with a tile of
weights: ``pack_gemm`` with lanes 16 and dot 4 is the layout that ``tdpbusd`` wants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcc.lower.kernel import Kernel
from qcc.schedule import avx512, vnni
from qcc.schedule.decide import Decide
from qcc.schedule.neon_vectors import function
from qcc.schedule.tiles import divisors, tile_steps

ROWS = 16
"""Rows of a tile register at most; each has 64 bytes."""
SUMS = 4
"""Tile registers that hold sums: 0 to 3. Pixels are in 4 and 5, weights in 6 and 7."""
PIXELS, WEIGHTS = (4, 5), (6, 7)
LEVEL_2 = 768 * 1024
"""Bytes of input that may stay in the level-2 cache beside weights and outputs."""
SHARES = 8
"""Iterations of the parallel loop that balance well over a few threads."""
MULTIPLY_CYCLES, TILE_CYCLES, VNNI_GROUPS = 9, 30, 2
"""Cycles of a ``tdpbusd`` at least (otherwise one for each pixel), and of bringing a tile of sums to memory and back;
groups of four products that ``vpdpbusd`` multiplies in a cycle, for 16 channels."""


def pays(kernel: Kernel) -> bool:
    """Whether tiles are faster than ``vpdpbusd``, by the cycles of a tile of sums: not for single pixels and not for
    short reductions."""
    *_, width = kernel.param("outputs")
    _, taps_y, taps_x, groups, _, _ = kernel.view("w").shape
    rows = -(-width // -(-width // ROWS))
    multiplications = taps_y * taps_x * tile_steps(groups)
    vectors = rows * taps_y * taps_x * groups / VNNI_GROUPS
    return multiplications * max(rows, MULTIPLY_CYCLES) + TILE_CYCLES < vectors


def conv_gemm(kernel: Kernel, decide: Decide) -> Any | None:
    """The function of a kernel, or None where vectors are better.

    The parallel loop runs over (image, chunk of tiles, block of channels); ``SUMS`` tiles of sums are computed at once.
    """
    if not decide("amx", [0, 1], int(pays(kernel))):
        return None
    batch, height, width = kernel.param("outputs")
    blocks = kernel.view("w").shape[0]
    rows = decide("rows", range(1, min(width, ROWS) + 1), -(-width // -(-width // ROWS)))
    cols = decide("cols", divisors(blocks, SUMS), next(c for c in (2, 3, 1) if blocks % c == 0))
    tiles = height * -(-width // rows)
    at_once = min(SUMS // cols, tiles)
    groups = -(-tiles // at_once)
    chunks = divisors(groups)
    shared = [c for c in chunks if batch * (groups // c) * (blocks // cols) >= SHARES] or chunks[:1]
    image = kernel.param("stride") * kernel.view("x").strides[1] * height if height > 1 else width * kernel.param("step")
    fitting = [c for c in shared if c * image // groups <= LEVEL_2] or shared[:1]
    chunk = decide("chunk", chunks, fitting[-1])

    with IRBuilder() as builder, function(kernel) as p:
        made = _Gemm(kernel, p, rows, cols, at_once)
        with T.parallel(0, batch * (groups // chunk) * (blocks // cols)) as unit:
            made.configure()
            block, outer = T.bind(unit % (blocks // cols) * cols), T.bind(unit // (blocks // cols))
            b, first = T.bind(outer // (groups // chunk)), T.bind(outer % (groups // chunk) * chunk)
            with T.serial(0, chunk) as g:
                begin = T.bind((first + g) * at_once)
                rest = tiles % at_once
                if not rest:
                    made.tiles(b, begin, at_once, block)
                else:
                    with T.If(begin + at_once <= tiles):
                        with T.Then():
                            made.tiles(b, begin, at_once, block)
                        with T.Else():
                            made.tiles(b, begin, rest, block)
            _tile("tilerelease")
    return builder.get()


class _Gemm:
    """Emits the parts of one kernel; ``p`` are its parameters, flat buffers by operand key."""

    def __init__(self, kernel: Kernel, p: dict[str, Any], rows: int, cols: int, at_once: int) -> None:
        self.kernel, self.p, self.rows, self.cols = kernel, p, rows, cols
        _, self.height, self.width = kernel.param("outputs")
        _, self.taps_y, self.taps_x, self.groups, _, _ = kernel.view("w").shape
        self.steps = tile_steps(self.groups)
        self.depth = self.groups // self.steps
        self.x, self.y = kernel.view("x").strides, kernel.view("y").strides
        self.sums = T.sblock_alloc_buffer((at_once * rows * cols * ROWS,), "int32")
        self.config = T.sblock_alloc_buffer((16,), "int32")

    def configure(self) -> None:
        """Load the shapes of the tile registers: palette 1; bytes of a row as 16 bits from byte 16, rows from byte 48."""
        shape = bytearray(64)
        shape[0] = 1
        for tile in range(8):
            row_bytes = 4 * self.depth if tile in PIXELS else 64
            shape[16 + 2 * tile : 18 + 2 * tile] = row_bytes.to_bytes(2, "little")
            shape[48 + tile] = self.depth if tile in WEIGHTS else self.rows
        words = [int.from_bytes(shape[i : i + 4], "little") for i in range(0, 64, 4)]
        for i, word in enumerate(words):
            T.buffer_store(self.config, T.int32(word), [i])
        _tile("ldtilecfg", T.address_of(self.config[0]))

    def position(self, tile: Any) -> tuple[Any, Any, Any]:
        """(image row, first pixel, rows of the tile that an earlier tile has) of a tile: the last one of an image row
        begins earlier than it would, where the width is not a multiple."""
        across = -(-self.width // self.rows)
        row, column = tile // across, tile % across * self.rows
        start = T.bind(tirx.Min(column, T.int32(self.width - self.rows)))
        return T.bind(row), start, T.bind(column - start)

    def tiles(self, b: Any, first: Any, count: int, block: Any) -> None:
        """Compute and store ``count`` tiles x ``cols`` blocks of channels."""
        places = [self.position(first + i) for i in range(count)]
        self.reduce(b, places, block)
        for i, place in enumerate(places):
            self.finish(b, i, place, block)

    def reduce(self, b: Any, places: Sequence[tuple[Any, Any, Any]], block: Any) -> None:
        """The sums with bias, as ``self.sums`` [tile, row, channel]."""
        stride, dilation, step, hop, parts = (
            self.kernel.param(k) for k in ("stride", "dilation", "step", "hop", "parts")
        )
        x, w, cols = self.p["x"], self.p["w"], self.cols
        pairs = [(i, j) for i in range(len(places)) for j in range(cols)]
        sums = {pair: number for number, pair in enumerate(pairs)}
        begins = [T.bind(b * self.x[0] + row * (stride * self.x[1]) + start * step) for row, start, _ in places]
        block_bytes = self.taps_y * self.taps_x * self.groups * 64
        for i, j in pairs:
            bias = T.address_of(self.p["bias"][(block + j) * ROWS])
            _tile("tileloadd64", sums[i, j], bias, T.int64(0))
        with T.serial(0, self.taps_y) as ky, T.serial(0, self.taps_x) as kx, T.serial(0, self.steps) as s:
            tap = T.bind(ky * (dilation * self.x[1]) + kx // parts * hop + s * (4 * self.depth))
            weights = T.bind(block * block_bytes + ((ky * self.taps_x + kx) * self.steps + s) * (64 * self.depth))
            for i in range(len(places)):
                pixels = PIXELS[i % 2]
                _tile("tileloadd64", pixels, T.address_of(x[begins[i] + tap]), T.int64(step))
                for j in range(cols):
                    channels = WEIGHTS[j % 2]
                    if i == 0 or cols > 2:
                        _tile("tileloadd64", channels, T.address_of(w[weights + j * block_bytes]), T.int64(64))
                    _tile("tdpbusd", sums[i, j], pixels, channels)
        for i, j in pairs:
            there = T.address_of(self.sums[i * self.rows * cols * ROWS + j * ROWS])
            _tile("tilestored64", sums[i, j], there, T.int64(cols * ROWS * 4))

    def finish(self, b: Any, tile: int, place: tuple[Any, Any, Any], block: Any) -> None:
        """Store the pixels of a tile of sums."""
        row, start, skip = place
        shift, raised, channels, clamped, fraction = (
            self.kernel.param(k) for k in ("shift", "raised", "channels", "clamped", "fraction")
        )
        residual = next((o.view.strides for o in self.kernel.operands if o.key == "residual"), None)

        def at(key: str, offset: Any, lanes: int) -> Any:
            buffer = self.p[key]
            return T.decl_buffer((lanes,), str(buffer.dtype), data=buffer.data, elem_offset=offset)

        with T.serial(skip, self.rows) as r:
            for j in range(0, self.cols, 2):
                lanes = ROWS * min(2, self.cols - j)
                channel = (block + j) * ROWS
                begin = (tile * self.rows + r) * (self.cols * ROWS) + j * ROWS
                sums = [self.sums[T.ramp(begin + i, 1, ROWS)] for i in range(0, lanes, ROWS)]
                by = at("shift", channel, lanes) if shift is None else shift
                old = None
                if residual is not None:
                    where = b * residual[0] + row * residual[1] + (start + r) * residual[2] + channel
                    old = at("residual", where, lanes)
                out = at("y", b * self.y[0] + row * self.y[1] + (start + r) * self.y[2] + channel, lanes)
                v = avx512.finished(sums, at("multiplier", channel, lanes), by, old, self.p["q"], raised, clamped, fraction)
                avx512.store(out, v, channel, channels)


def _tile(name: str, *operands: Any) -> None:
    """An instruction on tile registers, which are numbered by the leading operands."""
    numbered = [T.uint8(o) if isinstance(o, int) else o for o in operands]
    T.evaluate(T.call_llvm_intrin("void", f"llvm.x86.{name}", *numbered))


KERNELS: dict[str, Callable[[Kernel, Decide], Any | None]] = {"conv_gemm": conv_gemm}
SCHEDULES = vnni.SCHEDULES
