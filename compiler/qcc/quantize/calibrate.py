"""Runs the float graph over samples in ONNX Runtime and chooses a range for every activation that needs one."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.errors import CalibrationError
from qcc.ir.graph import Graph
from qcc.ops import OPS
from qcc.passes.rewrite import WEIGHTED
from qcc.quantize.observers import METHODS, SUBSAMPLE, Range, Summary, minmax, subsample_stride

Feed = dict[str, NDArray[np.float32]]
Samples = Any
"""Calibration data of a model with inputs of static shape [B, …]:

* an array [n, …] of n rows, or [n, B, …] of n whole inputs; several inputs: a mapping from input name to such arrays;
* or an iterable (a generator will do) of rows or whole inputs; several inputs: of mappings from input name to those.

Rows are joined into batches of B.
"""


@dataclass(frozen=True)
class Calibration:
    """What was learnt from the samples; plain numbers, so that JSON can hold them.

    ``ranges`` (low, high) of the values in ``observed(graph)``; ``means`` of each channel (last axis) of the values in
    ``layer_inputs(graph)``.
    """

    ranges: dict[str, Range]
    means: dict[str, tuple[float, ...]]


def calibrate(graph: Graph, samples: Samples, method: str = "mse", progress: bool | None = None) -> Calibration:
    """Run the float graph over the samples, one batch at a time; memory does not grow with their number.

    Inputs and outputs of the graph keep the range that was seen (clipping the largest logits would make them equal);
    ``method`` (a key of ``observers.METHODS``) chooses the others. ``progress``: show a bar on stderr; None: where that
    is a terminal. Raises ``CalibrationError``.
    """
    if method not in METHODS:
        raise CalibrationError(f"unknown calibration method '{method}'", hint=f"one of {', '.join(METHODS)}")
    summaries = {value: Summary() for value in observed(graph)}
    sums = {value: np.zeros(graph.types[value].shape[-1]) for value in layer_inputs(graph)}
    run = _session(graph, [v for v in dict.fromkeys([*summaries, *sums]) if v not in graph.inputs])
    count = 0
    with _progress(samples, progress) as step:
        for feed in feeds(graph, samples):
            for value, array in {**feed, **run(feed)}.items():
                if value in summaries and not summaries[value].update(array):
                    raise CalibrationError(
                        f"the float model computes a NaN or an infinity at '{value}'",
                        where=f"calibration sample {count}",
                        hint="check the model, and whether the samples are preprocessed as it expects",
                    )
                if value in sums:
                    sums[value] += channel_means(array)
            count += 1
            step()
    edges = {*graph.inputs, *graph.outputs}
    return Calibration(
        {v: minmax(s) if v in edges else METHODS[method](s) for v, s in summaries.items()},
        {v: tuple((total / count).tolist()) for v, total in sums.items()},
    )


def observed(graph: Graph) -> list[str]:
    """Float activations that need a range: inputs, outputs, results of ops that neither move data nor fix its scale."""
    fixed = {n.output for n in graph.nodes if OPS[n.op].scale_rule == "fixed"}
    moved = {n.output for n in graph.nodes if OPS[n.op].scale_rule == "same"} - set(graph.outputs)
    real = (value for value in graph.activations() if graph.types[value].dtype == "float32")
    return [value for value in real if value not in fixed and value not in moved]


def layer_inputs(graph: Graph) -> list[str]:
    """Float activations that are multiplied by weights, each once."""
    inputs = dict.fromkeys(n.inputs["x"] for n in graph.nodes if n.op in WEIGHTED)
    return [value for value in inputs if value not in graph.constants]


def channel_means(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean of each channel (last axis) over the positions, or over a subset of them where they are many."""
    rows = x.reshape(-1, x.shape[-1])
    return np.asarray(rows[:: subsample_stride(len(rows), SUBSAMPLE // rows.shape[1])].mean(axis=0, dtype=np.float64))


def _session(graph: Graph, values: Sequence[str]) -> Callable[[Feed], Feed]:
    """A function from inputs to the arrays of ``values``, run by ONNX Runtime on every core."""
    if not values:
        return lambda feed: {}
    import onnxruntime

    from qcc.ir.to_onnx import to_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    options.log_severity_level = 3
    model = to_onnx(graph, values).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    return lambda feed: dict(zip(values, session.run(values, {k: feed[k] for k in wanted}), strict=True))


def feeds(graph: Graph, samples: Samples) -> Iterator[Feed]:
    """Checked inputs of one run after another, float32 and of the graph's shapes; raises ``CalibrationError``."""
    rows: list[Feed] = []
    number = -1
    for number, sample in enumerate(_stream(graph, samples)):
        feed = _checked(graph, sample, f"calibration sample {number}")
        if all(feed[v].shape == graph.types[v].shape for v in graph.inputs):
            yield feed
            continue
        rows.append(feed)
        if len(rows) == _batch(graph):
            yield _joined(graph, rows)
            rows = []
    if rows:
        yield _joined(graph, rows)
    if number < 0:
        raise CalibrationError("there are no calibration samples", hint="give at least one, better a hundred")


def _batch(graph: Graph) -> int | None:
    """The first extent of every input, where all agree: a batch of that many rows."""
    firsts = {graph.types[v].shape[:1] for v in graph.inputs}
    (first,) = firsts if len(firsts) == 1 else ((),)
    return first[0] if first else None


def _joined(graph: Graph, rows: Sequence[Feed]) -> Feed:
    """One batch of the rows, repeated where they are too few."""
    batch = _batch(graph) or 1
    return {v: np.stack([rows[i % len(rows)][v] for i in range(batch)]) for v in graph.inputs}


def _stream(graph: Graph, samples: Samples) -> Iterator[Any]:
    """The samples one by one, each an array or a mapping."""
    if isinstance(samples, np.ndarray):
        single = any(samples.shape == graph.types[v].shape[1:] for v in graph.inputs)
        yield from samples[None] if single or samples.ndim == 0 else samples
    elif isinstance(samples, Mapping):
        scalars = [k for k, v in samples.items() if not isinstance(v, Sized) or getattr(v, "shape", (1,)) == ()]
        if scalars:
            raise CalibrationError(f"the samples of input '{scalars[0]}' are a single number",
                                   hint="give one array of n samples per input")
        lengths = {k: len(v) for k, v in samples.items()}
        if len(set(lengths.values())) > 1:
            raise CalibrationError(
                f"the inputs have different numbers of samples: {lengths}", hint="give one array of n samples per input"
            )
        for row in zip(*samples.values(), strict=True):
            yield dict(zip(samples, row, strict=True))
    elif isinstance(samples, Iterable) and not isinstance(samples, str | bytes):
        yield from samples
    else:
        raise CalibrationError(
            f"calibration samples cannot be a {type(samples).__name__}",
            hint="give an array of samples or an iterable of arrays",
        )


def _checked(graph: Graph, sample: Any, where: str) -> Feed:
    """The sample as one float32 array per graph input: all of them whole inputs, or all of them rows of a batch."""
    if not isinstance(sample, Mapping):
        if len(graph.inputs) != 1:
            raise CalibrationError(
                f"one array, but the model has {len(graph.inputs)} inputs",
                where=where,
                hint=f"give a mapping with the keys {', '.join(graph.inputs)}",
            )
        sample = {graph.inputs[0]: sample}
    for name in sample:
        if name not in graph.inputs:
            raise CalibrationError(
                f"the model has no input '{name}'", where=where, hint=f"its inputs are {', '.join(graph.inputs)}"
            )
    feed: Feed = {}
    for name in graph.inputs:
        if name not in sample:
            raise CalibrationError(f"input '{name}' is missing", where=where, hint="give every input of the model")
        feed[name] = _array(name, sample[name], graph.types[name].shape, _batch(graph), where)
    if len({array.shape == graph.types[name].shape for name, array in feed.items()}) > 1:
        raise CalibrationError(
            "some inputs are whole, others are single rows", where=where, hint="give all of them in one form"
        )
    return feed


def _array(name: str, item: Any, shape: tuple[int, ...], batch: int | None, where: str) -> NDArray[np.float32]:
    """The item as finite float32, of the input's shape or, where the inputs are batches, a row of it."""
    try:
        array = np.asarray(item)
    except ValueError as error:
        raise CalibrationError(f"input '{name}' is not an array: {error}", where=where, hint="give arrays") from error
    if array.shape == shape[1:] and shape[:1] == (1,):
        array = array[None]
    if array.shape != shape and not (batch and array.shape == shape[1:]):
        order = sorted(array.shape) in (sorted(shape), sorted(shape[1:]))
        raise CalibrationError(
            f"input '{name}' has shape {array.shape}, the model wants {shape}",
            where=where,
            hint="transpose the samples to the model's order of axes" if order else f"give samples of shape {shape}",
        )
    return _real(name, array, where)


def _real(name: str, array: NDArray[Any], where: str) -> NDArray[np.float32]:
    """The array as finite float32."""
    if not np.issubdtype(array.dtype, np.floating):
        raise CalibrationError(
            f"input '{name}' has dtype {array.dtype}, the model wants float32",
            where=where,
            hint="preprocess the samples exactly as for the float model (scale, mean), then pass float32",
        )
    with np.errstate(over="ignore"):
        real = array.astype(np.float32, copy=False)
    if not np.isfinite(real).all():
        raise CalibrationError(
            f"input '{name}' holds a NaN or an infinity", where=where, hint="clean the samples before calibrating"
        )
    return real


def fingerprint(samples: Samples) -> str | None:
    """SHA-256 of the samples' contents where they are kept (arrays, sequences, mappings of them); else None."""
    digest = hashlib.sha256()

    def add(item: Any) -> bool:
        if isinstance(item, np.ndarray):
            digest.update(f"array {item.dtype.str} {item.shape};".encode())
            digest.update(np.ascontiguousarray(item).data)
            return True
        if isinstance(item, Mapping):
            digest.update(f"mapping {list(item)};".encode())
            return all(add(v) for v in item.values())
        if isinstance(item, Sequence) and not isinstance(item, str | bytes):
            digest.update(f"sequence {len(item)};".encode())
            return all(add(v) for v in item)
        return False

    return digest.hexdigest() if add(samples) else None


@contextmanager
def _progress(samples: Samples, shown: bool | None) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each sample, which moves a bar on stderr (None: shown only on a terminal)."""
    if not (sys.stderr.isatty() if shown is None else shown):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    first = next(iter(samples.values()), ()) if isinstance(samples, Mapping) else samples
    columns = (TextColumn("calibrate"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("calibrate", total=len(first) if isinstance(first, Sized) else None)
        yield lambda: bar.advance(task)
