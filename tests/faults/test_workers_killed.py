"""Kill what trains, in every way: the job still ends once, with the weights of an undisturbed run."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import Any

import httpx
import pytest
from processes import child, find_child, kill_worker, supervisors
from servers import Stack
from sqlalchemy import select
from support import (
    classify,
    finished,
    long_job,
    stack_database,
    submit,
    succeeded,
    upload,
    wait_for_state,
    wait_for_step,
    wait_until,
    weights_digest,
)

from store.artifacts import ArtifactStore
from store.records import CheckpointFileRecord, DatasetRecord


def attempts(client: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/jobs/{job_id}/attempts").json()["data"]
    return found


def event_types(client: httpx.Client, job_id: str) -> list[str]:
    return [event["type"] for event in client.get(f"/jobs/{job_id}/events").json()["data"]]


def same(client: httpx.Client, job: dict[str, Any], undisturbed: tuple[dict[str, Any], str]) -> None:
    assert weights_digest(client, job) == undisturbed[1]
    assert job["result"]["metrics"] == undisturbed[0]["result"]["metrics"]


@pytest.mark.either_column
def test_the_child_killed(
    column: Stack, client: httpx.Client, rows: str, undisturbed: tuple[dict[str, Any], str]
) -> None:
    job_id = submit(client, long_job(rows))
    wait_for_step(client, job_id, 50)
    os.kill(child(column), signal.SIGKILL)
    job = succeeded(client, job_id)
    assert (job["attempt"], job["failures"]) == (2, 1)
    first, second = attempts(client, job_id)
    assert "signal 9" in first["exit_reason"]
    assert second["exit_reason"] == "succeeded"
    same(client, job, undisturbed)
    versions = client.get("/models/long/versions", params={"limit": 100}).json()["data"]
    assert len([version for version in versions if version["job_id"] == job_id]) == 1


@pytest.mark.either_column
def test_the_worker_drained(
    column: Stack, client: httpx.Client, rows: str, undisturbed: tuple[dict[str, Any], str]
) -> None:
    job_id = submit(client, long_job(rows))
    wait_for_step(client, job_id, 50)
    assert column.stop("train", timeout_s=25) == 0
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["failures"], job["worker"]) == ("queued", 0, None)
    checkpoint = client.get(f"/jobs/{job_id}/checkpoints").json()["data"][-1]
    assert checkpoint["step"] >= 50
    assert not checkpoint["finished"]
    column.start("train", "workers", "--queue", "train")
    job = succeeded(client, job_id)
    assert (job["attempt"], job["failures"]) == (2, 0)
    assert attempts(client, job_id)[0]["exit_reason"] == "the worker is shutting down"
    same(client, job, undisturbed)


def test_the_worker_killed(
    column: Stack, client: httpx.Client, rows: str, undisturbed: tuple[dict[str, Any], str]
) -> None:
    job_id = submit(client, long_job(rows))
    wait_for_step(client, job_id, 50)
    kill_worker(column)
    column.start("train", "workers", "--queue", "train")
    job = succeeded(client, job_id)
    assert (job["attempt"], job["failures"]) == (2, 1)
    assert attempts(client, job_id)[0]["exit_reason"] == "the worker stopped answering"
    same(client, job, undisturbed)


@pytest.mark.either_column
def test_a_pool_process_killed_while_it_waits(column: Stack, client: httpx.Client, rows: str) -> None:
    """On the embedded broker it holds the lock that all of its successors would wait for."""
    quick = classify(rows, hyperparameters={"epochs": 1})
    succeeded(client, submit(client, quick))
    worker = column.processes["train"]
    (pool_process,) = (pid for pid in supervisors(column) if pid != worker.pid)
    os.kill(pool_process, signal.SIGKILL)
    if "ANNEAL_BROKER_URL" not in column.environment:
        assert worker.wait(15) == -signal.SIGKILL
        column.start("train", "workers", "--queue", "train")
    succeeded(client, submit(client, quick))


@pytest.mark.either_column
def test_a_supervisor_stopped_past_its_lease(
    column: Stack, client: httpx.Client, rows: str, undisturbed: tuple[dict[str, Any], str]
) -> None:
    """While it stands still another worker finishes the job; when it goes on it writes nothing."""
    job_id = submit(client, long_job(rows))
    wait_for_step(client, job_id, 50)
    stopped = supervisors(column)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        column.start("other", "workers", "--queue", "train")
        job = succeeded(client, job_id)
        before = client.get(f"/jobs/{job_id}/events").json()
    finally:
        for pid in reversed(stopped):
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: find_child(column) is None, 10)
    wait_until(lambda: "stopped" in column.log("train"), 10)
    assert client.get(f"/jobs/{job_id}").json() == job
    assert client.get(f"/jobs/{job_id}/events").json() == before
    assert (job["attempt"], job["failures"]) == (2, 1)
    same(client, job, undisturbed)
    column.stop("other")


@pytest.mark.either_column
def test_a_child_that_does_not_hear(
    column: Stack, client: httpx.Client, rows: str, undisturbed: tuple[dict[str, Any], str]
) -> None:
    """Asked to stop, it does nothing; it is killed after its grace, and that is no failure."""
    job_id = submit(client, long_job(rows))
    wait_for_step(client, job_id, 30)
    os.kill(child(column), signal.SIGSTOP)
    client.post(f"/jobs/{job_id}/pause")
    wait_for_state(client, job_id, "paused", timeout_s=15)
    client.post(f"/jobs/{job_id}/resume")
    job = succeeded(client, job_id)
    assert (job["attempt"], job["failures"]) == (2, 0)
    same(client, job, undisturbed)


@pytest.mark.either_column
def test_a_job_whose_child_always_dies(column: Stack, client: httpx.Client, rows: str) -> None:
    job_id = submit(client, classify(rows, hyperparameters={"epochs": 100_000}))
    over = threading.Event()

    def killer() -> None:
        while not over.wait(0.05):
            pid = find_child(column)
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        job = finished(client, job_id)
    finally:
        over.set()
        thread.join()
    assert (job["status"], job["failures"], job["attempt"]) == ("failed", 3, 3)
    assert job["error"]["code"] == "crashed"
    assert "3 times" in job["error"]["message"]
    assert "signal 9" in job["status_reason"]
    assert "logs" in job["error"]["hint"]
    assert event_types(client, job_id) == ["queued", "running", "queued", "running", "queued", "running", "failed"]
    succeeded(client, submit(client, classify(rows, hyperparameters={"epochs": 1})))  # others are not affected


@pytest.mark.either_column
def test_a_damaged_checkpoint_is_passed_over(
    column: Stack, client: httpx.Client, rows: str, undisturbed: tuple[dict[str, Any], str]
) -> None:
    job_id = submit(client, long_job(rows))
    for number in (1, 2):  # two pauses, two checkpoints
        wait_for_step(client, job_id, 30 if number == 1 else _last_step(client, job_id) + 1)
        client.post(f"/jobs/{job_id}/pause")
        wait_for_state(client, job_id, "paused")
        if number == 1:
            client.post(f"/jobs/{job_id}/resume")
    older, newest = client.get(f"/jobs/{job_id}/checkpoints").json()["data"]
    assert older["step"] < newest["step"]
    _flip_a_byte(column, newest["id"])
    client.post(f"/jobs/{job_id}/resume")
    job = succeeded(client, job_id)
    assert job["failures"] == 0
    (told,) = [
        event for event in client.get(f"/jobs/{job_id}/events").json()["data"] if event["type"] == "checkpoint_damaged"
    ]
    assert told["data"]["checkpoint_id"] == newest["id"]
    same(client, job, undisturbed)


def _last_step(client: httpx.Client, job_id: str) -> int:
    return int(client.get(f"/jobs/{job_id}/checkpoints").json()["data"][-1]["step"])


def _flip_a_byte(column: Stack, checkpoint_id: str) -> None:
    database = stack_database(column)
    with database.read() as session:
        digests = session.scalars(
            select(CheckpointFileRecord.sha256).where(CheckpointFileRecord.checkpoint_id == checkpoint_id)
        ).all()
    database.close()
    files = ArtifactStore(column.data_dir / "artifacts")
    path = max((files.path(digest) for digest in digests), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.either_column
def test_a_job_stopped_by_an_expected_error(client: httpx.Client, rows: str) -> None:
    job_id = submit(
        client,
        classify(
            rows, hyperparameters={"epochs": 50, "learning_rate": 10, "optimizer": "sgd", "momentum": 0.99}, seed=1
        ),
    )
    job = finished(client, job_id)
    if job["status"] == "failed":  # it depends on the arithmetic whether this diverges
        assert (job["error"]["code"], job["attempt"]) == ("diverged", 1)
        assert job["error"]["hint"]


@pytest.mark.either_column
def test_a_file_missing_from_the_artifacts(column: Stack, client: httpx.Client) -> None:
    """A dataset whose table somebody deleted: the job says so and is not tried again."""
    lines = "a,label\n" + "".join(f"{n},{n % 2}\n" for n in range(77))
    dataset = upload(client, lines)
    database = stack_database(column)
    with database.read() as session:
        digest = session.get_one(DatasetRecord, dataset["id"]).table_sha256 or ""
    database.close()
    ArtifactStore(column.data_dir / "artifacts").path(digest).unlink()
    job = finished(client, submit(client, classify(dataset["id"], columns={"target": "label"})))
    assert (job["status"], job["attempt"]) == ("failed", 1)
    assert digest in job["error"]["message"]


@pytest.mark.either_column
def test_waiting_through_a_stopped_worker(column: Stack, client: httpx.Client, rows: str) -> None:
    """No worker at all: jobs are taken and wait; the next worker runs them."""
    column.stop("train")
    job_id = submit(client, classify(rows, hyperparameters={"epochs": 1}))
    assert client.get(f"/jobs/{job_id}").json()["queue"]["ahead"] == 0
    column.start("train", "workers", "--queue", "train")
    succeeded(client, job_id)
    wait_until(lambda: not list((column.data_dir / "work").iterdir()), 5)
