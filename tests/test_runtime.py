"""``qcc.load`` and what a model says to inputs that do not fit."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

import qcc
from integer_programs import Builder, random_inputs
from naive_kernels import naive_package
from qcc.emit.library import emit_library
from qcc.errors import InputError
from qcc.ir.evaluate import run_integer
from qcc.ir.graph import Graph
from qcc.runtime import Model
from qcc.target import Target


def program() -> Graph:
    b = Builder("two", 2)
    x = b.quantize(b.input((1, 4, 5, 3), "float32", "x"))
    y = b.quantize(b.input((1, 4, 5, 3), "float32", "y"))
    z = b.conv(b.add(x, y), 3, residual=y)
    return b.output(b.dequantize(z), b.dequantize(x))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("two")
    emit_library(naive_package(program(), Target.load("x86-vnni"), folder / "work"), folder / "out")
    return qcc.load(folder / "out")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Model:
    b = Builder("one", 3)
    graph = b.output(b.dequantize(b.conv(b.quantize(b.input((1, 4, 5, 3), "float32")), 3)))
    folder = tmp_path_factory.mktemp("one")
    emit_library(naive_package(graph, Target.load("x86-vnni"), folder / "work"), folder / "out")
    return qcc.load(folder / "out")


def test_ways_of_calling(two: Model, one: Model) -> None:
    inputs = random_inputs(two.program(), 1)
    expected = run_integer(two.program(), inputs)
    for got in (two(inputs), two(**inputs), two({"x": inputs["x"]}, y=inputs["y"])):
        assert got.keys() == expected.keys()
        assert all(np.array_equal(got[k], expected[k]) for k in got)
    single = one(inputs["x"])
    np.testing.assert_array_equal(single, next(iter(run_integer(one.program(), {"x": inputs["x"]}).values())))
    np.testing.assert_array_equal(one(x=np.asfortranarray(inputs["x"])), single)
    assert repr(one) == "<qcc.Model net for x86-vnni: x: float32[1, 4, 5, 3], v2: float32[1, 4, 5, 3]>"


def test_inputs_that_do_not_fit(two: Model, one: Model) -> None:
    x = np.zeros((1, 4, 5, 3), np.float32)
    with pytest.raises(InputError, match=r"input 'x': shape \(4, 5, 3\), but the model wants \(1, 4, 5, 3\)"):
        one(x[0])
    with pytest.raises(InputError, match=r"input 'x': dtype float64.*Hint: convert it: x.astype\('float32'\)"):
        one(x.astype(np.float64))
    with pytest.raises(InputError, match="input 'x': the array holds NaN"):
        one(np.full_like(x, np.nan))
    with pytest.raises(InputError, match=r"the model has no input 'z'\. Hint: its inputs are x"):
        one(z=x)
    with pytest.raises(InputError, match=r"input 'y': this input is missing. Hint: give float32\[1, 4, 5, 3\]"):
        two(x=x)
    with pytest.raises(InputError, match="one array without a name, but the inputs are x, y"):
        two(x)
    with pytest.raises(InputError, match=r"input 'x': its rows differ in length\. Hint: give float32\[1, 4, 5, 3\]"):
        one([[1, 2], [3]])  # type: ignore[arg-type]
    assert one.set_threads(2**40) > 1
    assert one.set_threads(1) == 1
    with pytest.raises(InputError, match=r"0 threads\. Hint: give 1 or more"):
        one.set_threads(0)
    infinite = x.copy()
    infinite[0, 0, 0, :2] = np.inf, -np.inf
    assert np.isfinite(one(infinite)).all(), "infinities saturate"


def test_models_of_one_library_take_turns(one: Model) -> None:
    other = qcc.load(one.folder)
    rng = np.random.default_rng(0)
    xs = [rng.normal(0, 3, (1, 4, 5, 3)).astype(np.float32) for _ in range(8)]
    expected = [one(x) for x in xs]
    wrong: list[int] = []

    def work(model: Model, i: int) -> None:
        wrong.extend(i for _ in range(200) if not np.array_equal(model(xs[i]), expected[i]))

    threads = [threading.Thread(target=work, args=((one, other)[i % 2], i)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_a_trace_sees_the_inference_of_its_own_thread(one: Model) -> None:
    rng = np.random.default_rng(0)
    xs = [rng.normal(0, 3, (1, 4, 5, 3)).astype(np.float32) for _ in range(4)]
    expected = [one.trace({"x": x}) for x in xs]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(50):
            found = one.trace({"x": xs[i]})
            wrong.extend(i for name, value in found.items() if not np.array_equal(value, expected[i][name]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(xs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_importing_is_cheap() -> None:
    code = ("import sys, qcc, qcc.cli; qcc.Target; qcc.load; qcc.__version__; "
            "print([m for m in ('tvm', 'onnx', 'onnxruntime') if m in sys.modules])")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names() -> None:
    names = {"autotune", "compile", "load", "quantize", "Model", "Target", "QccError", "__version__"}
    assert names == set(qcc.__all__) == set(dir(qcc))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = qcc.nothing
