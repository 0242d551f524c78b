"""The instruction set: nine operations in fixed words of 64 bytes, their assembler text, and what they touch.

A word is little-endian: operation (u8), form (u8), layer (u16), then 15 int32 operands, those not used being 0. Each
operation belongs to a unit; a unit executes its instructions in order, and units run side by side. ``sync`` lets a unit
wait until other units have finished a number of instructions since the program began: these counts are the tokens.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qcc.errors import ArtifactError

WORD = struct.Struct("<BBH15i")
UNITS = ("load", "weight", "matrix", "vector", "store")

WINDOW = ("height", "width", "row_stride", "pixel_stride", "kernel_h", "kernel_w", "stride_h", "stride_w",
          "dilation_h", "dilation_w", "pad_top", "pad_left", "zero_point", "weight_zero")  # fmt: skip
REQUANT = ("shift", "zero_point", "low", "high", "residual_multiplier", "residual_zero", "fraction", "table",
           "residual_row", "residual_pixel", "rounding")  # fmt: skip
HALF_UP, DOUBLE, DIVIDE = 0, 1, 2
"""Values of ``rounding``: qcc's own; TFLite's, with a shift for each multiplier; TFLite's mean, divided by entries."""
SUM = ("multiplier_a", "multiplier_b", "multiplier_out", "shift_a", "shift_b", "shift_out", "sign", "zero_a", "zero_b",
       "zero_point", "low", "high")  # fmt: skip
BINARY = ("multiplier_a", "multiplier_b", "zero_a", "zero_b", "shift", "zero_point", "low", "high")
COPY = ("src", "dst", "n0", "n1", "n2", "n3", "s0", "s1", "s2", "s3", "d0", "d1", "d2", "d3")
GATHER = ("src", "dst", "rows", "columns", "row", "column")
GATHERS = {"gather_dram": "dram", "gather_act": "act"}
"""Forms of loadw that read activations, and from where."""
BLOCK = ("x", "w", "acc", "rows", "columns", "channels", "outputs")
ELEMENTS = ("a", "b", "out", "n0", "n1", "n2", "a0", "a1", "a2", "b0", "b1", "b2", "o0", "o1", "o2")


@dataclass(frozen=True)
class Operation:
    """One operation: its unit ("" where the form says it), the operands of each form, and its meaning."""

    unit: str
    forms: Mapping[str, tuple[str, ...]]
    meaning: str


