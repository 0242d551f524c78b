"""What an importer function sees of one TFLite operator, and the registry of these functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import numerics_tflite
from qcc.errors import ModelError
from qcc.frontend.refused import MAX_TAKEN, Refused, registry, result_type
from qcc.frontend.tflite_file import File, Operator, Tensor, reading
from qcc.ir.graph import Attr, Graph, Node, TensorType
from qcc.numerics import INT8_MAX, INT8_MIN, SMALLEST_STEP, QParams
from qcc.numerics_tflite import TFLITE

QUANTIZED = ("int8", "uint8")
LIMITS = {0: None, 1: (0.0, np.inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
"""Real limits of the fused activation functions that only clip (none, RELU, RELU_N1_TO_1, RELU6)."""


@dataclass
class Scope:
    """The tensors of a file under import; ``values`` maps those that are computed or were needed to graph values.

    A uint8 tensor is an int8 value: the same bytes with the highest bit turned over, the zero point less 128.
    """

    file: File
    graph: Graph
    values: dict[int, str] = field(default_factory=dict)
    known: dict[int, NDArray[Any]] = field(default_factory=dict)
    """Float32 contents of tensors that a DEQUANTIZE of a constant produced."""

    def name(self, tensor: Tensor) -> str:
        """An unused value name like the tensor's."""
        return self.graph.fresh(tensor.name)


def qparams(tensor: Tensor) -> QParams:
    """Parameters of a quantized activation as an int8 value; raises ``Refused`` where there are none."""
    q = tensor.quantization
    if q is None or tensor.dtype not in QUANTIZED:
        raise Refused(f"tensor '{tensor.name}' ({tensor.dtype}) has no quantization parameters",
                      "convert the model with full integer quantization")
    if len(q.scales) != 1:
        raise Refused(f"tensor '{tensor.name}' has a scale for each channel", "only weights may have several scales")
    if q.scales[0] < SMALLEST_STEP:
        raise ModelError(f"tensor '{tensor.name}' has the scale {q.scales[0]:g}, which has no reciprocal in float32",
                         hint="convert the model again")
    zero_point = q.zero_points[0] - (128 if tensor.dtype == "uint8" else 0)
    if not INT8_MIN <= zero_point <= INT8_MAX:
        raise ModelError(f"tensor '{tensor.name}' has the zero point {q.zero_points[0]}, which leaves {tensor.dtype}",
                         hint="convert the model again")
    return QParams(q.scales[0], zero_point)


def recentred(array: NDArray[Any]) -> NDArray[np.int8]:
    """int8 as it is; uint8 less 128."""
    if array.dtype == np.uint8:
        return np.asarray((array ^ np.uint8(0x80)).view(np.int8))
    return np.asarray(array, np.int8)


