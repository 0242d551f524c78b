"""The C header of a model for a microcontroller."""

from __future__ import annotations

from collections.abc import Iterator

from qcc.emit.csource import offset_in_arena, parameters, signature
from qcc.emit.package import Package, one_line
from qcc.emit.parts import LINKAGE, edge_constants, header


def model_header(p: Package) -> str:
    """Text of ``<name>.h``, C99 and C++."""
    upper = p.prefix.upper()
    body = [
        "",
        '#include "qcc.h"',
        *LINKAGE,
        "/* Bytes of RAM that a run works in, and how they must be aligned. */",
        *(f"#define {upper}_{name.upper()}_BYTES {nbytes}" for name, nbytes in region_bytes(p).items()),
        f"#define {upper}_ARENA_ALIGNMENT {p.target.alignment}",
        f"#define {upper}_LAYERS {len(p.graph.nodes)}",
        *edge_constants(p, lambda kind: len(_values(p, kind)) > 1, "F"),
        "",
        "typedef struct {",
        *(f"    void *{name}; /* {upper}_{name.upper()}_BYTES bytes; nothing in them outlives a run */"
          for name in region_bytes(p)),
        "    void *user; /* yours: the model does not touch it */",
        f"}} {p.prefix}_context;",
        "",
        "/* Runs the model. Returns 0, or -1 if a pointer is null. No state is kept between runs: several contexts",
        " * with memory of their own may run at the same time. */",
        f"{signature(p)};",
        *_helpers(p),
        "",
        "#ifdef QCC_PROFILE",
        "/* You define it; called after each layer. README.md names the layers. */",
        f"void {p.prefix}_layer_done(const {p.prefix}_context *context, int32_t layer);",
        "#endif",
    ]  # fmt: skip
    return header(p, ["Arrays are dense, in row-major order, of the model's own shapes."], body)


def region_bytes(p: Package) -> dict[str, int]:
    """Bytes that the caller gives in each region of memory; a single region has some even if it is not used."""
    least = p.target.alignment if len(p.arena.regions) == 1 else 0
    return {r.name: max(r.nbytes, least) for r in p.arena.regions}


def declarations(p: Package) -> tuple[list[str], str]:
    """(declarations of everything that a call needs, the call) in C."""
    upper = p.prefix.upper()
    lines = [f"static uint32_t {name}[({upper}_{name.upper()}_BYTES + 3) / 4];"
             for name, nbytes in region_bytes(p).items() if nbytes]  # fmt: skip
    counts = {"input": 0, "output": 0}
    for kind, name, declaration in parameters(p):
        values = p.graph.inputs if kind == "input" else p.graph.outputs
        number = counts[kind] if len(values) > 1 else ""
        c_type = declaration.removeprefix("const ").split(" ")[0]
        lines.append(f"static {c_type} {name}[{upper}_{kind.upper()}{number}_SIZE];")
        counts[kind] += 1
    given = ", ".join([*(name if nbytes else "0" for name, nbytes in region_bytes(p).items()), "0"])
    lines.append(f"static const {p.prefix}_context context = {{{given}}};")
    arrays = ", ".join(name for _, name, _ in parameters(p))
    return lines, f"{p.prefix}_run(&context, {arrays}); /* 0: done */"


def _values(p: Package, kind: str) -> list[str]:
    return p.graph.inputs if kind == "input" else p.graph.outputs


def _helpers(p: Package) -> Iterator[str]:
    """Quantization of each int8 edge, and where it lies in the arena."""
    for kind, index, value, q in p.edges():
        name = f"{kind}{index if len(_values(p, kind)) > 1 else ''}"
        constants = f"{p.prefix.upper()}_{name.upper()}"
        offset = offset_in_arena(p, value)
        if offset is not None:
            region = p.arena.region(offset)
            yield ""
            yield f"/* Where {kind} '{one_line(value)}' lies in memory: passed as `{name}`, it is not copied. */"
            yield f"static inline int8_t *{p.prefix}_{name}_in_place(const {p.prefix}_context *context)"
            yield "{"
            yield f"    return &((int8_t *)context->{region.name})[{offset - region.begin}];"
            yield "}"
        if q is None or p.graph.types[value].dtype != "int8":
            continue
        yield ""
        if kind == "input":
            yield f"static inline int8_t {p.prefix}_quantize_{name}(float real)"
            yield "{"
            yield f"    return qcc_quantize(real, {_float32(1 / q.step)}F, {constants}_ZERO_POINT);"
        else:
            yield f"static inline float {p.prefix}_dequantize_{name}(int8_t q)"
            yield "{"
            yield f"    return qcc_dequantize(q, {constants}_SCALE, {constants}_ZERO_POINT);"
        yield "}"


def _float32(value: float) -> str:
    """The shortest decimal that is this value in float32."""
    import numpy as np

    return repr(float(np.float32(value)))
