"""The command ``qcc``: arguments → API, results → text."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Literal

import click

from qcc.errors import QccError

FOLDER = click.argument("folder", type=click.Path(path_type=Path))
INPUT_HELP = "A .npy or .npz file: one sample, or several along the first axis."


class _Group(click.Group):
    """Says what a user can mend in one line on stderr and exits with 1; anything else is a bug and keeps its trace."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except QccError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="qcc")
def main() -> None:
    """Compiles a float neural network into one int8 program that computes the same bytes on every target."""


@main.command("compile")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", default="host", show_default=True, help="A shipped target, 'host', or a .toml file.")
@click.option("--calib", type=click.Path(path_type=Path), help="Samples: .npz, .npy, or a folder of those.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to write  [default: build/<model>]")
@click.option("--name", help="Name of the library and its functions  [default: the model file's]")
@click.option("--io", type=click.Choice(["float", "int8"]),
              help="What the compiled model takes and returns  [default: int8 for microcontrollers, else float]")
@click.option("--mode", type=click.Choice(["int8", "dynamic", "float16"]), default="int8", show_default=True,
              help="dynamic: int8 weights, activations quantized at run time. float16: weights of float16.")
@click.option("--jobs", type=click.IntRange(1), help="Processes that compile kernels  [default: one for each core]")
@click.option("--dump-ir", type=click.Path(path_type=Path), help="Folder for the graph after every stage.")
@click.option("--host", help="Target for what an accelerator cannot compute  [default: such nodes are errors]")
@click.option("--emit", type=click.Choice(["c", "object"]),
              help="For microcontrollers: C source, or a static library that LLVM compiled  [default: c]")
@click.option("--records", type=click.Path(path_type=Path),
              help="Tuning records to compile by  [default: those that come with qcc]")
@click.option("--package", type=click.Choice(["cmake", "zephyr", "arduino", "espidf"]),
              help="The kind of firmware project that C source is for  [default: cmake]")
@click.option("--stop-after", type=click.Choice(["import", "simplify", "quantize"]),
              help="Print the graph after this stage, and compile nothing.")
def compile_command(
    model: Path, target: str, calib: Path | None, output: Path | None, name: str | None,
    io: Literal["float", "int8"] | None, mode: Literal["int8", "dynamic", "float16"], jobs: int | None,
    dump_ir: Path | None, host: str | None, emit: str | None, package: str | None, records: Path | None,
    stop_after: str | None,
) -> None:  # fmt: skip
    """Compile an ONNX or TFLite MODEL into a library, its header, and a manifest."""
    from qcc import pipeline, report
    from qcc.ir.text import show

    if stop_after is not None:
        found = pipeline.stages(model, calib=calib, name=name, io=io or "float", mode=mode)
        for stage, graph in pipeline.dumped(found, dump_ir):
            if stage == stop_after or (stage == "quantize" and stop_after != "import"):
                click.echo(show(graph), nl=False)  # an integer model has no stage "simplify"
                return
    folder = output or Path("build") / model.stem
    made = pipeline.compile(model, target=pipeline.load_target(target, emit), calib=calib, out=folder, name=name, io=io,
                            jobs=jobs, dump_ir=dump_ir, host=host, package=package, records=records, mode=mode)
    report.summary(made.manifest, folder)


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(["qdq"]), required=True,
              help="qdq: ONNX with QuantizeLinear and DequantizeLinear.")
@click.option("--calib", type=click.Path(path_type=Path), help="Samples: .npz, .npy, or a folder of those.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The file to write.")
def export(model: Path, kind: str, calib: Path | None, output: Path) -> None:
    """Write the quantized MODEL for other tools."""
    from qcc import pipeline
    from qcc.output import check_file, new_file

    check_file(output, "the model")
    data = pipeline.export(model, calib=calib).SerializeToString()
    with new_file(output, "the model") as file:
        file.write(data)
    click.echo(f"{output}: {len(data)} bytes, {kind}")


