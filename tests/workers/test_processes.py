"""What the workers' processes are: no torch in the supervisors, no secret and no life of its own in the child."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest
from processes import alive, child, children, kill_worker, supervisors
from servers import Stack
from support import classify, problem, submit, wait_for_state, wait_for_step, wait_until

pytestmark = pytest.mark.either_column


def test_supervisors_without_torch_and_a_child_without_secrets(column: Stack, client: httpx.Client, rows: str) -> None:
    job_id = submit(client, classify(rows, hyperparameters={"epochs": 100_000}))
    wait_for_step(client, job_id)
    pids = supervisors(column)
    assert len(pids) == 2  # the main process and a pool of one
    for pid in pids:
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
    trainer = child(column)
    assert "libtorch" in Path(f"/proc/{trainer}/maps").read_text()
    environment = Path(f"/proc/{trainer}/environ").read_bytes().decode()
    names = {entry.partition("=")[0] for entry in environment.split("\0") if entry}
    assert not [name for name in names if name.startswith("ANNEAL_")]
    for secret in ("postgresql", "redis://", "sqlite", column.key, column.key.partition(".")[2]):
        assert secret not in environment
    # Nor any open file of the database's or the broker's.
    files = [str(entry.readlink()) for entry in Path(f"/proc/{trainer}/fd").iterdir() if entry.exists()]
    assert not [
        file
        for file in files
        if file.startswith(f"{column.data_dir}/")
        and Path(file).relative_to(column.data_dir).parts[0] not in ("logs", "work", "artifacts")
    ], files
    client.post(f"/jobs/{job_id}/cancel")
    wait_for_state(client, job_id, "cancelled", timeout_s=5)
    wait_until(lambda: not alive(trainer), 3)
    wait_until(lambda: not list((column.data_dir / "work").iterdir()), 5)


def test_the_child_dies_with_its_supervisor(column: Stack, client: httpx.Client, rows: str) -> None:
    job_id = submit(client, classify(rows, hyperparameters={"epochs": 100_000}))
    wait_for_step(client, job_id)
    trainer = child(column)
    kill_worker(column)
    wait_until(lambda: not alive(trainer), 1, 0.01)
    client.post(f"/jobs/{job_id}/cancel")
    # Nobody is left to obey; the cancel takes effect when the lease has run out.
    wait_for_state(client, job_id, "cancelled", timeout_s=10)
    assert list((column.data_dir / "work").iterdir())  # who is killed leaves what there was
    column.start("train", "workers", "--queue", "train")
    wait_until(lambda: not list((column.data_dir / "work").iterdir()), 20)


def test_a_worker_that_is_told_twice_to_stop(column: Stack) -> None:
    process = column.processes["train"]
    wait_until(lambda: children(process.pid), 20)
    wait_until(lambda: " ready." in column.log("train"), 20)
    process.send_signal(signal.SIGTERM)
    assert column.stop("train") == 0
    assert "Traceback" not in column.log("train")
    column.start("train", "workers", "--queue", "train")


def test_an_unexpected_end_of_the_reader(column: Stack, client: httpx.Client) -> None:
    """An ingestion whose process is killed runs again; the dataset becomes ready all the same."""
    created = client.post("/datasets", files={"file": ("t.csv", "a,b\n" + "1,x\n" * 400_000)}).json()
    os.kill(child(column, "ingest"), signal.SIGKILL)
    dataset = wait_until(lambda: _ready(client, created["id"]), 40)
    assert dataset["status"] == "ready"
    job = client.get(f"/jobs/{created['ingestion_job_id']}").json()
    assert (job["failures"], job["attempt"]) == (1, 2)
    problem(client.get(f"/jobs/{created['ingestion_job_id']}x"), 404, "not_found")


def _ready(client: httpx.Client, dataset_id: str) -> dict[str, object] | None:
    dataset = client.get(f"/datasets/{dataset_id}").json()
    return dataset if dataset["status"] != "processing" else None
