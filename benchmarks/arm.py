"""Executed instructions on ARM, counted in QEMU's user mode, beside the bars that must be reached.

    QCC_DATA=… python benchmarks/arm.py [--targets arm-neon,arm-dotprod] [--models resnet20_cifar10] [--layers]

Needs gcc, the targets' compilers and qemu-user. One inference, one thread, float inputs and outputs included; a count
is exact and repeats. ``--layers`` lists every layer of the models. Exits with 1 above a bar, and where bytes differ
from the integer reference.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from qcc import pipeline
from qcc.data import data_folder
from qcc.ir.graph import Graph, Node, TensorType
from qcc.ops import OPS
from qcc.remote import RemoteModel
from qcc.target import Target
from qcc.verify import random_samples, verify_model

BARRED = ("arm-neon", "arm-dotprod", "arm-i8mm")
TARGETS = (*BARRED, "armv7-neon")
MULTIPLICATIONS = dict(zip(TARGETS, (0.1875, 0.0625, 0.03125, 0.1875), strict=True))
"""Instructions that multiply, for each MAC of a convolution: smull, smlal2 and sadalp for 16, sdot, smmla."""
GEMM_BARS = dict(zip(BARRED, (0.24, 0.085, 0.048), strict=True))
DEPTHWISE_BARS = dict.fromkeys(BARRED, 0.5)
MODEL_BARS = {
    "mobilenet_v2_1.0_224_deq": dict(zip(BARRED, (88, 42, 34), strict=True)),
    "mobilenet_v1_0.75_224": dict(zip(BARRED, (85, 36, 27), strict=True)),
    "resnet20_cifar10": dict(zip(BARRED, (11, 5, 4), strict=True)),
}
"""Millions of instructions of one inference."""
CALIBRATION = 16

Shape = tuple[int, int, int, int, int]
GEMMS: tuple[Shape, ...] = (
    (28, 64, 64, 1, 1), (28, 96, 96, 1, 1), (28, 128, 128, 1, 1), (14, 256, 256, 1, 1), (14, 512, 512, 1, 1),
    (28, 64, 64, 3, 1), (14, 128, 128, 3, 1), (28, 128, 128, 3, 2),
)  # fmt: skip
"""(height and width, channels in, channels out, kernel, stride)."""
DEPTHWISE: tuple[Shape, ...] = (
    (56, 144, 144, 3, 1), (28, 192, 192, 3, 1), (14, 576, 576, 3, 1), (7, 960, 960, 3, 1),
    (112, 96, 96, 3, 2), (56, 144, 144, 3, 2), (14, 576, 576, 3, 2),
)  # fmt: skip


class Counted(RemoteModel):
    """A model whose runner counts its instructions."""

    plugin: Path

    def _attach(self) -> None:
        super()._attach()
        self.counts = self.folder / "counts"
        emulator, *rest = self._command
        self._command = [emulator, "-plugin", f"{self.plugin},out={self.counts}", *rest]

    def count(self) -> int:
        """Instructions of one inference."""
        before = len(self._lines())
        self.run(random_samples(self, 1)[0])
        return self._lines()[before]

    def count_layers(self) -> dict[str, int]:
        """Instructions of each layer; a few of each are the measurement's own."""
        before = len(self._lines())
        names = self.measure_layers(0.0)
        return dict(zip(names, self._lines()[before:], strict=False))

    def _lines(self) -> list[int]:
        if not self.counts.exists():
            return []
        return [int(line.split()[1]) for line in self.counts.read_text().splitlines()]


