"""Layout: views, concats, halos and in-place writes, each alone, and all of them on random programs."""

from __future__ import annotations

import numpy as np
import pytest
from simulate import simulate

from integer_programs import Builder, random_inputs, random_program
from qcc.ir.evaluate import run_integer
from qcc.ir.graph import Graph
from qcc.lower.kernel import View
from qcc.numerics import QParams
from qcc.plan.arena import plan_arena
from qcc.plan.layout import Layout, plan_layout, reshape_strides
from qcc.target import Target

VNNI, AVX2 = Target.load("x86-vnni"), Target.load("x86-avx2")


def checked(graph: Graph, target: Target = VNNI) -> Layout:
    """The layout, after a run in it gave the reference's bytes."""
    layout = plan_layout(graph, target)
    inputs = random_inputs(graph, 5)
    got = simulate(graph, layout, plan_arena(layout), inputs)
    for name, expected in run_integer(graph, inputs).items():
        np.testing.assert_array_equal(got[name], expected)
    return layout


@pytest.mark.parametrize("seed", range(150))
def test_random_programs_run_in_their_layout(seed: int) -> None:
    print(f"seed {seed}")
    checked(random_program(seed), (VNNI, AVX2)[seed % 2])


def test_halo_is_the_widest_padding_of_all_readers() -> None:
    b = Builder()
    x = b.lut(b.input((1, 5, 6, 4)))
    layout = checked(b.output(b.conv(x, 3, pad=(0, 1, 2, 0)), b.conv(x, 3, pad=(1, 0, 0, 2)), b.max_pool(x)))
    buffer = layout.buffers[x]
    assert buffer.frame is not None
    assert buffer.frame.halo == (1, 1, 2, 2)
    assert buffer.size == (1 + 5 + 2) * (1 + 6 + 2) * 4
    view, arg = layout.place(x)
    assert (view.strides, arg.offset) == ((8 * 36, 36, 4, 1), 36 + 4)
    assert layout.window(x, (1, 0, 0, 2))[0].shape == (1, 6, 8, 4)
    with pytest.raises(AssertionError, match="exceeds the halo"):
        layout.window(x, (2, 0, 0, 0))


def test_the_halo_holds_the_stored_zero_point() -> None:
    b = Builder()
    x = b.lut(b.input((1, 5, 5, 4)))
    graph = b.output(b.conv(x, 3))
    assert [f.byte for f in plan_layout(graph, VNNI).fills[x]] == [128 - 3]
    assert [f.byte for f in plan_layout(graph, AVX2).fills[x]] == [-3]


def test_concat_inputs_are_written_into_the_concat() -> None:
    b = Builder()
    x = b.input((1, 4, 4, 3))
    left, right = b.conv(x, 5), b.conv(x, 2)
    both = b.concat(left, right)
    layout = checked(b.output(b.conv(both, 4), b.conv(left, 4)))
    assert {layout.places[v].buffer for v in (left, right, both)} == {both}
    assert layout.place(right)[0].strides == layout.place(both)[0].strides
    assert layout.place(right) == layout.part(both, (0, 0, 0, 5), (1, 4, 4, 7))
    assert layout.window(left, (1, 1, 1, 1))[0].shape == (1, 6, 6, 5)


def test_a_concat_cut_along_rows_gives_its_parts_no_halo() -> None:
    b = Builder()
    x = b.input((1, 4, 4, 3))
    top, bottom = b.conv(x, 3), b.conv(x, 3)
    both = b.concat(top, bottom, axis=1)
    layout = checked(b.output(b.conv(both, 2), b.conv(top, 2)))
    assert layout.places[bottom].buffer == both
    assert layout.places[top].buffer == top


def test_a_halo_that_a_nested_concat_cannot_give_is_refused() -> None:
    b = Builder()
    x = b.input((1, 4, 4, 3))
    a, c = b.conv(x, 3), b.conv(x, 3)
    inner = b.concat(a, c)
    outer = b.concat(inner, b.concat(c, a), axis=1)
    layout = checked(b.output(b.conv(a, 2), outer))
    assert layout.halo(a) == (1, 1, 1, 1)


def test_values_that_cannot_live_in_a_concat() -> None:
    b = Builder()
    x = b.input((1, 4, 4, 3))
    twice, shared, other = b.lut(x), b.lut(x), b.conv(x, 3, q=QParams(0.05, 9))
    doubled = b.concat(twice, twice)
    one, two = b.concat(shared, x), b.concat(shared, twice)
    layout = checked(b.output(doubled, one, two, other))
    assert all(layout.places[v].buffer == v for v in (x, twice, shared, other))


def test_views_have_no_kernel() -> None:
    b = Builder()
    x = b.lut(b.input((1, 4, 6, 4)))
    flat = b.reshape(x, 1, 96)
    cut = b.slice(x, (0, 1, 0, 2), (1, 3, 6, 4))
    strided = b.slice(x, (0, 0, 0, 0), (1, 4, 6, 4), (1, 2, 3, 1))
    moved = b.node("transpose", {"x": b.reshape(x, 1, 1, 24, 4)}, perm=(1, 2, 0, 3))
    layout = checked(b.output(*(b.lut(v) for v in (flat, cut, strided, moved))))
    assert {flat, cut, strided, moved} <= layout.views
    assert {layout.places[v].buffer for v in (flat, cut, strided, moved)} == {layout.places[x].buffer}
    assert layout.place(strided)[0].strides == (96, 48, 12, 1)
    assert layout.is_view(cut)
    assert not layout.is_view(x)