OPERATIONS: dict[str, Operation] = {
    "configure": Operation("", {"window": WINDOW, "pool": WINDOW, "requant": REQUANT, "binary": BINARY,
                                   "sum": SUM}, """
        Set a unit's registers: the windows of matmul and depthwise (window, matrix unit) or of pools (pool, vector
        unit), the scaling of requantize and pools (requant), of add, mul and prelu (binary) or of add_double (sum).
        Window taps outside height x width read the zero point. ``table`` is a parameter address, or -1. ``rounding`` is
        0 for half up, 1 for TFLite's double rounding, 2 for TFLite's mean (entries are divisors)."""),
    "load": Operation("load", dict.fromkeys(("dram", "act", "fill"), COPY), """
        Copy n0 x n1 x n2 x n3 bytes with strides s from DRAM or activation memory to strides d in activation memory.
        With fill, every byte becomes ``src`` (zero-point padding)."""),
    "loadw": Operation("weight", dict.fromkeys(("weight", "param", "cache", "cached_weight", "cached_param"),
                                               ("src", "dst", "bytes")) | dict.fromkeys(GATHERS, GATHER), """
        Copy bytes from DRAM to the weight memory, the parameter memory or the cache, or from the cache to the weight
        or parameter memory. The gathering forms copy rows x columns activations with strides row and column from DRAM
        or activation memory to the weight memory: the second operand of a product of two activations."""),
    "matmul": Operation("matrix", dict.fromkeys(("write", "accumulate"), BLOCK), """
        acc[rows * columns, outputs] = (or +=) the sum over window taps and channels of (x - zero_point) *
        (w - weight_zero); weights are [kernel_h * kernel_w * channels, outputs]. x is the window's first pixel inside
        the image and the first of its channels."""),
    "depthwise": Operation("matrix", {"write": (*BLOCK, "multiplier")}, """
        acc[rows * columns, outputs] = the sum over window taps of (x - zero_point) * w, output o reading channel
        o / multiplier; weights are [kernel_h * kernel_w, outputs]."""),
    "requantize": Operation("vector", dict.fromkeys(("plain", "residual"),
                            ("acc", "param", "out", "rows", "columns", "outputs", "row", "pixel", "residual")), """
        out[rows, columns, outputs] (strides row, pixel, 1) = clamp(requantize(acc + bias) [+ residual] + zero_point),
        then the table if there is one; ``param`` holds int32 bias[outputs] and int32 multiplier[outputs], with double
        rounding also int32 shift[outputs]."""),
    "elementwise": Operation("vector", dict.fromkeys(
        ("add", "mul", "max", "min", "table", "prelu", "max_pool", "avg_pool", "softmax", "add_double",
         "softmax_double"), ELEMENTS), """
        n0 x n1 x n2 elements with strides a, b, o. Binary forms read two tensors; table, prelu, avg_pool and softmax
        read int8 or int32 entries of the parameter memory at b (with double rounding a multiplier and its shift). The
        double forms are TFLite's. Pools follow the pool window over a; the rows of a
        softmax are n2 long."""),
    "store": Operation("store", {"dram": COPY}, """
        Copy n0 x n1 x n2 x n3 bytes with strides s in activation memory to strides d in DRAM."""),
    "sync": Operation("", dict.fromkeys(UNITS, UNITS), """
        The unit waits until every other unit has finished as many instructions as the operand says."""),
}  # fmt: skip
CODES = {name: code for code, name in enumerate(OPERATIONS, 1)}
NAMES = {code: name for name, code in CODES.items()}
_CONFIGURED = {"window": "matrix", "pool": "vector", "requant": "vector", "binary": "vector", "sum": "vector"}
TWO_TENSORS = ("add", "mul", "max", "min", "add_double")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One word; ``args`` in the order of the form's operands; ``layer`` is the node it belongs to, for reports."""

    op: str
    form: str
    args: tuple[int, ...]
    layer: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the operands."""
        return OPERATIONS[self.op].forms[self.form]

    @property
    def operands(self) -> dict[str, int]:
        """Operands by name."""
        return dict(zip(self.names, self.args, strict=True))

    @property
    def unit(self) -> str:
        """The unit that executes it."""
        if self.op == "configure":
            return _CONFIGURED[self.form]
        return self.form if self.op == "sync" else OPERATIONS[self.op].unit

    def __str__(self) -> str:
        """One line of assembler."""
        operands = " ".join(f"{k}={v}" for k, v in zip(self.names, self.args, strict=True))
        return f"{self.op}.{self.form} {operands} ; {self.layer}"


def make(op: str, form: str, layer: int = 0, /, **operands: int) -> Instruction:
    """An instruction from operands by name; those left out are 0."""
    names = OPERATIONS[op].forms[form]
    unknown = operands.keys() - set(names)
    assert not unknown, f"{op}.{form} has no operand {unknown}"
    return Instruction(op, form, tuple(int(operands.get(name, 0)) for name in names), layer)


def encode(program: Iterable[Instruction]) -> bytes:
    """Words, one after the other."""
    parts = []
    for ins in program:
        form = list(OPERATIONS[ins.op].forms).index(ins.form)
        parts.append(WORD.pack(CODES[ins.op], form, ins.layer, *ins.args, *[0] * (15 - len(ins.args))))
    return b"".join(parts)


def decode(data: bytes) -> list[Instruction]:
    """Inverse of ``encode``; raises ArtifactError on a word that is no instruction."""
    if len(data) % WORD.size:
        raise ArtifactError(f"{len(data)} bytes are not a whole number of {WORD.size}-byte words", hint="compile again")
    found = []
    for number, (code, form, layer, *args) in enumerate(WORD.iter_unpack(data)):
        where = f"instruction {number}"
        if code not in NAMES:
            raise ArtifactError(f"there is no operation {code}", where=where, hint="compile again")
        forms = list(OPERATIONS[NAMES[code]].forms)
        if form >= len(forms):
            raise ArtifactError(f"{NAMES[code]} has no form {form}", where=where, hint="compile again")
        used = len(OPERATIONS[NAMES[code]].forms[forms[form]])
        if any(args[used:]):
            raise ArtifactError(f"{NAMES[code]} takes {used} operands, but more are not 0", where=where,
                                hint="compile again")
        found.append(Instruction(NAMES[code], forms[form], tuple(args[:used]), layer))
    return found


def disassemble(program: Iterable[Instruction]) -> str:
    """Assembler text, one instruction a line."""
    return "".join(f"{ins}\n" for ins in program)


_LINE = re.compile(r"(\w+)\.(\w+)((?: \w+=-?\d+)*) ; (\d+)")


def assemble(text: str) -> list[Instruction]:
    """Inverse of ``disassemble``; raises ArtifactError."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line.strip())
        op, form = (match[1], match[2]) if match else ("", "")
        if match is None or op not in OPERATIONS or form not in OPERATIONS[op].forms:
            raise ArtifactError(f"not an instruction: {line.strip()!r}", where=f"line {number}",
                                hint="the form is 'operation.form name=value … ; layer'")
        pairs = dict(part.split("=") for part in match[3].split())
        names = OPERATIONS[op].forms[form]
        if set(pairs) != set(names):
            raise ArtifactError(f"{op}.{form} wants {', '.join(names)}", where=f"line {number}", hint="give each once")
        found.append(Instruction(op, form, tuple(int(pairs[n]) for n in names), int(match[4])))
    return found


