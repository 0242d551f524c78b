"""The thread pool: every iteration runs once, under changing numbers of threads, after sleeping, and after a fork."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from qcc.data import data_folder

PROGRAM = r"""
#define _POSIX_C_SOURCE 200809L
#include "qcc/threads.h"
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int hits[1000];

static void hit(void *context, int32_t begin, int32_t end)
{
    for (int32_t i = begin; i < end; ++i) hits[i] += *(int *)context;
}

static int round_of(int32_t extent, int rounds)
{
    int one = 1;
    memset(hits, 0, sizeof hits);
    for (int r = 0; r < rounds; ++r) qcc_parallel(hit, &one, extent);
    for (int32_t i = 0; i < 1000; ++i) if (hits[i] != (i < extent ? rounds : 0)) return 0;
    return 1;
}

int main(void)
{
    const int counts[] = {1, 2, 4, 3, 8, 1, 2}, extents[] = {0, 1, 2, 3, 7, 64, 1000};
    for (unsigned t = 0; t < sizeof counts / sizeof *counts; ++t) {
        if (qcc_set_threads(counts[t]) != counts[t]) return 1;
        for (unsigned e = 0; e < sizeof extents / sizeof *extents; ++e) if (!round_of(extents[e], 50)) return 2;
    }
    for (int sleep = 0; sleep < 5; ++sleep) {
        const struct timespec while_workers_fall_asleep = {0, 20000000};
        nanosleep(&while_workers_fall_asleep, 0);
        if (!round_of(1000, 3)) return 3;
    }
    if (qcc_set_threads(0) != 1 || qcc_set_threads(1000) != 64 || !round_of(1000, 2)) return 4;
    const pid_t child = fork();
    if (child == 0) _exit(round_of(1000, 3) && qcc_set_threads(2) == 2 && round_of(1000, 3) ? 0 : 1);
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) return 5;
    return round_of(1000, 3) ? 0 : 6; /* workers are still running: leaving must end them */
}
"""


@pytest.mark.parametrize("flags", [["-O2"], ["-O1", "-g", "-fsanitize=thread"]], ids=["plain", "tsan"])
def test_the_pool(flags: list[str], tmp_path: Path) -> None:
    runtime = data_folder("runtime")
    (tmp_path / "main.c").write_text(PROGRAM)
    built = subprocess.run(["cc", "-std=c99", "-Wall", "-Wextra", *flags, "-I", str(runtime / "include"), "main.c",
                            str(runtime / "threads.c"), "-pthread", "-o", "main"], cwd=tmp_path, check=False,
                           capture_output=True, text=True)  # fmt: skip
    if built.returncode and "tsan" in built.stderr:
        pytest.skip("no thread sanitizer here")
    assert not built.stderr
    done = subprocess.run([str(tmp_path / "main")], timeout=60, check=False, capture_output=True, text=True,
                          env={"TSAN_OPTIONS": "die_after_fork=0"})  # fmt: skip
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the thread sanitizer does not run here")
    assert done.returncode == 0, f"check {done.returncode} failed: {done.stderr[:2000]}"
