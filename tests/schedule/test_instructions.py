"""Machine code of the integer kernels: no floating point, the right products, nothing beyond the target."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from convolution import TARGETS, Case, Prepared, compiled

from qcc.target import Target

FLOAT = re.compile(
    r"v?(add|sub|mul|div|sqrt|rcp|rsqrt|min|max|hadd|hsub|dp|u?comi|cmp\w*|round|fn?m(add|sub)\d*)(ss|sd|ps|pd)|v?cvt\w+"
)
PRODUCTS = {
    "x86-amx": ("tdpbusd", "vpdpbusd"), "x86-vnni": ("vpdpbusd", "vpdpbusd"), "x86-avx2": ("vpmaddwd", "vpmaddwd"),
}  # fmt: skip
"""Of convolutions: ordinary and depthwise ones."""
AVX512 = re.compile(r"%(zmm\d+|k[1-7]|[xy]mm(1[6-9]|2\d|3[01]))\b")
CASES = [
    Case(1, (1, 14, 14, 32), 40),
    Case(2, (1, 14, 14, 16), 16, (3, 3), residual=True, fraction=8),
    Case(3, (1, 14, 14, 20), 21, (3, 3), stride=(2, 2), clamp=(-3, 90), shift=33),
    Case(4, (1, 14, 14, 24), 24, (3, 3), groups=24),
    Case(5, (1, 15, 15, 19), 19, (5, 5), stride=(2, 2), groups=19, clamp=(0, 90)),
]


@pytest.mark.skipif(not shutil.which("objdump"), reason="no objdump")
@pytest.mark.parametrize("name", TARGETS)
def test_instructions(name: str) -> None:
    target = Target.load(name)
    for case in CASES:
        for kernel in compiled([Prepared(case, target)], target).values():
            command = ["objdump", "-d", "--no-show-raw-insn", f"--disassemble={kernel.symbol}", str(kernel.object)]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            lines = re.findall(r"^\s+[0-9a-f]+:\t(?:\{\w+\} )?(\w+)(.*)", text, re.MULTILINE)
            names = {mnemonic for mnemonic, _ in lines}
            assert {PRODUCTS[name][case.groups > 1], "vpmuldq"} <= names, case
            assert not [n for n in names if FLOAT.fullmatch(n)], case
            if name == "x86-avx2":
                assert not [operands for _, operands in lines if AVX512.search(operands)], case
