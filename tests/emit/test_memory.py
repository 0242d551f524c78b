"""Regions of memory and budgets of a microcontroller's target file: where buffers go, and what does not fit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from integer_programs import Builder, random_inputs, random_program
from qcc import pipeline
from qcc.errors import TargetError
from qcc.ir.graph import Graph
from qcc.target import Memory, Target
from qcc.verify import verify_model


def with_memory(flash: int | None = None, **regions: int) -> Target:
    memory = [Memory(name=name, bytes=nbytes) for name, nbytes in regions.items()]
    return Target.load("cortex-m4").model_copy(update={"memory": memory, "flash": flash})


def chain() -> Graph:
    b = Builder("chain", 3)
    x = b.input((1, 16, 16, 4))
    y = b.conv(b.conv(x, 8), 8)
    return b.output(b.conv(b.conv(y, 8, stride=2), 4))


def test_buffers_in_two_regions(tmp_path: Path) -> None:
    graph = chain()
    model = pipeline.build(graph, with_memory(fast=1500, slow=1 << 16), tmp_path / "out", jobs=1)
    assert verify_model(model, [random_inputs(graph, seed) for seed in range(3)]) is None
    header = (tmp_path / "out" / "chain.h").read_text()
    fast, slow = (int(n) for n in re.findall(r"#define CHAIN_(?:FAST|SLOW)_BYTES (\d+)", header))
    assert 0 < fast <= 1500 < slow
    assert re.search(r"void \*fast;.*\n    void \*slow;", header)
    assert "ARENA_BYTES" not in header
    buffers = model.manifest["arena"]["buffers"]
    in_fast = {b["name"] for b in buffers if b["offset"] < fast}
    assert any(name.endswith("(work)") for name in in_fast), "what is read most lies in fast memory"
    text = (tmp_path / "out" / "chain.c").read_text()
    assert "(context->fast == NULL) || (context->slow == NULL)" in text
    readme = (tmp_path / "out" / "README.md").read_text()
    assert f"| RAM: `CHAIN_FAST_BYTES`, given by you | {fast} |" in readme


def test_everything_in_the_first_region_that_is_large_enough(tmp_path: Path) -> None:
    model = pipeline.build(chain(), with_memory(fast=1 << 16, slow=1 << 16), tmp_path / "out", jobs=1)
    assert model.manifest["memory"]["slow"] == 0
    assert verify_model(model, [random_inputs(chain(), 1)]) is None


@pytest.mark.parametrize("seed", range(4))
def test_random_programs(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    graph = random_program(seed)
    model = pipeline.build(graph, with_memory(a=300, b=1000, c=1 << 20), tmp_path / "out", jobs=1)
    assert verify_model(model, [random_inputs(graph, seed)]) is None


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught:
        pipeline.build(chain(), with_memory(sram=2000), tmp_path / "out", jobs=1)
    form = (r"needs ([\d,]+) bytes of memory 'sram', which has 2,000: ([\d,]+) too few; most at '(\w+)' \(conv2d\), "
            r"where the largest tensor is '(\w+)' with ([\d,]+) bytes")  # fmt: skip
    said = re.search(form, str(caught.value))
    assert said, str(caught.value)
    needed, short = (int(n.replace(",", "")) for n in said.groups()[:2])
    assert needed - short == 2000
    assert not (tmp_path / "out").exists()


def test_flash_has_a_budget(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"bytes of flash, the target has 1,000: [\d,]+ too few; the largest constant "
                                          r"is 'chain_layer\d_w' with 576 bytes"):  # fmt: skip
        pipeline.build(chain(), with_memory(1000, arena=1 << 16), tmp_path / "out", jobs=1)
    assert not (tmp_path / "out").exists()
    pipeline.build(chain(), with_memory(1 << 16, arena=1 << 16), tmp_path / "out", jobs=1)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["flash"]["constants"] < 1 << 16


def test_a_target_file(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "targets" / "cortex-m7.toml").read_text()
    file = tmp_path / "board.toml"
    region = '[[memory]]\nname = "{}"\nbytes = {}\n'
    file.write_text("flash = 1048576\n" + text + region.format("dtcm", 131072) + region.format("sram", 524288))
    target = Target.load(file)
    assert [(m.name, m.bytes) for m in target.memory] == [("dtcm", 131072), ("sram", 524288)]
    assert target.flash == 1048576
    for wrong, message in [
        (region.format("DTCM", 1), "key 'memory.0.name' has the wrong value 'DTCM'"),
        (region.format("a", 0), "key 'memory.0.bytes' has the wrong value 0"),
        (region.format("a", 1) + region.format("a", 2), "the regions of memory are named a, a"),
        (region.format("a", 1) + "speed = 3\n", "unknown key 'memory.0.speed'"),
    ]:
        file.write_text(text + wrong)
        with pytest.raises(TargetError, match=message):
            Target.load(file)
