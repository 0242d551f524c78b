"""Files that the command line writes: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from qcc.errors import ArtifactError

ELSEWHERE = "choose a file in a folder that can be written and has space"


@contextmanager
def new_file(path: Path, what: str, hint: str = ELSEWHERE) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` when the block ends without an error; a device is written at once.

    Raises ArtifactError, which says that ``what`` cannot be written.
    """
    target = path.resolve()
    device = target.exists() and not target.is_file()
    part = target if device else target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        try:
            with part.open("wb") as file:
                yield file
            if not device:
                part.replace(target)
        finally:
            if not device:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"{what} cannot be written ({error.strerror})", where=str(path), hint=hint) from error


def check_file(path: Path | None, what: str) -> None:
    """Raise ArtifactError unless ``new_file`` can write ``path`` (or it is None): worth asking before long work."""
    if path is None:
        return
    target = path.resolve()
    folder = target.parent
    if target.is_dir():
        reason = "it is a folder"
    elif target.exists() and not target.is_file():
        reason = "" if os.access(target, os.W_OK) else "no permission"
    else:
        writable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
        reason = "" if writable else f"{folder} is no folder that can be written"
    if reason:
        raise ArtifactError(f"{what} cannot be written ({reason})", where=str(path), hint=ELSEWHERE)