# ---- what an instruction touches --------------------------------------------------------------------------------

Span = tuple[str, int, int, bool]
"""Memory, first byte, end, whether it is written: an interval that holds every byte touched."""


class Registers:
    """The registers of ``configure``, by form."""

    def __init__(self) -> None:
        """All 0."""
        self.sets = {form: dict.fromkeys(names, 0) for form, names in OPERATIONS["configure"].forms.items()}

    def apply(self, ins: Instruction) -> None:
        """Execute a configure."""
        self.sets[ins.form] = ins.operands


def reach(address: int, extents: Sequence[int], strides: Sequence[int], size: int = 1) -> tuple[int, int]:
    """First byte and end of a strided block (of ``size``-byte elements)."""
    ends = [(n - 1) * s for n, s in zip(extents, strides, strict=True)]
    return address + sum(e for e in ends if e < 0), address + sum(e for e in ends if e > 0) + size


def window_span(address: int, window: Mapping[str, int], rows: int, columns: int, channels: int) -> tuple[int, int]:
    """First byte and end of what ``rows`` x ``columns`` windows read; empty where all of it is padding."""
    r = window
    bottom = min(r["height"], (rows - 1) * r["stride_h"] - r["pad_top"] + (r["kernel_h"] - 1) * r["dilation_h"] + 1)
    right = min(r["width"], (columns - 1) * r["stride_w"] - r["pad_left"] + (r["kernel_w"] - 1) * r["dilation_w"] + 1)
    top, left = max(0, -r["pad_top"]), max(0, -r["pad_left"])
    if bottom <= top or right <= left:
        return address, address
    return reach(address + top * r["row_stride"] + left * r["pixel_stride"], (bottom - top, right - left, channels),
                 (r["row_stride"], r["pixel_stride"], 1))  # fmt: skip


