"""The fork server: nothing runs in it before a fork, and whatever dies, the job ends right and nothing is left."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import alive, child, descendants, find_child, fork_server, kill_worker
from servers import Stack
from support import (
    classify,
    long_job,
    stack_database,
    submit,
    succeeded,
    wait_for_state,
    wait_for_step,
    wait_until,
    weights_digest,
)

from store.artifacts import ArtifactStore
from store.records import DatasetRecord
from workers.protocol import Assignment
from workers.supervision import Child, FreshStarter, environment

# What the server's own code does up to its first fork, and then what it finds in itself.
STATE = """
import json, os, random, sys
import numpy, torch
fresh = random.getstate(), torch.random.get_rng_state().tolist()
from workers.fork_server import _import
_import({"training", "ingestion"})
from torch import _dynamo
info = torch.__config__.parallel_info()
print(json.dumps({
    "threads": len(os.listdir("/proc/self/task")),
    "cuda": torch.cuda.is_initialized(),
    "drawn": fresh != (random.getstate(), torch.random.get_rng_state().tolist()),
    "sockets": [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd not in "012"
                and os.path.exists(f"/proc/self/fd/{fd}")],
    "modules": [name for name in ("sqlalchemy.engine", "celery", "psycopg", "redis") if name in sys.modules],
}))
"""
THREADS = """
import os, sys, torch
sys.argv = ["", "0"]
from workers.fork_server import _import
_import({"training"})
pid = os.fork()
if pid == 0:
    torch.set_num_threads(2)
    a = torch.ones(1500, 1500)
    os._exit(7 if float((a @ a)[0, 0]) == 1500 and torch.get_num_threads() == 2 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.either_column
def test_nothing_is_initialised_before_a_fork(column: Stack, client: httpx.Client, rows: str) -> None:
    state = json.loads(run(STATE))
    assert state["threads"] == 1
    assert not state["cuda"]
    assert not state["drawn"]
    assert not [link for link in state["sockets"] if link.startswith("socket:")]
    assert "redis" not in state["modules"]
    # And so it stays in the running one, after it has forked.
    succeeded(client, submit(client, classify(rows, hyperparameters={"epochs": 1})))
    server = fork_server(column)
    assert len(list(Path(f"/proc/{server}/task").iterdir())) == 1
    names = Path(f"/proc/{server}/environ").read_bytes().decode()
    assert "ANNEAL_" not in names
    assert not [fd for fd in Path(f"/proc/{server}/fd").iterdir() if str(fd.readlink()).startswith("pipe:")]


def test_threads_started_after_the_fork_work() -> None:
    assert run(THREADS) == "7"


@pytest.mark.either_column
def test_forked_and_fresh_children_make_the_same_weights(
    column: Stack, client: httpx.Client, rows: str, undisturbed: tuple[dict[str, Any], str], tmp_path: Path
) -> None:
    """The same assignment to a new interpreter, without a fork server."""
    job = undisturbed[0]
    resolved = client.get(f"/jobs/{job['id']}").json()["resolved"]
    table = _table(column, rows)
    given = Assignment(job["id"], 1, "finetune", str(tmp_path), resolved, {"train": str(table)})
    started = Child(given, tmp_path / "log", FreshStarter())
    results = [message for message in iter(started.messages.get, None) if message["type"] == "result"]
    assert started.wait() == 0, (tmp_path / "log").read_text()
    weights = Path(results[0]["files"]["model.safetensors"]).read_bytes()
    assert hashlib.sha256(weights).hexdigest() == undisturbed[1]


def _table(column: Stack, dataset_id: str) -> Path:
    database = stack_database(column)
    with database.read() as session:
        digest = session.get_one(DatasetRecord, dataset_id).table_sha256
    database.close()
    assert digest
    return ArtifactStore(column.data_dir / "artifacts").path(digest)


@pytest.mark.either_column
def test_the_fork_server_killed(
    column: Stack, client: httpx.Client, rows: str, undisturbed: tuple[dict[str, Any], str]
) -> None:
    """While it is idle: the next job starts another. While a child runs: the child ends as if killed, once."""
    idle = fork_server(column)
    os.kill(idle, signal.SIGKILL)
    wait_until(lambda: not alive(idle))  # of one that is still dying a child starts afresh, without another
    job_id = submit(client, long_job(rows))
    wait_for_step(client, job_id, 50)
    os.kill(fork_server(column), signal.SIGKILL)
    job = succeeded(client, job_id)
    assert job["failures"] <= 1
    assert weights_digest(client, job) == undisturbed[1]
    succeeded(client, submit(client, classify(rows, hyperparameters={"epochs": 1})))


@pytest.mark.either_column
def test_nothing_is_left_of_a_killed_worker(column: Stack, client: httpx.Client, rows: str) -> None:
    job_id = submit(client, classify(rows, hyperparameters={"epochs": 100_000}))
    wait_for_step(client, job_id)
    left = [fork_server(column), child(column)]
    everything = descendants(column.processes["train"].pid)
    assert set(left) <= set(everything)
    kill_worker(column)
    wait_until(lambda: not any(map(alive, left)), 2, 0.01)
    column.start("train", "workers", "--queue", "train")
    client.post(f"/jobs/{job_id}/cancel")
    wait_for_state(client, job_id, "cancelled", timeout_s=30)
    assert find_child(column) is None
