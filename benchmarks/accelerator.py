"""The accelerator's cycle model next to published figures; ``--write`` puts the tables into docs/accelerator.md."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import networks as net

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
    "MobileNetV2 1.0 224": (net.mobilenet_v2, 458_040, False),
    "PoseNet 353x481": (lambda: net.posenet(353, 481), 1_428_960, False),
    "PoseNet 481x641": (lambda: net.posenet(481, 641), 2_617_344, False),
    "PoseNet 721x1281": (lambda: net.posenet(721, 1281), 8_432_400, False),
}
"""Cycles that Google's compiler wrote into models, and whether the description was fitted to them."""
CORAL: dict[str, tuple[Callable[[], Graph], float]] = {
    "MobileNetV1 1.0 224": (lambda: net.mobilenet_v1_classifier(1.0, 224), 2.4),
    "MobileNetV2 1.0 224": (net.mobilenet_v2, 2.6),
    "ResNet-50 299": (lambda: net.resnet50(299), 49.0),
}
"""Milliseconds on the USB accelerator (coral.ai benchmarks)."""
VELA: dict[str, tuple[Callable[[], Graph], int]] = {
    "visual wake words": (net.visual_wake_words, 161_459),
    "ResNet-8": (net.resnet8, 141_933),
    "keyword spotting": (net.keyword_spotting, 58_340),
    "anomaly detection": (net.anomaly_detection, 201_184),
}
"""Cycles that Vela 5.2 estimates for an Ethos-U55-256."""


def timeline(graph: Graph, d: Description) -> Timeline:
    return analyse(compile_graph(split(graph, d), d))


def signed(found: float, published: float) -> str:
    return f"{found / published - 1:+.1%}"


def tables() -> str:
    edge = Description.load("edge-npu")
    inside = edge.vary({"dram.mb_per_s": 1e7, "dram.latency_cycles": 0, "dram.burst_bytes": 1})
    lines = ["Cycles on the chip (DRAM without cost) next to those that Google's compiler wrote into its models:", "",
             "| network | Google | edge-npu | error | |", "|---|---|---|---|---|"]
    for name, (build, cycles, fitted) in GOOGLE.items():
        total = timeline(build(), inside).total
        error = f"{signed(total, cycles)} | {'fitted' if fitted else ''}"
        lines.append(f"| {name} | {cycles:,} | {total:,} | {error} |")
    lines += ["", "Latency of an inference over USB 3 (published by coral.ai), streamed weights included:", "",
              "| network | Edge TPU | edge-npu | error | streamed bytes |", "|---|---|---|---|---|"]
    for name, (build, ms) in CORAL.items():
        t = timeline(build(), edge)
        streamed = sum(x.weight_bytes for x in t.program.layers if x.weights == "streamed")
        found = f"{t.latency_ms:.1f} ms | {signed(t.latency_ms, ms)}"
        lines.append(f"| {name} | {ms} ms | {found} | {streamed:,} |")
    mcu = Description.load("ws16-mcu")
    lines += ["", "The MLPerf Tiny networks on 256 multiply-accumulates; Vela 5.2's estimates are for an "
              "Ethos-U55-256, another machine of that size:", "",
              "| network | MACs | Vela | utilization | ws16-mcu | utilization | array alone | DRAM busy |",
              "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, (build, cycles) in VELA.items():
        t = timeline(build(), mcu)
        macs = sum(x.macs for x in t.program.layers)
        vela, own = f"{cycles:,} | {macs / cycles / 256:.0%}", f"{t.total:,} | {t.utilization():.0%}"
        dma = sum(x.dma for x in t.layers)
        lines.append(f"| {name} | {macs:,} | {vela} | {own} | {t.compute_only:,} | {dma:,} |")
    return "\n".join(lines) + "\n"


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
