"""A folder with an accelerator's program, and the model that runs it in the simulator."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from qcc.emit.library import MANIFEST, check_output, replacing
from qcc.errors import ArtifactError
from qcc.ir.graph import Graph, TensorType
from qcc.ir.text import load as load_program
from qcc.ir.text import save
from qcc.npu import isa, report
from qcc.npu.compile import compile_graph
from qcc.npu.cycles import Timeline, analyse
from qcc.npu.description import Description
from qcc.npu.host import Device
from qcc.npu.program import Program
from qcc.npu.split import Split, split
from qcc.runtime import FORMAT, checked_inputs, load, named_inputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qcc.target import Target

Arrays = Mapping[str, NDArray[Any]]
PROGRAM, HOST = "program.npu", "host"
AGAIN = "compile the model again"


class NpuModel:
    """A compiled model on the simulated accelerator; what ``qcc.runtime.Model`` is for libraries.

    One inference at a time: calls from several threads wait for each other.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Load the artifact in ``folder``; raises ArtifactError."""
        self.folder, self.manifest = folder, manifest
        self.name: str = manifest["name"]
        self.inputs, self.outputs = (
            {e["name"]: TensorType(tuple(e["shape"]), e["dtype"]) for e in manifest[kind]}
            for kind in ("inputs", "outputs"))
        try:
            data = (folder / PROGRAM).read_bytes()
        except OSError as error:
            raise ArtifactError(f"{PROGRAM} cannot be read ({error.strerror})", where=str(folder),
                                hint=AGAIN) from error
        program = Program.from_bytes(data, str(folder / PROGRAM))
        parts = split(self.program(), program.description, host=manifest["target"]["host"] is not None)
        wanted = ([p.name for p in program.inputs], [p.name for p in program.outputs])
        if wanted != (parts.inputs, parts.outputs):
            raise ArtifactError(f"{PROGRAM} belongs to another model", where=str(folder), hint=AGAIN)
        self._device = Device(parts, program, load(folder / HOST) if (folder / HOST).is_dir() else None)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Name and target."""
        return f"<qcc.NpuModel {self.name} for {self.manifest['target']['name']}>"

    def __call__(self, x: NDArray[Any] | Arrays | None = None, /, **named: NDArray[Any]) -> Any:
        """As ``qcc.runtime.Model``: an array, a mapping or keywords in; an array or a dict out."""
        found = self.run(named_inputs(self.inputs, x, named))
        return next(iter(found.values())) if len(found) == 1 else found

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs by name; raises InputError, and MachineError if the program breaks a rule of the machine."""
        arrays = checked_inputs(self.inputs, inputs)
        with self._lock:
            return self._device.run(arrays)

    def set_threads(self, count: int) -> int:
        """There is one thread."""
        return 1

    def program(self) -> Graph:
        """The integer program that the accelerator computes."""
        return load_program(self.folder)

    def trace(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """No value can be read back: tiles overwrite each other."""
        return {}

    def timeline(self) -> Timeline:
        """The cycle model's account."""
        return analyse(self._device.program)


def build(graph: Graph, d: Description, folder: Path, *, host: Target | None = None, jobs: int | None = None,
          remarks: Sequence[str] = ()) -> NpuModel:
    """Compile an integer program and write ``program.npu``, its assembler text, manifest, reports and the integer
    program into ``folder``; an earlier artifact there is replaced. With ``host``, nodes that the accelerator cannot
    compute, and all behind them, become a library for that target. Raises QccError.
    """
    check_output(folder)
    parts = split(graph, d, host is not None)
    program = compile_graph(parts, d)
    t = analyse(program)
    with replacing(folder) as new:
        (new / PROGRAM).write_bytes(program.to_bytes())
        text = f"setup:\n{isa.disassemble(program.setup)}body:\n{isa.disassemble(program.body)}"
        (new / "program.asm").write_text(text)
        (new / "report.txt").write_text(report.as_text(t))
        (new / "report.json").write_text(json.dumps(report.as_dict(t), indent=1) + "\n")
        (new / "trace.json").write_text(json.dumps(report.chrome_trace(t)) + "\n")
        (new / "timeline.svg").write_text(report.timeline_svg(t))
        save(graph, new)
        after = parts.host_graph()
        if host is not None and after is not None:
            from qcc.pipeline import build as build_library

            build_library(after, host, new / HOST, jobs=jobs)
        manifest = _manifest(graph, parts, program, t, remarks, host.name if host else None)
        (new / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return NpuModel(folder, manifest)


def _manifest(graph: Graph, parts: Split, program: Program, t: Timeline, remarks: Sequence[str],
              host: str | None) -> dict[str, Any]:
    from qcc import __version__
    from qcc.emit.package import edges, symbol_prefix

    found: dict[str, list[dict[str, Any]]] = {"input": [], "output": []}
    for kind, _, value, q in edges(graph):
        t_value = graph.types[value]
        entry: dict[str, Any] = {"name": value, "shape": list(t_value.shape), "dtype": t_value.dtype}
        found[kind].append(entry | ({} if q is None else {"scale": q.step, "zero_point": q.zero_point}))
    by_name = {layer.name: layer for layer in program.layers}
    on_host = {n.output for n in (*parts.before, *parts.after)}
    layers = []
    for node in graph.nodes:
        layer, shape = by_name.get(node.output), graph.types[node.output]
        notes = ["on the host"] if node.output in on_host else []
        if layer:
            notes = [f"tile {layer.tiling}", *([f"weights {layer.weights}"] if layer.weights else [])]
        layers.append({"name": node.output, "op": node.op, "source": node.source, "shape": list(shape.shape),
                       "dtype": shape.dtype, "macs": layer.macs if layer else 0,
                       "weight_bytes": layer.weight_bytes if layer else 0, "kernels": [PROGRAM] if layer else [],
                       "remarks": notes, "place": None})  # fmt: skip
    peak = max(program.occupancy, default=0)
    return {
        "format": FORMAT, "qcc": __version__, "name": graph.name, "prefix": symbol_prefix(graph.name),
        "target": {"kind": "npu", "name": program.description.name, "host": host},
        "inputs": found["input"], "outputs": found["output"], "macs": sum(x.macs for x in program.layers),
        "weight_bytes": len(program.constants), "arena": {"bytes": peak, "lower_bound": peak, "buffers": []},
        "cycles": t.total, "latency_ms": t.latency_ms, "layers": layers, "remarks": list(remarks),
    }  # fmt: skip
