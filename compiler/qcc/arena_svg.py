"""A picture of the arena: which buffer lies where (bytes upwards), and from which step to which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qcc import svg

LEFT, TOP, RIGHT, BELOW, HEIGHT = 84.0, 44.0, 20.0, 46.0, 420.0
LEAST_STEP, WIDTH = 22.0, 900.0


def arena_svg(manifest: Mapping[str, Any]) -> str:
    """The SVG file. Work memory is grey; a buffer that lies over the one that its layer reads is drawn over it."""
    area, layers = manifest["arena"], manifest["layers"]
    steps = len(layers) + 2  # with the copying in of inputs and out of outputs
    step = max(LEAST_STEP, WIDTH / steps)
    total = max(area["bytes"], 1)
    width, scale = step * steps, HEIGHT / total
    root = svg.picture(LEFT + width + RIGHT, TOP + HEIGHT + BELOW)
    bottom = TOP + HEIGHT
    _axes(root, total, width, scale)
    labels: list[tuple[float, float, str]] = []
    # The largest first, so that what lies over another buffer stays visible.
    for index, b in enumerate(sorted(area["buffers"], key=lambda b: (-b["bytes"], b["first"]))):
        x, y = LEFT + (b["first"] + 1) * step, bottom - (b["offset"] + b["bytes"]) * scale
        w, h = (b["last"] - b["first"] + 1) * step, b["bytes"] * scale
        work = b["name"].endswith("(work)")
        colour = "#b4b4b4" if work else svg.COLOURS[index % len(svg.COLOURS)]
        tip = f"{b['name']}: {b['bytes']:,} bytes at {b['offset']:,}, steps {b['first']} to {b['last']}"
        svg.box(root, x, y, w, h, tip, fill=colour, fill_opacity="0.8", stroke="white", stroke_width="0.7")
        label = f"{b['bytes']:,}"
        if not work and h > 13 and w > 7 * len(label):
            labels.append((x + w / 2, y + h / 2 + 4, label))
    written: list[tuple[float, float, str]] = []
    for at_x, at_y, label in labels:
        if all(abs(at_x - a) > 3.5 * (len(label) + len(text)) or abs(at_y - b) > 12 for a, b, text in written):
            svg.write(root, at_x, at_y, label, 11, "middle")
            written.append((at_x, at_y, label))
    for region in area.get("regions", ())[1:]:
        y = bottom - region["begin"] * scale
        svg.line(root, (LEFT, y), (LEFT + width, y), stroke_width="2")
        svg.write(root, LEFT + 4, y - 4, region["name"])
    for number in range(-1, len(layers) + 1):
        text = "in" if number < 0 else "out" if number == len(layers) else str(number)
        svg.write(root, LEFT + (number + 1.5) * step, bottom + 16, text, 10, "middle")
    svg.write(root, LEFT + width / 2, bottom + 36, "layer", 12, "middle")
    bound = f", largest live set {area['lower_bound']:,}"
    svg.write(root, LEFT, 20, f"{manifest['name']} on {manifest['target']['name']}: arena of {area['bytes']:,} bytes"
                              f"{bound}", 14)
    return svg.as_text(root)


def _axes(root: Any, total: int, width: float, scale: float) -> None:
    """Bytes on the left, with lines at round numbers."""
    unit = 1
    while total / unit > 8:
        unit *= 2
    for value in range(0, total + 1, unit):
        y = TOP + HEIGHT - value * scale
        svg.line(root, (LEFT, y), (LEFT + width, y), stroke="#dddddd")
        svg.write(root, LEFT - 6, y + 4, f"{value:,}", 11, "end")
