"""Kernel → TE → schedule → TIR with plain C parameters → object file, in parallel and cached on disk.

The object defines ``void symbol(const T0 *, …, int32_t begin, int32_t end)`` and needs nothing but libc. ``begin`` and
``end`` bound the outermost loop, so that threads can share a kernel; its whole extent is ``Built.extent``.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from qcc.lower.columns import NUMBERS
from qcc.lower.kernel import Kernel
from qcc.lower.share import share
from qcc.schedule.decide import Decide

if TYPE_CHECKING:
    from qcc.target import Target


@dataclass(frozen=True)
class Built:
    """An object file (C text for targets that get source), its function, and the extent of the outermost loop.

    A C function's parameters after the operands are ``work``, (name, dtype, bytes) of memory that it wants, and then
    ``numbers``, what it has to be told where several kernels share it.
    """

    symbol: str
    object: Path
    extent: int
    work: tuple[tuple[str, str, int], ...] = ()
    numbers: tuple[int, ...] = ()


def cache_folder() -> Path:
    """Where objects live: ``QCC_CACHE`` or the user's cache folder."""
    return Path(os.environ.get("QCC_CACHE") or platformdirs.user_cache_dir("qcc"))


@cache
def _compiler_digest() -> str:
    """Changes when anything that generates code changes: these sources and the version of TVM."""
    from importlib.metadata import version

    package = Path(__file__).parent.parent
    sources = sorted([*(package / "lower").glob("*.py"), *(package / "schedule").glob("*.py")])
    state = hashlib.sha256(version("apache-tvm").encode())
    for source in sources:
        state.update(source.read_bytes())
    return state.hexdigest()


@dataclass(frozen=True)
class Variant:
    """A kernel with the decisions that were chosen for it; every other decision takes its default."""

    kernel: Kernel
    chosen: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def of(kernel: Kernel, chosen: Mapping[str, int] | None = None) -> Variant:
        """The variant of a mapping."""
        return Variant(kernel, tuple(sorted((chosen or {}).items())))

    @property
    def digest(self) -> str:
        """Stable name: the kernel's where nothing was chosen."""
        if not self.chosen:
            return self.kernel.digest
        return hashlib.sha256(json.dumps([self.kernel.digest, self.chosen]).encode()).hexdigest()[:16]

    def path(self, target: Target) -> Path:
        """Where the cache keeps it: the files' common path without suffix."""
        text = json.dumps([self.digest, target.codegen_key(), _compiler_digest()])
        return cache_folder() / "objects" / hashlib.sha256(text.encode()).hexdigest()[:32]


def build_kernels(
    kernels: Iterable[Kernel], target: Target, jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None, chosen: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, Built]:
    """Objects of the distinct kernels by ``Kernel.digest``; ``jobs`` processes compile what the cache does not hold.

    ``progress(done, total)`` counts the kernels to be compiled. ``chosen`` are decisions by ``Kernel.digest``.
    """
    distinct = {k.digest: k for k in kernels}
    planned = plan_variants(distinct.values(), target, chosen)
    missing = {v.digest: v for v, _ in planned.values() if not v.path(target).with_suffix(".json").exists()}
    if missing:
        ignored: Callable[[int, int], None] = lambda done, total: None  # noqa: E731
        _compile_all(list(missing.values()), target, jobs or os.cpu_count() or 1, progress or ignored)
    built = {}
    for digest, kernel in distinct.items():
        variant, numbers = planned[digest]
        path = variant.path(target)
        facts = json.loads(path.with_suffix(".json").read_text())
        own = dict(kernel.params).get("work")
        work = tuple((str(n), str(t), int(b)) for n, t, b in (facts["work"] if own is None else own))
        built[digest] = Built(facts["symbol"], path.with_suffix(_suffix(target)), facts["extent"], work, numbers)
    return built


def plan_variants(
    kernels: Iterable[Kernel], target: Target, chosen: Mapping[str, Mapping[str, int]] | None = None
) -> dict[str, tuple[Variant, tuple[int, ...]]]:
    """What is compiled for each kernel, and the numbers that it is called with: kernels that nothing was chosen for
    may share a function.
    """
    distinct, chosen = {k.digest: k for k in kernels}, {d: c for d, c in (chosen or {}).items() if c}
    free = NUMBERS if target.firmware else {}
    shared = share([k for digest, k in distinct.items() if digest not in chosen], free)
    for digest in distinct.keys() & chosen.keys():
        shared |= share([distinct[digest]], free)
    return {digest: (Variant.of(kernel, chosen.get(digest)), numbers) for digest, (kernel, numbers) in shared.items()}


def _compile_all(
    missing: Sequence[Variant], target: Target, jobs: int, progress: Callable[[int, int], None]
) -> None:
    if jobs == 1 or len(missing) < 3:
        for done, variant in enumerate(missing):
            _compile_one(variant, target, variant.path(target))
            progress(done + 1, len(missing))
        return
    with Workers(min(jobs, len(missing))) as workers:
        futures = {workers.submit(variant, target): variant for variant in missing}
        for done, future in enumerate(as_completed(futures)):
            failure, kernel = future.result(), futures[future].kernel
            if failure is not None:
                raise RuntimeError(f"kernel {kernel.compute} {kernel.digest} could not be compiled: {failure}")
            progress(done + 1, len(missing))


