"""Target files: what is shipped, what ``host`` means, and every message for a wrong one."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from qcc import target as module
from qcc.data import data_folder
from qcc.errors import TargetError
from qcc.npu.description import Description, known_npus
from qcc.target import Target, known_targets

VNNI = (data_folder("targets") / "x86-vnni.toml").read_text()
VNNI_FLAGS = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}
AMX_FLAGS = VNNI_FLAGS | {"avx512vbmi", "amx_tile", "amx_int8"}
HERE = platform.machine()


def test_shipped_targets_are_valid() -> None:
    assert {"x86-vnni", "x86-avx2"} <= set(known_targets())
    for name in known_targets():
        assert Target.load(name).name == name


def test_x86_vnni_asks_for_cascade_lake() -> None:
    t = Target.load("x86-vnni")
    assert (t.family, t.storage, t.lanes, t.dot, t.vector_bytes) == ("vnni", "uint8", 16, 4, 64)
    assert set(t.requires) == VNNI_FLAGS
    assert t.llvm.options()["mcpu"] == "cascadelake"


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(VNNI.replace('name = "x86-vnni"', 'name = "mine"'))
    assert Target.load(path) == Target.load(str(path))
    assert Target.load(path).name == "mine"


def test_the_cache_key_holds_what_code_depends_on() -> None:
    t = Target.load("x86-vnni")
    same = t.model_copy(update={"name": "other", "description": "", "requires": []})
    assert t.codegen_key() == same.codegen_key()
    assert t.codegen_key() != t.model_copy(update={"lanes": 8}).codegen_key()
    assert t.codegen_key()["llvm"]["mcpu"] == "cascadelake"


@pytest.mark.skipif(HERE != "x86_64", reason="the flags are those of x86")
@pytest.mark.parametrize(
    ("flags", "expected"),
    [({"avx2", "fma"}, "x86-avx2"), (VNNI_FLAGS | {"avx2", "fma"}, "x86-vnni"), (VNNI_FLAGS, "x86-vnni"),
     (AMX_FLAGS - {"amx_int8"}, "x86-vnni-vbmi"), (AMX_FLAGS, "x86-amx")],
)
def test_host_is_the_best_that_runs(flags: set[str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cpu_flags", lambda: frozenset(flags))
    assert Target.load("host").name == expected


def test_no_target_for_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cpu_flags", frozenset)
    with pytest.raises(TargetError, match=r"no shipped target runs on this machine \(.*\)\. Hint: .*x86-avx2"):
        Target.load("host")


def test_what_is_missing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    t = Target.load("x86-avx2")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert t.missing() == ["architecture x86_64"]
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module, "cpu_flags", lambda: frozenset({"avx2"}))
    assert t.missing() == ["fma"]


def test_unknown_name() -> None:
    with pytest.raises(TargetError) as error:
        Target.load("x86-vni")
    names = ", ".join([*known_targets(), *known_npus()])
    assert str(error.value) == f"unknown target 'x86-vni'. Hint: one of {names}, host, or the path of a .toml file"


def test_accelerators_are_not_cpus() -> None:
    with pytest.raises(TargetError, match=r"'edge-npu' is an accelerator, here a CPU is wanted. Hint: one of arm-"):
        Target.load("edge-npu")
    with pytest.raises(TargetError, match=r"unknown accelerator 'arm-neon'. Hint: one of edge-npu"):
        Description.load("arm-neon")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lanes = 16", "lanes = 16\nlane = 3", r"mine.toml: unknown key 'lane'. Hint: known keys: name, .*lanes"),
        ('mcpu = "cascadelake"', 'mcpu = "x"\ncpu = "y"',
         r"unknown key 'llvm.cpu'. Hint: known keys: kind, mtriple, mcpu, mattr, mfloat_abi"),
        ("lanes = 16", "", r"mine.toml: key 'lanes' is missing"),
        ('mcpu = "cascadelake"', "", r"key 'llvm.mcpu' is missing"),
        ('"vnni"  ', '"avx9"  ',
         r"key 'family' has the wrong value 'avx9'. Hint: allowed: 'amx', 'vnni', 'avx2', 'c99', .* or 'neon32'"),
        ('"uint8"', '"float"', r"key 'storage' has the wrong value 'float'. Hint: allowed: 'uint8' or 'int8'"),
        ("lanes = 16", 'lanes = "16"', r"key 'lanes' has the wrong value '16'. Hint: allowed: a valid integer"),
        ("lanes = 16", "lanes = 0", r"key 'lanes' has the wrong value 0. Hint: allowed: greater than or equal to 1"),
        ("threads = true", "threads = 2", r"key 'link.threads' has the wrong value 2. Hint: allowed: a valid boolean"),
        ('flags = ["-O2"]', 'flags = ["-O2", 3]', r"key 'link.flags.1' has the wrong value 3"),
        ("lanes = 16", "lanes =", r"mine.toml: not valid TOML: "),
    ],
)  # fmt: skip
def test_wrong_files(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    assert old in VNNI
    path.write_text(VNNI.replace(old, new))
    with pytest.raises(TargetError, match=message) as error:
        Target.load(path)
    assert "\n" not in str(error.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"none.toml: cannot be read \(No such file or directory\)"):
        Target.load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(TargetError, match=r"cannot be read \(not UTF-8 text\)"):
        Target.load(tmp_path / "binary.toml")