@main.command()
@FOLDER
@click.option("--input", "source", type=click.Path(path_type=Path), required=True, help=INPUT_HELP)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The .npz file to write.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def run(folder: Path, source: Path, output: Path, threads: int) -> None:
    """Run the compiled model in FOLDER on samples."""
    import numpy as np

    from qcc.output import check_file, new_file
    from qcc.runtime import load
    from qcc.samples import load_inputs, runs, save_arrays

    check_file(output, "the output")
    model = load(folder)
    model.set_threads(threads)
    results = [model.run(sample) for sample in runs(load_inputs(source, list(model.inputs)), model.inputs)]
    arrays: dict[str, Any] = {name: np.concatenate([np.atleast_1d(r[name]) for r in results]) for name in model.outputs}
    with new_file(output, "the output") as file:
        save_arrays(file, arrays)
    click.echo(f"{len(results)} inferences → {output}: " + ", ".join(model.outputs))


@main.command()
@FOLDER
@click.option("--input", "source", type=click.Path(path_type=Path), help=INPUT_HELP + "  [default: random ones]")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def verify(folder: Path, source: Path | None, threads: int) -> None:
    """Compare the artifact in FOLDER with the integer reference, byte for byte."""
    from qcc.runtime import load
    from qcc.samples import load_inputs, runs
    from qcc.verify import random_samples, verify_model

    model = load(folder)
    model.set_threads(threads)
    samples = runs(load_inputs(source, list(model.inputs)), model.inputs) if source else random_samples(model)
    difference = verify_model(model, samples)
    if difference is not None:
        click.echo(f"differs: {difference}")
        sys.exit(1)
    click.echo(f"byte-identical ({len(samples)} inferences)")


@main.command()
@FOLDER
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seconds", type=click.FloatRange(0), default=1.0, show_default=True, help="Least time to measure.")
@click.option("--layers", is_flag=True, help="The time of each layer as well.")
def bench(folder: Path, threads: int, seconds: float, layers: bool) -> None:
    """Measure the latency of the compiled model in FOLDER (estimate it, on an accelerator)."""
    from qcc import report
    from qcc.npu.artifact import NpuModel
    from qcc.npu.report import as_text
    from qcc.runtime import load

    model = load(folder)
    if isinstance(model, NpuModel):
        click.echo(as_text(model.timeline()), nl=False)
        return
    used = model.set_threads(threads)
    report.latency(model, used, model.measure(seconds))
    if layers:
        report.layer_times(model, model.measure_layers(seconds))


@main.command()
@FOLDER
@click.option("--svg", type=click.Path(path_type=Path), help="The .svg file to write: the arena, buffers over layers.")
def inspect(folder: Path, svg: Path | None) -> None:
    """Show the layers of the compiled model in FOLDER, its sizes, and its arena."""
    from qcc import report
    from qcc.arena_svg import arena_svg
    from qcc.output import new_file
    from qcc.runtime import read_manifest

    manifest = read_manifest(folder)
    if svg is not None:
        with new_file(svg, "the picture") as file:
            file.write(arena_svg(manifest).encode())
    report.layers(manifest)
    report.arena(manifest)
    report.summary(manifest, folder)


@main.command()
def targets() -> None:
    """List the targets that ship with qcc."""
    from qcc import report
    from qcc.npu.description import Description, known_npus
    from qcc.target import Target, host_target, known_targets

    try:
        host = host_target().name
    except QccError:
        host = ""
    report.targets([Target.load(name) for name in known_targets()], host)
    report.accelerators([Description.load(name) for name in known_npus()])


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", default="edge-npu", show_default=True, help="A shipped accelerator, or a .toml file.")
@click.option("--vary", multiple=True, required=True, help="key=value,value… of the description; several combine.")
@click.option("--calib", type=click.Path(path_type=Path), help="Samples: .npz, .npy, or a folder of those.")
@click.option("--plot", type=click.Path(path_type=Path), help="The .svg file to write: latency over memory or array.")
def sweep(model: Path, target: str, vary: tuple[str, ...], calib: Path | None, plot: Path | None) -> None:
    """Estimate an ONNX MODEL on variants of an accelerator, and mark those that no other beats."""
    from qcc import pipeline, report
    from qcc.npu.description import Description
    from qcc.npu.report import pareto_plot
    from qcc.npu.split import split
    from qcc.npu.sweep import parse_vary
    from qcc.npu.sweep import sweep as run_sweep
    from qcc.output import check_file, new_file

    check_file(plot, "the plot")
    base, keys = Description.load(target), dict(parse_vary(v) for v in vary)
    points = run_sweep(split(pipeline.quantize(model, calib=calib), base), base, keys)
    report.pareto(list(keys), points)
    if plot is not None:
        with new_file(plot, "the plot") as file:
            file.write(pareto_plot(points).encode())


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds; ``90s``, ``10m`` or ``2h``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds of the text."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
        if found is None:
            self.fail(f"'{value}' is no duration: write 90s, 10m or 2h", param, ctx)
        return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", default="host", show_default=True, help="A shipped target, 'host', or a .toml file.")
