"""Printed form of a graph, one line each for an input, constant, node and output; it reads back to an equal graph.

    graph "resnet20"
      input %x : float32[1,3,32,32]
      const @conv1.w : int8[16,3,3,3] scale=(0.01, 0.02) zero_point=0 axis=0 sha256:0123456789abcdef
      %y = conv2d(x=%x, w=@conv1.w) {stride=(1, 1), clamp=(0.0, inf)} : float32[1,32,32,16]   # Conv 'conv1'
      output %y

Names that are not plain are quoted (``%"a b"``). The contents of constants are kept apart; the text holds a digest.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from qcc.errors import ArtifactError, QccError
from qcc.ir.graph import Arrays, Attr, Graph, Node, TensorType
from qcc.numerics import QParams

PROGRAM, CONSTANTS = "program.qir", "constants.npz"
_PLAIN = re.compile(r"[A-Za-z0-9_./:-]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"-?(?:inf|nan|\d[\d.]*(?:e[+-]?\d+)?)")
_DIGITS = 16


class ParseError(QccError):
    """A printed graph that cannot be read; ``where`` names the line."""


def show(graph: Graph) -> str:
    """The printed form. Attributes must be what ``ir.graph.Attr`` says; floats are written exactly."""
    lines = [f"graph {json.dumps(graph.name)}"]
    lines += [f"  input {_name(graph, v)} : {_type(graph.types[v])}" for v in graph.inputs]
    for value, array in graph.constants.items():
        lines.append(f"  const {_name(graph, value)} : {_type(graph.types[value])} sha256:{_digest(array)}")
    lines += [f"  {_node(graph, node)}" for node in graph.nodes]
    lines += [f"  output {_name(graph, v)}" for v in graph.outputs]
    return "\n".join(lines) + "\n"


def _name(graph: Graph, value: str) -> str:
    """A value with its sigil: ``@`` for constants, ``%`` for the others."""
    text = value if _PLAIN.fullmatch(value) else json.dumps(value)
    return ("@" if value in graph.constants else "%") + text


def _type(kind: TensorType) -> str:
    """Dtype, shape and parameters."""
    text = f"{kind.dtype}[{','.join(map(str, kind.shape))}]"
    if kind.qparams is not None:
        text += f" scale={_literal(kind.qparams.scale)} zero_point={kind.qparams.zero_point}"
        text += "" if kind.qparams.axis is None else f" axis={kind.qparams.axis}"
    return text


def _node(graph: Graph, node: Node) -> str:
    """A node's line."""
    inputs = ", ".join(f"{key}={_name(graph, value)}" for key, value in node.inputs.items())
    attrs = ", ".join(f"{key}={_literal(value)}" for key, value in node.attrs.items())
    text = f"{_name(graph, node.output)} = {node.op}({inputs})" + (f" {{{attrs}}}" if attrs else "")
    source = f"   # {node.source.encode('unicode_escape').decode('ascii')}" if node.source else ""
    return f"{text} : {_type(graph.types[node.output])}{source}"


def _literal(value: Attr) -> str:
    """An attribute as Python writes it, strings with double quotes."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, str):
        return json.dumps(value)
    if value is None or type(value) in (bool, int, float):
        return repr(value)
    raise TypeError(f"not an attribute: {value!r}")


def _digest(array: NDArray[Any]) -> str:
    """The first digits of the SHA-256 of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:_DIGITS]


def parse(text: str, constants: Arrays) -> Graph:
    """The graph that ``show`` printed, given the contents of its constants. Raises ``ParseError``."""
    graph = Graph("")
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            _Line(line, number).read(graph, constants)
    return graph


