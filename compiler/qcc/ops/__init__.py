"""The operators, by name. A new op is one class and its line here."""

from qcc.ops.base import IllegalNode, Op
from qcc.ops.conv2d import Conv2d

OPS: dict[str, Op] = {op.name: op for op in (Conv2d(),)}

__all__ = ["OPS", "IllegalNode", "Op"]
