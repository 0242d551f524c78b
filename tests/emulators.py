"""What this machine can emulate."""

from __future__ import annotations

import shutil

from qcc.target import Target


def emulator_is_here(target: Target) -> bool:
    """Whether this machine can link programs for a target and emulate it."""
    tools = [*target.link.cc[:1], *target.run.command[:1]]
    return len(tools) == 2 and all(shutil.which(tool) for tool in tools)
