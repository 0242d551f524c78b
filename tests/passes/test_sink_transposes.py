"""sink_transposes: what remains, and that the function stays, on hand-made and random graphs."""

from __future__ import annotations

import pytest

from float_graphs import NCHW, NHWC, POOL, Builder, apply, ops, random_graph
from qcc.passes.remove_identities import remove_identities
from qcc.passes.sink_transposes import regroup, sink_transposes


def nchw_conv(b: Builder, x: str, channels: int, **attrs: object) -> str:
    """A convolution as the importer writes it: between transposes."""
    return b("transpose", x=b.conv(b("transpose", x=x, perm=NHWC), channels, **attrs), perm=NCHW)


def test_a_network_keeps_the_transpose_of_its_input() -> None:
    b = Builder(x=(1, 3, 8, 8))
    x = b.clip(nchw_conv(b, b("mul", a="x", b=b.normal(3, 1, 1), clamp=None), 4))
    y = b("add", a=nchw_conv(b, x, 4), b=x, clamp=None)
    y = b("concat", x0=y, x1=b("pad", x=x, pads=((0, 0),) * 4, mode="constant", value=0.0), axis=1)
    y = b("slice", x=y, begin=(0, 1, 0, 0), end=(1, 8, 8, 8), step=(1, 1, 2, 2))
    y = b("reduce_mean", x=y, axes=(2, 3), keepdims=True)
    y = b("dense", x=b("reshape", x=y, shape=(1, 7)), w=b.normal(5, 7), clamp=None)
    graph = apply(sink_transposes, b.done(y))
    assert ops(graph).count("transpose") == 1
    assert (graph.nodes[0].op, graph.nodes[0].output) == ("transpose", "x_nhwc")
    assert graph.types[next(n.output for n in graph.nodes if n.op == "concat")].shape == (1, 8, 8, 8)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 5, 1, 1)])
def test_an_input_whose_order_does_not_matter_is_reshaped(shape: tuple[int, ...]) -> None:
    b = Builder(x=shape)
    y = b("reduce_mean", x=nchw_conv(b, "x", 3), axes=(2, 3), keepdims=False)
    assert "transpose" not in ops(apply(sink_transposes, b.done(y)))


def test_flattening_before_dense_permutes_the_weights() -> None:
    b = Builder(x=(1, 3, 4, 4))
    flat = b("reshape", x=b.clip(nchw_conv(b, "x", 5)), shape=(1, 80))
    y = b("dense", x=b("pointwise", x=flat, expr=("tanh", "x")), w=b.normal(6, 80), b=b.normal(6), clamp=None)
    assert ops(apply(sink_transposes, b.done(y, b("dense", x=flat, w=b.normal(2, 80), clamp=None)))) == [
        "transpose", "conv2d", "pointwise", "reshape", "pointwise", "dense", "dense"]  # fmt: skip


def test_flattening_that_something_else_reads_is_transposed() -> None:
    b = Builder(x=(1, 3, 4, 4))
    flat = b("reshape", x=nchw_conv(b, "x", 5), shape=(1, 80))
    graph = apply(sink_transposes, b.done(b("dense", x=flat, w=b.normal(6, 80), clamp=None), flat))
    assert ops(graph).count("transpose") == 2


def test_channel_shuffle() -> None:
    b = Builder(x=(1, 3, 4, 4))
    x = b("reshape", x=nchw_conv(b, "x", 6), shape=(1, 2, 3, 4, 4))
    x = b("reshape", x=b("transpose", x=x, perm=(0, 2, 1, 3, 4)), shape=(1, 6, 4, 4))
    y = b("reduce_max", x=nchw_conv(b, x, 2), axes=(2, 3), keepdims=False)
    graph = apply(sink_transposes, b.done(y))
    perms = [n.attrs["perm"] for n in graph.nodes if n.op == "transpose"]
    assert perms == [NHWC, (0, 1, 2, 4, 3)]


