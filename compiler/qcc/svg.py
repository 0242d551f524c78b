"""The few elements that qcc's pictures are made of."""

from __future__ import annotations

from xml.etree import ElementTree as Xml

COLOURS = ("#4878a8", "#d8963c", "#6a9a58", "#b8544c", "#8468a0", "#8a7660", "#c478a8", "#6ca8b0")


def picture(width: float, height: float) -> Xml.Element:
    """A white picture of this size."""
    w, h = f"{width:.0f}", f"{height:.0f}"
    root = Xml.Element("svg", xmlns="http://www.w3.org/2000/svg", width=w, height=h, viewBox=f"0 0 {w} {h}")
    Xml.SubElement(root, "rect", width=w, height=h, fill="white")
    return root


def write(root: Xml.Element, x: float, y: float, content: str, size: int = 12, anchor: str = "start") -> None:
    """Text whose base line begins (or has its middle, or ends) at (x, y)."""
    style = {"font-family": "sans-serif", "font-size": str(size), "text-anchor": anchor}
    Xml.SubElement(root, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", **style}).text = content


def box(root: Xml.Element, x: float, y: float, width: float, height: float, title: str, **style: str) -> None:
    """A rectangle with a text that appears under the pointer."""
    sizes = {"x": f"{x:.2f}", "y": f"{y:.2f}", "width": f"{width:.2f}", "height": f"{height:.2f}"}
    shown = {name.replace("_", "-"): value for name, value in style.items()}
    Xml.SubElement(Xml.SubElement(root, "rect", {**sizes, **shown}), "title").text = title


def line(root: Xml.Element, start: tuple[float, float], end: tuple[float, float], **style: str) -> None:
    """A line between two points."""
    (x1, y1), (x2, y2) = start, end
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    shown = {name.replace("_", "-"): value for name, value in style.items()}
    Xml.SubElement(root, "line", {"stroke": "black", **ends, **shown})


def as_text(root: Xml.Element) -> str:
    """The file's contents."""
    return Xml.tostring(root, encoding="unicode") + "\n"
