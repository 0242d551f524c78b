"""Offsets of buffers in one static arena: buffers that are needed at the same time do not overlap.

A target may divide the arena into regions of memory, which lie behind each other in the numbering of its bytes.

Each buffer is a rectangle, its span of steps by its bytes; packing them is NP-hard. First fit by descending size is
close to the lower bound for most networks; a few other orders, and a seeded search around the best one, find the rest.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from qcc.errors import TargetError
from qcc.lower.kernel import BufferArg, Call
from qcc.plan.layout import Layout

SEARCH = 300
"""Orders tried at most once the fixed ones missed the lower bound (about a millisecond each for a large network)."""


@dataclass(frozen=True)
class Block:
    """Bytes (a multiple of the alignment) that are needed from step ``first`` to step ``last``, both inclusive."""

    name: str
    nbytes: int
    first: int
    last: int
    over: str | None = None
    """A block that ends at ``first``: the two may lie over each other if they begin at the same offset."""

    def meets(self, other: Block) -> bool:
        """Whether both are needed at some step."""
        return self.first <= other.last and other.first <= self.last

    def may_cover(self, other: Block) -> bool:
        """Whether they may begin at the same offset although they meet."""
        return self.over == other.name or other.over == self.name


@dataclass(frozen=True)
class Arena:
    """``offsets`` in bytes by buffer name; ``lower_bound`` is the largest sum of bytes needed at one step."""

    blocks: Mapping[str, Block]
    offsets: Mapping[str, int]
    nbytes: int
    lower_bound: int
    regions: tuple[Region, ...] = ()

    def region(self, offset: int) -> Region:
        """The region in which a byte lies."""
        return max((r for r in self.regions if r.begin <= offset), key=lambda r: r.begin)


@dataclass(frozen=True)
class Region:
    """Bytes [begin, begin + nbytes) of the arena, which have a pointer of their own."""

    name: str
    begin: int
    nbytes: int


def plan_arena(
    layout: Layout, work: Mapping[str, int] | None = None, touches: Mapping[str, int] | None = None
) -> Arena:
    """Offsets of a layout's buffers, aligned as the target asks, in the regions of its memory.

    ``work`` are bytes that a node wants while it runs, by its output; their buffer's name is that of ``work_name``.
    ``touches``: how often an element of a buffer is read or written; what has most for its bytes comes into the first
    region where it fits. Raises TargetError if the last one is too small.
    """
    unit, spans = layout.target.alignment, layout.lifetimes().items()
    places, nodes = layout.places, layout.graph.node_of()
    over = {places[y].buffer: places[nodes[y].inputs["x"]].buffer for y in layout.overlays}
    sizes = {name: -(-layout.buffers[name].nbytes // unit) * unit for name, _ in spans}
    blocks = [Block(name, sizes[name], *span, over.get(name)) for name, span in spans]
    for step, node in enumerate(layout.graph.nodes):
        if work and node.output in work:
            blocks.append(Block(work_name(node.output), -(-work[node.output] // unit) * unit, step, step))
    if not layout.target.memory:
        packed = pack(blocks)
        return replace(packed, regions=(Region("arena", 0, packed.nbytes),))
    heat = {b.name: (touches or {}).get(b.name, 0) / b.nbytes for b in blocks}
    return _in_regions(sorted(blocks, key=lambda b: -heat[b.name]), layout)


def _in_regions(blocks: list[Block], layout: Layout) -> Arena:
    """Blocks in the order in which they want to be in the first regions."""
    target, begin = layout.target, 0
    offsets, regions, rest = dict[str, int](), list[Region](), blocks
    for memory in target.memory:
        room = memory.bytes // target.alignment * target.alignment
        inside = pack(rest)
        if inside.nbytes > room and memory is not target.memory[-1]:
            chosen: list[Block] = []
            for block in rest:
                if pack([*chosen, block], 0).nbytes <= room:
                    chosen.append(block)
            inside = pack(chosen)
        if inside.nbytes > room:
            raise _does_not_fit(inside, memory.name, room, layout)
        offsets |= {name: begin + offset for name, offset in inside.offsets.items()}
        regions.append(Region(memory.name, begin, inside.nbytes))
        begin += inside.nbytes
        rest = [b for b in rest if b.name not in inside.blocks]
    return Arena({b.name: b for b in blocks}, offsets, begin, lower_bound(blocks), tuple(regions))


def _does_not_fit(arena: Arena, region: str, room: int, layout: Layout) -> TargetError:
    """Names the largest tensor of the step that needs most memory."""
    needed = {b.first: needed_at(arena.blocks.values(), b.first) for b in arena.blocks.values()}
    step = max(needed, key=lambda s: needed[s])
    largest = max((b for b in arena.blocks.values() if b.first <= step <= b.last), key=lambda b: b.nbytes)
    nodes = layout.graph.nodes
    at = f"'{nodes[step].output}' ({nodes[step].op})" if 0 <= step < len(nodes) else "the input"
    return TargetError(
        f"the model needs {arena.nbytes:,} bytes of memory '{region}', which has {room:,}: {arena.nbytes - room:,} too "
        f"few; most at {at}, where the largest tensor is '{largest.name}' with {largest.nbytes:,} bytes",
        where=layout.target.name, hint="give a [[memory]] more bytes, add one, or make that tensor smaller",
    )  # fmt: skip


def count_touches(calls: Iterable[Call]) -> dict[str, int]:
    """Elements that kernels read and write in each buffer, as far as their views tell; work memory has an access for
    each multiplication.
    """
    found: dict[str, int] = {}
    for call in calls:
        for operand, arg in zip(call.kernel.operands, call.args, strict=True):
            if isinstance(arg, BufferArg):
                found[arg.value] = found.get(arg.value, 0) + math.prod(operand.view.shape)
        name = work_name(call.node)
        found[name] = found.get(name, 0) + call.macs
    return found


def work_name(output: str) -> str:
    """Name of the block that a node works in."""
    return f"{output} (work)"


def pack(blocks: Iterable[Block], search: int = SEARCH) -> Arena:
    """The best of several first-fit packings, and of ``search`` more around it."""
    items = list(blocks)
    bound = lower_bound(items)
    orders = [
        sorted(items, key=lambda b: (-b.nbytes, b.first)),
        sorted(items, key=lambda b: (-b.nbytes * (b.last - b.first + 1), b.first)),
        sorted(items, key=lambda b: (b.first - b.last, -b.nbytes)),
        sorted(items, key=lambda b: (b.first, -b.nbytes)),
    ]
    neighbours = {b.name: {o.name: o.may_cover(b) for o in items if o is not b and o.meets(b)} for b in items}
    tried = [(order, first_fit(order, neighbours)) for order in orders]
    best, offsets = min(tried, key=lambda pair: _height(items, pair[1]))
    height, rng = _height(items, offsets), random.Random(0)
    for _ in range(search):
        if height == bound or len(items) < 3:
            break
        # What reaches the top was placed too late: move it, or a random block, forward.
        top = [i for i, b in enumerate(best) if offsets[b.name] + b.nbytes == height]
        source = rng.choice(top) if rng.random() < 0.6 else rng.randrange(len(best))
        order = list(best)
        order.insert(rng.randrange(source + 1), order.pop(source))
        candidate = first_fit(order, neighbours)
        if _height(items, candidate) <= height:
            best, offsets, height = order, candidate, _height(items, candidate)
    return Arena({b.name: b for b in items}, offsets, height, bound)


def first_fit(order: Iterable[Block], neighbours: Mapping[str, Mapping[str, bool]]) -> dict[str, int]:
    """Each block in turn at the lowest offset where it meets no neighbour placed before.

    Neighbours by block, with whether the two may begin at the same offset.
    """
    placed: dict[str, tuple[int, int]] = {}
    for block in order:
        beside = sorted((*placed[n], may_cover) for n, may_cover in neighbours[block.name].items() if n in placed)
        offset = 0
        for begin, end, _ in beside:
            if begin - offset >= block.nbytes:
                break
            offset = max(offset, end)
        for begin, _, may_cover in beside:
            clear = all(e <= begin or begin + block.nbytes <= b or (c and b == begin) for b, e, c in beside)
            if may_cover and begin < offset and clear:
                offset = begin
        placed[block.name] = offset, offset + block.nbytes
    return {name: begin for name, (begin, _) in placed.items()}


def lower_bound(blocks: Iterable[Block]) -> int:
    """The largest sum of bytes needed at one step: no packing is smaller."""
    items = list(blocks)
    return max((needed_at(items, step) for step in {b.first for b in items}), default=0)


def needed_at(blocks: Iterable[Block], step: int) -> int:
    """Sum of the bytes needed at a step; of two blocks that may lie over each other, the larger one's."""
    alive = {b.name: b for b in blocks if b.first <= step <= b.last}
    shared = (min(b.nbytes, alive[b.over].nbytes) for b in alive.values() if b.first == step and b.over in alive)
    return sum(b.nbytes for b in alive.values()) - sum(shared)


def _height(blocks: Iterable[Block], offsets: Mapping[str, int]) -> int:
    return max((offsets[b.name] + b.nbytes for b in blocks), default=0)
