"""Top-1 of qcc beside its peers on the same files and labelled samples, by the road that a model takes into qcc.

    QCC_DATA=… python benchmarks/accuracy.py [--roads float,qdq,torch,tflite] [--limit 100] [--write]

Models and samples are those of the folder ``QCC_DATA`` (by default ``../shared/data`` beside the checkout). Models are
compiled for this machine; every target computes the same bytes. ``--write`` puts the tables into docs/accuracy.md.
Exits with 1 where a bar is missed. The road ``torch`` needs ``pip install qcc[torch] scikit-learn``.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import qcc

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "accuracy.md"
FLOAT = {
    ("mobilenet_v1_0.75_224", "imagenet224"): 0.835,
    ("mobilenet_v2_1.0_224_deq", "imagenet224"): 0.89,
    ("resnet20_cifar10", "cifar10_lossless"): 0.932,
    ("resnet20_cifar10", "cifar10_jpeg"): 0.0,
    ("resnet20_cifar10_bn", "cifar10_lossless"): 0.932,
    ("mnist_cnn", "mnist"): 0.985,
}
"""Least top-1 of the integer program with 100 calibration samples, by model and set."""
QDQ = {"mobilenet_v1_0.75_224": ("u8s8", "s8s8"), "mobilenet_v2_1.0_224_deq": ("u8s8", "s8s8"),
       "resnet20_cifar10": ("u8s8", "s8s8", "u8u8", "trt", "op")}
"""Forms in which ONNX Runtime quantizes each model (``quantized.TYPES``)."""
HALF_POINT = 0.005 + 1e-9
TFLITE = {"kws_float": 100, "kws_int8": 0, "ic_float": 100, "ic_int8": 0, "tf2_mobilenet_v2_1.0_224_ptq": 0}
"""Calibration samples of TFLite models; integer ones need none."""

Run = Callable[[Any], Any]
Line = tuple[str, ...]


def data_folder() -> Path:
    return Path(os.environ.get("QCC_DATA", ROOT.parent / "shared" / "data"))


def load_evaluation(folder: Path) -> Any:
    """The module ``evaluate`` of the data folder: sample sets, preprocessing, the peers' runners."""
    sys.path.insert(0, str(folder))
    return importlib.import_module("evaluate")


class Bench:
    """Runs models over labelled sets; remembers whether every bar was reached."""

    def __init__(self, limit: int | None) -> None:
        self.limit, self.reached = limit, True
        self.data = data_folder()
        self.evaluation = load_evaluation(self.data)

    def model(self, name: str) -> Path:
        return self.data / "models" / self.evaluation.E[name]["file"]

    def calibration(self, name: str, count: int) -> Any:
        return np.concatenate(self.evaluation.calibration(name, count))

    def classes(self, name: str, dataset: str, runs: Iterable[Run]) -> tuple[Any, list[Any]]:
        """Labels, and the classes that each way of running a model gives to a set."""
        entry, (samples, labels) = self.evaluation.E[name], self.evaluation.load(dataset)
        prepared = [self.evaluation.prepare(s, entry) for s in samples[: self.limit]]
        found = [np.array([np.ravel(run(x))[entry["off"] :].argmax() for x in prepared]) for run in runs]
        return labels[: self.limit], found

    def expect(self, good: bool, what: str) -> None:
        """A bar; it is only a bar for whole sets."""
        if not good and self.limit is None:
            self.reached = False
            print(f"MISSED: {what}", file=sys.stderr)


def top(classes: Any, labels: Any) -> str:
    return f"{np.mean(classes == labels):.4f}".lstrip("0") if not (classes == labels).all() else "1.0000"


def share(first: Any, second: Any) -> str:
    """How often two models agree."""
    return f"{np.mean(first == second):.1%}"


