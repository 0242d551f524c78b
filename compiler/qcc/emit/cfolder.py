"""A folder of C99 for a firmware project: model, constants, headers, README with exact sizes, build files."""

from __future__ import annotations

import json
from pathlib import Path

from qcc.data import data_folder
from qcc.emit.cheader import model_header, region_bytes
from qcc.emit.csource import SUPPORT, Constants, ModelSource, offset_in_arena, weights_header, weights_source
from qcc.emit.ecosystems import ECOSYSTEMS, public_headers
from qcc.emit.library import MANIFEST, check_output, replacing
from qcc.emit.manifest import manifest
from qcc.emit.measure import Sizes, measure
from qcc.emit.package import Package
from qcc.emit.readme import parameter_bytes, readme
from qcc.errors import TargetError
from qcc.ir.text import save

REFERENCE = "reference"
"""Folder of the integer program, for ``qcc verify``."""


def emit_c(package: Package, folder: Path, kind: str = "cmake") -> None:
    """Write ``<prefix>.h``, ``<prefix>.c``, ``<prefix>_weights.{h,c}``, the headers that they include, ``README.md``,
    ``manifest.json``, the program, and the files of the ecosystem ``kind`` into ``folder``; an earlier artifact there
    is replaced. Raises ArtifactError, and TargetError if the target has less flash than the model needs.
    """
    check_output(folder)
    p, ecosystem = package, ECOSYSTEMS[kind]
    constants = Constants(p)
    source = ModelSource(p, constants)
    texts = {
        f"{p.prefix}.h": model_header(p),
        f"{p.prefix}.c": source.text(),
        f"{p.prefix}_weights.h": weights_header(p, constants),
        f"{p.prefix}_weights.c": weights_source(p, constants),
        **{name: (data_folder("runtime") / "mcu" / name).read_text() for name in ("qcc.h", *SUPPORT[p.target.family])},
    }
    with replacing(folder) as new:
        for name, text in texts.items():
            file = new / ecosystem.folder(name, p) / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        for name, text in ecosystem.files(p, ecosystem).items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(text)
        includes = sorted({new / ecosystem.headers, new / ecosystem.sources})
        files = [new / ecosystem.sources / f"{p.prefix}{end}.c" for end in ("", "_weights")]
        sizes = measure(files, includes, p.target, f"{p.prefix}_run")
        _check_flash(p, constants, sizes)
        (new / "README.md").write_text(readme(p, source, sizes, ecosystem.use))
        (new / REFERENCE).mkdir()
        save(p.graph, new / REFERENCE)
        facts = manifest(p, {symbol: name for symbol, name in source.functions.items()})
        facts["sources"] = {"headers": ecosystem.headers, "sources": ecosystem.sources,
                            "public": list(public_headers(p))}  # fmt: skip
        facts["memory"] = region_bytes(p)
        facts["flash"] = {"constants": constants.nbytes, "parameters": parameter_bytes(p)}
        for entry in (*facts["inputs"], *facts["outputs"]):
            entry["offset"] = offset_in_arena(p, entry["name"])
        if sizes is not None:
            facts["measured"] = {"compiler": sizes.compiler, "code_bytes": sizes.code, "stack_bytes": sizes.stack,
                                 "flash_bytes": sizes.flash}  # fmt: skip
        (new / MANIFEST).write_text(json.dumps(facts, indent=1) + "\n")


def _check_flash(p: Package, constants: Constants, sizes: Sizes | None) -> None:
    """Raise TargetError where the model does not fit; without a compiler only its constants are counted."""
    needed, room = sizes.flash if sizes else constants.nbytes, p.target.flash
    if room is None or needed <= room:
        return
    largest = max(constants.arrays, key=lambda name: constants.arrays[name].nbytes)
    raise TargetError(
        f"the model needs {needed:,} bytes of flash, the target has {room:,}: {needed - room:,} too few; the largest "
        f"constant is '{largest}' with {constants.arrays[largest].nbytes:,} bytes ({constants.comments[largest]})",
        where=p.target.name, hint="raise 'flash' in the target file, or make the model smaller",
    )  # fmt: skip
