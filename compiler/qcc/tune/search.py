"""What to measure next: TVM's MetaSchedule over stand-ins of the kernels.

Its evolutionary search proposes candidates, its gradient scheduler gives time to the tasks with most to gain, its
database holds what is known. The cost model (XGBoost) learns from the values of the decisions, of all tasks at once.
"""

from __future__ import annotations

import logging
import math
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from qcc.errors import TuningError
from qcc.tune.records import Record
from qcc.tune.space import Chosen, read_stand_in, stand_in
from qcc.tune.tasks import Task

POPULATION, GENERATIONS, WARM_UP = 64, 3, 48
"""Of the evolutionary search; candidates measured before the cost model is asked."""

Evaluate = Callable[[Task, Sequence[Chosen]], list[Record]]
"""Measures candidates of a task."""


def require_tuner() -> None:
    """Raise TuningError unless what MetaSchedule needs is installed."""
    try:
        import cloudpickle  # noqa: F401
        import psutil  # noqa: F401
        import tornado  # noqa: F401
        import xgboost  # noqa: F401
    except ImportError as error:
        raise TuningError(f"tuning needs the Python package {error.name}", hint="pip install 'qcc[tune]'") from error


def search(tasks: Sequence[Task], evaluate: Evaluate, trials: int, batch: int, seed: int) -> None:
    """Evaluate up to ``trials`` candidates, ``batch`` at a time; what ``evaluate`` raises ends it.

    The same seed and the same values give the same candidates in the same order.
    """
    require_tuner()
    from tvm import target
    from tvm.s_tir import meta_schedule as ms

    logging.getLogger("tvm.s_tir.meta_schedule").setLevel(logging.CRITICAL)
    by_digest = {task.kernel.digest: task for task in tasks}
    weights = [float(task.count) for task in tasks]
    ended: list[BaseException] = []
    state = np.random.get_state()  # XGBModel draws its first scores from this
    np.random.seed(seed % 2**32)
    try:
        with _no_intrinsics():
            contexts = [
                ms.TuneContext(
                    mod=stand_in(task.kernel), target=target.Target("c"), task_name=task.kernel.digest, num_threads=1,
                    space_generator=ms.space_generator.ScheduleFn(
                        task.space.sample, sch_rules=[], postprocs=[], mutator_probs={_mutator(seed + index): 1.0}
                    ),
                    search_strategy=ms.search_strategy.EvolutionarySearch(
                        population_size=POPULATION, init_min_unmeasured=1, max_fail_count=20,
                        genetic_num_iters=GENERATIONS, eps_greedy=0.1,
                    ),
                    rand_state=seed + index + 1,
                )
                for index, task in enumerate(tasks)
            ]
        with tempfile.TemporaryDirectory(prefix="qcc-") as scratch:
            ms.tune.tune_tasks(
                tasks=contexts, task_weights=weights, work_dir=scratch, max_trials_global=trials,
                num_trials_per_iter=batch, builder=_builder(), runner=_runner(by_digest, evaluate, ended),
                database=ms.database.MemoryDatabase(),
                cost_model=ms.cost_model.XGBModel(extractor=_extractor(tasks), num_warmup_samples=WARM_UP,
                                                  num_tuning_cores=1),
                measure_callbacks=[ms.measure_callback.AddToDatabase(), ms.measure_callback.UpdateCostModel()],
                task_scheduler=ms.task_scheduler.GradientBased(seed=seed + 1),
            )  # fmt: skip
    except RuntimeError as error:  # what TVM makes of an exception that passes through it
        if not ended:
            raise
        raise ended[0] from error
    finally:
        np.random.set_state(state)


def _no_intrinsics() -> Any:
    """While a TuneContext is made, which parses TVM's own tensor intrinsics for a minute: stand-ins need none."""
    name = "tvm.s_tir.tensor_intrin"
    return mock.patch.dict(sys.modules, {} if name in sys.modules else {name: ModuleType(name)})


def _mutator(seed: int) -> Any:
    """Gives one decision another value."""
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.mutator import PyMutator

    @derived_object
    class Mutator(PyMutator):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.random = random.Random(seed)

        def _initialize_with_tune_context(self, context: Any) -> None:
            pass

        def apply(self, trace: Any, seed: Any = None) -> Any:
            sampled = [i for i in trace.insts if i.kind.name == "SampleCategorical"]
            changed = self.random.choice(sampled)
            index = self.random.randrange(len(changed.attrs[0]) - 1)
            before = int(trace.decisions[changed])
            return trace.with_decision(changed, index + (index >= before), True)

        def clone(self) -> Any:
            return _mutator(seed)

    return Mutator()


def _builder() -> Any:
    """Hands candidates on: they are built where they are measured."""
    from tvm.ir.utils import derived_object
    from tvm.s_tir import Schedule
    from tvm.s_tir.meta_schedule.builder import BuilderResult, PyBuilder

    @derived_object
    class Builder(PyBuilder):  # type: ignore[misc]
        def build(self, build_inputs: Any) -> Any:
            return [BuilderResult(repr(read_stand_in(Schedule(i.mod))), None) for i in build_inputs]

    return Builder()


def _runner(tasks: dict[str, Task], evaluate: Evaluate, ended: list[BaseException]) -> Any:
    """Evaluates the candidates of one task; keeps what that raises in ``ended``."""
    import ast

    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.runner import PyRunner, PyRunnerFuture, RunnerResult

    @derived_object
    class Future(PyRunnerFuture):  # type: ignore[misc]
        def __init__(self, record: Record) -> None:
            super().__init__()
            self.record = record

        def done(self) -> bool:
            return True

        def result(self) -> Any:
            if self.record.value is None:
                return RunnerResult(None, f"{self.record.status}: {self.record.error}")
            return RunnerResult([self.record.value], None)

    @derived_object
    class Runner(PyRunner):  # type: ignore[misc]
        def run(self, runner_inputs: Any) -> Any:
            named = [ast.literal_eval(str(i.artifact_path)) for i in runner_inputs]
            if not named:
                return []
            try:
                records = evaluate(tasks[named[0][0]], [chosen for _, chosen in named])
            except BaseException as error:
                ended.append(error)
                raise RuntimeError("the search ends") from error
            return [Future(record) for record in records]

    return Runner()


def _extractor(tasks: Sequence[Task]) -> Any:
    """Features: the logarithms of a candidate's decisions and of its kernel's sizes; -1 for what it does not have."""
    import tvm
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.feature_extractor import PyFeatureExtractor

    names = sorted({d.name for task in tasks for d in task.space.decisions})
    sizes = {task.kernel.digest: _sizes(task) for task in tasks}

    def features(sch: Any) -> list[float]:
        digest, chosen = read_stand_in(sch)
        return [*(math.log2(1 + chosen[n]) if n in chosen else -1.0 for n in names), *sizes[digest]]

    @derived_object
    class Extractor(PyFeatureExtractor):  # type: ignore[misc]
        def extract_from(self, context: Any, candidates: Any) -> Any:
            return [tvm.runtime.tensor(np.array([features(c.sch)], np.float32)) for c in candidates]

    return Extractor()


def _sizes(task: Task) -> list[float]:
    y = task.kernel.view("y").shape
    weights = sum(math.prod(o.view.shape) for o in task.kernel.operands if o.key == "w")
    return [math.log2(1 + n) for n in (task.call.macs, weights, math.prod(y), y[-1])]
