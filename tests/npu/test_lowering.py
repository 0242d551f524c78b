"""Nodes become TIR, tensorized with the instructions, whose loops stay loops until instructions are emitted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import te
from tvm.s_tir.schedule import ScheduleError

from integer_programs import Builder, random_inputs
from qcc.ir.evaluate import run_integer
from qcc.npu import schedule, stages
from qcc.npu.intrinsics import Tile, intrinsic

WINDOWS = {"kernel_h": 3, "kernel_w": 3, "stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1,
           "zero_point": -3, "weight_zero": 0}  # fmt: skip
SCALING = {"shift": 31, "zero_point": -3, "low": -128, "high": 127}


def convolution(**changes: Any) -> Any:
    options = {"inputs": 10, "channels": 4, "repeat": 1, "rows": 2, "residual": False, "table": False} | changes
    scaling = SCALING | ({"residual_multiplier": 16, "fraction": 4} if options["residual"] else {})
    return schedule.weighted("matmul", (1, 30, 16, 1, 20), (1, 7, 16, 1, 8), range(5), WINDOWS, scaling, **options)


def test_loops_over_tiles_stay_loops() -> None:
    text = convolution().script()
    assert next(line for line in text.splitlines() if "for " in line).strip().endswith("T.grid(1, 5, 1):")
    for call in ('"clear"', '"matmul", 3, 3, 1, 1, 1, 1, -3, 0', '"requantize", 31, -3, -128, 127, 0, 0, 0, 0'):
        assert text.count(f'T.call_extern("int32", {call}') == 1
    assert text.count("auto_copy") == 4, "input, weights, parameters, result"
    assert "T.where" not in text


def test_a_table_and_a_residual_are_part_of_the_epilogue() -> None:
    text = convolution(residual=True, table=True).script()
    assert text.count("auto_copy") == 6


def test_an_instruction_is_refused_where_it_would_compute_something_else() -> None:
    """The description is compared with the node: here the instruction has another zero point."""
    sch = tvm.s_tir.Schedule(te.create_prim_func([*(t := _tensors()), _sums(t, WINDOWS)]))
    block = sch.get_sblock("acc")
    sch.decompose_reduction(block, sch.get_loops(block)[0])
    tiles = [Tile("", tuple(map(int, x.shape)), "int8") for x in t]
    other = intrinsic("matmul", [1], lambda *x: _sums(x, WINDOWS | {"zero_point": 5}), tiles,
                      Tile("", (1, 4, 4, 1, 6), "int32"), adds=True)
    with pytest.raises(ScheduleError, match="doesn't match the tensor intrin"):
        sch.tensorize(sch.get_loops(block)[0], other)


def _tensors() -> list[Any]:
    return [te.placeholder((1, 6, 6, 1, 5), "int8", "x"), te.placeholder((1, 3, 3, 5, 6), "int8", "w")]


def _sums(t: Any, windows: dict[str, int]) -> Any:
    return stages.products((1, 4, 4, 1, 6), 5, windows, *t)


def test_the_stages_compute_what_the_reference_does() -> None:
    """Before scheduling, a node's TIR is an ordinary program: compiled by LLVM it gives the reference's bytes."""
    b = Builder("net", 1)
    graph = b.output(b.conv(b.input((1, 6, 6, 5)), 6, pad=(0, 0, 0, 0)))
    (node,) = graph.nodes
    constants = [graph.constants[node.inputs[k]] for k in ("w", "b", "multiplier")]
    x, w = _tensors()
    p = te.placeholder((2, 1, 6), "int32", "p")
    scaling = {**dict.fromkeys(schedule.SCALING, 0), **SCALING, "shift": node.attrs["shift"]}
    out = stages.requantized((1, 4, 4, 1, 6), scaling, False, False, _sums([x, w], WINDOWS), p)
    built = tvm.compile(te.create_prim_func([x, w, p, out]), target="llvm")
    feed = random_inputs(graph, 0)
    arrays = [feed["x"].reshape(1, 6, 6, 1, 5), constants[0].transpose(1, 2, 3, 0)[None],
              np.stack(constants[1:]).reshape(2, 1, 6), np.zeros((1, 4, 4, 1, 6), np.int8)]  # fmt: skip
    held = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays]
    built["main"](*held)
    (expected,) = run_integer(graph, feed).values()
    np.testing.assert_array_equal(held[-1].numpy().reshape(expected.shape), expected)
