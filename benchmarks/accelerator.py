"""The accelerator's cycle model next to published figures and Vela; ``--write`` puts the tables into
docs/accelerator.md.

Vela (``ethos-u-vela``, extra ``benchmark``) runs live on the int8 models of $QCC_DATA, else ../shared/data.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import networks as net
from accuracy import data_folder

from qcc import pipeline
from qcc.ir.graph import Graph
from qcc.npu.compile import compile_graph
from qcc.npu.cycles import Timeline, analyse
from qcc.npu.description import Description
from qcc.npu.split import split

DOCS = Path(__file__).resolve().parents[1] / "docs" / "accelerator.md"
BEGIN, END = "<!-- benchmark -->\n", "<!-- end -->\n"

GOOGLE: dict[str, tuple[Callable[[], Graph], int, bool]] = {
    "MobileNetV1 0.25 128": (lambda: net.mobilenet_v1_classifier(0.25, 128), 21_568, True),
    "MobileNetV1 0.5 160": (lambda: net.mobilenet_v1_classifier(0.5, 160), 117_088, True),
    "MobileNetV1 0.75 192": (lambda: net.mobilenet_v1_classifier(0.75, 192), 281_520, True),
    "MobileNetV1 1.0 224, no last layer": (lambda: net.mobilenet_v1_classifier(1.0, 224, last=False), 685_376, True),
    "PoseNet 353x481": (lambda: net.posenet(353, 481), 1_428_960, True),
    "PoseNet 481x641": (lambda: net.posenet(481, 641), 2_617_344, True),
    "PoseNet 721x1281": (lambda: net.posenet(721, 1281), 8_432_400, True),
    "MobileNetV2 1.0 224": (net.mobilenet_v2, 458_040, False),
    "MobileNet EdgeTPU 0.75 224": (net.mobilenet_edgetpu, 689_436, False),
}
"""Cycles that Google's compiler wrote into models, and whether the description was fitted to them."""
CORAL: dict[str, tuple[Callable[[], Graph], float]] = {
    "MobileNetV1 1.0 224": (lambda: net.mobilenet_v1_classifier(1.0, 224), 2.4),
    "MobileNetV2 1.0 224": (net.mobilenet_v2, 2.6),
    "Inception-v1 224": (net.inception_v1, 3.4),
    "Inception-v4 299": (net.inception_v4, 85.0),
    "ResNet-50 299": (lambda: net.resnet50(299), 49.0),
    "SqueezeNet 1.0 224": (net.squeezenet, 2.1),
    "VGG16 224": (net.vgg16, 296.0),
    "DeepLabv3 MobileNetV2 513": (net.deeplab, 52.0),
    "EfficientNet-EdgeTPU S 224": (lambda: net.efficientnet_edgetpu(224, 1.0), 5.1),
    "EfficientNet-EdgeTPU M 240": (lambda: net.efficientnet_edgetpu(240, 1.1), 8.7),
}
"""Milliseconds on the USB accelerator (coral.ai benchmarks). None was fitted."""
TINY = {"visual wake words": "vww_int8", "ResNet-8": "ic_int8", "keyword spotting": "kws_int8",
        "anomaly detection": "ad_int8"}  # fmt: skip
"""The int8 models of MLPerf Tiny."""
FLASH = {"cache.bytes": 0, "dram.mb_per_s": 500.0}
"""Of Vela's default system: weights are read from flash in every inference."""


def timeline(graph: Graph, d: Description) -> Timeline:
    return analyse(compile_graph(split(graph, d), d))


def signed(found: float, published: float) -> str:
    return f"{found / published - 1:+.1%}"


def vela_cycles(model: Path, accelerator: str = "ethos-u55-256") -> int:
    """Vela's estimate for a model, with its default system."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(sys.executable).with_name("vela")
        command = [str(program), str(model), "--accelerator-config", accelerator, "--output-dir", folder]
        subprocess.run(command, check=True, capture_output=True)
        (summary,) = Path(folder).glob("*_summary_*.csv")
        with summary.open() as file:
            return int(float(next(csv.DictReader(file))["cycles_total"]))


def chip(edge: Description) -> list[str]:
    inside = edge.vary({"dram.mb_per_s": 1e7, "dram.latency_cycles": 0, "dram.burst_bytes": 1})
    lines = ["Cycles on the chip (DRAM without cost) next to those that Google's compiler wrote into its models:", "",
             "| network | Google | edge-npu | error | |", "|---|---|---|---|---|"]
    for name, (build, cycles, fitted) in GOOGLE.items():
        total = timeline(build(), inside).total
        error = f"{signed(total, cycles)} | {'fitted' if fitted else 'held out'}"
        lines.append(f"| {name} | {cycles:,} | {total:,} | {error} |")
    return lines


def latency(edge: Description) -> list[str]:
    lines = ["Latency of an inference over USB 3 (published by coral.ai), streamed weights included:", "",
             "| network | Edge TPU | edge-npu | error | streamed weights |", "|---|---|---|---|---|"]
    for name, (build, ms) in CORAL.items():
        t = timeline(build(), edge)
        streamed = sum(x.weight_bytes for x in t.program.layers if x.weights == "streamed")
        found = f"{t.latency_ms:.1f} ms | {signed(t.latency_ms, ms)}"
        lines.append(f"| {name} | {ms} ms | {found} | {streamed:,} |")
    return lines


def tiny() -> list[str]:
    tiled, systolic = Description.load("tiled-mcu"), Description.load("ws16-mcu")
    machines = {"tiled-mcu": tiled, "the same, weights from flash": tiled.vary(FLASH), "ws16-mcu": systolic}
    lines = ["The MLPerf Tiny int8 models on 256 multiply-accumulates at 500 MHz, cycles and utilization. Vela's "
             "estimates are for an Ethos-U55-256, another machine of that size that reads compressed weights from "
             "flash:",
             "", f"| network | MACs | Vela | {' | '.join(machines)} |", "|---|---|---|" + "---|" * len(machines)]
    for name, file in TINY.items():
        model = data_folder() / "models" / f"{file}.tflite"
        graph, cycles = pipeline.quantize(model), vela_cycles(model)
        found = [timeline(graph, d) for d in machines.values()]
        macs = sum(x.macs for x in found[0].program.layers)
        own = " | ".join(f"{t.total:,} ({t.utilization():.0%})" for t in found)
        lines.append(f"| {name} | {macs:,} | {cycles:,} ({macs / cycles / 256:.0%}) | {own} |")
    return lines


def tables() -> str:
    edge = Description.load("edge-npu")
    return "\n".join([*chip(edge), "", *latency(edge), "", *tiny()]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    text = tables()
    if parser.parse_args().write:
        before, _, rest = DOCS.read_text().partition(BEGIN)
        DOCS.write_text(before + BEGIN + text + END + rest.partition(END)[2])
    print(text)


if __name__ == "__main__":
    main()
