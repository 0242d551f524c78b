"""From a node's scheduled TIR to instructions: loops are run, and each tensorized block becomes an instruction.

Tiles are cut here to what exists of the tensors, whose extents TIR has rounded up to whole tiles. A copy into on-chip
memory takes the next part of that memory's ring, which is how double buffers come about, unless a part still holds the
block; a copy from where activations already are costs nothing: the tile is a view. Constants are laid out in DRAM in
the blocks in which they are loaded. The emitter puts the synchronization in front of each instruction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from tvm import tirx
from tvm.s_tir import SBlockRealize

from qcc.npu import isa
from qcc.npu.emitter import Emitter, Home, Ring
from qcc.npu.jobs import dense

Env = dict[int, int]
"""Loop variables by depth."""
Box = tuple[tuple[int, ...], tuple[int, ...]]
"""First element and extents."""

WINDOW = (*isa.WINDOW[4:10], "zero_point", "weight_zero")
"""Registers of a window that do not depend on the tile."""
SCALING = (*isa.REQUANT[:7], "rounding")
"""Registers of requantization that are no addresses or strides."""


@dataclass(frozen=True)
class Operand:
    """A parameter of a node's function: a value of the graph, or a constant array."""

    source: str | NDArray[Any]
    shape: tuple[int, ...]
    """Extents of what exists."""
    strides: tuple[int, ...] = ()
    """In bytes; of a value."""
    offset: int = 0
    origin: tuple[int, ...] = ()
    """Index of the first element that exists; default: zeros."""


@dataclass(frozen=True)
class Place:
    """Where the elements from ``begin`` on of a buffer lie."""

    memory: str
    address: int
    begin: tuple[int, ...]
    strides: tuple[int, ...]

    def at(self, low: Sequence[int]) -> int:
        """Address of an element."""
        return self.address + sum((i - b) * s for i, b, s in zip(low, self.begin, self.strides, strict=True))


@dataclass
class Block:
    """A leaf: the instruction's name and arguments, and its operands, the last being written."""

    call: str
    arguments: tuple[int, ...]
    buffers: list[str]
    extents: list[tuple[int, ...]]
    begins: Callable[[Env], tuple[tuple[int, ...], ...]]


@dataclass
class Tile:
    """An operand of a block that runs: what exists of it (``low``, ``shape``), and ``begin``, which may be outside."""

    buffer: str
    begin: tuple[int, ...]
    low: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass
