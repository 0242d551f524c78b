"""Batch-1 latency of qcc and its peers on this machine: one run, engines interleaved, medians.

The peers' int8 model is made by ``onnxruntime.quantization.quantize_static`` (QDQ, uint8 activations, int8 weights per
channel); OpenVINO reads the same file. Every engine runs in a process of its own, so that no thread pool disturbs
another's and oneDNN's instruction set can be held to VNNI for one engine alone.

    python benchmarks/x86.py [--models mobilenet_v2,resnet18] [--engines qcc,ort-int8] [--threads 1,2]
                             [--json out.json] [--markdown out.md]
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
Runner = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One model: its float and its QDQ file, and the compiled artifact."""

    name: str
    folder: Path
    macs: int
    weights: int

    @property
    def float_file(self) -> Path:
        return self.folder / f"{self.name}.onnx"

    @property
    def int8_file(self) -> Path:
        return self.folder / f"{self.name}.qdq.onnx"

    @property
    def dynamic_file(self) -> Path:
        return self.folder / f"{self.name}.dynamic.onnx"

    def artifact(self, mode: str) -> Path:
        return self.folder / f"{self.name}-{mode}"

    def samples(self, count: int) -> np.ndarray:
        """Seeded inputs [count, C, H, W]."""
        shape = [d.dim_value for d in onnx.load(self.float_file).graph.input[0].type.tensor_type.shape.dim]
        return np.random.default_rng(1).normal(size=(count, *shape[1:])).astype(np.float32)


def run_qcc(case: Case, threads: int, mode: str = "int8") -> Runner:
    import qcc

    model, x = qcc.load(case.artifact(mode)), case.samples(1)
    model.set_threads(threads)
    return lambda: model(x)


def run_onnxruntime(file: Path, case: Case, threads: int) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: case.samples(1)}
    return lambda: session.run(None, feed)


def run_openvino(case: Case, threads: int) -> Runner:
    import openvino

    config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(str(case.int8_file), "CPU", config).create_infer_request()
    feed = [case.samples(1)]
    return lambda: request.infer(feed)


@dataclass(frozen=True)
class Engine:
    """``start(case, threads)`` returns what runs one inference; ``environment`` is set in its process."""

    start: Callable[[Case, int], Runner]
    environment: dict[str, str] = field(default_factory=dict)


def run_ort_int8(case: Case, threads: int) -> Runner:
    return run_onnxruntime(case.int8_file, case, threads)


def run_ort_dynamic(case: Case, threads: int) -> Runner:
    return run_onnxruntime(case.dynamic_file, case, threads)


def run_ort_float32(case: Case, threads: int) -> Runner:
    return run_onnxruntime(case.float_file, case, threads)


ENGINES = {
    "qcc": Engine(run_qcc),
    "ort-int8": Engine(run_ort_int8),
    "ort-float32": Engine(run_ort_float32),
    "openvino-int8": Engine(run_openvino),
    "qcc-dynamic": Engine(partial(run_qcc, mode="dynamic")),
    "qcc-float16": Engine(partial(run_qcc, mode="float16")),
    "ort-dynamic": Engine(run_ort_dynamic),
    "openvino-int8-vnni": Engine(run_openvino, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}),
}


MODES = ("qcc-dynamic", "qcc-float16", "ort-dynamic")
"""Engines that are measured only where they are named: docs/modes.md."""


def serve(engine: str, case: Case, threads: int, pipe: Any) -> None:
    """In the engine's process: for each count received, run so many inferences and send their seconds; 0 ends it."""
    try:
        run = ENGINES[engine].start(case, threads)
        run()
        pipe.send(None)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        return
    while count := pipe.recv():
        run()  # wakes threads and caches after the other engines' turns
        times = []
        for _ in range(count):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        pipe.send(times)