def float_road(bench: Bench) -> list[Line]:
    """Float ONNX, calibrated by qcc and by ONNX Runtime with the same 100 samples."""
    import quantized

    lines: list[Line] = [("model", "set", "n", "float", "qcc int8", "ONNX Runtime int8", "qcc = float", "ORT = float")]
    for name in dict.fromkeys(model for model, _ in FLOAT):
        path, samples = bench.model(name), bench.calibration(name, 100)
        with tempfile.TemporaryDirectory() as folder:
            peer = quantized.quantized(path, Path(folder), samples[:, None], "u8s8")
            runs = [bench.evaluation.runner(str(path)), qcc.compile(path, calib=samples),
                    bench.evaluation.runner(str(peer))]  # fmt: skip
        for dataset in [d for model, d in FLOAT if model == name]:
            labels, (exact, ours, theirs) = bench.classes(name, dataset, runs)
            bench.expect(bool(np.mean(ours == labels) >= FLOAT[name, dataset]), f"{name} on {dataset}")
            scores = [top(c, labels) for c in (exact, ours, theirs)]
            lines.append((name, dataset, str(len(labels)), *scores, share(ours, exact), share(theirs, exact)))
    return lines


def qdq_road(bench: Bench) -> list[Line]:
    """Models that ONNX Runtime quantized (50 samples), in ONNX Runtime and in qcc; operators given equal operands."""
    import quantized

    lines: list[Line] = [("model", "form", "set", "n", "ONNX Runtime", "qcc", "same class", "steps, by operator")]
    for name, forms in QDQ.items():
        samples = bench.evaluation.calibration(name, 50)
        for form in forms:
            with tempfile.TemporaryDirectory() as folder:
                path = quantized.quantized(bench.model(name), Path(folder), samples, form)
                runs = [bench.evaluation.runner(str(path)), qcc.compile(path)]
                steps = max(quantized.operator_distances(path, samples[:4]).values())
            # Weights of uint8 that lie further than 127 from their zero point have to be rounded.
            bench.expect(steps <= 1 or form == "u8u8", f"operators of {name} {form}")
            for dataset in bench.evaluation.E[name]["sets"]:
                labels, (theirs, ours) = bench.classes(name, dataset, runs)
                near = abs(np.mean(theirs == labels) - np.mean(ours == labels)) <= HALF_POINT
                bench.expect(bool(near), f"{name} {form} on {dataset}")
                lines.append((name, form, dataset, str(len(labels)), top(theirs, labels), top(ours, labels),
                              share(theirs, ours), f"{steps:.0f}"))
    return lines


def torch_road(bench: Bench) -> list[Line]:
    """PyTorch modules: float, quantized after training, trained with quantization."""
    import pytorch

    lines: list[Line] = [("network", "state", "set", "n", "PyTorch", "qcc", "same class", "steps, by layer",
                          "gap, steps")]  # fmt: skip
    for case in pytorch.cases(bench.data, bench.evaluation):
        theirs, ours, gap = case.compare(bench.limit)
        labels, steps = case.labels[: bench.limit], case.steps()
        bench.expect(steps is None or (steps <= 1 and gap <= pytorch.TIE), f"{case.name} {case.state}")
        lines.append((case.name, case.state, case.dataset, str(len(labels)), top(theirs, labels), top(ours, labels),
                      share(theirs, ours), "" if steps is None else f"{steps:.0f}",
                      "" if steps is None else f"{gap:.0f}"))  # fmt: skip
    return lines


def tflite_road(bench: Bench) -> list[Line]:
    """TFLite files: float ones calibrated by qcc, integer ones as they are, to TensorFlow Lite Micro's bytes."""
    lines: list[Line] = [("model", "set", "n", "LiteRT", "qcc", "same class", "bytes of Micro")]
    for name, count in TFLITE.items():
        path, entry = bench.model(name), bench.evaluation.E[name]
        model = qcc.compile(path, calib=bench.calibration(name, count) if count else None)
        run = model if count else integer_runner(model, path)
        micro = None if count else micro_runner(path)
        for dataset in entry["sets"]:
            runs = [bench.evaluation.runner(str(path)), run]
            labels, (theirs, ours) = bench.classes(name, dataset, runs)
            same = ""
            if micro is not None:
                samples = bench.evaluation.load(dataset)[0][:50]
                equal = [np.array_equal(run(x), micro(x))
                         for x in (bench.evaluation.prepare(s, entry) for s in samples)]
                bench.expect(all(equal), f"bytes of {name}")
                same = f"{sum(equal)} of {len(equal)}"
            lines.append((name, dataset, str(len(labels)), top(theirs, labels), top(ours, labels),
                          share(theirs, ours), same))
    return [*lines, *autoencoder(bench)]