class Walker:
    """Runs a node's function. ``rings``: buffers in activation memory of the operands that are in DRAM."""

    e: Emitter
    operands: Mapping[str, Operand]
    rings: Mapping[str, Ring]
    constant_bytes: int = 0
    """Bytes of the constants. All of them go into the cache, or none."""
    cached: bool = field(init=False, default=False)
    places: dict[str, Place] = field(init=False, default_factory=dict)
    boxes: dict[str, Box] = field(init=False, default_factory=dict)
    owners: dict[str, str] = field(init=False, default_factory=dict)
    """On-chip buffer → the operand it is copied from or to."""
    scope: list[Any] = field(init=False, default_factory=list)
    """Variables of the loops around what is being compiled."""
    fresh: bool = field(init=False, default=False)
    """Whether the accumulators count as 0."""
    folded: tuple[tuple[int, ...], Tile] | None = field(init=False, default=None)
    """Windows of a pool and what they read, between its two stages."""
    blobs: dict[Any, tuple[int, int]] = field(init=False, default_factory=dict)

    def run(self, func: Any) -> None:
        """Emit the function's instructions."""
        self.cached = self.constant_bytes <= self.e.d.cache.bytes - self.e.cache_used
        for name, operand in self.operands.items():
            origin = operand.origin or (0,) * len(operand.shape)
            self.boxes[name] = origin, operand.shape
            if isinstance(operand.source, str):
                home = self.e.homes[operand.source]
                self.places[name] = Place(home.memory, home.address + operand.offset, origin, operand.strides)
        self._compile(func.body.block.body)({})

    # ---- TIR -----------------------------------------------------------------------------------------------------

    def _compile(self, statement: Any) -> Callable[[Env], None]:
        if isinstance(statement, tirx.SeqStmt):
            parts = [self._compile(s) for s in statement.seq]

            def sequence(env: Env) -> None:
                for part in parts:
                    part(env)

            return sequence
        if isinstance(statement, tirx.For):
            self.scope.append(statement.loop_var)
            depth, count, body = len(self.scope) - 1, int(statement.extent), self._compile(statement.body)
            self.scope.pop()

            def loop(env: Env) -> None:
                for env[depth] in range(count):
                    body(env)

            return loop
        assert isinstance(statement, SBlockRealize), f"TIR of the accelerator has no {type(statement).__name__}"
        block = self._block(statement)
        kind, *forms = block.call.split(".")
        handler = getattr(self, f"_{kind}")

        def leaf(env: Env) -> None:
            handler(*forms, block.arguments, *self._tiles(block, env))

        return leaf

    def _block(self, realize: Any) -> Block:
        block = realize.block
        known = [(var, f"v[{depth}]") for depth, var in enumerate(self.scope)]
        known += [(v.var, _source(e, known)) for v, e in zip(block.iter_vars, realize.iter_values, strict=True)]
        if "auto_copy" in block.annotations:
            call, arguments = "copy", tuple[int, ...]()
            regions = [*block.reads, *block.writes]
        else:
            name, *values = block.body.value.args
            call, arguments = str(name.value), tuple(int(v) for v in values)
            regions = [m.source for m in block.match_buffers] or [*block.reads, *block.writes]
        names = [r.source.name for r in regions]
        if call == "copy":
            self._own(*names)
        text = ", ".join("(" + "".join(f"{_source(d.min, known)}, " for d in r.region) + ")" for r in regions)
        begins = eval(f"lambda v: ({text},)")  # Made once, called for each tile.
        return Block(call, arguments, names, [tuple(int(d.extent) for d in r.region) for r in regions], begins)

    def _own(self, source: str, target: str) -> None:
        operand, buffer = (source, target) if source in self.operands else (target, source)
        self.owners[buffer] = operand
        self.boxes[buffer] = self.boxes[operand]
        if operand != "w" and operand in self.places and self.places[operand].memory == "act":
            self.places[buffer] = self.places[operand]

    def _tiles(self, block: Block, env: Env) -> list[Tile]:
        found = []
        for name, begin, extents in zip(block.buffers, block.begins(env), block.extents, strict=True):
            first, shape = self.boxes[name] if name in self.boxes else self.boxes["out"]
            low = tuple(min(max(b, f), f + n) for b, f, n in zip(begin, first, shape, strict=True))
            high = (max(min(b + x, f + n), w) for b, x, f, n, w in zip(begin, extents, first, shape, low, strict=True))
            found.append(Tile(name, begin, low, tuple(h - w for h, w in zip(high, low, strict=True))))
        return found

    # ---- copies --------------------------------------------------------------------------------------------------

    def _copy(self, _: tuple[int, ...], source: Tile, target: Tile) -> None:
        if target.buffer in self.owners:
            if not isinstance(self.operands[source.buffer].source, str):
                self._constant(target)
            elif source.buffer == "w":
                self._gather(source, target)
            elif self.places[source.buffer].memory == "dram":
                self._load(source, target)
        elif self.places[target.buffer].memory == "dram":
            self._transfer(source, target)

    def _load(self, source: Tile, target: Tile) -> None:
        address, held = self.rings[source.buffer].get((source.low, source.shape))
        self.places[target.buffer] = Place("act", address, target.low, tuple(dense(target.shape)))
        if not held and min(source.shape) > 0:
            self._transfer(source, target)

    def _gather(self, source: Tile, target: Tile) -> None:
        """Activations become weights."""
        address, held = self.e.weights.get((self.e.layer, "w", source.low))
        self.places[target.buffer] = Place("weight", address, target.low, (0,) * len(target.low))
        if not held:
            a = self.places["w"]
            self.e("loadw", f"gather_{a.memory}", src=a.at(source.low), dst=address, rows=source.shape[3],
                   columns=source.shape[4], row=a.strides[3], column=a.strides[4])  # fmt: skip

    def _transfer(self, source: Tile, target: Tile) -> None:
        a, b = self.places[source.buffer], self.places[target.buffer]
        start, end = Home(a.memory, a.at(source.low)), Home(b.memory, b.at(target.low))
        self.e.copy(start, end, source.shape, a.strides, b.strides)

    def _constant(self, tile: Tile) -> None:
        """Weights go to the weight memory; what the vector unit reads to the parameter memory, a table behind the
        parameters that it is used with.
        """
        name = self.owners[tile.buffer]
        key = (self.e.layer, name, tile.low)
        if key not in self.blobs:
            array = self.operands[name].source
            assert not isinstance(array, str), "a constant"
            data = array[tuple(slice(i, i + n) for i, n in zip(tile.low, tile.shape, strict=True))].tobytes()
            self.blobs[key] = self.e.blob(data), len(data)
            if self.cached:
                self.e.cache(*self.blobs[key])
        ring = self.e.weights if name == "w" else self.e.params
        address, held = ring.tail(key) if name == "table" else ring.get(key)
        memory = "weight" if name == "w" else "param"
        self.places[tile.buffer] = Place(memory, address, tile.low, (0,) * len(tile.low))
        if not held:
            self.e.loadw(memory, *self.blobs[key], address)

    def _output(self, tile: Tile) -> Place:
        """Where a result goes: its home on chip, or the next buffer."""
        owner = self.owners.get(tile.buffer, tile.buffer)
        if self.places[owner].memory == "dram":
            address, _ = self.rings[owner].get(object())
            self.places[tile.buffer] = Place("act", address, tile.low, tuple(dense(tile.shape)))
        return self.places[tile.buffer]

    def _move(self, value: tuple[int, ...], *tiles: Tile) -> None:
        """A node that only moves bytes; between two places in DRAM through a buffer. Without a source, it fills."""
        target, source = tiles[-1], tiles[0] if len(tiles) > 1 else None
        near, through = self.places[target.buffer], len(self.rings) > 0
        if through:
            address, _ = self.rings["buffer"].get(object())
            near = Place("act", address, target.low, tuple(dense(target.shape)))
        if source is None:
            self.e.fill(near.at(target.low), value[0], target.shape, near.strides)
        else:
            a = self.places[source.buffer]
            self.e.copy(Home(a.memory, a.at(source.low)), Home(near.memory, near.at(target.low)), target.shape,
                        a.strides, near.strides)  # fmt: skip
        if through:
            far = self.places[target.buffer]
            self.e.copy(Home("act", near.address), Home(far.memory, far.at(target.low)), target.shape, near.strides,
                        far.strides)  # fmt: skip

    # ---- windows -------------------------------------------------------------------------------------------------

    def _clear(self, _: tuple[int, ...], acc: Tile) -> None:
        """No instruction: the first matmul of a tile writes."""
        address, _held = self.e.sums.get(object())
        self.places[acc.buffer] = Place("acc", address, acc.low, (0,) * len(acc.low))
        self.fresh = True

    def _begin(self, _: tuple[int, ...], acc: Tile) -> None:
        """No instruction: pools keep what they fold in registers."""

    def _window(self, form: str, registers: tuple[int, ...], x: Tile) -> int:
        """Configure windows over a tile; the address of its first pixel that exists."""
        place = self.places[x.buffer]
        self.e.configure(form, height=x.shape[1], width=x.shape[2], row_stride=place.strides[1],
                         pixel_stride=place.strides[2], pad_top=x.low[1] - x.begin[1], pad_left=x.low[2] - x.begin[2],
                         **dict(zip(WINDOW, registers, strict=True)))  # fmt: skip
        return place.at(x.low)

    def _matmul(self, registers: tuple[int, ...], x: Tile, w: Tile, acc: Tile) -> None:
        address = self._window("window", registers, x)
        self.e("matmul", "write" if self.fresh else "accumulate", x=address, channels=w.shape[3], **self._sums(w, acc))
        self.fresh = False

    def _depthwise(self, registers: tuple[int, ...], x: Tile, w: Tile, acc: Tile) -> None:
        address, repeat = self._window("window", registers[:-1], x), registers[-1]
        self.e("depthwise", "write", x=address, channels=w.shape[4] // repeat, multiplier=repeat, **self._sums(w, acc))

    def _sums(self, w: Tile, acc: Tile) -> dict[str, int]:
        return {"w": self.places[w.buffer].address, "acc": self.places[acc.buffer].address, "rows": acc.shape[1],
                "columns": acc.shape[2], "outputs": acc.shape[4]}  # fmt: skip

    def _requantize(self, registers: tuple[int, ...], acc: Tile, p: Tile, *more: Tile) -> None:
        """``more``: a table, a residual, the result."""
        out, place = more[-1], self._output(more[-1])
        named = {self.owners[t.buffer]: t for t in more[:-1]}
        table = self.places[named["table"].buffer].address if "table" in named else -1
        strides, operands = {}, {}
        if "residual" in named:
            residual = self.places[named["residual"].buffer]
            strides = {"residual_row": residual.strides[1], "residual_pixel": residual.strides[2]}
            operands["residual"] = residual.at(out.low)
        self.e.configure("requant", **dict(zip(SCALING, registers, strict=True)), **strides, table=table)
        self.e("requantize", "residual" if operands else "plain", acc=self.places[acc.buffer].address,
               param=self.places[p.buffer].address, out=place.at(out.low), rows=out.shape[1], columns=out.shape[2],
               outputs=out.shape[4], row=place.strides[1], pixel=place.strides[2], **operands)  # fmt: skip

    def _fold(self, form: str, window: tuple[int, ...], x: Tile, acc: Tile) -> None:
        """No instruction yet: the pool's last stage issues it."""
        self.folded = window, x

    def _pool(self, form: str, scaling: tuple[int, ...], acc: Tile, *more: Tile) -> None:
        """``more``: entries of the parameter memory, one for all or one for each pixel; the result."""
        out, entries = more[-1], {}
        if form == "avg_pool":
            m = more[0]
            entries["b"] = self.places[m.buffer].address
            if math.prod(self.boxes[m.buffer][1][:2]) > 1:
                entries |= {"b0": m.shape[1], "b1": 1}
            self.e.configure("requant", **dict(zip(SCALING, scaling, strict=True)), table=-1)
        assert self.folded is not None, "a pool folds before it finishes"
        address, place = self._window("pool", *self.folded), self._output(out)
        n0, n1, n2 = (out.shape[k] for k in (1, 2, 4))
        self.e("elementwise", form, a=address, out=place.at(out.low), n0=n0, n1=n1, n2=n2, o0=place.strides[1],
               o1=place.strides[2], o2=1, **entries)  # fmt: skip

    # ---- elementwise ---------------------------------------------------------------------------------------------

    def _element(self, form: str, configured: str, registers: tuple[int, ...], a: Tile, b: Tile, out: Tile) -> None:
        if configured:
            names = isa.OPERATIONS["configure"].forms[configured]
            self.e.configure(configured, **dict(zip(names, registers, strict=True)))
        operands: dict[str, int] = {}
        for key, tile, place in (("a", a, self.places[a.buffer]), ("b", b, self.places[b.buffer]),
                                 ("out", out, self._output(out))):
            operands[key] = place.at(tile.low)
            own = (1,) if place.memory == "param" and form == "prelu" else place.strides
            strides = [s if n > 1 else 0 for n, s in zip(tile.shape, own, strict=True)]
            operands |= {f"{key[0]}{i}": s for i, s in enumerate(_three(strides, 0))}
        self.e("elementwise", form, **operands, **{f"n{i}": n for i, n in enumerate(_three(out.shape, 1))})


def _three(values: Sequence[int], lead: int) -> list[int]:
    """The last three axes; the others have the extent 1."""
    return [*[lead] * (3 - len(values)), *values[-3:]]


def _source(e: Any, known: Sequence[tuple[Any, str]]) -> str:
    """A Python expression; ``known`` says what stands for each variable."""
    if isinstance(e, (int, tirx.IntImm)):
        return str(int(e))
    if isinstance(e, tirx.Var):
        return next(text for var, text in known if var.same_as(e))
    for kind, sign in ((tirx.Add, "+"), (tirx.Sub, "-"), (tirx.Mul, "*"), (tirx.FloorDiv, "//"), (tirx.FloorMod, "%")):
        if isinstance(e, kind):
            return f"({_source(e.a, known)} {sign} {_source(e.b, known)})"
    raise AssertionError(f"an index of the accelerator's TIR has a {type(e).__name__}")
