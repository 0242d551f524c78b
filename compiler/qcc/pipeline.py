"""The stages from a model to a compiled library, and their order: the only place that knows it.

    import → simplify → calibrate → quantize → layout → lower → build → arena → emit

The graph is verified after every stage that changes it. ``stages`` gives the graphs one by one (``--dump-ir``,
``--stop-after``); ``compile`` runs them all.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from qcc.errors import ArtifactError, CalibrationError, QccError, TargetError, TuningError
from qcc.ir.graph import Graph, runs_float
from qcc.ir.text import show
from qcc.ir.verify import verify
from qcc.output import new_file
from qcc.target import Target

if TYPE_CHECKING:
    import onnx

    from qcc.lower.build import Built
    from qcc.lower.kernel import Call
    from qcc.npu.artifact import NpuModel
    from qcc.npu.description import Description
    from qcc.plan.layout import Layout
    from qcc.quantize.calibrate import Calibration
    from qcc.quantize.convert import Io
    from qcc.quantize.modes import Mode
    from qcc.runtime import Model
    from qcc.tune.job import Progress, Result
    from qcc.tune.measure import Measure

STAGES = ("import", "simplify", "quantize")
"""Stages that give a graph, in order."""
CACHE_HINT = "set QCC_CACHE to a folder that can be written and has space"


def compile(
    model: Any, *, target: str | Path | Target | Description = "host", calib: Any = None,
    out: str | Path | None = None, name: str | None = None, io: Io | None = None, method: str = "mse",
    jobs: int | None = None, dump_ir: str | Path | None = None, progress: bool | None = None,
    example_inputs: Any = None, host: str | Path | Target | None = None, package: str | None = None,
    records: str | Path | None = None, mode: Mode = "int8",
) -> Model | NpuModel:
    """Compile a model into a library for ``target``, or into an accelerator's program, and load it.

    ``model``: path or bytes of an ONNX or TFLite file, an ``onnx.ModelProto``, a ``torch.nn.Module`` (with
    ``example_inputs``, a tuple of tensors) or ``torch.export.ExportedProgram``, or a ``Graph``. Quantized models need
    no ``calib``; one that is integer already keeps its own inputs and outputs whatever ``io`` says. ``calib``: samples
    (``quantize.calibrate.Samples``), or the path of a file or folder of them. ``out``: the artifact's folder; without
    it the artifact lives as long as the returned model. ``io``: "float", or "int8" for inputs and outputs in the
    model's own quantization (None: "int8" for microcontrollers). ``method``: how ranges are chosen
    (``quantize.observers.METHODS``). ``jobs``: processes that build kernels. ``dump_ir``: a folder for the graph after
    each stage. ``progress``: bars on stderr (None: where that is a terminal). ``host``: with an accelerator, the target
    for nodes that it cannot compute. ``package``: the kind of firmware project that C source is for
    (``emit.ecosystems``). ``records``: a file that ``qcc tune`` wrote (None: those that come with qcc). ``mode``:
    "int8"; "dynamic" (int8 weights, activations quantized while it runs) or "float16" (float16 weights, float32
    arithmetic), which need no ``calib`` and a CPU target (docs/modes.md). Raises ``QccError``.
    """
    from qcc.emit.ecosystems import ECOSYSTEMS
    from qcc.emit.library import check_output

    chosen = load_target(target)
    check_options(chosen, mode, host, records)
    if package is not None and not (isinstance(chosen, Target) and chosen.emit == "c"):
        raise TargetError(f"there are no {package} packages for {chosen.name}: it does not get C source",
                          hint="choose a microcontroller, or leave --package out")
    if package is not None:
        check_choice("package", package, ECOSYSTEMS)
    helper = Target.load(host) if host is not None and not isinstance(host, Target) else host
    io = io or ("int8" if isinstance(chosen, Target) and chosen.firmware else "float")
    if out is not None:
        check_output(Path(out))
    remarks: list[str] = []
    found = stages(model, calib=calib, name=name, io=io, method=method, progress=progress, remarks=remarks,
                   example_inputs=example_inputs, mode=mode)
    *_, (_, graph) = dumped(found, dump_ir)

    def made_in(folder: Path) -> Model | NpuModel:
        if isinstance(chosen, Target):
            return build(graph, chosen, folder, jobs=jobs, progress=progress, remarks=remarks, package=package,
                         records=records)  # fmt: skip
        from qcc.npu.artifact import build as build_npu

        return build_npu(graph, chosen, folder, host=helper, jobs=jobs, remarks=remarks)

    if out is not None:
        return made_in(Path(out))
    folder = tempfile.mkdtemp(prefix="qcc-")
    try:
        made = made_in(Path(folder) / graph.name)
    except BaseException:
        shutil.rmtree(folder)
        raise
    weakref.finalize(made, shutil.rmtree, folder)
    return made


def check_options(
    target: Target | Description, mode: Mode, host: str | Path | Target | None, records: str | Path | None
) -> None:
    """Refuse options that the target has no use for."""
    fault = target.float_fault if isinstance(target, Target) else "it has no float unit"
    if mode != "int8" and fault:
        raise TargetError(f"mode {mode} needs a CPU that runs float32: {fault}", where=target.name,
                          hint="use --mode int8, or a CPU target")
    if host is not None and isinstance(target, Target):
        raise TargetError("it computes every node itself and needs no host", where=target.name, hint="leave out --host")
    if records is not None and not isinstance(target, Target):
        raise TargetError("an accelerator has no tuning records", where=target.name, hint="leave out --records")


def check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    """Raise QccError unless a parameter has one of its values."""
    if value not in choices:
        raise QccError(f"{key} cannot be '{value}'", hint=f"one of {', '.join(choices)}")


def check_mode(mode: Mode, calib: Any, io: Io) -> None:
    """Refuse unknown modes, and what has no meaning in one that runs float."""
    from qcc.quantize.convert import Io
    from qcc.quantize.modes import Mode

    check_choice("mode", mode, get_args(Mode))
    check_choice("io", io, get_args(Io))
    if mode != "int8" and calib is not None:
        raise CalibrationError(f"mode {mode} takes no samples", hint="leave out --calib (or calib=…)")
    if mode != "int8" and io == "int8":
        raise QccError(f"inputs and outputs are float in mode {mode}", hint="leave out --io int8")


def load_target(target: str | Path | Target | Description, emit: str | None = None) -> Target | Description:
    """A target by name or file: a CPU, or an accelerator (``kind = "npu"``). Raises TargetError.

    ``emit``: see ``Target.with_emit``.
    """
    from qcc.npu.description import Description, is_npu

    if not isinstance(target, Target | Description):
        target = Description.load(target) if is_npu(target) else Target.load(target)
    if emit is None:
        return target
    if isinstance(target, Description):
        raise TargetError(f"{target.name} has no form '{emit}'", hint="choose a microcontroller")
    return target.with_emit(emit)


def quantize(
    model: Any, *, calib: Any = None, name: str | None = None, io: Io = "float", method: str = "mse",
    example_inputs: Any = None,
) -> Graph:
    """The integer program of a model; parameters as for ``compile``. It is the same for every target."""
    *_, (_, graph) = stages(model, calib=calib, name=name, io=io, method=method, example_inputs=example_inputs)
    return graph


def stages(
    model: Any, *, calib: Any = None, name: str | None = None, io: Io = "float", method: str = "mse",
    progress: bool | None = None, remarks: list[str] | None = None, example_inputs: Any = None, mode: Mode = "int8",
) -> Iterator[tuple[str, Graph]]:
    """The graph after each of ``STAGES``, verified; an integer graph is passed through."""
    from qcc.passes import FUSE_INTEGER, simplify

    check_mode(mode, calib, io)
    graph = _import(model, name, example_inputs)
    verify(graph)
    if graph is not model or not is_integer(graph):
        yield "import", graph
    if is_integer(graph) and mode != "int8":
        raise QccError("the model is quantized already", where=graph.name, hint="compile it with --mode int8")
    if is_integer(graph):
        for rewrite in FUSE_INTEGER:
            graph = rewrite(graph)
        verify(graph)
        yield STAGES[-1], graph
        return

    graph = simplify(graph)
    verify(graph)
    yield "simplify", graph

    if mode != "int8":
        from qcc.quantize.modes import convert_mode

        graph = convert_mode(graph, mode, remarks)
        verify(graph)
        yield "quantize", graph
        return

    from qcc.quantize.assign import assign
    from qcc.quantize.convert import convert

    measured = _measure(graph, calib, method, progress)
    params, graph = assign(graph, measured.ranges, remarks)
    graph = convert(graph, params, io, measured.means, remarks)
    verify(graph)
    yield "quantize", graph


def dumped(found: Iterator[tuple[str, Graph]], folder: str | Path | None) -> Iterator[tuple[str, Graph]]:
    """The stages ``found``, each of which is printed into a file of ``folder`` on the way (None: not at all)."""
    for stage, graph in found:
        if folder is not None:
            _dump(graph, stage, Path(folder))
        yield stage, graph


def export(
    model: Any, *, calib: Any = None, name: str | None = None, method: str = "mse", example_inputs: Any = None
) -> onnx.ModelProto:
    """The quantized model as QDQ ONNX; parameters as for ``compile``. Compiling the result gives the same program."""
    from qcc.ir.to_qdq import to_qdq
    from qcc.quantize.assign import assign

    graph = next(g for stage, g in stages(model, name=name, example_inputs=example_inputs) if stage == "simplify")
    measured = _measure(graph, calib, method, None)
    params, graph = assign(graph, measured.ranges)
    return to_qdq(graph, params, measured.means)


def build(
    graph: Graph, target: Target, folder: Path, *, jobs: int | None = None, progress: bool | None = None,
    remarks: list[str] | None = None, package: str | None = None, records: str | Path | None = None,
) -> Model:
    """Lay out, lower, build and emit an integer program into ``folder``; load the result.

    ``records``: as for ``compile``.
    """
    from qcc.emit.cfolder import emit_c
    from qcc.emit.csource import work_bytes
    from qcc.emit.library import emit_library
    from qcc.emit.objects import emit_objects
    from qcc.emit.package import Package
    from qcc.plan.arena import count_touches, plan_arena
    from qcc.plan.layout import plan_layout
    from qcc.remote import RemoteModel
    from qcc.runtime import Model

    layout = plan_layout(graph, target)
    calls = lower(graph, layout)
    remarks = [] if remarks is None else remarks
    calls, chosen = _decided(calls, target, records, remarks)
    built = _build(calls, target, jobs, progress, chosen)
    arena = plan_arena(layout, work_bytes(built, calls), count_touches(calls))
    made = Package(graph.name, graph, layout, arena, calls, built, target, tuple(remarks))
    if target.emit == "c":
        emit_c(made, folder, package or "cmake")
    else:
        (emit_objects if target.emit == "object" else emit_library)(made, folder)
    return RemoteModel(folder) if target.missing() else Model(folder)


def autotune(
    model: Any, *, target: str | Path | Target | Description = "host", records: str | Path, calib: Any = None,
    trials: int = 400, seconds: float | None = None, seed: int = 0, jobs: int = 1, measure: Measure | None = None,
    watch: Callable[[Progress], None] | None = None, name: str | None = None, method: str = "mse",
    example_inputs: Any = None,
) -> Result:
    """Measure how the kernels of a model run fastest on ``target``, and keep that in the file ``records``.

    ``trials``: candidates in all, those that the file knows included; ``seconds``: longest time of this run;
    ``jobs``: processes that compile candidates; ``measure``: how (None: what the target file says, see
    ``tune.measure.choose_measure``); ``watch`` is told of progress. Other parameters as for ``compile``. Raises
    ``QccError``.
    """
    from qcc.tune.job import run_job

    chosen = load_target(target)
    if not isinstance(chosen, Target):
        raise TuningError("an accelerator's compiler tries every tiling on the cycle model by itself",
                          where=chosen.name, hint="compile: there is nothing to tune")
    io: Io = "int8" if chosen.firmware else "float"
    graph = quantize(model, calib=calib, name=name, io=io, method=method, example_inputs=example_inputs)
    return run_job(graph, chosen, Path(records), trials=trials, seconds=seconds, seed=seed, jobs=jobs, measure=measure,
                   watch=watch)  # fmt: skip


def lower(graph: Graph, layout: Layout) -> list[Call]:
    """The kernel calls of an integer program, in order."""
    from qcc.ops import OPS

    calls: list[Call] = []
    for node in graph.nodes:
        if not layout.is_view(node.output):
            op = OPS[node.op]
            calls += (op.float_kernels if runs_float(graph, node) else op.kernels)(node, layout)
    return calls


def is_integer(graph: Graph) -> bool:
    """Whether a graph is an integer program already."""
    return any(t.dtype == "int8" for t in graph.types.values())


def _import(model: Any, name: str | None, example_inputs: Any) -> Graph:
    """The graph of a model by the front end that its contents call for."""
    from qcc.frontend.detect import is_tflite

    if isinstance(model, Graph):
        if name is None:
            return model
        graph = model.copy()
    elif _is_torch(model):
        from qcc.frontend import torch

        graph = torch.load(model, example_inputs, name)
    elif is_tflite(model):
        from qcc.frontend import tflite

        graph = tflite.load(model, name)
    else:
        from qcc.frontend import onnx

        graph = onnx.load(model, name)
    graph.name = re.sub(r"\W+", "_", name or graph.name).strip("_") or "model"
    return graph


def _is_torch(model: Any) -> bool:
    """Whether it is a module or an exported program; PyTorch is imported by then, or it is neither."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module | torch.export.ExportedProgram)