def test_results_that_need_a_copy() -> None:
    b = Builder()
    x = b.lut(b.input((1, 4, 6, 4)))
    cut = b.slice(x, (0, 1, 0, 0), (1, 3, 6, 4))
    thinned = b.slice(x, (0, 0, 0, 0), (1, 4, 6, 4), (1, 1, 1, 2))
    flat = b.reshape(x, 1, 96)
    turned = b.node("transpose", {"x": x}, perm=(0, 3, 1, 2))
    layout = checked(b.output(b.conv(x, 2), b.conv(cut, 2), *(b.lut(v) for v in (thinned, flat, turned))))
    assert not layout.views & {cut, thinned, flat, turned}, "cut and padded, gaps, a halo, moved axes"


def test_elements_with_gaps_are_copied_into_channels() -> None:
    """Views of every second element, and of one pixel of an image that has channels first."""
    b = Builder()
    x = b.lut(b.input((1, 8, 6, 4)))
    pixel = b.slice(x, (0, 0, 2, 1), (1, 8, 3, 2))
    channels = b.reshape(pixel, 1, 1, 1, 8)
    column = b.slice(x, (0, 0, 0, 1), (1, 8, 6, 2))
    turned = b.node("transpose", {"x": b.reshape(column, 1, 48, 1, 1)}, perm=(0, 2, 3, 1))
    layout = checked(b.output(*(b.conv(v, 3, 1, (0, 0, 0, 0)) for v in (channels, turned))))
    assert {pixel, column} <= layout.views
    assert not layout.views & {channels, turned}


def test_a_squeezed_value_takes_the_frame_of_its_reader() -> None:
    b = Builder()
    x = b.lut(b.input((1, 10, 4)))
    image = b.reshape(x, 1, 1, 10, 4)
    back = b.reshape(b.conv(image, 4), 1, 10, 4)
    layout = checked(b.output(b.lut(back)))
    assert {image, back} <= layout.views
    assert layout.halo(image) == (1, 1, 1, 1)


def test_channel_slices_are_read_with_their_inputs_halo() -> None:
    b = Builder()
    x = b.lut(b.input((2, 4, 4, 6)))
    part = b.slice(x, (0, 0, 0, 2), (2, 4, 4, 5))
    layout = checked(b.output(b.conv(part, 2)))
    assert layout.is_view(part)
    assert layout.halo(part) == (1, 1, 1, 1)


def test_element_wise_nodes_write_over_dying_inputs() -> None:
    b = Builder()
    first = b.lut(b.input((1, 4, 4, 16)))
    second = b.lut(first)
    third = b.conv(second, 16, 1, (0, 0, 0, 0), residual=first)
    last = b.add(third, second)
    layout = checked(b.output(b.dequantize(last)))
    assert layout.in_place == {first: "x", third: first, last: third}


def test_inputs_that_must_not_be_overwritten() -> None:
    b = Builder()
    x = b.lut(b.input((1, 4, 4, 4)))
    own = b.conv(x, 4, residual=x)
    kept = b.lut(own)
    other_frame = b.lut(kept)
    layout = checked(b.output(b.conv(other_frame, 4), own))
    assert own not in layout.in_place, "x is read around each element too"
    assert kept not in layout.in_place, "own is an output"
    assert other_frame not in layout.in_place, "only one of both has a halo"


def test_an_in_place_writer_with_another_zero_point_fills_the_halo_again() -> None:
    b = Builder()
    x = b.input((1, 4, 4, 16))
    first = b.conv(x, 16)
    second = b.conv(b.conv(first, 16), 16, residual=first, q=QParams(0.05, 11))
    layout = checked(b.output(b.conv(second, 4)))
    assert layout.in_place[second] == first
    assert [f.byte for f in layout.fills[second]] == [139]


def test_floats_stay_in_the_callers_memory() -> None:
    b = Builder()
    x = b.quantize(b.input((1, 3, 4, 5), "float32"), (0, 2, 3, 1))
    y = b.dequantize(b.conv(x, 2))
    z = b.reshape(y, 1, 40)
    layout = checked(b.output(z, y))
    assert layout.buffers["x"].kind == "input"
    assert (layout.buffers[y].kind, layout.buffers[y].index) == ("output", 0)
    assert "x" not in layout.lifetimes()


@pytest.mark.parametrize(
    ("shape", "strides", "new", "expected"),
    [
        ((2, 3, 4), (12, 4, 1), (6, 4), (4, 1)),
        ((2, 3, 4), (24, 8, 1), (6, 4), (8, 1)),
        ((2, 3, 4), (24, 8, 1), (24,), None),
        ((2, 12), (20, 1), (2, 3, 1, 4), (20, 4, 4, 1)),
        ((2, 12), (20, 1), (4, 6), None),
        ((1, 1), (5, 1), (1,), (1,)),
    ],
)
def test_reshape_strides(
    shape: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...], expected: tuple[int, ...] | None
) -> None:
    assert reshape_strides(View(shape, strides, "int8"), new) == expected