@contextmanager
def worker(engine: str, case: Case, threads: int) -> Iterator[Callable[[int], list[float]]]:
    """A process that runs one engine; yields ``measure(count) -> seconds``. Raises RuntimeError if it cannot start."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(engine, case, threads, there), daemon=True)
    before = dict(os.environ)
    os.environ.update(ENGINES[engine].environment)
    process.start()
    os.environ.clear()
    os.environ.update(before)
    there.close()
    if failure := here.recv():
        process.join()
        raise RuntimeError(f"{engine} does not run {case.name}: {failure}")

    def measure(count: int) -> list[float]:
        here.send(count)
        return list(here.recv())

    yield measure
    here.send(0)
    process.join()


def prepare(name: str, folder: Path, engines: list[str]) -> Case:
    """Write what the chosen engines need: float model, QDQ model, compiled artifact."""
    model = models.BUILDERS[name]() if name in models.BUILDERS else onnx.load(data_models()[name])
    weights = sum(int(np.prod(w.dims)) for w in model.graph.initializer)
    case = Case(name, folder, models.count_macs(model), weights)
    onnx.save(model, case.float_file)
    if any(e.endswith(("int8", "vnni")) for e in engines):
        quantize_for_peers(case)
    if "ort-dynamic" in engines:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(case.float_file, case.dynamic_file, per_channel=True, weight_type=QuantType.QInt8)
    for mode, engine in {"int8": "qcc", "dynamic": "qcc-dynamic", "float16": "qcc-float16"}.items():
        if engine in engines:
            import qcc

            calib = case.samples(8) if mode == "int8" else None
            qcc.compile(case.float_file, target="host", calib=calib, mode=mode, out=case.artifact(mode))
    return case


def quantize_for_peers(case: Case) -> None:
    """ONNX Runtime's own quantizer, as its documentation advises for x86 with VNNI."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            name = onnx.load(case.float_file).graph.input[0].name
            self.feeds = iter([{name: x[None]} for x in case.samples(8)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    optimized = case.folder / f"{case.name}.optimized.onnx"
    quant_pre_process(str(case.float_file), str(optimized), skip_symbolic_shape=True)
    quantize_static(
        str(optimized),
        str(case.int8_file),
        Samples(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )


def data_models() -> dict[str, Path]:
    """Trained models of the data folder (``QCC_DATA``) that are measured where they are present."""
    folder = Path(os.environ.get("QCC_DATA", HERE.parent.parent / "shared" / "data"))
    file = folder / "models" / "resnet20_cifar10.onnx"
    return {"resnet20": file} if file.exists() else {}


@dataclass(frozen=True)
class Peak:
    """What one thread can do at most: multiply-accumulates and bytes read from memory, both per nanosecond."""

    vnni: float
    amx: float
    memory: float

    @staticmethod
    def measure(flags: set[str]) -> Peak:
        """Of this machine; zeros without gcc."""
        if not shutil.which("gcc"):
            return Peak(0, 0, 0)
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "peak"
            include = str(HERE.parent / "runtime" / "include")
            subprocess.run(["gcc", "-O2", "-I", include, "-o", str(program), str(HERE / "peak.c")], check=True)
            command = [str(program), *(["amx"] if "amx_int8" in flags else [])]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return Peak(*map(float, said.split()))

    def limit(self, case: Case, threads: int) -> float:
        """Seconds that an inference takes at least: all products at the peak, and all weights read once."""
        rate = max(self.vnni, self.amx)
        return max(case.macs / rate / threads, case.weights / self.memory) * 1e-9 if rate and self.memory else 0.0


def processor() -> tuple[str, set[str]]:
    """Name and feature flags of this machine's CPU."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"
    return name, set(fields["flags"].split())


def measure(case: Case, engines: list[str], threads: int, repeat: int) -> dict[str, list[float]]:
    """Seconds of each inference by engine; the engines take turns of about 50 ms until each ran ``repeat`` times."""
    with ExitStack() as stack:
        workers = {e: stack.enter_context(worker(e, case, threads)) for e in engines}
        turns = {e: max(1, min(repeat, round(0.05 / min(w(3))))) for e, w in workers.items()}
        times: dict[str, list[float]] = {e: [] for e in engines}
        while any(len(t) < repeat for t in times.values()):
            for engine, run in workers.items():
                times[engine] += run(turns[engine])
    return times


def report(console: Console, rows: list[dict[str, Any]], title: str) -> None:
    """The table; the ratio says how many times slower (above 1) than qcc an engine is."""
    table = Table(title=title)
    for heading in ("model", "threads", "engine", "ms", "best ms", "/ qcc", "GMAC/s", "limit ms"):
        table.add_column(heading, justify="left" if heading in ("model", "engine") else "right")
    for index, row in enumerate(rows):
        last = index + 1 == len(rows) or rows[index + 1]["model"] != row["model"]
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else "-"
        limit = f"{row['limit_ms']:.3f}" if row["limit_ms"] else "-"
        table.add_row(row["model"], str(row["threads"]), row["engine"], f"{row['ms']:.3f}", f"{row['best_ms']:.3f}",
                      ratio, f"{row['gmacs']:.0f}", limit, end_section=last)
    console.print(table)


TITLES = {
    "ort-int8": "ONNX Runtime int8", "openvino-int8": "OpenVINO int8", "openvino-int8-vnni": "OpenVINO int8, VNNI",
    "ort-float32": "ONNX Runtime float32",
}  # fmt: skip


def markdown(rows: list[dict[str, Any]], title: str) -> str:
    """The README's tables, one for each number of threads: milliseconds, in brackets times as slow as qcc."""
    lines = [title]
    for threads in dict.fromkeys(row["threads"] for row in rows):
        engines = [e for e in TITLES if any(row["engine"] == e for row in rows)]
        headings = [f"model, threads: {threads}", "qcc int8", "limit", *(TITLES[e] for e in engines)]
        lines += ["", f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
        for model in dict.fromkeys(row["model"] for row in rows):
            found = {r["engine"]: r for r in rows if (r["model"], r["threads"]) == (model, threads)}
            cells = [f"{found[e]['ms']:.3g} ({found[e]['ratio']:.2f})" for e in engines]
            qcc = found["qcc"]
            lines.append(f"| {model} | {qcc['ms']:.3g} | {qcc['limit_ms']:.2g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    available = [*models.BUILDERS, *data_models()]
    name, flags = processor()
    default_engines = [e for e in ENGINES if e not in MODES and (e != "openvino-int8-vnni" or "amx_int8" in flags)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(available), help="default: %(default)s")
    parser.add_argument("--engines", default=",".join(default_engines), help="default: %(default)s")
    parser.add_argument("--threads", default="1,2", help="default: %(default)s")
    parser.add_argument("--repeat", type=int, default=50, help="inferences of each engine, at least (default: 50)")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--markdown", type=Path, help="write the README's tables here")
    arguments = parser.parse_args()
    chosen, engines = arguments.models.split(","), arguments.engines.split(",")
    if unknown := (set(chosen) - set(available)) | (set(engines) - set(ENGINES)):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join([*available, *ENGINES])}")

    console = Console() if sys.stdout.isatty() else Console(width=120)
    rows: list[dict[str, Any]] = []
    peak = Peak.measure(flags)
    with tempfile.TemporaryDirectory() as folder:
        for model in chosen:
            with console.status(f"preparing {model}"):
                case = prepare(model, Path(folder), engines)
            for threads in map(int, arguments.threads.split(",")):
                with console.status(f"measuring {model}, threads: {threads}"):
                    times = measure(case, engines, threads, arguments.repeat)
                medians = {e: statistics.median(t) for e, t in times.items()}
                for engine, seconds in medians.items():
                    gmacs = case.macs / seconds * 1e-9
                    rows.append({
                        "model": model, "threads": threads, "engine": engine, "ms": seconds * 1e3,
                        "best_ms": min(times[engine]) * 1e3, "gmacs": gmacs,
                        "ratio": seconds / medians["qcc"] if "qcc" in medians else None,
                        "limit_ms": peak.limit(case, threads) * 1e3,
                    })
    date = datetime.date.today().isoformat()
    isa = "AMX" if "amx_int8" in flags else "AVX512-VNNI" if "avx512_vnni" in flags else "AVX2"
    peaks = f"VNNI {peak.vnni:.0f}, AMX {peak.amx:.0f} GMAC/s, memory {peak.memory:.0f} GB/s"
    title = f"{name}, {isa}, {platform.system()}, {date}; peaks of a thread: {peaks}"
    report(console, rows, title)
    if arguments.markdown and "qcc" in engines:
        arguments.markdown.write_text(markdown(rows, title))
    if arguments.json:
        machine = {"cpu": name, "isa": isa, "date": date, "peaks": asdict(peak)}
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