class TfliteNode:
    """One operator: its options, its operands by position, and ``emit`` for the nodes that replace it."""

    def __init__(self, operator: Operator, scope: Scope) -> None:
        """``scope`` knows all tensors of the file."""
        self.op, self.scope, self.operator = operator.name, scope, operator
        out = scope.file.tensors[operator.outputs[0]]
        self.name = out.name
        self.source = f"{self.op} '{self.name}'"
        self.emitted: list[str] = []

    # Operands

    def has(self, index: int) -> bool:
        """Whether an optional operand is there."""
        return index < len(self.operator.inputs) and self.operator.inputs[index] >= 0

    def tensor(self, index: int) -> Tensor:
        """An operand as the file describes it."""
        if not self.has(index):
            raise Refused(f"its input {index} is missing", "check its inputs")
        return self.scope.file.tensors[self.operator.inputs[index]]

    def result(self, index: int = 0) -> Tensor:
        """A result as the file describes it."""
        return self.scope.file.tensors[self.operator.outputs[index]]

    @property
    def integer(self) -> bool:
        """Whether the first result is quantized."""
        return self.result().dtype in QUANTIZED

    @property
    def offset(self) -> int:
        """What makes an int8 value the number that TFLite's kernel sees: 128 for a uint8 tensor."""
        return 128 if self.result().dtype == "uint8" else 0

    def is_known(self, index: int) -> bool:
        """Whether an operand is there and constant."""
        return self.has(index) and (self.tensor(index).data is not None or self.tensor(index).index in self.scope.known)

    def array(self, index: int, what: str) -> NDArray[Any]:
        """Contents of an operand that must be constant, as the file holds them."""
        if not self.is_known(index):
            raise Refused(f"its {what} is not constant", f"convert the model with constant {what}")
        data = self.tensor(index).data
        return self.scope.known[self.tensor(index).index] if data is None else data

    def integers(self, index: int, what: str) -> tuple[int, ...]:
        """Contents of a constant list of integers."""
        array = self.array(index, what)
        if array.dtype.kind not in "iu":
            raise Refused(f"its {what} is of type {array.dtype}, not an integer")
        return tuple(int(v) for v in array.reshape(-1))

    def reals(self, index: int, what: str) -> NDArray[np.float32]:
        """Contents of a constant as real numbers; quantized weights are dequantized."""
        array, q = self.array(index, what), self.tensor(index).quantization
        if array.dtype.kind == "f":
            real = array.astype(np.float32)
        elif q is not None:
            shape = [-1 if len(q.scales) > 1 and i == q.axis else 1 for i in range(array.ndim)]
            scales, zeros = (np.asarray(v).reshape(shape) for v in (q.scales, q.zero_points))
            real = ((array.astype(np.float64) - zeros) * scales).astype(np.float32)
        else:
            raise Refused(f"its {what} is of type {array.dtype} without quantization parameters")
        if not np.all(np.isfinite(real)):
            raise ModelError(f"tensor '{self.tensor(index).name}' holds NaN or infinity",
                             hint="convert the model again from finite weights")
        return np.ascontiguousarray(real)

    def value(self, index: int) -> str:
        """Graph value of an operand; a constant becomes a float32 one, or an int8 one in an integer operator."""
        tensor = self.tensor(index)
        if tensor.index not in self.scope.values:
            if not self.is_known(index):
                raise Refused(f"its input '{tensor.name}' has no contents", "check its inputs")
            what = f"input '{tensor.name}'"
            if self.integer:
                array, q = recentred(self.array(index, what)), qparams(tensor)
                self.scope.values[tensor.index] = self.constant(tensor.name, array, q)
            else:
                self.scope.values[tensor.index] = self.constant(tensor.name, self.reals(index, what))
        value = self.scope.values[tensor.index]
        dtype = self.scope.graph.types[value].dtype
        if dtype not in ("float32", "int8"):
            raise Refused(f"its input '{tensor.name}' is of type {dtype}", "only float32, int8 and uint8 are computed")
        return value

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of an operand."""
        tensor = self.tensor(index)
        value = self.scope.values.get(tensor.index)
        return tensor.shape if value is None else self.scope.graph.types[value].shape

    def q(self, index: int) -> QParams:
        """Parameters of an operand as an int8 value."""
        return qparams(self.tensor(index))

    def out_q(self) -> QParams:
        """Parameters of the first result as an int8 value."""
        return qparams(self.result())

    # Options

    def option(self, name: str) -> Any:
        """A scalar option by the reader's method name."""
        if not hasattr(self.operator.options, name):
            raise ModelError(f"is corrupt: {self.source} lacks the option {name}", hint="convert the model again")
        with reading(f"option {name} of {self.source}"):
            return getattr(self.operator.options, name)()

    def limits(self) -> tuple[float, float] | None:
        """Real limits of the fused activation function."""
        kind = self.option("FusedActivationFunction")
        if kind not in LIMITS:
            raise Refused(f"fused activation function {kind} is not supported",
                          "use RELU, RELU6 or a separate operator")
        return LIMITS[kind]

    def clamp(self) -> tuple[int, int]:
        """Limits of the fused activation function in steps of the result."""
        return int8_limits(self.limits(), self.out_q())

    # Results

    def constant(self, hint: str, array: NDArray[Any], q: QParams | None = None) -> str:
        """Add a constant (named ``hint`` where that is free)."""
        return self.scope.graph.add_constant(hint, array, q)

    def emit(self, op: str, inputs: Mapping[str, str], q: QParams | None = None, /, **attrs: Attr) -> str:
        """Append a node; returns its value. An int8 result has the parameters ``q``, else those of the first result.

        An ill-formed node (``Op.infer``) is refused.
        """
        graph = self.scope.graph
        node = Node(graph.fresh(f"{self.name}.{op}"), op, dict(inputs), attrs, self.source)
        kind = result_type(graph, node, "check the shapes and options of this operator")
        if kind.dtype == "int8":
            kind = TensorType(kind.shape, kind.dtype, q or self.out_q())
        graph.nodes.append(node)
        graph.types[node.output] = kind
        self.emitted.append(node.output)
        return node.output

    def tflite(self, op: str, inputs: Mapping[str, str], **attrs: Attr) -> str:
        """Append an integer node with TFLite's rounding."""
        return self.emit(op, inputs, rounding=TFLITE, **attrs)

    def move(self, op: str, inputs: Mapping[str, str], **attrs: Attr) -> str:
        """Append a node that only moves data: an int8 result keeps the parameters of the first input."""
        return self.emit(op, inputs, self.scope.graph.types[next(iter(inputs.values()))].qparams, **attrs)

    def look_up(self, x: str, table: NDArray[np.int8]) -> str:
        """``x`` through a table; x itself where the table changes nothing."""
        q, out = self.scope.graph.types[x].qparams, self.out_q()
        if q == out and np.array_equal(table, np.arange(INT8_MIN, INT8_MAX + 1)):
            return x
        return self.emit("lut", {"x": x, "table": self.constant(self.name + ".table", table)})

    def rescaled(self, index: int) -> str:
        """An int8 operand in the parameters of the result."""
        q, out = self.q(index), self.out_q()
        return self.look_up(self.value(index), numerics_tflite.rescale_table(q, out, q.step / out.step))

    def same_parameters(self, *indices: int) -> None:
        """Refuse unless these operands have the parameters of the result, as TFLite demands of this operator."""
        for index in indices:
            if self.integer and self.q(index) != self.out_q():
                raise Refused(f"input '{self.tensor(index).name}' and its result differ in scale or zero point",
                              "convert the model again with a current converter")

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """``x`` with another shape."""
        same = tuple(shape) == self.scope.graph.types[x].shape
        return x if same else self.move("reshape", {"x": x}, shape=tuple(shape))

    def transpose(self, x: str, perm: Sequence[int]) -> str:
        """``x`` with its axes permuted."""
        return x if tuple(perm) == tuple(range(len(perm))) else self.move("transpose", {"x": x}, perm=tuple(perm))

    def select(self, x: str, axis: int, positions: range) -> str:
        """Evenly spaced elements along one axis: a slice, or a take where they run backwards."""
        shape = self.scope.graph.types[x].shape
        if positions == range(shape[axis]):
            return x
        if not positions or min(positions) < 0 or max(positions) >= shape[axis]:
            raise Refused(f"its positions leave axis {axis} of {list(shape)}, or there are none")
        if positions.step < 0 and len(positions) > 1:
            if len(positions) > MAX_TAKEN:
                raise Refused(f"it picks {len(positions)} elements one by one", f"at most {MAX_TAKEN} are possible")
            return self.move("take", {"x": x}, axis=axis, indices=tuple(positions))
        begin, end, step = [0] * len(shape), list(shape), [1] * len(shape)
        begin[axis], end[axis], step[axis] = positions[0], positions[-1] + 1, max(positions.step, 1)
        return self.move("slice", {"x": x}, begin=tuple(begin), end=tuple(end), step=tuple(step))


def int8_limits(limits: tuple[float, float] | None, q: QParams) -> tuple[int, int]:
    """Real limits in steps of ``q``, within int8."""
    low, high = limits or (-np.inf, np.inf)
    bottom = INT8_MIN if np.isinf(low) else max(INT8_MIN, numerics_tflite.quantized(low, q))
    top = INT8_MAX if np.isinf(high) else min(INT8_MAX, numerics_tflite.quantized(high, q))
    return min(bottom, INT8_MAX), max(top, bottom)


Importer = Callable[[TfliteNode], "str | list[str] | None"]
IMPORTERS: dict[str, Importer] = {}
"""By operator: emits the nodes that replace it and returns the values of its results (None: it became a constant)."""

importer = registry(IMPORTERS)
"""Register the decorated function for these operators."""
