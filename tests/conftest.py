"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real models and labelled samples: the folder $QCC_DATA, else ``../shared/data``; skips where it is absent."""
    folder = Path(os.environ.get("QCC_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real models here: {folder} does not exist (set QCC_DATA)")
    return folder
