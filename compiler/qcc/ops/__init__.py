"""The operators. A new one is a file here and its line in ``OPS``."""

from qcc.ops.argmax import ArgMax
from qcc.ops.base import IllegalNode, Op
from qcc.ops.batch_norm import BatchNorm
from qcc.ops.binary import Add, Maximum, Minimum, Mul, Sub
from qcc.ops.concat import Concat
from qcc.ops.conv2d import Conv2d
from qcc.ops.conv_transpose2d import ConvTranspose2d
from qcc.ops.dense import Dense
from qcc.ops.dynamic import DynamicQuantize, DynamicSteps
from qcc.ops.edges import Dequantize, Quantize, Recentre
from qcc.ops.expand import Expand
from qcc.ops.fake_quant import FakeQuant
from qcc.ops.matmul import MatMul
from qcc.ops.pad import Pad
from qcc.ops.pointwise import Lut, Pointwise
from qcc.ops.pool import AvgPool, MaxPool
from qcc.ops.prelu import PRelu
from qcc.ops.reduce import ReduceMax, ReduceMean, ReduceSum
from qcc.ops.reshape import Reshape
from qcc.ops.resize import ResizeBilinear
from qcc.ops.slice import Slice
from qcc.ops.softmax import Softmax
from qcc.ops.take import Take
from qcc.ops.transpose import Transpose

_ALL: tuple[Op, ...] = (
    Conv2d(), ConvTranspose2d(), Dense(), MatMul(), BatchNorm(),
    Add(), Sub(), Mul(), Maximum(), Minimum(),
    Pointwise(), Lut(), PRelu(), Softmax(),
    MaxPool(), AvgPool(), ReduceMean(), ReduceSum(), ReduceMax(), ArgMax(),
    Concat(), Slice(), Pad(), Reshape(), Transpose(), Expand(), Take(), ResizeBilinear(),
    FakeQuant(), Quantize(), Dequantize(), Recentre(), DynamicSteps(), DynamicQuantize(),
)  # fmt: skip

OPS: dict[str, Op] = {op.name: op for op in _ALL}
"""Every operator by name."""

__all__ = ["OPS", "IllegalNode", "Op"]
