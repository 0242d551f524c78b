"""What tuning gains, and the records that come with qcc. Tables go to docs/tuning.md, records to targets/records/.

    python benchmarks/tuning.py x86 [--time 30m] [--trials 2000] [--target host]    whole models, medians of one run
    python benchmarks/tuning.py m4                                  instructions of the MLPerf Tiny models ($QCC_DATA)
    python benchmarks/tuning.py ship [--time 2m] [--targets x86-vnni,arm-neon]

A job that was interrupted goes on: records are kept in build/tuning. ``ship`` takes --time for each model and target.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "mcu"), str(ROOT / "benchmarks")]

from models import BUILDERS  # noqa: E402

from qcc import cli, pipeline  # noqa: E402
from qcc.ir.graph import Graph  # noqa: E402
from qcc.runtime import Model  # noqa: E402
from qcc.target import Target, host_target  # noqa: E402
from qcc.tune import job, report  # noqa: E402
from qcc.tune.job import Result  # noqa: E402
from qcc.tune.records import load_records, write_records  # noqa: E402
from qcc.verify import random_samples, verify_model  # noqa: E402

DOCUMENT = ROOT / "docs" / "tuning.md"
KEPT = ROOT / "build" / "tuning"
MODELS = ("mobilenet_v1_075", "mobilenet_v2", "resnet18")
SHIPPED_MODELS = (*MODELS, "resnet50")
SHIPPED_TARGETS = ("x86-vnni", "x86-vnni-vbmi", "x86-avx2", "x86-amx", "arm-neon", "arm-dotprod", "arm-i8mm")
TINY = ("kws", "vww", "ic", "ad")
ROUNDS = 300
TRIALS = 100_000
"""More than any time allows: jobs end by time, or when nothing improves."""
SEARCHED = 2000
"""Candidates that the table of whole models stands for, whether they improve anything or not."""


def program(name: str) -> Graph:
    """The integer program of a well-known classifier with random weights."""
    samples = np.random.default_rng(0).normal(size=(4, 1, 3, 224, 224)).astype(np.float32)
    return pipeline.quantize(BUILDERS[name](), calib=samples)


def tune(graph: Graph, target: Target, records: Path, seconds: float | None, trials: int = TRIALS) -> Result:
    """One job, its progress on stderr."""
    with report.shown_progress(trials, seconds) as watch:
        result = pipeline.autotune(graph, target=target, records=records, trials=trials, seconds=seconds, watch=watch)
    report.summary(result)
    return result


def x86(options: argparse.Namespace) -> list[str]:
    """Tuned over default, whole models."""
    target = host_target() if options.target == "host" else Target.load(options.target)
    job.PATIENCE = options.trials
    rows, gains = [], []
    for name in options.models.split(","):
        graph, records = program(name), KEPT / f"{name}-{target.name}.jsonl"
        result = tune(graph, target, records, options.time, options.trials)
        with tempfile.TemporaryDirectory(prefix="qcc-") as scratch:
            nothing = Path(scratch) / "no.jsonl"
            nothing.write_text("")
            default = pipeline.build(graph, target, Path(scratch) / "default", records=nothing)
            tuned = pipeline.build(graph, target, Path(scratch) / "tuned", records=records)
            assert isinstance(default, Model) and isinstance(tuned, Model), "x86 runs here"  # noqa: PT018
            difference = verify_model(tuned, random_samples(tuned, 1))
            assert difference is None, difference
            times = interleaved([default, tuned])
        (a, b), (low_a, low_b) = ([f(t) for t in times] for f in (statistics.median, min))
        gains.append(a / b)
        rows.append(f"| {name} | {a * 1e3:.3f} | {b * 1e3:.3f} | {a / b:.3f} | {low_a / low_b:.3f} "
                    f"| {result.default / result.tuned:.3f} | {result.history[-1][0]} |")  # fmt: skip
    mean = float(np.exp(np.mean(np.log(gains))))
    return [machine(f"`{target.name}`, one thread"), "",
            "| model | default, ms | tuned, ms | gain | gain of the best runs | gain of the tuned kernels in the model "
            "| candidates tried |",
            "|---|---|---|---|---|---|---|", *rows, "", f"Geometric mean of the gains: {mean:.3f}."]  # fmt: skip


def interleaved(models: list[Model]) -> list[list[float]]:
    """Seconds of inferences, the models in turn; each runs once before it is timed, as one that runs alone."""
    feeds = [([np.zeros(t.shape, t.dtype) for t in m.inputs.values()],
              [np.empty(t.shape, t.dtype) for t in m.outputs.values()]) for m in models]  # fmt: skip
    times: list[list[float]] = [[] for _ in models]
    for round_ in range(ROUNDS + 5):
        for model, feed, found in zip(models, feeds, times, strict=True):
            model.run_into(*feed)
            start = time.perf_counter()
            model.run_into(*feed)
            if round_ >= 5:
                found.append(time.perf_counter() - start)
    return times


def m4(options: argparse.Namespace) -> list[str]:
    """Instructions of whole models on the emulated board."""
    import board

    import mcu

    target, rows = Target.load("cortex-m4"), []
    for name in options.models.split(","):
        _, graph = next(mcu.programs(name))
        records = KEPT / f"{name}-{target.name}.jsonl"
        tune(graph, target, records, options.time)
        counts, flash = [], []
        with tempfile.TemporaryDirectory(prefix="qcc-") as scratch:
            nothing = Path(scratch) / "no.jsonl"
            nothing.write_text("")
            for kind, source in (("default", nothing), ("tuned", records)):
                folder = Path(scratch) / kind
                model = pipeline.build(graph, target, folder, records=source)
                (sample,) = random_samples(model, 1)
                done = board.run(folder, sample, board.BOARDS[target.name], folder.with_suffix(".work"))
                expected = model.run(sample)
                assert all(np.array_equal(done.outputs[v], expected[v]) for v in expected), f"{name} {kind} differs"
                counts.append(done.instructions)
                flash.append(done.image)
        rows.append(f"| {name} | {counts[0]:,} | {counts[1]:,} | {counts[1] / counts[0]:.3f} "
                    f"| {flash[0]:,} | {flash[1]:,} |")  # fmt: skip
    return [machine("QEMU's board with a Cortex-M4, GCC -O2; counts are exact"), "",
            "| model | default, instructions | tuned | tuned / default | flash, default | flash, tuned |",
            "|---|---|---|---|---|---|", *rows]  # fmt: skip


def ship(options: argparse.Namespace) -> None:
    """The records that come with qcc."""
    for name in options.targets.split(","):
        target, records = Target.load(name), KEPT / f"ship-{name}.jsonl"
        if target.missing() and not target.run.command:
            print(f"{name}: left out, this machine lacks {', '.join(target.missing())}", file=sys.stderr)
            continue
        for model in options.models.split(","):
            print(f"{name}, {model}", file=sys.stderr)
            tune(program(model), target, records, options.time)
        folder = ROOT / "targets" / "records"
        folder.mkdir(exist_ok=True)
        kept = load_records(records).winners()
        write_records(kept, folder / f"{name}.jsonl")
        print(f"{folder / name}.jsonl: {len(kept)} records")


def machine(what: str) -> str:
    """Where and when."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {model}: {what}."


