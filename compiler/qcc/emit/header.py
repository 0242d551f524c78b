"""The C header of a library: sizes, shapes and quantization as constants, and the functions."""

from __future__ import annotations

from collections.abc import Iterator

from qcc.emit.package import C_TYPES, KEYWORDS, LOCALS, Package, identifier, parameter_name
from qcc.emit.parts import LINKAGE, edge_constants, header


def header_source(package: Package) -> str:
    """Text of ``<name>.h``, C99 and C++."""
    p, upper = package, package.prefix.upper()
    parameters = list(_parameters(p))
    inputs = [name for kind, name, _ in parameters if kind == "input"]
    outputs = [name for kind, name, _ in parameters if kind == "output"]
    body = [
        *LINKAGE,
        f"#define {upper}_INPUTS {len(inputs)}",
        f"#define {upper}_OUTPUTS {len(outputs)}",
        f"#define {upper}_ARENA_BYTES {p.arena_bytes}",
        f"#define {upper}_WEIGHT_BYTES {p.weights.nbytes}",
        *edge_constants(p, lambda kind: True),
        "",
        *_run_comment(p),
        f"int {p.prefix}_run(const void *const *inputs, void *const *outputs);",
        "",
        "/* The same with one parameter for each array. */",
        f"static inline int {p.prefix}({', '.join(text for _, _, text in parameters)})",
        "{",
        f"    const void *inputs[{max(len(inputs), 1)}] = {{{', '.join(inputs) or '0'}}};",
        f"    void *outputs[{len(outputs)}] = {{{', '.join(outputs)}}};",
        f"    return {p.prefix}_run(inputs, outputs);",
        "}",
        "",
        "/* Sets the number of threads (1 at first), the caller's included; returns how many there are. */",
        f"int {p.prefix}_set_threads(int count);",
        "",
        "/* Has `hook` called after each node of the program; null ends that. For profiling and debugging. */",
        f"typedef void (*{p.prefix}_hook)(void *context, int32_t node);",
        f"void {p.prefix}_set_hook({p.prefix}_hook hook, void *context);",
        "",
        "/* The arena, for the debugger: manifest.json says what lies where. */",
        f"const uint8_t *{p.prefix}_arena(void);",
    ]
    return header(p, ["Arrays are dense, in row-major order. One inference at a time: the functions share one static "
                      "arena."], body)  # fmt: skip


def _run_comment(p: Package) -> list[str]:
    arrays = "/* Runs the model; `inputs` and `outputs` are the arrays in order. Returns 0, or -1 if a pointer is null"
    if not p.target.permission:
        return [f"{arrays}. */"]
    return [
        f"{arrays},",
        " * -2 if the system refuses AMX. The first run asks Linux for the permission to use tile registers, for the",
        " * process and all its threads: arch_prctl(ARCH_REQ_XCOMP_PERM), which Linux has from 5.16 on. */",
    ]


def _parameters(p: Package) -> Iterator[tuple[str, str, str]]:
    """(kind, name, declaration) of each array; names are those of the values where that is possible."""
    taken = {"inputs", "outputs", p.prefix, *KEYWORDS, *LOCALS}
    for kind, index, value, _ in p.edges():
        name = parameter_name(identifier(value), f"{kind}{index}", taken)
        constant = "const " if kind == "input" else ""
        yield kind, name, f"{constant}{C_TYPES[p.graph.types[value].dtype]} *{name}"
