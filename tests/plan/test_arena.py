"""Packing: no overlap among live buffers, never below the bound, close to it where a solution is known."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from integer_programs import random_program
from qcc.plan.arena import Arena, Block, first_fit, lower_bound, pack, plan_arena
from qcc.plan.layout import plan_layout
from qcc.target import Target

SPANS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12), st.integers(0, 6)), max_size=25)


def assert_sound(arena: Arena) -> None:
    blocks = list(arena.blocks.values())
    for i, a in enumerate(blocks):
        assert 0 <= arena.offsets[a.name] <= arena.nbytes - a.nbytes
        for b in blocks[i + 1 :]:
            x, y = arena.offsets[a.name], arena.offsets[b.name]
            apart = not a.meets(b) or x + a.nbytes <= y or y + b.nbytes <= x
            assert apart or (a.may_cover(b) and x == y), f"{a} overlaps {b}"
    assert arena.nbytes >= arena.lower_bound


@settings(max_examples=200, deadline=None)
@given(SPANS)
def test_live_blocks_do_not_overlap(spans: list[tuple[int, int, int]]) -> None:
    blocks = [Block(str(i), 64 * size, first, first + length) for i, (size, first, length) in enumerate(spans)]
    arena = pack(blocks)
    assert_sound(arena)
    assert pack(blocks) == arena, "packing is deterministic"
    assert arena.nbytes <= sum(b.nbytes for b in blocks)


@settings(max_examples=200, deadline=None)
@given(SPANS)
def test_a_block_may_begin_where_the_one_it_covers_begins(spans: list[tuple[int, int, int]]) -> None:
    """A chain in which each covers the one before, among others."""
    chain = [Block(f"c{i}", 64 * size, i, i + 1, f"c{i - 1}" if i else None) for i, (size, _, _) in enumerate(spans)]
    others = [Block(str(i), 64 * size, first, first + length) for i, (size, first, length) in enumerate(spans[::3])]
    assert_sound(pack(chain))
    assert_sound(pack([*chain, *others]))
    assert pack(chain).nbytes == max((b.nbytes for b in chain), default=0)


def test_the_bound_is_the_largest_live_set() -> None:
    assert lower_bound([]) == 0
    assert pack([]).nbytes == 0
    assert lower_bound([Block("a", 5, 0, 1), Block("b", 7, 1, 2), Block("c", 6, 2, 2)]) == 13


def test_a_chain_reaches_the_bound() -> None:
    arena = pack([Block(str(i), 64 * (1 + i * 7 % 5), i, i + 1) for i in range(40)])
    assert_sound(arena)
    assert arena.nbytes == arena.lower_bound


def test_the_search_beats_first_fit_by_size() -> None:
    blocks = [Block("a", 2, 0, 1), Block("b", 3, 1, 2), Block("c", 4, 2, 3), Block("d", 3, 3, 4), Block("e", 2, 0, 4)]
    plain = {b.name: {o.name: False for o in blocks if o is not b and o.meets(b)} for b in blocks}
    offsets = first_fit(sorted(blocks, key=lambda b: -b.nbytes), plain)
    arena = pack(blocks)
    assert_sound(arena)
    assert arena.nbytes == arena.lower_bound <= max(offsets[b.name] + b.nbytes for b in blocks)


def test_random_programs() -> None:
    for seed in range(40):
        arena = plan_arena(plan_layout(random_program(seed), Target.load("x86-vnni")))
        assert_sound(arena)
        assert all(offset % 64 == 0 for offset in arena.offsets.values())
