"""A machine that sleeps, or is halted, with all that is on it: no job is taken from anybody."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
from processes import descendants, kill_worker
from servers import QUICK, Stack
from support import long_job, submit, succeeded, wait_for_step, weights_digest

TIMES = 3  # as often as a job may crash
SECONDS = float(QUICK["ANNEAL_LEASE_S"]) + 2


@pytest.mark.either_column
def test_the_whole_machine_stands_still(
    column: Stack, client: httpx.Client, rows: str, undisturbed: tuple[dict[str, Any], str]
) -> None:
    """Longer than a lease, and as often as a job may crash: the job goes on where it was."""
    job_id = submit(client, long_job(rows))
    for number in range(TIMES):
        wait_for_step(client, job_id, 30 * (number + 1))
        with standstill(column):
            time.sleep(SECONDS)
    job = succeeded(client, job_id)
    assert (job["attempt"], job["failures"]) == (1, 0)
    assert job["result"]["metrics"] == undisturbed[0]["result"]["metrics"]
    assert weights_digest(client, job) == undisturbed[1]


@pytest.mark.either_column
def test_a_worker_that_is_not_there_afterwards(
    column: Stack, client: httpx.Client, rows: str, undisturbed: tuple[dict[str, Any], str]
) -> None:
    job_id = submit(client, long_job(rows))
    wait_for_step(client, job_id, 30)
    with standstill(column):
        kill_worker(column)
        time.sleep(SECONDS)
    column.start("train", "workers", "--queue", "train")
    job = succeeded(client, job_id)
    assert (job["attempt"], job["failures"]) == (2, 1)
    assert weights_digest(client, job) == undisturbed[1]


@contextmanager
def standstill(stack: Stack) -> Iterator[None]:
    """Stop every process of the product meanwhile."""
    pids = [pid for process in stack.processes.values() for pid in descendants(process.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