class Workers:
    """Processes that compile into the cache, each started with its first kernel.

    A worker is a fresh interpreter and knows nothing of the caller's ``__main__``: a copy made by fork may hang where
    threads run, and multiprocessing's spawn runs unguarded scripts again.
    """

    def __init__(self, count: int, seconds: float | None = None) -> None:
        """``seconds``: time that a kernel may take; its worker is ended then, and another started.

        Kernels with such a limit may be illegal: what LLVM prints about them is not shown.
        """
        self._pool = ThreadPoolExecutor(count)
        self._mine, self._seconds = threading.local(), seconds
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Workers:
        """As it is."""
        return self

    def __exit__(self, *failure: object) -> None:
        """End the workers, busy or not."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for worker in self._started:
            worker.kill()
            worker.wait()
        self._pool.shutdown()

    def submit(self, variant: Variant, target: Target) -> Future[str | None]:
        """A future of None, or of the text that says why the variant could not be compiled."""
        return self._pool.submit(self._compile, variant, target)

    def _compile(self, variant: Variant, target: Target) -> str | None:
        if getattr(self._mine, "worker", None) is None:
            path_here = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
            quiet = None if self._seconds is None else subprocess.DEVNULL
            self._mine.worker = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE,
                                                 stdout=subprocess.PIPE, stderr=quiet,
                                                 env={**os.environ, "PYTHONPATH": path_here})
            self._started.append(self._mine.worker)
        worker = self._mine.worker
        timer = None if self._seconds is None else threading.Timer(self._seconds, worker.kill)
        try:
            if timer is not None:
                timer.start()
            pickle.dump((variant, target, variant.path(target)), worker.stdin)
            worker.stdin.flush()
            failure: str | None = pickle.load(worker.stdout)
            return failure
        except (EOFError, OSError, pickle.UnpicklingError):
            self._mine.worker = None
            return f"the process ended with {worker.wait()}"
        finally:
            if timer is not None:
                timer.cancel()


def _work() -> None:
    """The worker: (variant, target, path) after another on stdin, None or a failure's text for each on stdout.

    Nothing else may write there, so what libraries print goes to stderr.
    """
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            variant, target, path = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        failure = None
        try:
            _compile_one(variant, target, path)
        except Exception:
            failure = traceback.format_exc()
        pickle.dump(failure, replies)
        replies.flush()


def _compile_one(variant: Variant, target: Target, path: Path) -> None:
    """Write ``path``.o or ``path``.c, then ``path``.json, whose presence says that the first file is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix, work = _suffix(target), tuple[Any, ...]()
    temporary = path.with_suffix(f".{os.getpid()}.tmp{suffix}")
    if target.firmware:
        from qcc.lower.source import kernel_object, kernel_source

        decide = Decide(dict(variant.chosen))
        source = kernel_source(variant.kernel, target, decide)
        symbol, extent, work = source.symbol, 1, source.work
        temporary.write_text(source.text)
        if target.emit == "object":
            temporary.replace(path.with_suffix(".c"))
            kernel_object(variant.kernel, target, decide).write_to_file(str(temporary), "o")
    else:
        module, symbol, extent = compile_kernel(variant, target)
        module.write_to_file(str(temporary), "o")
    temporary.replace(path.with_suffix(suffix))
    facts = path.with_suffix(f".{os.getpid()}.tmp.json")
    facts.write_text(json.dumps({"symbol": symbol, "extent": extent, "work": work}))
    facts.replace(path.with_suffix(".json"))


def _suffix(target: Target) -> str:
    return ".c" if target.emit == "c" else ".o"


def lower(kernel: Kernel) -> Any:
    """The unscheduled TIR function of a kernel, its buffers strided as the operands' views say."""
    from tvm import te, tirx

    from qcc.lower.computes import COMPUTES
    from qcc.schedule.intrinsic import restride

    inputs = [o for o in kernel.operands if o.role != "out"]
    tensors = {o.key: te.placeholder(o.view.shape, o.view.dtype, name=o.key) for o in inputs}
    out = COMPUTES[kernel.compute](kernel, tensors)
    named = [tensors.get(o.key, out) for o in kernel.operands]
    func = te.create_prim_func(named)
    views = [tirx.decl_buffer(o.view.shape, o.view.dtype, name=o.key, strides=o.view.strides) for o in kernel.operands]
    return restride(func, views)


def compile_kernel(variant: Variant, target: Target) -> tuple[Any, str, int]:
    """(runtime module, symbol, extent of the outermost loop) of one kernel."""
    import tvm

    from qcc.lower.plain import plain_function
    from qcc.schedule import scheduled

    kernel = variant.kernel
    symbol = f"qcc_{kernel.compute}_{variant.digest[:12]}"
    assert target.llvm is not None, f"{target.name} gets source, not objects"
    llvm = tvm.target.Target(target.llvm.options())
    func, extent = plain_function(scheduled(kernel, target, Decide(dict(variant.chosen))), symbol, llvm)
    module = tvm.get_global_func("target.build.llvm")(tvm.IRModule({symbol: func}), llvm)
    return module, symbol, extent


if __name__ == "__main__":
    _work()
