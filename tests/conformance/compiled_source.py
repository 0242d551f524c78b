"""Kernels that are C source, compiled by this machine's compiler."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from machine import GUARD, Machine, pointer

from qcc.data import data_folder
from qcc.lower.kernel import BufferArg, Call
from qcc.plan.memory import Memory


class SourceMachine(Machine):
    """As ``Machine``; work memory is noise with a guard around it."""

    def load(self, objects: Sequence[str]) -> None:
        texts = [Path(o).read_text().replace("static void", "void", 1) for o in objects]
        source, library = self.folder / "kernels.c", self.folder / f"kernels-{self.target.name}.so"
        source.write_text("".join(f'#include "{h}"\n' for h in ("qcc.h", "qcc_dsp.h", "qcc_mve.h")) + "\n".join(texts))
        subprocess.run(["cc", "-std=c99", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-I",
                        str(data_folder("runtime") / "mcu"), str(source), "-o", str(library)], check=True)  # fmt: skip
        self.library = ctypes.CDLL(str(library))

    def run(self, call: Call, memory: Memory) -> None:
        built, pointers = self.built[call.kernel.digest], []
        rng = np.random.default_rng(0)
        constants = [np.ascontiguousarray(a) for a in call.args if not isinstance(a, BufferArg)]
        work = [rng.integers(0, 256, n + 2 * GUARD).astype(np.uint8) for _, _, n in built.work]
        before = [w.copy() for w in work]
        left = iter(constants)
        for operand, arg in zip(call.kernel.operands, call.args, strict=True):
            if isinstance(arg, BufferArg):
                pointers.append(pointer(memory, arg, operand.view.dtype))
            else:
                pointers.append(int(next(left).ctypes.data))
        pointers += [int(w.ctypes.data) + GUARD for w in work]
        self.library[built.symbol](*map(ctypes.c_void_p, pointers), *map(ctypes.c_int32, built.numbers))
        for old, new in zip(before, work, strict=True):
            inside = slice(GUARD, len(new) - GUARD)
            old[inside] = new[inside]
            assert np.array_equal(old, new), f"{built.symbol} writes beyond its work memory"
