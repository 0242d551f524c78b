"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qcc.errors import ArtifactError
from qcc.output import check_file, new_file


def write(path: Path, content: bytes) -> None:
    with new_file(path, "the text") as file:
        file.write(content)


def test_a_file_and_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write(path, b"old")
    os.link(path, tmp_path / "kept")
    write(path, b"new")
    assert (path.read_bytes(), (tmp_path / "kept").read_bytes()) == (b"new", b"old")
    (tmp_path / "link").symlink_to(path)
    write(tmp_path / "link", b"newer")
    assert (tmp_path / "link").is_symlink()
    assert path.read_bytes() == b"newer"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_failure_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write(path, b"old")
    writing = new_file(path, "the text")
    writing.__enter__().write(b"half")
    assert not writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path == Path(os.devnull))  # its folder belongs to root
    check_file(Path(os.devnull), "the text")
    write(Path(os.devnull), b"text")
    assert not Path(os.devnull).is_file()


def test_what_cannot_be_written(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "folder"), (tmp_path / "none" / "a.txt", "none is no folder")):
        with pytest.raises(ArtifactError, match=rf"the text cannot be written \(.*{reason}.*\)\. Hint: choose a file"):
            check_file(path, "the text")
        with pytest.raises(ArtifactError, match="the text cannot be written"):
            write(path, b"text")
    check_file(tmp_path / "a.txt", "the text")
    check_file(None, "the text")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk() -> None:
    with pytest.raises(ArtifactError, match=r"/dev/full: the text cannot be written \(No space left on device\)"):
        write(Path("/dev/full"), b"text")
