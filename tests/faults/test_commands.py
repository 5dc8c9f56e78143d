"""Pauses, drains and cancels, in every phase of a job: soon, for free, and without changing what comes out."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from processes import child, find_child
from servers import Stack
from support import (
    classify,
    long_job,
    submit,
    succeeded,
    upload,
    wait_for_state,
    wait_for_step,
    wait_until,
    weights_digest,
)

pytestmark = pytest.mark.either_column

TOTAL_STEPS = 12_000


def step_of(job: dict[str, Any]) -> int:
    return int((job["progress"] or {}).get("step") or 0)


def runs_past(client: httpx.Client, job_id: str, step: int) -> bool:
    job = client.get(f"/jobs/{job_id}").json()
    return job["status"] == "running" and job["started_at"] is not None and step_of(job) >= step


@pytest.mark.slow
def test_ten_pauses_and_five_drains(
    column: Stack, client: httpx.Client, rows: str, undisturbed: tuple[dict[str, Any], str]
) -> None:
    job_id = submit(client, long_job(rows))
    for number in range(15):
        wait_until(lambda number=number: runs_past(client, job_id, TOTAL_STEPS * (number + 1) // 20))  # type: ignore[misc]
        if number % 3 == 2:
            assert column.stop("train", timeout_s=25) == 0
            assert client.get(f"/jobs/{job_id}").json()["status"] == "queued"
            column.start("train", "workers", "--queue", "train")
        else:
            client.post(f"/jobs/{job_id}/pause")
            wait_for_state(client, job_id, "paused")
            client.post(f"/jobs/{job_id}/resume")
    job = succeeded(client, job_id)
    assert (job["attempt"], job["failures"]) == (16, 0)
    assert weights_digest(client, job) == undisturbed[1]
    assert job["result"]["metrics"] == undisturbed[0]["result"]["metrics"]


@pytest.mark.parametrize("command", ["pause", "cancel"])
def test_a_command_takes_effect_in_every_phase(column: Stack, client: httpx.Client, rows: str, command: str) -> None:
    """While queued, while its files are prepared, at its first step, and at random moments of training."""
    draw = random.Random(7)
    for number in range(8):
        job_id = submit(client, classify(rows, hyperparameters={"epochs": 100_000}))
        if number == 1:
            wait_for_state(client, job_id, "running")
        elif number > 1:
            wait_for_step(client, job_id)
            time.sleep(draw.random())
        client.post(f"/jobs/{job_id}/{command}")
        began = time.monotonic()
        wait_for_state(client, job_id, "paused" if command == "pause" else "cancelled", timeout_s=10)
        # Two seconds and a step, which is short here; and another for the machine that runs all tests.
        assert time.monotonic() - began < 3
        wait_until(lambda: find_child(column) is None, 3)
        if command == "pause":
            client.post(f"/jobs/{job_id}/cancel")


def test_an_ingestion_is_cancelled(column: Stack, client: httpx.Client) -> None:
    """In the phase of reading nothing could be kept: the reader is killed, and its dataset says so."""
    text = "a,b,c\n" + "1,2.5,word\n" * 1_500_000
    created = client.post("/datasets", files={"file": ("big.csv", text)}).json()
    (job,) = (
        job
        for job in client.get("/jobs", params={"kind": "ingest"}).json()["data"]
        if job["spec"]["dataset_id"] == created["id"]
    )
    wait_for_state(client, job["id"], "running")
    began = time.monotonic()
    client.post(f"/jobs/{job['id']}/cancel")
    wait_for_state(client, job["id"], "cancelled", timeout_s=10)
    assert time.monotonic() - began < 3
    assert client.get(f"/datasets/{created['id']}").json()["status"] == "invalid"
    wait_until(lambda: find_child(column, "ingest") is None, 3)


def test_resumed_while_it_is_pausing(
    column: Stack, client: httpx.Client, rows: str, undisturbed: tuple[dict[str, Any], str]
) -> None:
    """The child stands still, so that the pause lasts; taken back in time, it changes nothing."""
    job_id = submit(client, long_job(rows))
    wait_for_step(client, job_id, 100)
    training = child(column)
    os.kill(training, signal.SIGSTOP)
    assert client.post(f"/jobs/{job_id}/pause").json()["status"] == "pausing"
    assert client.post(f"/jobs/{job_id}/resume").json()["status"] == "running"
    os.kill(training, signal.SIGCONT)
    job = succeeded(client, job_id)
    assert (job["status"], job["failures"]) == ("succeeded", 0)
    assert weights_digest(client, job) == undisturbed[1]


def test_one_key_sixteen_times_at_once(client: httpx.Client, column: Stack, rows: str) -> None:
    body = classify(rows, hyperparameters={"epochs": 1}, metadata={"test": "sixteen"})
    headers = {"Idempotency-Key": "sixteen-at-once"}
    start = threading.Barrier(16)

    def post() -> httpx.Response:
        with column.client() as own:
            start.wait()
            return own.post("/jobs", json=body, headers=headers)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: post(), range(16)))
    made = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    assert len(made) == 1
    assert {answer.status_code for answer in answers} <= {202, 409}  # one still at work is told to come again
    again = client.post("/jobs", json=body, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, made.pop())
    other = client.post("/jobs", json={**body, "seed": 99}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


def test_a_job_starts_on_the_idle_worker(column: Stack, client: httpx.Client, rows: str) -> None:
    """Queued while one worker is busy for long and another has nothing to do."""
    busy = submit(client, classify(rows, hyperparameters={"epochs": 100_000}))
    wait_for_step(client, busy)
    column.start("other", "workers", "--queue", "train")
    wait_until(lambda: len([w for w in client.get("/queue").json()["workers"] if w["queues"] == ["train"]]) == 2, 20)
    for _ in range(3):
        job = succeeded(client, submit(client, classify(rows, hyperparameters={"epochs": 1})))
        assert job["worker"] != client.get(f"/jobs/{busy}").json()["worker"]
    client.post(f"/jobs/{busy}/cancel")
    wait_for_state(client, busy, "cancelled")
    column.stop("other")


@pytest.mark.slow
def test_a_migration_with_a_running_job(
    column: Stack, client: httpx.Client, rows: str, undisturbed: tuple[dict[str, Any], str]
) -> None:
    """Drain, migrate (down and up again, so that every table is rewritten), start: the same weights."""
    job_id = submit(client, long_job(rows))
    wait_for_step(client, job_id, 500)
    for name in ("train", "ingest", "api"):
        column.stop(name)
    for step in (("downgrade", "0001"), ("upgrade",)):
        done = column.run("migrations", *step)
        assert done.returncode == 0, done.stderr
    column.start("api", "service")
    column.start("ingest", "workers", "--queue", "ingest")
    column.start("train", "workers", "--queue", "train")
    column.wait_ready()
    job = succeeded(client, job_id)
    assert (job["attempt"], job["failures"]) == (2, 0)
    assert weights_digest(client, job) == undisturbed[1]
    assert upload(client, "a,b\n1,2\n3,4\n")["status"] == "ready"