def _measure(graph: Graph, calib: Any, method: str, progress: bool | None) -> Calibration:
    """Ranges from the samples; without any where the model itself is quantized."""
    from qcc.quantize.calibrate import Calibration

    if calib is not None:
        return _calibrate(graph, calib, method, progress)
    if any(node.op == "fake_quant" for node in graph.nodes):
        return Calibration({}, {})
    raise CalibrationError("a float model needs calibration samples", hint="give some with --calib (or calib=…)")


def _calibrate(graph: Graph, calib: Any, method: str, progress: bool | None) -> Calibration:
    """Ranges from the samples, or from the cache when the same samples were seen with the same graph."""
    from qcc.lower.build import cache_folder
    from qcc.quantize.calibrate import Calibration, calibrate, fingerprint
    from qcc.samples import load_samples

    samples = load_samples(calib, graph.inputs) if isinstance(calib, str | Path) else calib
    contents = fingerprint(samples)
    if contents is None:
        return calibrate(graph, samples, method, progress)
    text = json.dumps([show(graph), contents, method, _sources("quantize")])
    path = cache_folder() / "ranges" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    if path.exists():
        found = json.loads(path.read_text())
        ranges = {v: (low, high) for v, (low, high) in found["ranges"].items()}
        return Calibration(ranges, {v: tuple(m) for v, m in found["means"].items()})
    measured = calibrate(graph, samples, method, progress)
    with _writing_cache():
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path, "the cache", CACHE_HINT) as file:
            file.write(json.dumps({"ranges": measured.ranges, "means": measured.means}).encode())
    return measured


