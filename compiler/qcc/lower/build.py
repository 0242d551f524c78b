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
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from qcc.lower.columns import NUMBERS
from qcc.lower.kernel import Kernel
from qcc.lower.share import share

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


def _key(kernel: Kernel, target: Target) -> str:
    text = json.dumps([kernel.digest, target.codegen_key(), _compiler_digest()])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def build_kernels(
    kernels: Iterable[Kernel], target: Target, jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Built]:
    """Objects of the distinct kernels by ``Kernel.digest``; ``jobs`` processes compile what the cache does not hold.

    ``progress(done, total)`` counts the kernels to be compiled.
    """
    folder = cache_folder() / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    distinct = {k.digest: k for k in kernels}
    shared = share(distinct.values(), NUMBERS if target.firmware else {})
    paths = {k.digest: folder / _key(k, target) for k, _ in shared.values()}
    missing = {k.digest: (k, paths[k.digest]) for k, _ in shared.values()
               if not paths[k.digest].with_suffix(".json").exists()}  # fmt: skip
    if missing:
        ignored: Callable[[int, int], None] = lambda done, total: None  # noqa: E731
        _compile_all(list(missing.values()), target, jobs or os.cpu_count() or 1, progress or ignored)
    built = {}
    for digest, (kernel, numbers) in shared.items():
        path = paths[kernel.digest]
        facts = json.loads(path.with_suffix(".json").read_text())
        own = dict(distinct[digest].params).get("work")
        work = tuple((str(n), str(t), int(b)) for n, t, b in (facts["work"] if own is None else own))
        built[digest] = Built(facts["symbol"], path.with_suffix(_suffix(target)), facts["extent"], work, numbers)
    return built


def _compile_all(
    missing: Sequence[tuple[Kernel, Path]], target: Target, jobs: int, progress: Callable[[int, int], None]
) -> None:
    if jobs == 1 or len(missing) < 3:
        for done, (kernel, path) in enumerate(missing):
            _compile_one(kernel, target, path)
            progress(done + 1, len(missing))
        return
    with ThreadPoolExecutor(min(jobs, len(missing))) as pool:
        workers = threading.local()
        started: list[subprocess.Popen[bytes]] = []
        try:
            futures = [pool.submit(_in_worker, workers, started, kernel, target, path) for kernel, path in missing]
            for done, future in enumerate(as_completed(futures)):
                future.result()
                progress(done + 1, len(missing))
        finally:
            for worker in started:
                worker.kill()
                worker.wait()


def _in_worker(
    mine: threading.local, started: list[subprocess.Popen[bytes]], kernel: Kernel, target: Target, path: Path
) -> None:
    """Have this thread's worker process compile a kernel.

    A worker is a fresh interpreter and knows nothing of the caller's ``__main__``: a copy made by fork may hang where
    threads run, and multiprocessing's spawn runs unguarded scripts again.
    """
    if not hasattr(mine, "worker"):
        path_here = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        mine.worker = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       env={**os.environ, "PYTHONPATH": path_here})
        started.append(mine.worker)
    pickle.dump((kernel, target, path), mine.worker.stdin)
    mine.worker.stdin.flush()
    try:
        failure = pickle.load(mine.worker.stdout)
    except EOFError:
        failure = f"the process ended with {mine.worker.wait()}"
    if failure is not None:
        raise RuntimeError(f"kernel {kernel.compute} {kernel.digest} could not be compiled: {failure}")


def _work() -> None:
    """The worker: (kernel, target, path) after another on stdin, None or a failure's text for each on stdout.

    Nothing else may write there, so what libraries print goes to stderr.
    """
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            kernel, target, path = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        failure = None
        try:
            _compile_one(kernel, target, path)
        except Exception:
            failure = traceback.format_exc()
        pickle.dump(failure, replies)
        replies.flush()


def _compile_one(kernel: Kernel, target: Target, path: Path) -> None:
    """Write ``path``.o or ``path``.c, then ``path``.json, whose presence says that the first file is whole."""
    suffix, work = _suffix(target), tuple[Any, ...]()
    temporary = path.with_suffix(f".{os.getpid()}.tmp{suffix}")
    if target.firmware:
        from qcc.lower.source import kernel_object, kernel_source

        source = kernel_source(kernel, target)
        symbol, extent, work = source.symbol, 1, source.work
        temporary.write_text(source.text)
        if target.emit == "object":
            temporary.replace(path.with_suffix(".c"))
            kernel_object(kernel, target).write_to_file(str(temporary), "o")
    else:
        module, symbol, extent = compile_kernel(kernel, target)
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


def compile_kernel(kernel: Kernel, target: Target) -> tuple[Any, str, int]:
    """(runtime module, symbol, extent of the outermost loop) of one kernel."""
    import tvm

    from qcc.lower.plain import plain_function
    from qcc.schedule import scheduled

    symbol = f"qcc_{kernel.compute}_{kernel.digest[:12]}"
    assert target.llvm is not None, f"{target.name} gets source, not objects"
    llvm = tvm.target.Target(dict(target.llvm))
    func, extent = plain_function(scheduled(kernel, target), symbol, llvm)
    module = tvm.get_global_func("target.build.llvm")(tvm.IRModule({symbol: func}), llvm)
    return module, symbol, extent


if __name__ == "__main__":
    _work()
