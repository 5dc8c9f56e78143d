"""A database that stops, is out of one worker's reach, is contended, or has no room: nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select as polling
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from processes import find_child
from servers import QUICK, Stack, free_port, postgres, require_binary
from sqlalchemy import select
from support import TRAIN, classify, long_job, stack_database, submit, succeeded, upload, wait_for_step, wait_until

from migrations import runner
from store import attempts, jobs
from store.database import Database
from store.records import JobRecord, VersionRecord


def insist(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Ask until the answer is not that the database is away."""
    until = time.monotonic() + 60
    while (answer := ask()).status_code == 503:
        assert answer.json()["code"] == "database_unavailable"
        assert time.monotonic() < until
        time.sleep(0.1)
    return answer


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_postgresql_stopped_three_times(tmp_path: Path) -> None:
    """Immediately, as a power cut would, while jobs are submitted, trained and polled."""
    stack = Stack(tmp_path / "stack", {**QUICK, "ANNEAL_MAX_FAILURES": "100", "ANNEAL_BACK_OFF_S": "0.1"})
    with postgres(tmp_path / "postgres") as url:
        stack.environment["ANNEAL_DATABASE_URL"] = url
        stack.up()
        try:
            with stack.client() as api:
                body = long_job(str(upload(api, TRAIN)["id"]))
                made = []
                for number in range(3):
                    made += [_accepted(api, {**body, "seed": seed}, f"{number}-{seed}") for seed in range(2)]
                    wait_until(lambda: find_child(stack), 60)
                    time.sleep(0.5)
                    _restart(url)
                for job_id in made:
                    assert _finished(api, job_id)["status"] == "succeeded"
            database = stack_database(stack)
            with database.read() as session:
                versions = Counter(session.scalars(select(VersionRecord.job_id)))
                assert set(session.scalars(select(JobRecord.id).where(JobRecord.kind == "finetune"))) == set(made)
            database.close()
            assert versions == dict.fromkeys(made, 1)
        finally:
            stack.down()


