"""A tracker and two servers on loopback share a job; one is killed in the middle."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jobs
import pytest

from qcc.errors import TuningError
from qcc.target import Target
from qcc.tune.farm import Farm
from qcc.tune.job import Progress, run_job
from qcc.tune.records import load_records

pytest.importorskip("xgboost", reason="tuning needs qcc[tune]")
KEY = "loopback"


def free_port(first: int) -> int:
    """A port that nobody listens on; TVM's own range ends at 9199."""
    for port in range(first, first + 90):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("no free port")


def start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", module, "--host", "127.0.0.1", *arguments], start_new_session=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip


def end(process: subprocess.Popen[bytes]) -> None:
    """With all its children."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


@pytest.fixture
def farm() -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The tracker's address, and two servers."""
    port = free_port(9190 - 90)
    tracker = start("tvm.exec.rpc_tracker", "--port", str(port), "--port-end", str(port + 1))
    servers: list[subprocess.Popen[bytes]] = []
    try:
        wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        address = f"127.0.0.1:{port}"
        with pytest.raises(TuningError, match=f"the tracker knows no device with the key '{KEY}'"):
            Farm(Target.load("host"), address, KEY)
        for first in (9000, 9050):
            servers.append(start("tvm.exec.rpc_server", "--tracker", address, "--key", KEY, "--port", str(first)))
        yield address, servers
    finally:
        for process in (*servers, tracker):
            end(process)


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 120
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def devices(address: str) -> int:
    try:
        return Farm(Target.load("x86-vnni"), address, KEY).devices
    except TuningError:
        return 0


def test_a_lost_device_does_not_end_the_job(
    farm: tuple[str, list[subprocess.Popen[bytes]]], tmp_path: Path
) -> None:
    address, servers = farm
    wait_for(lambda: devices(address) == 2)
    target = Target.load("x86-vnni")
    if target.missing():
        pytest.skip(f"this machine lacks {', '.join(target.missing())}")

    def watch(progress: Progress) -> None:
        if progress.measured == 6 and servers[0].poll() is None:
            end(servers[0])

    records = tmp_path / "farm.tune"
    result = run_job(jobs.network(), target, records, trials=16, measure=Farm(target, address, KEY), watch=watch)
    assert servers[0].poll() is not None, "one was killed"
    assert result.ended == "16 candidates were tried"
    measured = [r for r in load_records(records) if "threads would share" not in r.error]
    assert {r.status for r in measured} == {"ok"}
    assert len(load_records(records)) >= 12