class _Line:
    """A cursor in one line."""

    def __init__(self, text: str, number: int) -> None:
        self.text, self.number, self.at = text, number, 0

    def fail(self, what: str) -> NoReturn:
        """Raise ``ParseError``."""
        found = self.text[self.at : self.at + 20] or "the end of the line"
        raise ParseError(f"{what}, found {found!r}", where=f"line {self.number}, column {self.at + 1}")

    def accept(self, token: str) -> bool:
        """Skip spaces and, if it is there, the token."""
        while self.text[self.at : self.at + 1] == " ":
            self.at += 1
        found = self.text.startswith(token, self.at)
        self.at += len(token) if found else 0
        return found

    def expect(self, token: str) -> None:
        """Skip the token."""
        if not self.accept(token):
            self.fail(f"expected '{token}'")

    def match(self, pattern: re.Pattern[str], what: str) -> str:
        """The text that the pattern matches here."""
        self.accept("")
        found = pattern.match(self.text, self.at)
        if found is None:
            self.fail(f"expected {what}")
        self.at = found.end()
        return found.group()

    def end(self) -> None:
        """Nothing but spaces is left."""
        self.accept("")
        if self.at < len(self.text):
            self.fail("expected the end of the line")

    def read(self, graph: Graph, constants: Arrays) -> None:
        """Add what the line says to the graph."""
        if self.accept("graph "):
            graph.name = self.string()
            self.end()
        elif self.accept("input "):
            value = self.define(graph)
            graph.inputs.append(value)
            graph.types[value] = self.type()
            self.end()
        elif self.accept("const "):
            self.constant(graph, constants)
        elif self.accept("output "):
            graph.outputs.append(self.use(graph))
            self.end()
        else:
            self.node(graph)

    def constant(self, graph: Graph, constants: Arrays) -> None:
        """A constant, which must have the type and the contents that the line says."""
        value = self.define(graph)
        kind = self.type()
        self.expect("sha256:")
        digest = self.match(_WORD, "a digest")
        self.end()
        array = constants.get(value)
        if array is None:
            self.fail(f"there is no array for constant '{value}'")
        if (array.shape, str(array.dtype), _digest(array)) != (kind.shape, kind.dtype, digest):
            self.fail(f"the array of constant '{value}' is not the one that was saved")
        graph.types[value], graph.constants[value] = kind, array

    def node(self, graph: Graph) -> None:
        """``%output = op(key=%value, …) {key=literal, …} : type   # source``."""
        output = self.define(graph)
        self.expect("=")
        node = Node(output, self.match(_WORD, "an op"), {})
        self.expect("(")
        while not self.accept(")"):
            if node.inputs:
                self.expect(",")
            key = self.key()
            node.inputs[key] = self.use(graph)
        if self.accept("{"):
            while not self.accept("}"):
                if node.attrs:
                    self.expect(",")
                key = self.key()
                node.attrs[key] = self.literal()
        graph.types[output] = self.type()
        if self.accept("# "):
            node.source = self.text[self.at :].encode("ascii", "backslashreplace").decode("unicode_escape")
        else:
            self.end()
        graph.nodes.append(node)

    def key(self) -> str:
        """``key=``."""
        key = self.match(_WORD, "a key")
        self.expect("=")
        return key

    def string(self) -> str:
        """A quoted string."""
        return str(json.loads(self.match(_QUOTED, "a quoted string")))

    def value(self) -> str:
        """A value's name, without its sigil."""
        if not self.accept("%") and not self.accept("@"):
            self.fail("expected a value")
        return self.string() if self.text[self.at : self.at + 1] == '"' else self.match(_PLAIN, "a name")

    def define(self, graph: Graph) -> str:
        """A name that is new."""
        start = self.at
        value = self.value()
        if value in graph.types:
            self.at = start
            self.fail(f"'{value}' is defined twice")
        return value

    def use(self, graph: Graph) -> str:
        """A name that is defined above."""
        start = self.at
        value = self.value()
        if value not in graph.types:
            self.at = start
            self.fail(f"'{value}' is not defined above")
        return value

    def type(self) -> TensorType:
        """``: dtype[shape] scale=… zero_point=… axis=…``."""
        self.expect(":")
        dtype = self.match(_WORD, "a dtype")
        shape: list[int] = []
        self.expect("[")
        while not self.accept("]"):
            if shape:
                self.expect(",")
            shape.append(int(self.match(re.compile(r"\d+"), "an extent")))
        qparams = None
        if self.accept("scale="):
            scale = self.literal()
            self.expect("zero_point=")
            zero_point = self.literal()
            qparams = QParams(scale, zero_point, self.literal() if self.accept("axis=") else None)
        return TensorType(tuple(shape), dtype, qparams)

    def literal(self) -> Attr:
        """A number, string, tuple, True, False or None."""
        if self.accept("("):
            items: list[Attr] = []
            while not self.accept(")"):
                items.append(self.literal())
                if not self.accept(","):
                    self.expect(")")
                    break
            return tuple(items)
        for word, meaning in (("None", None), ("True", True), ("False", False)):
            if self.accept(word):
                return meaning
        if self.text[self.at : self.at + 1] == '"':
            return self.string()
        number = self.match(_NUMBER, "a number, a string or a tuple")
        try:
            return int(number) if re.fullmatch(r"-?\d+", number) else float(number)
        except ValueError:
            self.at -= len(number)
            self.fail("expected a number")


def save(graph: Graph, folder: Path) -> None:
    """Write ``program.qir`` and ``constants.npz`` into an existing folder."""
    (folder / PROGRAM).write_text(show(graph), encoding="utf-8")
    # The prefix keeps names apart from the parameter names of savez.
    arrays: dict[str, Any] = {f"/{value}": array for value, array in graph.constants.items()}
    np.savez_compressed(folder / CONSTANTS, **arrays)


def load(folder: Path) -> Graph:
    """Read what ``save`` wrote. Raises ``ArtifactError``."""
    try:
        text = (folder / PROGRAM).read_text(encoding="utf-8")
        with np.load(folder / CONSTANTS, allow_pickle=False) as arrays:
            constants = {name[1:]: arrays[name] for name in arrays.files}
        return parse(text, constants)
    except FileNotFoundError as error:
        raise ArtifactError(f"{Path(error.filename).name} is missing", where=str(folder),
                            hint="name a folder that `qcc compile` wrote") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, QccError) as error:
        raise ArtifactError(f"the program cannot be read ({error})", where=str(folder),
                            hint="compile the model again") from error
