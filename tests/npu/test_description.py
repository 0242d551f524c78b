"""Descriptions: every shipped one is valid, and a wrong one says where and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcc.data import data_folder
from qcc.errors import TargetError
from qcc.npu.description import Description, fields, is_npu, known_npus
from qcc.target import known_targets


def test_shipped() -> None:
    assert {"edge-npu", "ws64", "os64", "is64", "ws16-mcu"} <= set(known_npus())
    assert not set(known_npus()) & set(known_targets())
    assert Description.load("edge-npu").array.macs == 4096
    assert is_npu("edge-npu")
    assert not is_npu("x86-vnni")
    assert not is_npu("none")


def test_every_field_is_documented_and_what_is_inferred_is_labelled() -> None:
    assert all(meaning for key, _, meaning in fields() if key != "kind")
    provenance = Description.load("edge-npu").provenance
    assert provenance["array.interval"].startswith("inferred")
    assert provenance["dram.mb_per_s"].startswith("inferred")


@pytest.mark.parametrize(("old", "new", "message"), [
    ("rows = 64", "rows = 0", "key 'array.rows' has the wrong value 0. Hint: allowed: greater than or equal to 1"),
    ("rows = 64", "", "key 'array.rows' is missing"),
    ("rows = 64", "rows = 64\nspeed = 3", "unknown key 'array.speed'. Hint: known keys: kind, name"),
    ("shift_min = 0", "shift_min = 63", "key 'requant.shift_min' has the wrong value 63"),
    ("shift_max = 62", "shift_max = 2\n#", None),
    ("shift_min = 0\nshift_max = 62", "shift_min = 9\nshift_max = 8", "requant.shift_min not above requant.shift_max"),
    ("banks = 2", "banks = 3", "key 'memory.weight' has the wrong value"),
    ("[array]", "[array", "not valid TOML"),
])  # fmt: skip
def test_a_wrong_field_names_file_key_and_range(old: str, new: str, message: str | None, tmp_path: Path) -> None:
    text = (data_folder("targets") / "ws64.toml").read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1))
    if message is None:
        Description.load(path)
        return
    with pytest.raises(TargetError) as caught:
        Description.load(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_vary_names_an_unknown_key() -> None:
    with pytest.raises(TargetError, match=r"unknown key 'array\.speed'"):
        Description.load("ws64").vary({"array.speed": 3})
    with pytest.raises(TargetError, match="unknown accelerator 'none'"):
        Description.load("none")