def _accepted(api: httpx.Client, body: dict[str, Any], key: str) -> str:
    answer = insist(lambda: api.post("/jobs", json=body, headers={"Idempotency-Key": key}))
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _finished(api: httpx.Client, job_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = insist(lambda: api.get(f"/jobs/{job_id}")).json()
        return job if job["status"] in ("succeeded", "failed", "cancelled") else None

    return wait_until(look, 120)


def _restart(url: str) -> None:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None
    data = Path(row[0])
    owner = data.stat()
    control = require_binary("pg_ctl", "postgresql")
    as_owner = ["setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups"]
    command = [control, "-D", data, "-w", "-l", data.parent / "log", "-m", "immediate", "restart"]
    subprocess.run(
        [*([] if os.geteuid() else as_owner), *command], check=True, stdout=subprocess.DEVNULL, cwd=data.parent
    )


class Proxy:
    """A TCP proxy that can stop passing anything on, in silence, as a broken network does."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.silent = threading.Event()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(near,), daemon=True).start()

    def _pass_on(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError), near, socket.create_connection(("127.0.0.1", self._target)) as far:
            while True:
                ready, _, _ = polling.select([near, far], [], [], 0.05)
                if self.silent.is_set():
                    time.sleep(0.05)
                    continue
                for source in ready:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    (far if source is near else near).sendall(data)

    def close(self) -> None:
        self._listener.close()


@pytest.mark.slow
def test_out_of_reach_for_one_worker(tmp_path: Path, new_postgres_url: Callable[[], str]) -> None:
    """It hears nothing for two leases: it ends its child before another may start, and writes nothing afterwards."""
    url = new_postgres_url()
    target = int(url.rsplit(":", 1)[1].partition("/")[0])
    proxy = Proxy(target)
    lease_s = 8.0
    stack = Stack(tmp_path / "stack", {**QUICK, "ANNEAL_DATABASE_URL": url, "ANNEAL_LEASE_S": str(lease_s)})
    stack.up(workers=False)
    try:
        stack.start("ingest", "workers", "--queue", "ingest")
        stack.environment["ANNEAL_DATABASE_URL"] = url.replace(f":{target}/", f":{proxy.port}/")
        stack.start("train", "workers", "--queue", "train")
        stack.environment["ANNEAL_DATABASE_URL"] = url
        with stack.client() as api:
            rows = str(upload(api, TRAIN)["id"])
            job_id = submit(api, classify(rows, hyperparameters={"epochs": 3000, "batch_size": 32}))
            wait_for_step(api, job_id, 100)
            proxy.silent.set()
            cut = time.monotonic()
            stack.start("other", "workers", "--queue", "train")
            wait_until(lambda: find_child(stack) is None, lease_s)
            stopped = time.monotonic() - cut
            wait_until(lambda: api.get(f"/jobs/{job_id}").json()["attempt"] == 2, 30)
            assert stopped < time.monotonic() - cut
            job = succeeded(api, job_id)
            proxy.silent.clear()
            time.sleep(2)
            assert (job["attempt"], job["failures"]) == (2, 1)
            assert api.get(f"/jobs/{job_id}").json() == job
    finally:
        proxy.silent.clear()
        stack.down()
        proxy.close()


def write_many(url: str, rounds: int) -> None:
    """Submit, claim, beat and complete jobs; any error ends the process with 1."""
    database = Database(url)
    for _ in range(rounds):
        with database.write() as session:
            jobs.submit(session, jobs.NewJob(kind="finetune", project="p", spec={}))
        with database.write() as session:
            job = attempts.claim_next(session, ["train"], "w", 60)
        if job is not None:
            token = attempts.Token(job.id, job.attempt)
            for _ in range(3):
                with database.write() as session:
                    attempts.heartbeat(session, token, 60)
            with database.write() as session:
                attempts.complete(session, token, {})


def test_six_writers_and_a_poller_on_sqlite(tmp_path: Path) -> None:
    """No `database is locked`."""
    url = f"sqlite:///{tmp_path / 'contended.db'}"
    database = Database(url)
    runner.upgrade(database.engine)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(url, 15)) for _ in range(6)]
    for writer in writers:
        writer.start()
    looks = 0
    while any(writer.is_alive() for writer in writers):
        with database.read() as session:
            looks += jobs.queue_depth(session) is not None
    assert [writer.exitcode for writer in writers] == [0] * 6
    with database.read() as session:
        assert Counter(session.scalars(select(JobRecord.state)))["succeeded"] == 6 * 15
    assert looks > 50
    database.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", directory], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a small file system")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["artifacts", "everything"])
def test_a_full_disk(tmp_path: Path, small_disk: Path, what: str) -> None:
    """At a checkpoint, an upload and a commit: an error that says so, a whole database, and all goes on with room."""
    stack = Stack(
        small_disk if what == "everything" else tmp_path / "stack",
        {**QUICK, "ANNEAL_MAX_FAILURES": "100", "ANNEAL_BACK_OFF_S": "0.05", "ANNEAL_ARTIFACT_GRACE_S": "2"},
    )
    if what == "artifacts":
        stack.data_dir.mkdir(parents=True)
        (stack.data_dir / "artifacts").symlink_to(small_disk)
    stack.up()
    try:
        with stack.client() as api:
            rows = str(upload(api, TRAIN)["id"])
            body = {**long_job(rows), "checkpointing": {"every_steps": 2000}}
            job_id = submit(api, body)
            wait_for_step(api, job_id, 50)
            ballast = small_disk / "ballast"
            _fill(ballast)
            answer = api.post("/datasets", files={"file": ("big.csv", b"a,b\n" + b"1,2\n" * 1_000_000)})
            assert answer.status_code in (503, 507), answer.text
            assert answer.json()["code"] in ("storage_full", "database_unavailable")
            time.sleep(3)
            ballast.unlink()
            job = succeeded(api, job_id)
            assert upload(api, "a,b\n1,2\n3,4\n")["status"] == "ready"
            # What was lost is time alone.
            assert job["result"]["metrics"] == succeeded(api, submit(api, body))["result"]["metrics"]
        if what == "everything":
            database = stack_database(stack)
            with database.read() as session:
                assert session.connection().exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
            database.close()
    finally:
        stack.down()


def _fill(ballast: Path) -> None:
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