def test_sequences_pass_through_unsqueezed_convolutions() -> None:
    b = Builder(x=(1, 3, 10))
    x = "x"
    for _ in range(2):
        x = nchw_conv(b, b("reshape", x=x, shape=(1, 3, 1, 10)), 3, pad=(0, 1, 2, 1), kernel=3)
        x = b.clip(b("reshape", x=x, shape=(1, 3, 10)))
    graph = apply(remove_identities, apply(sink_transposes, b.done(b("reduce_mean", x=x, axes=(2,), keepdims=False))))
    assert ops(graph).count("transpose") == 1


def test_matmul_takes_a_swap_of_its_second_operand() -> None:
    b = Builder(x=(2, 3, 4), y=(2, 5, 4))
    swapped = b("transpose", x="y", perm=(0, 2, 1))
    graph = apply(sink_transposes, b.done(b("matmul", a="x", b=swapped, transpose_b=False)))
    assert ops(graph) == ["matmul"]
    assert graph.nodes[0].attrs == {"transpose_b": True}


def test_the_last_axis_decides_for_softmax_dense_prelu() -> None:
    for perm, count in (((0, 2, 1, 3), 0), ((0, 1, 3, 2), 1)):
        b = Builder(x=(1, 3, 4, 5))
        x = b("transpose", x="x", perm=perm)
        x = b("prelu", x=b("softmax", x=x), slope=b.normal(b.shape(x)[-1]))
        x = b("dense", x=x, w=b.normal(3, b.shape(x)[-1]), clamp=None)
        graph = apply(sink_transposes, b.done(b("reduce_max", x=x, axes=(0, 1, 2, 3), keepdims=False)))
        assert ops(graph).count("transpose") == count


def test_outputs_keep_names_and_order() -> None:
    b = Builder(x=(1, 3, 4, 4))
    y = nchw_conv(b, "x", 5)
    z = b("transpose", x="x", perm=NHWC)
    graph = apply(sink_transposes, b.done(y, b.clip(y), z, b("transpose", x=z, perm=NCHW)))
    assert ops(graph).count("transpose") == 2


def test_what_follows_the_last_layer_stays_beside_it() -> None:
    b = Builder(x=(1, 3, 4, 4))
    y = b("add", a=nchw_conv(b, "x", 5), b=b.normal(5, 1, 1), clamp=None)
    graph = apply(sink_transposes, b.done(b.clip(y)))
    assert ops(graph) == ["transpose", "conv2d", "add", "pointwise", "transpose"]


def test_the_importers_names_come_back() -> None:
    b = Builder(x=(1, 3, 4, 4))
    inner = b("transpose", x="x", perm=NHWC)
    pooled = b("max_pool", "y.max_pool", x=inner, dilation=(1, 1), **POOL)
    y = b("transpose", "y", x=pooled, perm=NCHW)
    graph = apply(sink_transposes, b.done(b("reduce_max", x=y, axes=(2, 3), keepdims=False)))
    assert [n.output for n in graph.nodes][:2] == ["x_nhwc", "y"]


@pytest.mark.parametrize(("before", "after", "perm", "expected"), [
    ((1, 6, 4, 4), (1, 2, 3, 4, 4), NCHW, ((0, 2, 3, 1), (0, 3, 4, 1, 2))),
    ((1, 6, 4, 4), (1, 6, 16), NCHW, ((0, 2, 3, 1), (0, 2, 1))),
    ((1, 6, 4, 4), (1, 96), NCHW, ((0, 1, 2, 3), (0, 1))),
    ((2, 6, 1, 1), (2, 6), NCHW, ((0, 1, 2, 3), (0, 1))),
    ((1, 6, 9), (1, 6, 1, 9), (0, 2, 1), ((0, 2, 1), (0, 2, 3, 1))),
    ((), (1, 1), (), ((), (0, 1))),
])  # fmt: skip
def test_regroup(before: tuple[int, ...], after: tuple[int, ...], perm: tuple[int, ...], expected: object) -> None:
    assert regroup(before, after, perm) == expected


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs(seed: int) -> None:
    print("seed", seed)
    graph = random_graph(seed)
    assert ops(apply(sink_transposes, graph)).count("transpose") <= ops(graph).count("transpose") + 1