def write(kind: str, lines: list[str]) -> None:
    """Replace a table of the documentation."""
    start = f"<!-- benchmarks/tuning.py {kind} -->"
    text = DOCUMENT.read_text()
    assert start in text, f"{DOCUMENT} has no place for the table"
    before, rest = text.split(start, 1)
    after = rest.split("<!-- end -->", 1)[1]
    DOCUMENT.write_text(before + "\n".join([start, *lines, "<!-- end -->"]) + after)
    print("\n".join(lines))


def duration(text: str) -> float:
    """Seconds of ``90s``, ``10m`` or ``2h``."""
    return cli.Duration().convert(text, None, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=re.split(r"\n\n", __doc__ or "")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, models, seconds in (("x86", MODELS, "30m"), ("m4", TINY, "10m"), ("ship", SHIPPED_MODELS, "2m")):
        one = kinds.add_parser(kind)
        one.add_argument("--models", default=",".join(models))
        one.add_argument("--time", default=seconds, type=duration, help="longest time of a job")
    kinds.choices["x86"].add_argument("--target", default="host")
    kinds.choices["x86"].add_argument("--trials", default=SEARCHED, type=int)
    kinds.choices["ship"].add_argument("--targets", default=",".join(SHIPPED_TARGETS))
    options = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    if options.kind == "ship":
        ship(options)
        return
    tables: dict[str, Callable[[argparse.Namespace], list[str]]] = {"x86": x86, "m4": m4}
    write(options.kind, tables[options.kind](options))


if __name__ == "__main__":
    main()
