"""Packages for Zephyr, Arduino and ESP-IDF: the layout that each wants, and sources that compile there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from integer_programs import Builder, random_inputs
from qcc import pipeline
from qcc.emit.ecosystems import ECOSYSTEMS
from qcc.errors import TargetError
from qcc.ir.graph import Graph
from qcc.target import Target
from qcc.verify import verify_model


def net() -> Graph:
    b = Builder("net", 3)
    return b.output(b.conv(b.conv(b.input((1, 8, 6, 8)), 8), 4))


def made(kind: str, folder: Path) -> Path:
    graph = net()
    model = pipeline.build(graph, Target.load("cortex-m4"), folder / kind, jobs=1, package=kind)
    assert verify_model(model, [random_inputs(graph, 1)]) is None
    return folder / kind


def files(folder: Path) -> set[str]:
    found = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    return {f for f in found if not f.startswith("reference/")} - {"README.md", "manifest.json"}


INSIDE = {"net.c", "net_weights.c", "net_weights.h", "qcc_scalar.h", "qcc_dsp.h"}
PUBLIC = {"net.h", "qcc.h"}


@pytest.mark.parametrize("kind", ECOSYSTEMS)
def test_sources_compile_where_they_are(kind: str, tmp_path: Path) -> None:
    """With the folders that the package names, and no others, on the command line."""
    folder = made(kind, tmp_path)
    public = {"cmake": ".", "zephyr": "include", "arduino": "src", "espidf": "include"}[kind]
    (tmp_path / "main.c").write_text('#include "net.h"\nint main(void) { return (int)net_run(0, 0, 0) + 1; }\n')
    sources = [str(f) for f in folder.rglob("*.c")]
    for cc in ("gcc", "clang"):
        if shutil.which(cc):
            subprocess.run([cc, "-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", f"-I{folder / public}",
                            str(tmp_path / "main.c"), *sources, "-o", str(tmp_path / "main")], check=True)  # fmt: skip
            subprocess.run([str(tmp_path / "main")], check=True)


def test_zephyr(tmp_path: Path) -> None:
    folder = made("zephyr", tmp_path)
    assert files(folder) == {"zephyr/module.yml", "CMakeLists.txt", "Kconfig", *(f"src/{n}" for n in INSIDE),
                             *(f"include/{n}" for n in PUBLIC)}  # fmt: skip
    module = (folder / "zephyr" / "module.yml").read_text()
    assert module == "name: net\nbuild:\n  cmake: .\n  kconfig: Kconfig\n"
    cmake = (folder / "CMakeLists.txt").read_text()
    assert cmake.startswith("if(CONFIG_NET)\n")
    for source in re.findall(r"zephyr_library_sources\((.*)\)", cmake)[0].split():
        assert (folder / source).is_file()
    assert re.findall(r"^config (\w+)\n\tbool", (folder / "Kconfig").read_text(), re.M) == ["NET", "NET_PROFILE"]
    assert "CONFIG_NET=y" in (folder / "README.md").read_text()


def test_zephyr_functions_are_called_as_its_cmake_has_them(tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("there is no cmake")
    folder = made("zephyr", tmp_path)
    (tmp_path / "CMakeLists.txt").write_text(f"""cmake_minimum_required(VERSION 3.13)
project(firmware LANGUAGES C)
set(CONFIG_NET y)
macro(zephyr_library_named name)
  set(ZEPHYR_CURRENT_LIBRARY ${{name}})
  add_library(${{name}} STATIC)
endmacro()
function(zephyr_library_sources)
  foreach(file ${{ARGN}})
    target_sources(${{ZEPHYR_CURRENT_LIBRARY}} PRIVATE ${{CMAKE_CURRENT_SOURCE_DIR}}/${{file}})
  endforeach()
endfunction()
function(zephyr_include_directories)
  foreach(folder ${{ARGN}})
    include_directories(${{CMAKE_CURRENT_SOURCE_DIR}}/${{folder}})
  endforeach()
endfunction()
function(zephyr_library_compile_definitions_ifdef condition)
endfunction()
add_subdirectory({folder} module)
""")
    subprocess.run(["cmake", "-S", ".", "-B", "build"], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", "build"], cwd=tmp_path, check=True, capture_output=True)
    assert list((tmp_path / "build").rglob("libnet.a"))


def test_arduino(tmp_path: Path) -> None:
    folder = made("arduino", tmp_path)
    assert files(folder) == {"library.properties", "examples/run/run.ino", *(f"src/{n}" for n in INSIDE | PUBLIC)}
    lines = (folder / "library.properties").read_text().splitlines()
    properties = dict(line.split("=", 1) for line in lines)
    wanted = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"}
    assert wanted <= properties.keys()
    assert re.fullmatch(r"\d+\.\d+\.\d+", properties["version"])
    assert properties["includes"] == "net.h"
    # A sketch is C++ with Arduino's functions declared.
    sketch = ("#include <stdint.h>\nunsigned long micros(); void delay(unsigned long);\n"
              "struct S { void begin(long); void println(unsigned long); }; extern S Serial;\n")  # fmt: skip
    (tmp_path / "sketch.cpp").write_text(sketch + (folder / "examples" / "run" / "run.ino").read_text())
    if shutil.which("c++"):
        subprocess.run(["c++", "-Wall", "-Wextra", "-Werror", f"-I{folder / 'src'}", "-fsyntax-only",
                        str(tmp_path / "sketch.cpp")], check=True)  # fmt: skip


def test_espidf(tmp_path: Path) -> None:
    folder = made("espidf", tmp_path)
    assert files(folder) == {"CMakeLists.txt", "Kconfig", "idf_component.yml", *(f"src/{n}" for n in INSIDE),
                             *(f"include/{n}" for n in PUBLIC)}  # fmt: skip
    cmake = (folder / "CMakeLists.txt").read_text()
    said = re.match(r'idf_component_register\(SRCS (.*)\n\s+INCLUDE_DIRS "(.*)"\n\s+PRIV_INCLUDE_DIRS "(.*)"\)', cmake)
    assert said
    assert all((folder / s.strip('"')).is_file() for s in said[1].split())
    assert (said[2], said[3]) == ("include", "src")
    component = (folder / "idf_component.yml").read_text()
    assert re.search(r'^version: "\d+\.\d+\.\d+"$', component, re.M)
    assert re.search(r'^dependencies:\n  idf: ">=5.0"$', component, re.M)


def test_only_for_microcontrollers() -> None:
    with pytest.raises(TargetError, match="no zephyr packages for x86-avx2"):
        pipeline.compile(net(), target="x86-avx2", package="zephyr")