@click.option("--calib", type=click.Path(path_type=Path), help="Samples: .npz, .npy, or a folder of those.")
@click.option("--records", type=click.Path(path_type=Path), required=True,
              help="The file that keeps what is measured; a job takes up where an earlier one ended.")
@click.option("--trials", type=click.IntRange(1), default=400, show_default=True, help="Candidates to try in all.")
@click.option("--time", "seconds", type=Duration(), help="Longest time: 90s, 10m, 2h.")
@click.option("--rpc", metavar="HOST:PORT", help="Measure on the devices of this TVM RPC tracker.")
@click.option("--key", help="The devices' key at the tracker.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes that compile kernels.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--plot", type=click.Path(path_type=Path), help="The .svg file to write: best so far over candidates.")
def tune(
    model: Path, target: str, calib: Path | None, records: Path, trials: int, seconds: float | None, rpc: str | None,
    key: str | None, jobs: int, seed: int, plot: Path | None,
) -> None:  # fmt: skip
    """Measure how the kernels of a MODEL run fastest; compile with the same --records then."""
    from qcc import pipeline
    from qcc.output import check_file, new_file
    from qcc.target import Target
    from qcc.tune import report
    from qcc.tune.measure import choose_measure

    check_file(plot, "the plot")
    chosen = pipeline.load_target(target)
    measure = choose_measure(chosen, rpc, key) if isinstance(chosen, Target) else None
    with report.shown_progress(trials, seconds) as watch:
        result = pipeline.autotune(model, target=chosen, records=records, calib=calib, trials=trials, seconds=seconds,
                                   seed=seed, jobs=jobs, measure=measure, watch=watch)  # fmt: skip
    report.summary(result)
    if plot is not None:
        with new_file(plot, "the plot") as file:
            file.write(report.plot(result.history, result.unit).encode())


RECORDS = click.argument("file", type=click.Path(path_type=Path))


@main.group()
def records() -> None:
    """Show and change files of tuning records."""


@records.command()
@RECORDS
def show(file: Path) -> None:
    """Show the best decisions of each kernel in FILE."""
    from qcc.target import Target, known_targets
    from qcc.tune.records import Key, load_records
    from qcc.tune.report import show_records

    show_records(load_records(file), [(name, Key.of(Target.load(name))) for name in known_targets()])


@records.command()
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The file to write.")
def merge(files: tuple[Path, ...], output: Path) -> None:
    """Put the records of FILES into one; of the same candidate the later file's counts."""
    from qcc.tune.records import Records, load_records, write_records

    merged = Records(record for file in files for record in load_records(file))
    write_records(merged, output)
    click.echo(f"{output}: {len(merged)} records")


@records.command()
@RECORDS
def prune(file: Path) -> None:
    """Keep in FILE the best candidate and the default of each kernel, and what holds for today's schedules."""
    from qcc.target import Target, known_targets
    from qcc.tune.records import Key, Records, load_records, write_records

    before = load_records(file)
    keys = {key.target: key for key in (Key.of(Target.load(name)) for name in known_targets())}
    kept = Records(r for r in before.winners() if keys.get(r.key.target, r.key) == r.key)
    write_records(kept, file)
    click.echo(f"{file}: {len(kept)} of {len(before)} records kept")
