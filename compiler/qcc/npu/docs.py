"""The generated parts of ``docs/isa.md`` and ``docs/accelerator.md``; ``python -m qcc.npu.docs docs`` writes them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from qcc.npu import isa
from qcc.npu.constraints import CONSTRAINTS
from qcc.npu.description import Description, fields, known_npus
from qcc.npu.lower import LOWERINGS


def operations() -> str:
    """Every operation: code, unit, forms with their operands, meaning."""
    lines = []
    for name, operation in isa.OPERATIONS.items():
        unit = operation.unit or "the one that the form says"
        lines += [f"### {isa.CODES[name]} `{name}`", "", f"Unit: {unit}. {' '.join(operation.meaning.split())}", ""]
        groups: dict[tuple[str, ...], list[str]] = {}
        for number, (form, names) in enumerate(operation.forms.items()):
            groups.setdefault(names, []).append(f"{number} `{form}`")
        lines += ["| form | operands |", "|---|---|"]
        lines += [f"| {', '.join(forms)} | {', '.join(names)} |" for names, forms in groups.items()]
        lines.append("")
    return "\n".join(lines)


def keys() -> str:
    """Every field of a description, with edge-npu's value and where it comes from."""
    edge = Description.load("edge-npu")
    lines = ["| key | allowed | meaning | edge-npu | where that comes from |", "|---|---|---|---|---|"]
    for key, allowed, meaning in fields():
        if key in ("kind", "provenance"):
            continue
        value: object = edge
        for part in key.split("."):
            value = getattr(value, part)
        lines.append(f"| `{key}` | {allowed} | {meaning} | {value} | {edge.provenance.get(key, '')} |")
    return "\n".join(lines) + "\n"


def rules() -> str:
    """What a node must keep."""
    known = ", ".join(sorted({*LOWERINGS, "reshape", "conv_transpose2d"}))
    lines = [f"Ops: {known}.", ""]
    return "\n".join([*lines, *(f"- {' '.join((c.__doc__ or '').split())}" for c in CONSTRAINTS)]) + "\n"


def shipped() -> str:
    """The accelerators that ship with qcc."""
    lines = ["| name | MACs a cycle | |", "|---|---|---|"]
    lines += [f"| `{d.name}` | {d.array.macs:,} | {d.description} |" for d in map(Description.load, known_npus())]
    return "\n".join(lines) + "\n"


PARTS: Mapping[str, Mapping[str, str]] = {
    "isa.md": {"operations": operations()},
    "accelerator.md": {"shipped": shipped(), "keys": keys(), "rules": rules()},
}


def generate(file: str, text: str) -> str:
    """``text`` with the parts between ``<!-- name -->`` and ``<!-- end -->`` as the code says them."""
    for name, part in PARTS[file].items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->\n"
        before, found, rest = text.partition(begin)
        assert found, f"{file} has no part {name}"
        text = before + begin + part + end + rest.partition(end)[2]
    return text


if __name__ == "__main__":
    for page in PARTS:
        path = Path(sys.argv[1]) / page
        path.write_text(generate(page, path.read_text()))
