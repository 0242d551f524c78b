"""The documentation's programs run."""

import re
import runpy
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
generator = runpy.run_path(str(ROOT / "docs" / "generate.py"))


def python_blocks(file: Path) -> str:
    """All python blocks as one program, each at its own line of the file, so that a traceback points there."""
    text = file.read_text()
    lines = [""] * (text.count("\n") + 1)
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        first = text.count("\n", 0, block.start(1))
        code = block[1].splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines)


def test_walk_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ROOT / "docs" / "walk.md"
    source = python_blocks(file)
    assert source.strip()
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    exec(compile(source, str(file), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("file", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=lambda f: f.name)
def test_links_lead_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text()):
        assert (file.parent / target).exists(), target


@pytest.mark.parametrize("file", generator["PARTS"])
def test_generated_parts_are_what_the_code_says(file: str) -> None:
    text = (ROOT / "docs" / file).read_text()
    assert text == generator["generate"](file, text), "run python docs/generate.py"