def autoencoder(bench: Bench) -> list[Line]:
    """Mean squared error of reconstruction of windows of 5 frames, in place of top-1: ad has no labels."""
    frames = np.load(bench.data / "ad_normal_id01.npy")
    windows = np.stack([frames[i : i + 5].reshape(1, -1) for i in range(len(frames) - 4)])[: bench.limit]
    lines: list[Line] = []
    for name, calib in (("ad_float", windows[::2][:100]), ("ad_int8", None)):
        path = bench.data / "models" / f"{name}.tflite"
        model = qcc.compile(path, calib=calib)
        run = model if calib is not None else integer_runner(model, path)
        scale = (1.0, 0) if calib is not None else details(path)[1]["quantization"]
        theirs, ours = (
            np.mean([np.square((np.asarray(r(x), np.float32) - scale[1]) * scale[0] - x).mean() for x in windows])
            for r in (bench.evaluation.runner(str(path)), run)
        )
        lines.append((name, "ad_normal_id01", str(len(windows)), f"MSE {theirs:.3f}", f"MSE {ours:.3f}", "", ""))
    return lines


def details(path: Path) -> tuple[Any, Any]:
    """What LiteRT says of a model's input and output."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    return interpreter.get_input_details()[0], interpreter.get_output_details()[0]


def quantized_input(x: Any, detail: Any) -> Any:
    """A real input in the model's own quantization."""
    (scale, zero), limits = detail["quantization"], np.iinfo(detail["dtype"])
    return np.clip(np.round(x / scale + zero), limits.min, limits.max).astype(detail["dtype"]).reshape(detail["shape"])


def integer_runner(model: Any, path: Path) -> Run:
    """A compiled integer model as a function of reals; its result stays integer."""
    detail, _ = details(path)
    return lambda x: model(quantized_input(x, detail))


def micro_runner(path: Path) -> Run:
    """The same in TensorFlow Lite Micro."""
    from tflite_micro import runtime

    interpreter, (detail, _) = runtime.Interpreter.from_file(str(path), arena_size=1 << 24), details(path)

    def run(x: Any) -> Any:
        interpreter.set_input(quantized_input(x, detail), 0)
        interpreter.invoke()
        return np.array(interpreter.get_output(0))

    return run


ROADS: dict[str, Callable[[Bench], list[Line]]] = {
    "float": float_road, "qdq": qdq_road, "torch": torch_road, "tflite": tflite_road,
}  # fmt: skip


def markdown(lines: list[Line]) -> str:
    """A table whose first line is its heading."""
    heading, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([heading, "|" + "---|" * len(lines[0]), *rest])


def write(road: str, table: str) -> None:
    """Put a table, and when and on what it was made, between its markers in the document."""
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown processor")  # fmt: skip
    made = f"<!-- {road}: begin -->\n{table}\n\n({cpu}, {datetime.date.today()})\n<!-- {road}: end -->"
    text = DOCUMENT.read_text(encoding="utf-8")
    text = re.sub(rf"<!-- {road}: begin -->.*?<!-- {road}: end -->", lambda _: made, text, flags=re.DOTALL)
    DOCUMENT.write_text(text, encoding="utf-8")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--roads", default=",".join(ROADS), help="default: %(default)s")
    options.add_argument("--limit", type=int, help="first samples of each set only; bars are not checked then")
    options.add_argument("--write", action="store_true", help=f"rewrite the tables of {DOCUMENT.relative_to(ROOT)}")
    given = options.parse_args()
    if not data_folder().is_dir():
        print(f"no labelled samples: {data_folder()} does not exist (set QCC_DATA)", file=sys.stderr)
        return 1
    bench = Bench(given.limit)
    for road in given.roads.split(","):
        table = markdown(ROADS[road](bench))
        print(f"{road}\n{table}\n", flush=True)
        if given.write:
            write(road, table)
    return 0 if bench.reached else 1


if __name__ == "__main__":
    sys.exit(main())
