"""C source for a microcontroller, run on this machine: compiled with a shim that has the functions of a library."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qcc.emit.library import call_tool
from qcc.errors import ToolError

SHIM = """\
#include "{p}.h"

static uint32_t memory[{size} / 4 + 1];
static void (*hook)(void *, int32_t);
static void *hook_context;

void {p}_layer_done(const {p}_context *context, int32_t layer)
{{
    (void)context;
    if (hook) {{
        hook(hook_context, layer);
    }}
}}

int {p}_host_run(const void *const *inputs, void *const *outputs)
{{
    const {p}_context context = {{{regions}, 0}};
    return {p}_run(&context, {arrays});
}}

int {p}_host_set_threads(int count)
{{
    return (void)count, 1;
}}

void {p}_host_set_hook(void (*function)(void *, int32_t), void *context)
{{
    hook = function;
    hook_context = context;
}}

const void *{p}_host_arena(void)
{{
    return memory;
}}
"""


def host_library(folder: Path, manifest: Mapping[str, Any], scratch: Path) -> Path:
    """A shared library in ``scratch`` from the artifact in ``folder``; raises ToolError."""
    compiler = next((found for cc in ("cc", "gcc", "clang") if (found := shutil.which(cc))), None)
    if compiler is None:
        raise ToolError("no C compiler was found to run the model on this machine", hint="install gcc or clang")
    prefix = manifest["prefix"]
    arrays = [f"{kind}[{i}]" for kind in ("inputs", "outputs") for i in range(len(manifest[kind]))]
    regions = [f"(uint8_t *)memory + {r['begin']}" for r in manifest["arena"]["regions"]]
    text = SHIM.format(p=prefix, size=manifest["arena"]["bytes"], arrays=", ".join(arrays), regions=", ".join(regions))
    (scratch / "shim.c").write_text(text)
    library = scratch / f"lib{prefix}.so"
    inside, headers = (folder.absolute() / manifest["sources"][key] for key in ("sources", "headers"))
    sources = [str(inside / f"{prefix}.c"), str(inside / f"{prefix}_weights.c"), str(scratch / "shim.c")]
    command = [compiler, "-std=c99", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-DQCC_PROFILE", f"-I{headers}",
               *sources, "-o", str(library)]  # fmt: skip
    call_tool(command, scratch, "compile the model again")
    return library
