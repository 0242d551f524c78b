"""Instructions, RAM and flash of the MLPerf Tiny models on emulated microcontrollers, beside TensorFlow Lite Micro.

    python benchmarks/mcu.py [--targets cortex-m4,cortex-m55] [--models kws,vww,ic,ad] [--layers]

Instructions are those of one inference, counted by a QEMU plugin (runtime/board): exact and repeatable, no cycles.
Outputs are compared with the integer reference. Models and calibration data: $QCC_DATA, else ../shared/data.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("QCC_DATA", ROOT.parent / "shared" / "data"))
sys.path[:0] = [str(ROOT / "tests" / "mcu"), str(DATA)]

import board  # noqa: E402

from qcc import pipeline  # noqa: E402
from qcc.errors import QccError  # noqa: E402
from qcc.ir.evaluate import run_integer  # noqa: E402
from qcc.ir.graph import Graph  # noqa: E402
from qcc.runtime import read_manifest  # noqa: E402
from qcc.target import Target  # noqa: E402
from qcc.verify import random_samples  # noqa: E402


@dataclass(frozen=True)
class Peer:
    """TensorFlow Lite Micro with CMSIS-NN (GCC 12.2.1 -Ofast): instructions by target, and arena in bytes."""

    instructions: dict[str, int]
    arena: int


PEERS = {
    "kws": Peer({"cortex-m4": 7_700_236, "cortex-m7": 7_646_000, "cortex-m55": 1_816_152}, 22_820),
    "vww": Peer({"cortex-m4": 24_102_774, "cortex-m7": 24_030_000, "cortex-m55": 6_559_148}, 100_708),
    "ic": Peer({"cortex-m4": 29_863_771, "cortex-m7": 30_030_000, "cortex-m55": 4_912_114}, 54_996),
    "ad": Peer({"cortex-m4": 583_237, "cortex-m7": 584_000, "cortex-m55": 150_288}, 2_580),
}
ONNX = {"resnet20": "resnet20_cifar10", "mnist": "mnist_cnn"}


def calibration(name: str) -> Any:
    """Samples for a float model."""
    if name == "ad":
        frames = np.load(DATA / "ad_normal_id01.npy")
        return np.stack([frames[i : i + 5].reshape(1, 640) for i in range(0, 190, 4)]).reshape(-1, 640)
    evaluation = importlib.import_module("evaluate")
    if name == "vww":
        from PIL import Image

        files = sorted((DATA / "imagenet224_calib").iterdir())[:40]
        images = [np.asarray(Image.open(f).convert("RGB").resize((96, 96)), np.float32) / 255 for f in files]
        return np.stack(images)
    return np.concatenate(evaluation.calibration(ONNX.get(name, f"{name}_float"), 60))


def programs(name: str) -> Iterator[tuple[str, Graph]]:
    """(arithmetic, integer program) of a model: quantized by qcc, and by TFLite where there is such a file."""
    models = DATA / "models"
    if name in ONNX:
        yield "qcc", pipeline.quantize(models / f"{ONNX[name]}.onnx", calib=calibration(name), name=name, io="int8")
        return
    yield "qcc", pipeline.quantize(models / f"{name}_float.tflite", calib=calibration(name), name=name, io="int8")
    yield "TFLite", pipeline.quantize(models / f"{name}_int8.tflite", name=name, io="int8")


def weight_bytes(graph: Graph, *keys: str) -> int:
    """Bytes of the constants of layers with weights, by the names that the program has for them."""
    weighted = [n for n in graph.nodes if "w" in n.inputs]
    values = {n.inputs[key] for n in weighted for key in keys if key in n.inputs}
    return sum(graph.constants[v].nbytes for v in values)


def measure(name: str, arithmetic: str, graph: Graph, target: str, layers: bool) -> str:
    """A row of the table."""
    with tempfile.TemporaryDirectory(prefix="qcc-") as scratch:
        folder = Path(scratch) / "model"
        model = pipeline.build(graph, Target.load(target), folder)
        (sample,) = random_samples(model, 1)
        result = board.run(folder, sample, board.BOARDS[target], Path(scratch) / "work")
        manifest = read_manifest(folder)
        if layers:
            show_layers(folder, manifest, sample, target, Path(scratch) / "layers")
    expected = run_integer(graph, sample)
    same = all(np.array_equal(result.outputs[value], expected[value]) for value in expected)
    peer = PEERS.get(name)
    theirs = f"{peer.instructions[target]:,}" if peer and target in peer.instructions else ""
    per = result.instructions / manifest["macs"]
    beyond = [result.image - weight_bytes(graph, *keys) for keys in (("w", "b", "multiplier"), ("w", "b"))]
    columns = [name, arithmetic, target, f"{result.instructions:,}", theirs, f"{per:.2f}",
               f"{manifest['arena']['bytes']:,}", f"{peer.arena:,}" if peer else "",
               f"{result.image:,}", f"{beyond[0]:,}", f"{beyond[1]:,}", str(result.stack),
               "equal" if same else "DIFFERENT"]  # fmt: skip
    return f"| {' | '.join(columns)} |"


def show_layers(folder: Path, manifest: dict[str, Any], sample: dict[str, Any], target: str, work: Path) -> None:
    """Instructions of each layer, on stderr."""
    counts = board.layers(folder, sample, board.BOARDS[target], work)
    for index, count in counts.items():
        layer = manifest["layers"][index]
        per = f"{count / layer['macs']:6.2f} per MAC" if layer["macs"] else ""
        print(f"  {index:3} {layer['op']:10} {layer['shape']!s:20} {count:>10,} {per}", file=sys.stderr)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=re.split(r"\n\n", __doc__ or "")[0])
    parser.add_argument("--targets", default="cortex-m4,cortex-m55")
    parser.add_argument("--models", default="kws,vww,ic,ad,resnet20,mnist")
    parser.add_argument("--layers", action="store_true", help="instructions of each layer too")
    options = parser.parse_args()
    lacking = board.missing()
    if lacking:
        sys.exit(f"not installed: {', '.join(lacking)}")
    print("| model | arithmetic | target | instructions | TFLM + CMSIS-NN | per MAC | arena | TFLM | flash "
          "| beyond parameters | beyond weights and biases | stack | outputs |\n|" + "---|" * 13)  # fmt: skip
    for name in options.models.split(","):
        try:
            for arithmetic, graph in programs(name):
                for target in options.targets.split(","):
                    print(measure(name, arithmetic, graph, target, options.layers), flush=True)
        except QccError as error:
            print(f"{name}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
