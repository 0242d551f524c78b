"""The picture of an arena: every buffer, where and as long as the manifest says."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as Xml

from click.testing import CliRunner

from integer_programs import Builder
from qcc import pipeline
from qcc.arena_svg import HEIGHT, arena_svg
from qcc.cli import main
from qcc.runtime import read_manifest
from qcc.target import Memory, Target

SVG = "{http://www.w3.org/2000/svg}"


def compiled(folder: Path) -> Path:
    b = Builder("net", 3)
    graph = b.output(b.conv(b.conv(b.input((1, 8, 6, 8)), 8), 4))
    target = Target.load("c99").model_copy(update={"memory": [Memory(name="fast", bytes=900),
                                                              Memory(name="slow", bytes=9000)]})  # fmt: skip
    pipeline.build(graph, target, folder, jobs=1)
    return folder


def test_a_box_for_every_buffer(tmp_path: Path) -> None:
    manifest = read_manifest(compiled(tmp_path / "out"))
    root = Xml.fromstring(arena_svg(manifest))
    boxes = {box.findtext(f"{SVG}title", "").split(":")[0]: box for box in root.iter(f"{SVG}rect")}
    area = manifest["arena"]
    for buffer in area["buffers"]:
        box = boxes[buffer["name"]]
        assert abs(float(box.attrib["height"]) - buffer["bytes"] * HEIGHT / area["bytes"]) < 0.01
    steps = {b["name"]: b["last"] - b["first"] + 1 for b in area["buffers"]}
    widths = {name: float(boxes[name].attrib["width"]) / count for name, count in steps.items()}
    assert max(widths.values()) - min(widths.values()) < 0.01, "a step is as wide for every buffer"
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"in", "out", "0", "1", "slow", "layer"} <= texts


def test_inspect_writes_it(tmp_path: Path) -> None:
    folder = compiled(tmp_path / "out")
    said = CliRunner().invoke(main, ["inspect", str(folder), "--svg", str(tmp_path / "arena.svg")])
    assert said.exit_code == 0, said.output
    assert (tmp_path / "arena.svg").read_text().startswith("<svg")
    said = CliRunner().invoke(main, ["inspect", str(folder), "--svg", str(tmp_path / "none" / "arena.svg")])
    assert said.exit_code == 1
    assert "the picture cannot be written (No such file or directory)" in said.output
