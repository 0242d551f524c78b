"""The simulator finds broken rules; damaged files end in clear errors; nodes that do not fit are named."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest

from integer_programs import Builder, random_inputs, random_program
from npu.test_cycles import gemm
from qcc.errors import ArtifactError, QccError, UnsupportedError
from qcc.ir.graph import Graph
from qcc.npu import isa
from qcc.npu.compile import DoesNotFitError, compile_graph
from qcc.npu.description import Description
from qcc.npu.host import build
from qcc.npu.isa import Instruction
from qcc.npu.program import HEADER, Program
from qcc.npu.simulate import Machine, MachineError
from qcc.npu.split import split

MCU = Description.load("ws16-mcu")


def program(graph: Graph) -> Program:
    return compile_graph(split(graph, MCU), MCU)


def image() -> Graph:
    b = Builder("net", 6)
    x = b.input((1, 8, 6, 3))
    y = b.conv(x, 20)
    return b.output(b.max_pool(b.conv(y, 20, residual=y)))


def run(p: Program) -> None:
    Machine(p).run({port.name: np.zeros(port.bytes, np.int8) for port in p.inputs})


def changed(p: Program, op: str, **operands: int) -> Program:
    """A program whose first ``op`` has other operands."""
    body = list(p.body)
    at = next(i for i, ins in enumerate(body) if ins.op == op)
    body[at] = isa.make(op, body[at].form, body[at].layer, **{**body[at].operands, **operands})
    return replace(p, body=body)


def test_words_and_text_round_trip() -> None:
    p = program(image())
    assert {ins.op for ins in p.body} >= {"configure", "load", "loadw", "matmul", "requantize", "elementwise", "sync"}
    assert isa.decode(isa.encode(p.body)) == p.body
    assert isa.assemble(isa.disassemble(p.body)) == p.body
    for op, operation in isa.OPERATIONS.items():
        for form, names in operation.forms.items():
            ins = Instruction(op, form, tuple(range(-1, len(names) - 1)), 7)
            assert isa.decode(isa.encode([ins])) == [ins] == isa.assemble(str(ins))
            assert len(isa.encode([ins])) == 64


@pytest.mark.parametrize("line", ["", "matmul", "matmul.write x=1 ; 0", "jump.far a=1 ; 0", "sync.load load=x ; 0"])
def test_the_assembler_names_the_line(line: str) -> None:
    with pytest.raises(ArtifactError, match="line 1"):
        isa.assemble(line + "\n")


def test_every_missing_sync_is_found() -> None:
    p = program(gemm(64, 40, 300))
    syncs = [i for i, ins in enumerate(p.body) if ins.op == "sync"]
    assert len(syncs) > 3
    for i in syncs:
        neutral = isa.make("sync", p.body[i].form, p.body[i].layer)
        with pytest.raises(MachineError, match=r"^instruction .*: (missing synchronization|bank conflict)"):
            run(replace(p, body=[*p.body[:i], neutral, *p.body[i + 1 :]]))


def test_bank_conflict() -> None:
    p = program(gemm(64, 40, 300))
    loads = [i for i, ins in enumerate(p.body) if ins.op == "loadw" and ins.form == "weight"]
    first, second = (p.body[i].operands for i in loads[:2])
    half = MCU.memory.weight.slot_bytes
    assert {first["dst"] // half, second["dst"] // half} == {0, 1}, "the halves take turns"
    assert first["bytes"] <= half - 128
    body = list(p.body)
    body[loads[1]] = isa.make("loadw", "weight", 0, src=second["src"], dst=first["dst"] + half - 64, bytes=64)
    with pytest.raises(MachineError, match="bank conflict"):
        run(replace(p, body=body))


@pytest.mark.parametrize(("op", "operands", "message"), [
    ("load", {"dst": MCU.memory.act.bytes}, "of act memory, which has"),
    ("load", {"src": -1}, "reads bytes -1"),
    ("loadw", {"bytes": 10**9}, "of dram memory"),
    ("matmul", {"acc": MCU.memory.acc.bytes}, "of acc memory"),
    ("matmul", {"rows": 0}, "an extent is below 1"),
    ("matmul", {"rows": 30000, "columns": 30000}, "memory, which has"),
    ("requantize", {"out": -5}, "of act memory"),
    ("store", {"dst": 10**8}, "of dram memory"),
    ("configure", {"kernel_h": 0}, "no window"),
])  # fmt: skip
def test_a_broken_rule_names_the_instruction(op: str, operands: dict[str, int], message: str) -> None:
    with pytest.raises(MachineError, match=message) as caught:
        run(changed(program(image()), op, **operands))
    assert caught.value.where.startswith("instruction ")


def test_writing_over_constants() -> None:
    p = program(image())
    with pytest.raises(MachineError, match="writes over the constants"):
        run(changed(p, "store", dst=p.data_bytes - 1))


def test_accumulator_overflow() -> None:
    """A matmul that accumulates forever."""
    p = program(gemm(1, 4, 16))
    at = next(i for i, ins in enumerate(p.body) if ins.op == "matmul")
    again = replace(p.body[at], form="accumulate")
    constants = bytearray(p.constants)
    constants[: len(constants)] = bytes([127]) * len(constants)
    machine = Machine(replace(p, constants=bytes(constants), body=[*p.body[: at + 1], *[again] * 50]))
    machine.memory["acc"].view(np.int32)[:] = 2**31 - 10**6
    machine.program.body[at] = again
    with pytest.raises(MachineError, match="an accumulator does not fit 32 bits"):
        machine.run({p.inputs[0].name: np.full(16, 127, np.int8)})


def test_waiting_forever() -> None:
    p = program(image())
    with pytest.raises(MachineError, match="would wait forever"):
        run(changed(p, "sync", store=10**6))


def test_damaged_files() -> None:
    data = program(image()).to_bytes()
    for broken, message in ((b"", "not an accelerator program"), (b"ELF" + data[3:], "not an accelerator program"),
                            (data[:-1], "cut off"), (data[:-1] + b"\x01", "checksum"),
                            (data[:4] + b"\x09" + data[5:], "program format 9")):
        with pytest.raises(ArtifactError, match=message):
            Program.from_bytes(broken)


def test_hostile_files() -> None:
    """Whatever the words and the header hold, the end is a result or a QccError."""
    p = program(image())
    data = p.to_bytes()
    rng = np.random.default_rng(0)
    ends = {"error": 0, "result": 0}
    words = len(data) - isa.WORD.size * len(p.body)
    for _ in range(150):
        payload = bytearray(data[HEADER.size :])
        for _ in range(int(rng.integers(1, 4))):
            low = words - HEADER.size if rng.integers(4) else 0
            at = int(rng.integers(low, len(payload)))
            payload[at] = int(rng.integers(256))
        fields = list(HEADER.unpack_from(data))
        fields[2] = zlib.crc32(bytes(payload))
        try:
            run(Program.from_bytes(HEADER.pack(*fields) + bytes(payload)))
            ends["result"] += 1
        except QccError:
            ends["error"] += 1
    print(ends)
    assert min(ends.values()) > 5


def test_refusals_name_rule_limit_and_value() -> None:
    b = Builder("net")
    x = b.conv(b.input((1, 4, 4, 3)), 4)
    graph = b.output(b.node("argmax", {"x": x}, None, axis=3, keepdims=False))
    with pytest.raises(UnsupportedError, match=r"argmax.*limit: one of .*; here: argmax.*--host"):
        build(graph, MCU)
    device = build(graph, MCU, host=True)
    assert [n.op for n in device.parts.after] == ["argmax"]
    with pytest.raises(UnsupportedError, match=r"shift of a requantization.*limit: 0 to 20 .*; here: 31"):
        build(image(), MCU.vary({"requant.shift_max": 20}))
    with pytest.raises(UnsupportedError, match=r"multipliers.*at most 32767 \(16 signed bits\)"):
        build(image(), MCU.vary({"requant.multiplier_bits": 16}))


def test_does_not_fit_names_tensor_and_bytes() -> None:
    with pytest.raises(DoesNotFitError, match=r"'v0': tiles of 'x', 'v0' \(.*\) take at least .* bytes short") as e:
        build(image(), MCU.vary({"memory.act.bytes": 64, "memory.act.banks": 1}))
    assert e.value.short > 0
    with pytest.raises(DoesNotFitError, match="weights of 'v0' take at least"):
        build(big_window(), MCU.vary({"memory.weight.bytes": 64}))


def big_window() -> Graph:
    b = Builder("net")
    return b.output(b.conv(b.input((1, 12, 12, 1)), 2, kernel=9, pad=(0, 0, 0, 0)))


def test_random_programs_run_twice_in_a_row() -> None:
    graph = random_program(1)
    device = build(graph, MCU)
    first, second = (device.run(random_inputs(graph, 1)) for _ in range(2))
    assert all(np.array_equal(first[k], second[k]) for k in first)
