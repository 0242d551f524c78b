"""A C program (and a C++ one) that links the generated library with nothing but its header."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from integer_programs import Builder, random_inputs
from naive_kernels import naive_package
from qcc.emit.library import emit_library
from qcc.ir.evaluate import run_integer
from qcc.target import Target

PROGRAM = r"""
#include <stdio.h>
#include "net.h"

static float image[NET_INPUT0_SIZE], logits[NET_OUTPUT0_SIZE];
static int8_t best[NET_OUTPUT1_SIZE];
static int calls;

static void count(void *context, int32_t node) { (void)node; ++*(int *)context; }

int main(void)
{
    static const int shape[] = NET_INPUT0_SHAPE;
    if (sizeof shape != 4 * sizeof *shape || shape[1] != 3 || NET_INPUTS != 1 || NET_OUTPUTS != 2) return 1;
    if (NET_OUTPUT0_SCALE != 0.05 || NET_OUTPUT0_ZERO_POINT != -3 || NET_ARENA_BYTES < 1) return 2;
    if (fread(image, sizeof image, 1, stdin) != 1) return 3;
    net_set_hook(count, &calls);
    if (net_set_threads(2) != 2 || net(image, logits, best) != 0 || calls == 0) return 4;
    const void *nothing[1] = {0};
    void *outputs[2] = {logits, best};
    if (net_run(nothing, outputs) != -1) return 5;
    fwrite(logits, sizeof logits, 1, stdout);
    fwrite(best, sizeof best, 1, stdout);
    return 0;
}
"""


@pytest.mark.parametrize(("compiler", "suffix"), [("cc", "c"), ("c++", "cpp")])
def test_a_program_runs_the_model(compiler: str, suffix: str, tmp_path: Path) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    b = Builder("net", 4)
    x = b.quantize(b.input((1, 3, 8, 6), "float32", "image"), (0, 2, 3, 1))
    y = b.conv(x, 5)
    graph = b.output(b.dequantize(b.conv(y, 4, stride=2), (0, 3, 1, 2)), b.slice(y, (0, 2, 2, 1), (1, 5, 5, 4)))
    target = Target.load("x86-vnni")
    emit_library(naive_package(graph, target, tmp_path / "work"), tmp_path / "out")
    program = tmp_path / f"main.{suffix}"
    program.write_text(PROGRAM)
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", "-I", str(tmp_path / "out"), str(program), "-o",
                    str(tmp_path / "main"), "-L", str(tmp_path / "out"), "-lnet", f"-Wl,-rpath,{tmp_path / 'out'}"],
                   check=True)  # fmt: skip
    inputs = random_inputs(graph, 1)
    done = subprocess.run([str(tmp_path / "main")], input=inputs["image"].tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, f"the program's check {done.returncode} failed"
    expected = run_integer(graph, inputs)
    assert done.stdout == b"".join(np.ascontiguousarray(expected[v]).tobytes() for v in graph.outputs)