def touches(ins: Instruction, registers: Registers) -> list[Span]:
    """Every interval of memory that an instruction reads or writes."""
    o = ins.operands
    if ins.op in ("load", "store"):
        extents = [o[f"n{i}"] for i in range(4)]
        source = reach(o["src"], extents, [o[f"s{i}"] for i in range(4)])
        target = reach(o["dst"], extents, [o[f"d{i}"] for i in range(4)])
        if ins.op == "store":
            return [("act", *source, False), ("dram", *target, True)]
        read: list[Span] = [] if ins.form == "fill" else [(ins.form, *source, False)]
        return [*read, ("act", *target, True)]
    if ins.op == "loadw" and ins.form in GATHERS:
        source = reach(o["src"], (o["rows"], o["columns"]), (o["row"], o["column"]))
        return [(GATHERS[ins.form], *source, False), ("weight", o["dst"], o["dst"] + o["rows"] * o["columns"], True)]
    if ins.op == "loadw":
        source_memory = "cache" if ins.form.startswith("cached_") else "dram"
        return [(source_memory, o["src"], o["src"] + o["bytes"], False),
                (ins.form.removeprefix("cached_"), o["dst"], o["dst"] + o["bytes"], True)]  # fmt: skip
    if ins.op in ("matmul", "depthwise"):
        return _matrix_spans(ins.op, o, registers.sets["window"], ins.form == "accumulate")
    if ins.op == "requantize":
        return _requantize_spans(o, registers.sets["requant"], ins.form == "residual")
    if ins.op == "elementwise":
        return _elementwise_spans(ins.form, o, registers)
    return []


def _matrix_spans(op: str, o: Mapping[str, int], window: Mapping[str, int], accumulate: bool) -> list[Span]:
    depthwise = op == "depthwise"
    channels = -(-o["outputs"] // max(o["multiplier"], 1)) if depthwise else o["channels"]
    depth = window["kernel_h"] * window["kernel_w"] * (1 if depthwise else channels)
    spans: list[Span] = [
        ("act", *window_span(o["x"], window, o["rows"], o["columns"], channels), False),
        ("weight", o["w"], o["w"] + depth * o["outputs"], False),
    ]
    sums = (o["acc"], o["acc"] + 4 * o["rows"] * o["columns"] * o["outputs"])
    return [*spans, ("acc", *sums, True)] + ([("acc", *sums, False)] if accumulate else [])


def _requantize_spans(o: Mapping[str, int], requant: Mapping[str, int], residual: bool) -> list[Span]:
    extents = (o["rows"], o["columns"], o["outputs"])
    spans: list[Span] = [
        ("acc", o["acc"], o["acc"] + 4 * o["rows"] * o["columns"] * o["outputs"], False),
        ("param", o["param"], o["param"] + (12 if requant["rounding"] == DOUBLE else 8) * o["outputs"], False),
        ("act", *reach(o["out"], extents, (o["row"], o["pixel"], 1)), True),
    ]
    if requant["table"] >= 0:
        spans.append(("param", requant["table"], requant["table"] + 256, False))
    if residual:
        strides = (requant["residual_row"], requant["residual_pixel"], 1)
        spans.append(("act", *reach(o["residual"], extents, strides), False))
    return spans


def _elementwise_spans(form: str, o: Mapping[str, int], registers: Registers) -> list[Span]:
    extents = (o["n0"], o["n1"], o["n2"])
    b_strides = (o["b0"], o["b1"], o["b2"])
    spans: list[Span] = [("act", *reach(o["out"], extents, (o["o0"], o["o1"], o["o2"])), True)]
    if form.endswith("_pool"):
        window = registers.sets["pool"]
        spans.append(("act", *window_span(o["a"], window, *extents), False))
    else:
        spans.append(("act", *reach(o["a"], extents, (o["a0"], o["a1"], o["a2"])), False))
    if form in TWO_TENSORS:
        spans.append(("act", *reach(o["b"], extents, b_strides), False))
    elif form in ("prelu", "avg_pool"):
        size = 8 if form == "avg_pool" and registers.sets["requant"]["rounding"] == DOUBLE else 4
        spans.append(("param", *reach(o["b"], extents, [4 * s for s in b_strides], size), False))
    elif form in ("table", "softmax", "softmax_double"):
        spans.append(("param", o["b"], o["b"] + (256 if form == "table" else 1024), False))
    return spans
