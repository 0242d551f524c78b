"""Candidates in the model that they are for: there caches hold what the layers before left, and weights may have been
fetched ahead. Candidates of all kernels are measured at once, each in its layers.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qcc.ir.graph import Graph
from qcc.pipeline import build, lower
from qcc.plan.layout import plan_layout
from qcc.runtime import Model
from qcc.target import Target
from qcc.tune.records import Key, Record, Records, write_records
from qcc.tune.space import Chosen
from qcc.tune.tasks import Task

TURNS, TURN_SECONDS = 8, 0.1
"""The default and the chosen model take turns; medians over so many."""


class ModelBench:
    """A model with its defaults, and what decisions change in it."""

    def __init__(self, graph: Graph, target: Target, tasks: Sequence[Task]) -> None:
        self._graph, self._target, self._tasks = graph, target, tasks
        self._scratch = tempfile.TemporaryDirectory(prefix="qcc-")
        self._layers: dict[str, list[str]] = defaultdict(list)
        for call in lower(graph, plan_layout(graph, target)):
            self._layers[call.kernel.digest].append(call.node)
        self._default = self._build({})

    def __enter__(self) -> ModelBench:
        """As it is."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Remove the models."""
        self._scratch.cleanup()

    def times(self, chosen: Mapping[str, Chosen]) -> dict[str, tuple[float, float]]:
        """Seconds of the layers of each kernel, by digest: by default, and with the decisions ``chosen`` by digest.

        One layer's mean; a layer of several kernels counts for each of them.
        """
        tuned = self._build(chosen)
        turns = [[m.measure_layers(TURN_SECONDS) for m in (self._default, tuned)] for _ in range(TURNS)]
        found = {}
        for digest, layers in self._layers.items():
            seconds = np.array([[np.mean([layer[name] for name in layers]) for layer in turn] for turn in turns])
            default = float(np.median(seconds[:, 0]))
            found[digest] = default, default * float(np.median(seconds[:, 1] / seconds[:, 0]))
        return found

    def _build(self, chosen: Mapping[str, Chosen]) -> Model:
        """The model with decisions for some kernels."""
        key, records = Key.of(self._target), []
        for task in self._tasks:
            decisions = chosen.get(task.kernel.digest)
            if decisions:
                records.append(Record(task.kernel.digest, task.what, self._target.name, key,
                                      tuple(sorted(decisions.items())), "ok", "s", 0.0))
        folder = Path(tempfile.mkdtemp(dir=self._scratch.name))
        write_records(Records(records), folder / "records.jsonl")
        return build(self._graph, self._target, folder / "model", jobs=1, progress=False,
                     records=folder / "records.jsonl")
