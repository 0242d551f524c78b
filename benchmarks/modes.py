"""Top-1 and size of the modes that run float, beside the float model, on labelled samples.

    QCC_DATA=… python benchmarks/modes.py [--models resnet20_cifar10,kws_float] [--limit 100]

The compiled library for this machine runs, whose bytes are those of the reference. Exits with 1 where float16 differs
from float by more than half a point, or dynamic by more than one and a half.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import data_folder, load_evaluation

import qcc

MODELS = ("mobilenet_v1_0.75_224", "mobilenet_v2_1.0_224_deq", "resnet20_cifar10", "mnist_cnn", "ic_float", "kws_float")
MOST = {"float16": 0.005, "dynamic": 0.015}
"""Largest difference of top-1 from the float model's, by mode."""


def classes(run: Any, entry: Any, samples: Any, prepare: Any) -> np.ndarray:
    """The class that a model gives each sample."""
    return np.array([int(np.ravel(run(prepare(s, entry)))[entry["off"] :].argmax()) for s in samples])


def compare(evaluation: Any, name: str, limit: int | None, folder: Path) -> bool:
    """Print one line for each labelled set and mode of a model; whether all are near the float model."""
    entry = evaluation.E[name]
    path = data_folder() / "models" / entry["file"]
    exact, near = evaluation.runner(str(path)), True
    print(f"{name}: {path.stat().st_size / 1e6:.2f} MB")
    compiled = {mode: qcc.compile(path, mode=mode, out=folder / f"{name}-{mode}") for mode in MOST}
    for mode, model in compiled.items():
        library = next(model.folder.glob("*.so")).stat().st_size
        print(f"  {mode:9} library {library / 1e6:.2f} MB, weights {model.manifest['weight_bytes'] / 1e6:.2f} MB, "
              f"arena {model.manifest['arena']['bytes'] / 1e6:.2f} MB")
    for dataset in entry["sets"]:
        samples, labels = evaluation.load(dataset)
        samples, labels = samples[:limit], labels[:limit]
        expected = classes(exact, entry, samples, evaluation.prepare)
        score = (expected == labels).mean()
        print(f"  {dataset}, n={len(labels)}: float {score:.4f}", flush=True)
        for mode, model in compiled.items():
            found = classes(model, entry, samples, evaluation.prepare)
            difference = (found == labels).mean() - score
            near &= bool(abs(difference) < MOST[mode] + 1e-9)
            print(f"    {mode:9} {(found == labels).mean():.4f} ({difference:+.4f}), "
                  f"{(found != expected).sum()} classes differ", flush=True)
    return near


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--models", default=",".join(MODELS), help="comma-separated names")
    options.add_argument("--limit", type=int, help="first samples of each set only")
    given = options.parse_args()
    if not data_folder().is_dir():
        print(f"no labelled samples: {data_folder()} does not exist (set QCC_DATA)", file=sys.stderr)
        return 1
    evaluation = load_evaluation(data_folder())
    with tempfile.TemporaryDirectory() as folder:
        near = [compare(evaluation, name, given.limit, Path(folder)) for name in given.models.split(",")]
    return 0 if all(near) else 1


if __name__ == "__main__":
    sys.exit(main())
