"""The printed form: exact round trips, files, and what a broken text or folder says."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from float_graphs import Builder, random_graph
from integer_programs import Builder as IntegerBuilder
from qcc.errors import ArtifactError
from qcc.frontend.onnx import load as load_onnx
from qcc.ir.graph import Graph, Node, TensorType
from qcc.ir.text import ParseError, load, parse, save, show
from qcc.numerics import QParams
from qcc.passes import SIMPLIFY


def same(a: Graph, b: Graph) -> bool:
    lists = (a.name, a.inputs, a.outputs, a.nodes, a.types, list(a.constants))
    if lists != (b.name, b.inputs, b.outputs, b.nodes, b.types, list(b.constants)):
        return False
    pairs = [(a.constants[v], b.constants[v]) for v in a.constants]
    return all(np.array_equal(first, second) and first.dtype == second.dtype for first, second in pairs)


def awkward() -> Graph:
    """Every kind of attribute and name."""
    g = Graph('a "quoted" näme', ["x", "in put"], ["y\n2"])
    g.types = {"x": TensorType((2, 3)), "in put": TensorType((), "int8", QParams(1 / 3, -128))}
    g.add_constant("/w%@#.1", np.zeros((2, 2), np.int8), QParams((0.1, 5e-324), 0, 0))
    g.add_constant("file", np.ones((0, 3), np.int32))
    attrs = {
        "expr": ("mul", "x", ("clip", ("pow", "x", 2.0), -math.inf, math.inf), 0.1 + 0.2),
        "one": (1,), "none": None, "yes": True, "no": False, "text": 'a "}" \\ # %b', "empty": (),
        "nested": (((0, 0), (1, -2)), "edge"), "tiny": -1.5e-300, "big": 1e22, "minus": -0.0, "int": -7,
    }  # fmt: skip
    g.nodes = [
        Node("y:0", "pointwise", {"x": "x", "w": "/w%@#.1"}, attrs, "Conv 'a # b\\n', näme\n  "),
        Node("y\n2", "lut", {"x0": "y:0", "x1": "file"}),
    ]
    g.types |= {"y:0": TensorType((1, 20, 3), "int8", QParams(2.0, 7)), "y\n2": TensorType((4,), "int32")}
    return g


def test_awkward_names_and_attributes() -> None:
    graph = awkward()
    text = show(graph)
    assert same(parse(text, graph.constants), graph)
    assert repr(parse(text, graph.constants).nodes[0].attrs["minus"]) == "-0.0"
    assert show(parse(text, graph.constants)) == text
    assert len(text.splitlines()) == 8


def test_the_documented_form() -> None:
    b = Builder(x=(1, 4, 4, 3))
    b.conv("x", 2, clamp=(0.0, math.inf))
    lines = show(b.done("conv2d0")).splitlines()
    assert lines[:2] == ['graph "test"', "  input %x : float32[1,4,4,3]"]
    assert lines[2].startswith("  const @conv2d0.w : float32[2,3,3,3] sha256:")
    assert lines[4] == (
        "  %conv2d0 = conv2d(x=%x, w=@conv2d0.w, b=@conv2d0.b) {stride=(1, 1), pad=(1, 1, 1, 1), dilation=(1, 1), "
        "groups=1, clamp=(0.0, inf)} : float32[1,4,4,2]   # conv2d 'conv2d0'"
    )
    assert lines[5] == "  output %conv2d0"


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs(seed: int) -> None:
    graph = random_graph(seed)
    assert same(parse(show(graph), graph.constants), graph)


@pytest.mark.parametrize("model", [
    "mnist_cnn", "mobilenet_v1_0.75_224", "mobilenet_v2_1.0_224_deq", "resnet20_cifar10", "resnet20_cifar10_bn",
])  # fmt: skip
def test_real_models(model: str, data_dir: Path, tmp_path: Path) -> None:
    graph = load_onnx(data_dir / "models" / f"{model}.onnx")
    assert same(parse(show(graph), graph.constants), graph)
    for rewrite in SIMPLIFY:
        graph = rewrite(graph)
    save(graph, tmp_path)
    assert same(load(tmp_path), graph)


def test_integer_programs_and_files(tmp_path: Path) -> None:
    b = IntegerBuilder()
    graph = b.output(b.conv(b.input((1, 5, 5, 3)), 4))
    graph.constants["file"] = np.arange(3, dtype=np.int32)
    graph.types["file"] = TensorType((3,), "int32")
    save(graph, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["constants.npz", "program.qir"]
    assert same(load(tmp_path), graph)


HEAD = 'graph "g"\n  input %x : float32[2]\n'
BROKEN = [
    ("hello", "line 1, column 1: expected a value, found 'hello'"),
    ("graph g", "line 1, column 7: expected a quoted string, found 'g'"),
    ('graph "g" x', "line 1, column 11: expected the end of the line, found 'x'"),
    (HEAD + "  input %x : float32[2]", "line 3, column 9: 'x' is defined twice"),
    (HEAD + "  input %(y) : float32[2]", "expected a name, found '(y)"),
    (HEAD + "  input %y : float32[2,b]", "expected an extent, found 'b]'"),
    (HEAD + "  input %y : float32[2 3]", "expected ',', found '3]'"),
    (HEAD + "  input %y float32[2]", "expected ':'"),
    (HEAD + "  input %y : [2]", "expected a dtype"),
    (HEAD + "  input %y : int8[2] scale=0.5", "expected 'zero_point=', found 'the end of the line'"),
    (HEAD + "  output %y", "line 3, column 10: 'y' is not defined above"),
    (HEAD + "  %y = reshape(x=%z) : float32[2]", "'z' is not defined above"),
    (HEAD + "  %y = reshape(%x) : float32[2]", "expected a key"),
    (HEAD + "  %y = reshape(x %x) : float32[2]", "expected '='"),
    (HEAD + "  %y = (x=%x) : float32[2]", "expected an op"),
    (HEAD + "  %y = reshape(x=%x) {shape=oops} : float32[2]", "expected a number, a string or a tuple, found 'oops}"),
    (HEAD + "  %y = reshape(x=%x) {shape=1.2.3} : float32[2]", "expected a number, found '1.2.3}"),
    (HEAD + "  %y = reshape(x=%x) {shape=(1 2)} : float32[2]", "expected ')'"),
    (HEAD + "  %y = reshape(x=%x) {shape=(1, 2)", "expected ','"),
    (HEAD + "  const @c : float32[2] sha256:0", "there is no array for constant 'c'"),
    (HEAD + "  const @w : float32[2] sha256:0", "the array of constant 'w' is not the one that was saved"),
    (HEAD + "  const @w : float32[2]", "expected 'sha256:'"),
    (HEAD + "  const @w : float32[2] sha256:%", "expected a digest"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_broken_texts(text: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text, {"w": np.zeros(2, np.float32)})
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"line {len(text.splitlines())}, column ")


def test_attributes_of_other_types_are_a_bug() -> None:
    graph = awkward()
    graph.nodes[0].attrs["list"] = [1]
    with pytest.raises(TypeError, match=r"not an attribute: \[1\]"):
        show(graph)


def test_broken_folders(tmp_path: Path) -> None:
    b = Builder(x=(1, 4, 4, 3))
    graph = b.done(b.conv("x", 2))

    def failure() -> str:
        with pytest.raises(ArtifactError) as caught:
            load(tmp_path)
        return str(caught.value)

    assert "program.qir is missing" in failure()
    save(graph, tmp_path)
    archive = (tmp_path / "constants.npz").read_bytes()
    for content in (archive[:100], b"", b"nothing"):
        (tmp_path / "constants.npz").write_bytes(content)
        assert "the program cannot be read" in failure()
    (tmp_path / "constants.npz").unlink()
    assert "constants.npz is missing" in failure()
    (tmp_path / "constants.npz").write_bytes(archive)
    (tmp_path / "program.qir").write_text(show(graph).replace("conv2d(", "conv2d["))
    assert "line 5, column " in failure()
    save(graph, tmp_path)
    changed = Builder(7, x=(1, 4, 4, 3))
    save(changed.done(changed.conv("x", 2)), tmp_path)
    (tmp_path / "program.qir").write_text(show(graph))
    assert "is not the one that was saved" in failure()