@contextmanager
def _writing_cache() -> Iterator[None]:
    """Turn what the system says about the cache's folder into an ArtifactError."""
    from qcc.lower.build import cache_folder

    try:
        yield
    except OSError as error:
        raise ArtifactError(f"the cache cannot be written ({error.strerror})", where=str(cache_folder()),
                            hint=CACHE_HINT) from error


def _sources(folder: str) -> str:
    """Digest of a folder of this package: what it computed is stale once it changes."""
    state = hashlib.sha256()
    for source in sorted((Path(__file__).parent / folder).glob("*.py")):
        state.update(source.read_bytes())
    return state.hexdigest()


def _decided(
    calls: list[Call], target: Target, records: str | Path | None, remarks: list[str]
) -> tuple[list[Call], dict[str, dict[str, int]]]:
    """The calls with constants packed as records want them, and the decisions by kernel that are left to schedules.

    ``records``: a user's, or None for those that come with qcc; ``remarks`` say how many kernels they know.
    """
    from qcc.lower.repack import repacked, scheduled_decisions
    from qcc.tune.records import Key, load_records, shipped_records

    known = shipped_records(target) if records is None else load_records(Path(records))
    if not len(known):
        return calls, {}
    key, digests = Key.of(target), {call.kernel.digest for call in calls}
    chosen = known.chosen(key, digests)
    if records is None and not chosen and known.stale(key) is None:
        return calls, {}
    source, ignored = "the records that come with qcc" if records is None else str(records), known.stale(key)
    remarks.append(f"{len(chosen)} of {len(digests)} kernels are compiled as {source} say"
                   + (f"; ignored: {ignored}" if ignored else ""))  # fmt: skip
    repacks = [repacked(call, target, chosen.get(call.kernel.digest, {})) for call in calls]
    digests_now = {old.kernel.digest: new.kernel.digest for old, new in zip(calls, repacks, strict=True)}
    return repacks, {digests_now[digest]: scheduled_decisions(c) for digest, c in chosen.items()}


def _build(
    calls: list[Call], target: Target, jobs: int | None, progress: bool | None, chosen: dict[str, dict[str, int]]
) -> dict[str, Built]:
    from qcc.lower.build import build_kernels, cache_folder

    with _bar("build kernels", progress) as update, _writing_cache():
        (cache_folder() / "objects").mkdir(parents=True, exist_ok=True)  # before a worker fails to
        return build_kernels([call.kernel for call in calls], target, jobs, update, chosen)


@contextmanager
def _bar(title: str, shown: bool | None) -> Iterator[Any]:
    """A function (done, total) that moves a bar on stderr, or None where none is shown."""
    if not (sys.stderr.isatty() if shown is None else shown):
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _dump(graph: Graph, stage: str, folder: Path) -> None:
    hint = "choose another folder with --dump-ir"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"the IR cannot be dumped: {error.strerror}", where=str(folder), hint=hint) from error
    with new_file(folder / f"{STAGES.index(stage)}-{stage}.qir", "the IR", hint) as file:
        file.write(show(graph).encode())
