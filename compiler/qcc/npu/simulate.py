"""Executes a program, instruction by instruction, to the byte; every broken rule of the machine is an error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from qcc import numerics
from qcc import numerics_tflite as tflite
from qcc.errors import QccError
from qcc.npu import isa
from qcc.npu.isa import Instruction
from qcc.npu.ordering import INDEX, Clocks, Tracker
from qcc.npu.program import Program, memory_sizes, tracked

EXTENTS = ("n0", "n1", "n2", "n3", "rows", "columns", "channels", "outputs", "multiplier", "bytes")
ZEROS = ("zero_point", "weight_zero", "zero_a", "zero_b", "residual_zero")
ROOM = 2**28
"""Bytes of an image with its padding, and of all its windows, that the sequencer can address."""

I8 = NDArray[np.int8]
I64 = NDArray[np.int64]
Operands = Mapping[str, int]


class MachineError(QccError):
    """An instruction that the machine cannot execute as it stands."""

    def __init__(self, what: str, number: int, ins: Instruction) -> None:
        super().__init__(what, where=f"instruction {number} ({ins})", hint="the program is damaged: compile it again")


class Machine:
    """Memories, registers and clocks. ``setup`` has run once the machine exists."""

    def __init__(self, program: Program) -> None:
        """Power on; raises MachineError."""
        self.program = program
        self.sizes = memory_sizes(program)
        self.memory = {name: np.zeros(size, np.int8) for name, size in self.sizes.items()}
        self.memory["dram"][program.data_bytes :] = np.frombuffer(program.constants, np.int8)
        self.registers = isa.Registers()
        self.check = True
        for number, ins in enumerate(program.setup):
            if ins.op != "loadw" or ins.form != "cache":
                raise MachineError("the setup only fills the cache", number, ins)
            self._bounds(number, ins, isa.touches(ins, self.registers))
            self._loadw(ins, ins.operands)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, I8]:
        """Flat int8 outputs by name from int8 inputs by name; raises MachineError.

        Races do not depend on data, so they are looked for in the first run only.
        """
        dram = self.memory["dram"]
        for port in self.program.inputs:
            dram[port.address : port.address + port.bytes] = inputs[port.name].reshape(-1).view(np.int8)
        clocks, tracker = Clocks(), Tracker(tracked(self.program.description, self.program.data_bytes))
        for number, ins in enumerate(self.program.body):
            if ins.op == "configure":
                self._scaling_rules(number, ins)
                self.registers.apply(ins)
            spans = isa.touches(ins, self.registers)
            self._bounds(number, ins, spans)
            if self.check:
                self._order(number, ins, spans, clocks, tracker)
            self._execute(number, ins)
        self.check = False
        return {p.name: dram[p.address : p.address + p.bytes].copy() for p in self.program.outputs}

    # ---- rules ---------------------------------------------------------------------------------------------------

    def _bounds(self, number: int, ins: Instruction, spans: Sequence[isa.Span]) -> None:
        counts = [v for k, v in ins.operands.items() if k in EXTENTS]
        if any(v < 1 for v in counts):
            raise MachineError("an extent is below 1", number, ins)
        for name, low, high, write in spans:
            size = self.sizes[name]
            if high > low and (low < 0 or high > size):
                what = f"{'writes' if write else 'reads'} bytes {low:,} to {high:,} of {name} memory"
                raise MachineError(f"{what}, which has {size:,}", number, ins)
            if write and name == "dram" and high > self.program.data_bytes:
                raise MachineError("writes over the constants in DRAM", number, ins)
            if write and ins.op not in ("matmul", "depthwise") and math.prod(counts) > size:
                raise MachineError(f"writes more elements than {name} memory has bytes", number, ins)

    def _order(self, number: int, ins: Instruction, spans: list[isa.Span], clocks: Clocks, tracker: Tracker) -> None:
        unit = INDEX[ins.unit]
        if ins.op == "sync":
            for other, count in enumerate(ins.args):
                if count > clocks.counts[other]:
                    what = f"waits for {count} instructions of the {isa.UNITS[other]} unit, of which only "
                    raise MachineError(what + f"{clocks.counts[other]} precede it: it would wait forever", number, ins)
            clocks.wait(unit, ins.args)
        races = tracker.races(unit, spans, clocks.now[unit])
        if races:
            first = races[0]
            kind = "bank conflict" if "bank" in first.reason else "missing synchronization"
            what = f"{kind}: instruction {first.number} of the {isa.UNITS[first.unit]} unit uses {first.reason}"
            raise MachineError(what + " and may still run", number, ins)
        tracker.record(unit, clocks.issue(unit), spans)

    # ---- execution -----------------------------------------------------------------------------------------------

    def _execute(self, number: int, ins: Instruction) -> None:
        o = ins.operands
        if ins.op in ("load", "store"):
            self._copy(ins, o)
        elif ins.op == "loadw":
            self._loadw(ins, o)
        elif ins.op in ("matmul", "depthwise"):
            self._window_rules(number, ins, "window")
            self._products(number, ins, o)
        elif ins.op == "requantize":
            self._requantize(ins, o)
        elif ins.op == "elementwise":
            if ins.form.endswith("_pool"):
                self._window_rules(number, ins, "pool")
            self._elementwise(number, ins, o)

    def _view(self, memory: str, address: int, shape: Sequence[int], strides: Sequence[int]) -> I8:
        return as_strided(self.memory[memory][address:], tuple(shape), tuple(strides))

    def _copy(self, ins: Instruction, o: Operands) -> None:
        n, s, d = ([o[f"{k}{i}"] for i in range(4)] for k in "nsd")
        target = self._view("dram" if ins.op == "store" else "act", o["dst"], n, d)
        if ins.form == "fill":
            target[...] = np.int64(o["src"]).astype(np.int8)
            return
        source = self._view("act" if ins.op == "store" else ins.form, o["src"], n, s)
        target[...] = source.copy() if ins.form == "act" else source

    def _loadw(self, ins: Instruction, o: Operands) -> None:
        if ins.form in isa.GATHERS:
            shape = (o["rows"], o["columns"])
            found = self._view(isa.GATHERS[ins.form], o["src"], shape, (o["row"], o["column"]))
            self._view("weight", o["dst"], shape, (o["columns"], 1))[...] = found
            return
        source = self.memory["cache" if ins.form.startswith("cached_") else "dram"]
        target = self.memory[ins.form.removeprefix("cached_")]
        target[o["dst"] : o["dst"] + o["bytes"]] = source[o["src"] : o["src"] + o["bytes"]]

    def _int32(self, memory: str, address: int, count: int) -> NDArray[np.int32]:
        return self.memory[memory][address : address + 4 * count].view(np.int32)

    def _window_rules(self, number: int, ins: Instruction, form: str) -> None:
        r = self.registers.sets[form]
        if min(r[k] for k in isa.WINDOW[4:10]) < 1 or min(r[k] for k in (*isa.WINDOW[:4], *isa.WINDOW[10:12])) < 0:
            raise MachineError("its window registers hold no window", number, ins)
        o = ins.operands
        names = (("rows", "n0"), ("columns", "n1"), ("channels", "n2"))
        rows, columns, depth = (o.get(a, o.get(b, 1)) for a, b in names)
        sides = [(n - 1) * r[f"stride_{axis}"] + (r[f"kernel_{axis}"] - 1) * r[f"dilation_{axis}"] + 1
                 for n, axis in ((rows, "h"), (columns, "w"))]
        taps = rows * columns * r["kernel_h"] * r["kernel_w"]
        if max(math.prod(sides), taps) * max(depth, o.get("outputs", 1)) > ROOM:
            raise MachineError(f"its windows cover more than {ROOM:,} bytes", number, ins)

    @staticmethod
    def _scaling_rules(number: int, ins: Instruction) -> None:
        """Of the registers that a configure sets for requantization."""
        o = ins.operands
        shifts = [o[k] for k in ("shift", "fraction") if k in o] + [31 + o[f"shift_{k}"] for k in ("a", "b", "out")
                                                                    if ins.form == "sum"]
        if any(not 0 <= s <= 62 for s in shifts) or not -128 <= o.get("low", 0) <= o.get("high", 0) <= 127:
            raise MachineError("shifts are 0 to 62, limits are int8 values in order", number, ins)
        if any(not -128 <= o.get(k, 0) <= 127 for k in ZEROS):
            raise MachineError("a zero point is no int8 value", number, ins)

    def _windows(self, form: str, x: int, rows: int, columns: int, channels: int, fill: int) -> I8:
        """View [rows, columns, kernel_h, kernel_w, channels] of the padded image."""
        r = self.registers.sets[form]
        high = (rows - 1) * r["stride_h"] + (r["kernel_h"] - 1) * r["dilation_h"] + 1
        wide = (columns - 1) * r["stride_w"] + (r["kernel_w"] - 1) * r["dilation_w"] + 1
        top, left = r["pad_top"], r["pad_left"]
        h, w = min(r["height"], high - top), min(r["width"], wide - left)
        if top <= 0 and left <= 0 and h == high - top and w == wide - left:
            address = x - top * r["row_stride"] - left * r["pixel_stride"]
            image = self._view("act", address, (high, wide, channels), (r["row_stride"], r["pixel_stride"], 1))
        else:
            image = np.full((high, wide, channels), fill, np.int8)
            if h > 0 and w > 0:
                inside = self._view("act", x, (h, w, channels), (r["row_stride"], r["pixel_stride"], 1))
                image[top : top + h, left : left + w] = inside
        a, b, c = image.strides
        strides = (a * r["stride_h"], b * r["stride_w"], a * r["dilation_h"], b * r["dilation_w"], c)
        return as_strided(image, (rows, columns, r["kernel_h"], r["kernel_w"], channels), strides)

    def _products(self, number: int, ins: Instruction, o: Operands) -> None:
        r = self.registers.sets["window"]
        rows, columns, n = o["rows"], o["columns"], o["outputs"]
        repeat = max(o.get("multiplier", 1), 1)
        channels = -(-n // repeat) if ins.op == "depthwise" else o["channels"]
        view = self._windows("window", o["x"], rows, columns, channels, r["zero_point"])
        taps = r["kernel_h"] * r["kernel_w"]
        depth = taps * (channels if ins.op == "matmul" else 1)
        weights = self.memory["weight"][o["w"] : o["w"] + depth * n].reshape(depth, n)
        dtype = np.float32 if depth * 255 * 255 <= 2**24 else np.float64
        if ins.op == "matmul":
            x = np.subtract(view.reshape(rows * columns, depth), r["zero_point"], dtype=dtype)
            sums = (x @ np.subtract(weights, r["weight_zero"], dtype=dtype)).astype(np.int64)
        else:
            wide = np.zeros((rows, columns, n), np.int32 if depth < 2**16 else np.int64)
            for tap, (ky, kx) in enumerate(np.ndindex(r["kernel_h"], r["kernel_w"])):
                x = np.subtract(view[:, :, ky, kx], r["zero_point"], dtype=np.int32)
                wide += (x if repeat == 1 else np.repeat(x, repeat, axis=-1)[..., :n]) * weights[tap]
            sums = wide.reshape(rows * columns, n).astype(np.int64)
        target = self._int32("acc", o["acc"], rows * columns * n).reshape(rows * columns, n)
        if ins.form == "accumulate":
            sums += target
        if sums.max() > numerics.INT32_MAX or sums.min() < -numerics.INT32_MAX - 1:
            raise MachineError("an accumulator does not fit 32 bits", number, ins)
        target[...] = sums

    def _requantize(self, ins: Instruction, o: Operands) -> None:
        r = self.registers.sets["requant"]
        shape = (o["rows"], o["columns"], o["outputs"])
        n, double = o["outputs"], r["rounding"] == isa.DOUBLE
        acc = self._int32("acc", o["acc"], int(np.prod(shape))).reshape(shape).astype(np.int64)
        bias, multiplier, *shifts = self._int32("param", o["param"], (3 if double else 2) * n).reshape(-1, n)
        v = _rescale(acc + bias, multiplier, shifts[0] if double else r["shift"], double)
        if ins.form == "residual":
            strides = (r["residual_row"], r["residual_pixel"], 1)
            other = self._view("act", o["residual"], shape, strides).astype(np.int64) - r["residual_zero"]
            v = numerics.rounding_shift(v + other * r["residual_multiplier"], r["fraction"])
        y = numerics.clamp(v + r["zero_point"], r["low"], r["high"])
        if r["table"] >= 0:
            y = self.memory["param"][r["table"] : r["table"] + 256][y.astype(np.int16) + 128]
        self._view("act", o["out"], shape, (o["row"], o["pixel"], 1))[...] = y

    def _elementwise(self, number: int, ins: Instruction, o: Operands) -> None:
        shape = (o["n0"], o["n1"], o["n2"])
        if ins.form.endswith("_pool"):
            r = self.registers.sets["pool"]
            view = self._windows("pool", o["a"], *shape, r["zero_point"])
            y = self._pool(ins.form, view, o, shape, r["zero_point"])
        else:
            a = self._view("act", o["a"], shape, (o["a0"], o["a1"], o["a2"]))
            y = _FORMS[ins.form](self, a, o, shape)
        self._view("act", o["out"], shape, (o["o0"], o["o1"], o["o2"]))[...] = y

    def _entries(self, o: Operands, shape: Sequence[int]) -> NDArray[np.int32]:
        """int32 entries of the parameter memory at b, broadcast."""
        strides = [o[f"b{i}"] for i in range(3)]
        count = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
        entries = np.ascontiguousarray(self._int32("param", o["b"], count))
        return as_strided(entries, tuple(shape), tuple(4 * s for s in strides))

    def _pool(self, form: str, view: I8, o: Operands, shape: Sequence[int], zero: int) -> I8:
        taps = list(np.ndindex(view.shape[2:4]))
        if form == "max_pool":
            y = view[:, :, 0, 0].copy()
            for ky, kx in taps[1:]:
                np.maximum(y, view[:, :, ky, kx], out=y)
            return y
        total = np.zeros(shape, np.int64)
        for ky, kx in taps:
            total += view[:, :, ky, kx]
        r = self.registers.sets["requant"]
        acc, entries = total - len(taps) * zero, self._entries(o, shape)
        if r["rounding"] == isa.DIVIDE:
            mean = tflite.divide_away(acc, np.maximum(entries, 1))
            return numerics.clamp(mean + r["zero_point"], r["low"], r["high"])
        if r["rounding"] == isa.DOUBLE:
            multiplier, shift = self._int32("param", o["b"], 2)
            return numerics.clamp(_rescale(acc, multiplier, shift, True) + r["zero_point"], r["low"], r["high"])
        return self._finish(acc, entries, r)

    @staticmethod
    def _finish(acc: I64, multiplier: Any, r: Operands) -> I8:
        v = numerics.requantize(acc, multiplier, r["shift"])
        return numerics.clamp(v + r["zero_point"], r["low"], r["high"])

    def _second(self, o: Operands, shape: Sequence[int]) -> I8:
        return self._view("act", o["b"], shape, (o["b0"], o["b1"], o["b2"]))

    def _add(self, a: I8, o: Operands, shape: Sequence[int]) -> I8:
        r = self.registers.sets["binary"]
        left, right = (v.astype(np.int64) - z for v, z in ((a, r["zero_a"]), (self._second(o, shape), r["zero_b"])))
        v = numerics.rounding_shift(left * r["multiplier_a"] + right * r["multiplier_b"], r["shift"])
        return numerics.clamp(v + r["zero_point"], r["low"], r["high"])

    def _add_double(self, a: I8, o: Operands, shape: Sequence[int]) -> I8:
        r = self.registers.sets["sum"]
        left, right = (v.astype(np.int64) - z for v, z in ((a, r["zero_a"]), (self._second(o, shape), r["zero_b"])))
        multipliers, shifts = (tuple(r[f"{k}_{i}"] for i in ("a", "b", "out")) for k in ("multiplier", "shift"))
        v = tflite.add(left, right, r["sign"], multipliers, shifts)
        return numerics.clamp(v + r["zero_point"], r["low"], r["high"])

    def _softmax_double(self, a: I8, o: Operands, shape: Sequence[int]) -> I8:
        return tflite.softmax(a, self._int32("param", o["b"], 256))

    def _mul(self, a: I8, o: Operands, shape: Sequence[int]) -> I8:
        r = self.registers.sets["binary"]
        left, right = (v.astype(np.int64) - z for v, z in ((a, r["zero_a"]), (self._second(o, shape), r["zero_b"])))
        return self._finish(left * right, r["multiplier_a"], r)

    def _prelu(self, a: I8, o: Operands, shape: Sequence[int]) -> I8:
        r = self.registers.sets["binary"]
        acc = a.astype(np.int64) - r["zero_a"]
        return self._finish(acc, np.where(acc >= 0, r["multiplier_a"], self._entries(o, shape)), r)

    def _table(self, a: I8, o: Operands, shape: Sequence[int]) -> I8:
        return self.memory["param"][o["b"] : o["b"] + 256][a.astype(np.int16) + 128]

    def _softmax(self, a: I8, o: Operands, shape: Sequence[int]) -> I8:
        return numerics.softmax(a, self._int32("param", o["b"], 256))

    def _max(self, a: I8, o: Operands, shape: Sequence[int]) -> I8:
        return np.maximum(a, self._second(o, shape))

    def _min(self, a: I8, o: Operands, shape: Sequence[int]) -> I8:
        return np.minimum(a, self._second(o, shape))


def _rescale(acc: I64, multiplier: Any, shift: Any, double: bool) -> I64:
    """TFLite's double rounding (accumulators modulo 2^32, shifts that could not be meant limited), or half up."""
    if double:
        return tflite.multiply(tflite.wrap32(acc), multiplier, np.clip(shift, -31, 31))
    return numerics.requantize(acc, multiplier, shift)


_FORMS: dict[str, Callable[[Machine, I8, Operands, Sequence[int]], I8]] = {
    "add": Machine._add, "mul": Machine._mul, "max": Machine._max, "min": Machine._min, "table": Machine._table,
    "prelu": Machine._prelu, "softmax": Machine._softmax, "add_double": Machine._add_double,
    "softmax_double": Machine._softmax_double,
}  # fmt: skip
