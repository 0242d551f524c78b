"""Decisions about packed constants: they are taken before a kernel is scheduled, and change what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcc.lower.kernel import Call, Kernel, View, dense_strides
from qcc.schedule.decide import Decide

if TYPE_CHECKING:
    from qcc.target import Target

WEIGHT_BYTES = "weight_bytes"
WORDS = (0, 2, 1, 3, 4, 6, 5, 7)
"""Order of a group of ``columns.pack_pairs`` once its bytes are int16: pairs of K lie side by side."""


def weight_bytes(kernel: Kernel, target: Target, decide: Decide) -> int:
    """Bytes of a weight in memory: 2 spare processors that multiply int16 the widening, and take twice the flash."""
    widened = target.family == "dsp" and kernel.compute in ("conv", "pointwise")
    return decide(WEIGHT_BYTES, [1, 2] if widened else [1], 1)


def repacked(call: Call, target: Target, chosen: Mapping[str, int]) -> Call:
    """The call with its constants as decisions want them."""
    if weight_bytes(call.kernel, target, Decide(chosen)) == 1:
        return call
    index = next(i for i, o in enumerate(call.kernel.operands) if o.key == "w")
    packed = call.args[index]
    assert isinstance(packed, np.ndarray), "weights are constants"
    words: NDArray[np.int16] = packed.reshape(-1, len(WORDS))[:, WORDS].astype(np.int16).reshape(-1)
    operands, args = list(call.kernel.operands), list(call.args)
    operands[index] = replace(operands[index], view=View(words.shape, dense_strides(words.shape), "int16"))
    args[index] = words
    return replace(call, kernel=replace(call.kernel, operands=tuple(operands)), args=args)


def scheduled_decisions(chosen: Mapping[str, int]) -> dict[str, int]:
    """Those that are left to a kernel's schedule."""
    return {name: value for name, value in chosen.items() if name != WEIGHT_BYTES}
