"""What there is to tune in a model: its distinct kernels that leave something to be decided."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from qcc.ir.graph import Graph, runs_float
from qcc.lower.build import Built
from qcc.lower.kernel import Call, Kernel
from qcc.pipeline import lower
from qcc.plan.layout import Layout, plan_layout
from qcc.target import Target
from qcc.tune.case import Case, make_case
from qcc.tune.space import Space, find_space


@dataclass
class Task:
    """One kernel of a model, which runs it ``count`` times."""

    call: Call
    layout: Layout
    count: int
    space: Space

    @property
    def kernel(self) -> Kernel:
        """The kernel."""
        return self.call.kernel

    @property
    def what(self) -> str:
        """The kernel for people: compute, shape of the result, bytes of weights."""
        y = "x".join(map(str, self.kernel.view("y").shape))
        weights = [o.view.shape for o in self.kernel.operands if o.key == "w"]
        return f"{self.kernel.compute} {y}" + "".join(f" w{'x'.join(map(str, w))}" for w in weights)

    @cached_property
    def case(self) -> Case:
        """Memory to run it on."""
        return make_case(self.call, self.layout)


@dataclass(frozen=True)
class Candidate:
    """A task that was compiled by some decisions; ``call`` has its constants packed as these want them."""

    task: Task
    call: Call
    built: Built

    @property
    def case(self) -> Case:
        """Memory to run it on."""
        return self.task.case if self.call is self.task.call else make_case(self.call, self.task.layout)


def find_tasks(graph: Graph, target: Target) -> list[Task]:
    """The tasks of an integer program, in the order in which it meets them; what computes in float is left as it is."""
    layout = plan_layout(graph, target)
    nodes = graph.node_of()
    calls = [call for call in lower(graph, layout) if not runs_float(graph, nodes[call.node])]
    counts = Counter(call.kernel.digest for call in calls)
    first = {call.kernel.digest: call for call in reversed(calls)}
    spaces = {digest: find_space(first[digest].kernel, target) for digest in dict.fromkeys(counts)}
    return [Task(first[d], layout, counts[d], space) for d, space in spaces.items() if space.size > 1]