def convolution(shape: Shape, depthwise: bool, seed: int = 0) -> Graph:
    """The integer program of one convolution with random weights."""
    size, channels, outputs, kernel, stride = shape
    rng = np.random.default_rng(seed)
    graph = Graph("layer")
    graph.inputs.append("x")
    graph.types["x"] = TensorType((1, size, size, channels), "float32")
    weight = rng.normal(0, 1, (outputs, kernel, kernel, 1 if depthwise else channels)).astype(np.float32)
    inputs = {"x": "x", "w": graph.add_constant("w", weight)}
    attrs: dict[str, Any] = {"stride": (stride, stride), "pad": (kernel // 2,) * 4, "dilation": (1, 1),
                             "groups": channels if depthwise else 1, "clamp": None}  # fmt: skip
    node = Node("y", "conv2d", inputs, attrs, "")
    graph.types["y"] = OPS["conv2d"].infer(node, graph.input_types(node))
    graph.nodes.append(node)
    graph.outputs.append("y")
    samples = rng.normal(0, 1, (2, 1, size, size, channels)).astype(np.float32)
    return pipeline.quantize(graph, calib=[{"x": sample} for sample in samples])


def real_model(name: str) -> Graph:
    """The integer program of one of the real models."""
    folder = Path(os.environ.get("QCC_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    sys.path.insert(0, str(folder))
    evaluation = importlib.import_module("evaluate")
    samples = np.concatenate(evaluation.calibration(name, CALIBRATION))
    return pipeline.quantize(folder / "models" / f"{name}.onnx", calib=samples)


def counted(graph: Graph, target: str, folder: Path) -> Counted:
    """Built for a target; raises SystemExit if its bytes are not the reference's."""
    pipeline.build(graph, Target.load(target), folder)
    model = Counted(folder)
    difference = verify_model(model, random_samples(model, 1))
    if difference is not None:
        raise SystemExit(f"{graph.name} for {target}: {difference}")
    return model


def show(title: str, values: dict[str, float], bars: dict[str, float], least: dict[str, float] | None = None) -> bool:
    """One row; whether every value that has a bar is below it. Shares are those of the ``least`` instructions."""
    missed = {t for t, bar in bars.items() if t in values and values[t] >= bar}
    limits = {t: f"/ {bar:<5g}{'!' if t in missed else ' '}" for t, bar in bars.items()}
    shares = {t: f"{least[t] / value:4.0%} " if least else "" for t, value in values.items()}
    cells = (f"{value:8.4g} {shares[t]}{limits.get(t, ''):8}" for t, value in values.items())
    print(f"{title:32}" + " ".join(cells), flush=True)
    return not missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--models", default=",".join(MODEL_BARS), help="names, or nothing for single layers only")
    parser.add_argument("--layers", action="store_true")
    options = parser.parse_args()
    targets = options.targets.split(",")
    good = True
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        Counted.plugin = work / "count_instructions.so"
        source = data_folder("runtime") / "tune" / "count_aarch64.c"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(Counted.plugin), str(source)], check=True)
        print("instructions per MAC, share of the multiplications, bar:", *targets)
        for kind, shapes in (("conv", GEMMS), ("depthwise", DEPTHWISE)):
            for shape in shapes:
                size, channels, outputs, kernel, stride = shape
                graph = convolution(shape, kind == "depthwise")
                found = {}
                for target in targets:
                    model = counted(graph, target, work / "layer")
                    name = next(x["name"] for x in model.manifest["layers"] if x["op"] == "conv2d")
                    found[target] = model.count_layers()[name] / model.manifest["macs"]
                title = f"{kind} {kernel}x{kernel}/{stride} {size}x{size}x{channels} → {outputs}"
                least = MULTIPLICATIONS if kind == "conv" else None
                good &= show(title, found, GEMM_BARS if kind == "conv" else DEPTHWISE_BARS, least)
        print("\nmillions of instructions / bar")
        for name in filter(None, options.models.split(",")):
            graph, totals = real_model(name), {}
            details: dict[str, dict[str, int]] = {}
            for target in targets:
                model = counted(graph, target, work / "model")
                totals[target] = model.count() / 1e6
                details[target] = model.count_layers()
            good &= show(name, totals, MODEL_BARS[name])
            if options.layers:
                for layer in (x for x in model.manifest["layers"] if x["name"] in details[targets[0]]):
                    counts = [details[t][layer["name"]] for t in targets]
                    cells = "".join(f"{count:>10} {count / max(layer['macs'], 1):7.3f}" for count in counts)
                    print(f"  {layer['op']:12}{'x'.join(map(str, layer['shape'])):18}{cells}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
