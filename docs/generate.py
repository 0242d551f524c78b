"""What the documentation takes from the code: ``python docs/generate.py`` writes it, the tests compare.

A generated part stands between ``<!-- name -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click

from qcc import cli
from qcc.frontend import onnx, tflite
from qcc.npu import isa
from qcc.npu.constraints import CONSTRAINTS
from qcc.npu.description import Description, fields, known_npus
from qcc.npu.lower import LOWERINGS
from qcc.ops import OPS
from qcc.target import Target, known_targets

FOLDER = Path(__file__).parent


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


def ops() -> str:
    """Every op of the IR: operands, attributes of the float form, parameters of the output."""
    lines = ["| op | operands | attributes | output's parameters | |", "|---|---|---|---|---|"]
    for name, op in OPS.items():
        operands = [*op.required, *(f"[{key}]" for key in op.optional)]
        summary = " ".join((op.__doc__ or "").partition("\n\n")[0].split()).replace("``", "`").replace("|", "\\|")
        lines.append(f"| `{name}` | {', '.join(operands)} | {', '.join(op.attributes)} | {op.scale_rule} | {summary} |")
    return "\n".join(lines) + "\n"


def operators(names: tuple[str, ...]) -> str:
    """Operators of a file format, by name."""
    return ", ".join(f"`{name}`" for name in names) + "\n"


def targets() -> str:
    """The shipped targets that run compiled code."""
    lines = ["| target | machine needs | schedules | result | |", "|---|---|---|---|---|"]
    for t in map(Target.load, known_targets()):
        needs = ": ".join(filter(None, [t.arch, ", ".join(t.requires)]))
        result = "C source" if t.emit == "c" else "shared and static library" if t.link.binutils else "shared library"
        lines.append(f"| `{t.name}` | {needs} | {t.family} | {result} | {t.description} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Every command with its arguments and options, as ``--help`` prints them."""
    parts = []
    for path, command in _commands("qcc", cli.main):
        # A command remembers the names of its help option from whoever asks first: always those of the program.
        names = cli.main.context_settings["help_option_names"]
        context = click.Context(command, info_name=path, terminal_width=100, max_content_width=100,
                                help_option_names=names)  # fmt: skip
        parts.append(f"### `{path}`\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def _commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name in sorted(command.commands):
        yield from _commands(f"{path} {name}", command.commands[name])


PARTS: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "isa.md": {"operations": operations},
    "accelerator.md": {"shipped": shipped, "keys": keys, "rules": rules},
    "reference.md": {
        "commands": commands, "targets": targets, "ops": ops,
        "onnx": lambda: operators(onnx.SUPPORTED), "tflite": lambda: operators(tflite.SUPPORTED),
    },
}  # fmt: skip


def generate(file: str, text: str) -> str:
    """``text`` of a page with its generated parts as the code says them."""
    for name, part in PARTS[file].items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->\n"
        before, found, rest = text.partition(begin)
        assert found, f"{file} has no part {name}"
        text = before + begin + part() + end + rest.partition(end)[2]
    return text


if __name__ == "__main__":
    for page in PARTS:
        path = FOLDER / page
        path.write_text(generate(page, path.read_text()))
