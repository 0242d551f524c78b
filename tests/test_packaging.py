"""What is in the wheel, and what importing the package costs."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    if importlib.util.find_spec("hatchling"):
        command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    else:
        command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("qcc-*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.parametrize("name", ["targets", "runtime"])
def test_wheel_holds_every_data_file(name: str, wheel_files: set[str]) -> None:
    sources = {f"qcc/_data/{name}/{p.relative_to(ROOT / name)}" for p in (ROOT / name).rglob("*") if p.is_file()}
    assert sources
    assert sources <= wheel_files


def test_wheel_holds_the_package_and_nothing_else(wheel_files: set[str]) -> None:
    package = ROOT / "compiler" / "qcc"
    sources = {p.relative_to(package) for p in package.rglob("*") if p.is_file() and p.suffix != ".pyc"}
    in_wheel = {f for f in wheel_files if ".dist-info/" not in f and not f.startswith("qcc/_data/")}
    assert in_wheel == {f"qcc/{p}" for p in sources}


def test_wheel_declares_the_command_line(wheel_files: set[str]) -> None:
    assert any(f.endswith(".dist-info/entry_points.txt") for f in wheel_files)


def test_import_is_light_and_fast() -> None:
    heavy = ("tvm", "onnx", "onnxruntime", "rich.progress")
    program = (
        "import sys, time; start = time.perf_counter(); import qcc; seconds = time.perf_counter() - start; "
        f"print(seconds, *[m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    seconds, *loaded = done.stdout.split()
    assert loaded == []
    assert float(seconds) < 1.5
