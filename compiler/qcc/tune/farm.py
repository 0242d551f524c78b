"""Measuring on the devices of a farm, through TVM's RPC tracker and servers: several at once, and some may be lost.

Each device has a helper process here that talks to it, so that a device that falls silent can be given up.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qcc.emit.library import call_tool, compiler_command
from qcc.errors import TuningError
from qcc.tune.measure import BLOCK_SECONDS, LEAST_ROUNDS, SECONDS, Outcome
from qcc.tune.program import prepare_source

if TYPE_CHECKING:
    from qcc.target import Target
    from qcc.tune.case import Case
    from qcc.tune.tasks import Candidate

LIBRARY = "measure.so"
ATTEMPTS = 3
"""Sessions that may break before the candidate is held to be the cause, and not the device."""
WAIT_SECONDS = 30.0
"""Time to wait for a device."""


class Farm:
    """Seconds, on any device with ``key``."""

    unit, exact, whole = "s", False, False

    def __init__(self, target: Target, address: str, key: str) -> None:
        """``address``: HOST:PORT of the tracker. Raises TuningError: no tracker, or no such device."""
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise TuningError(f"'{address}' is no HOST:PORT", where="--rpc", hint="write 127.0.0.1:9190")
        self.target, self.key, self.host, self.port = target, key, host, int(port)
        self.devices = self._count()
        if not self.devices:
            raise TuningError(f"the tracker knows no device with the key '{key}'", where=address,
                              hint="start some: python -m tvm.exec.rpc_server --tracker HOST:PORT --key KEY")
        self._mine, self._helpers = threading.local(), list[Any]()
        weakref.finalize(self, _end, self._helpers)

    def _count(self) -> int:
        from tvm import rpc

        try:
            socket.create_connection((self.host, self.port), timeout=5).close()  # TVM would try for a minute
            summary = rpc.connect_tracker(self.host, self.port).summary()
        except (OSError, RuntimeError) as error:
            raise TuningError("no tracker answers", where=f"{self.host}:{self.port}",
                              hint="start one: python -m tvm.exec.rpc_tracker --host 0.0.0.0 --port 9190") from error
        return sum(server["key"] == f"server:{self.key}" for server in summary["server_info"])

    def run(self, candidates: Sequence[Candidate]) -> Outcome:
        """See ``Measure``; a broken session is tried again, where possible on another device."""
        from tvm.support.popen_pool import PopenWorker

        with tempfile.TemporaryDirectory(prefix="qcc-") as scratch:
            case, library = candidates[0].case, str(_shared(candidates, self.target, Path(scratch)))
            outcome = Outcome("crash", "no device answered")
            for _ in range(ATTEMPTS):
                if getattr(self._mine, "worker", None) is None:
                    self._mine.worker = PopenWorker()
                    self._helpers.append(self._mine.worker)
                request = (self.host, self.port, self.key, library, case, len(candidates))
                self._mine.worker.send(measure_remotely, request, timeout=WAIT_SECONDS + 2 * SECONDS)
                try:
                    after, values = self._mine.worker.recv()
                except (TimeoutError, ChildProcessError):
                    self._mine.worker = None
                    outcome = Outcome("timeout", "no answer in time")
                    continue
                except _NoDeviceError as error:
                    raise TuningError(str(error), where=f"{self.host}:{self.port}",
                                      hint="start devices again; the same command goes on") from error
                except Exception as error:  # whatever TVM makes of a broken session
                    outcome = Outcome("crash", str(error).strip().splitlines()[-1])
                    continue
                difference = case.difference(after)
                return Outcome("ok", values=values) if difference is None else Outcome("wrong", difference)
            return outcome


def _end(helpers: Sequence[Any]) -> None:
    for helper in helpers:
        helper.kill()


class _NoDeviceError(Exception):
    """The tracker gives no device."""


def _shared(candidates: Sequence[Candidate], target: Target, folder: Path) -> Path:
    """A library with a function of TVM's convention for each variant; its parameters are all buffers of the case."""
    import tvm
    from tvm import tirx
    from tvm.script.ir_builder import IRBuilder
    from tvm.script.ir_builder import tirx as T

    functions, case, variants = {}, candidates[0].case, [c.built for c in candidates]
    for i, built in enumerate(variants):
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name(f"variant{i}")
            buffers = [T.arg(f"b{n}", tirx.decl_buffer((b.size,), "uint8")) for n, b in enumerate(case.buffers)]
            pointers = [T.address_of(buffers[n][offset]) for n, offset in case.args]
            T.evaluate(tirx.call_extern("int32", "prepare"))
            T.evaluate(tirx.call_extern("void", built.symbol, *pointers, T.int32(0), T.int32(built.extent)))
        functions[f"variant{i}"] = builder.get().with_attr("global_symbol", f"variant{i}")
    assert target.llvm is not None, "source has no devices"
    made = tvm.compile(tvm.IRModule(functions), tvm.target.Target(target.llvm.options()))

    def link(output: str, objects: Sequence[str], options: Any = None, **unused: Any) -> None:
        sources = [*map(str, objects), "prepare.c"]
        call_tool([*compiler_command(target), "-shared", "-fPIC", *sources, "-o", output], folder)

    (folder / "prepare.c").write_text(prepare_source(target) + "\n")
    library = folder / LIBRARY
    made.export_library(str(library), fcompile=link, addons=[str(v.object) for v in variants])
    return library


def measure_remotely(
    host: str, port: int, key: str, library: str, case: Case, variants: int
) -> tuple[list[Any], tuple[float, ...]]:
    """(memory after one call of the first variant, seconds of each); runs in a helper process."""
    from tvm import rpc

    try:
        session = rpc.connect_tracker(host, port).request(key, session_timeout=SECONDS, max_retry=3)
    except RuntimeError as error:
        raise _NoDeviceError(f"no device with the key '{key}' is free") from error
    session.upload(library)
    module, device = session.load_module(LIBRARY), session.cpu()

    def memory() -> list[Any]:
        import tvm

        return [tvm.runtime.tensor(np.ascontiguousarray(b), device) for b in case.buffers]

    tensors = memory()
    module["variant0"](*tensors)
    after = [t.numpy() for t in tensors]

    def seconds(variant: int, calls: int, repeat: int = 1) -> list[float]:
        return list(module.time_evaluator(f"variant{variant}", device, number=calls, repeat=repeat)(*tensors).results)

    calls = max(1, int(BLOCK_SECONDS / max(*seconds(0, 1, 3), 1e-7)))
    rounds = np.array([[seconds(v, calls)[0] for v in range(variants)] for _ in range(LEAST_ROUNDS)])
    last = float(np.median(rounds[:, -1]))
    return after, (*(float(np.median(rounds[:, v] / rounds[:, -1])) * last for v in range(variants - 1)), last)
