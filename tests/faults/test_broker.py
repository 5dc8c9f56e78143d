"""What a broker can do to a job: be away, never answer, lose, repeat. None of it matters."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from servers import Stack, free_port, start_redis
from severing_proxy import SeveringProxy
from support import TRAIN, classify, long_job, submit, succeeded, upload, wait_until

from store import queue
from store.settings import StoreSettings

Redis = subprocess.Popen[bytes]
ROWS = "a,b,label\n" + "".join(f"{n % 7},{n % 5},{'xy'[n % 2]}\n" for n in range(40))


def tiny(dataset: str, **spec: Any) -> dict[str, Any]:
    return classify(dataset, **{"columns": {"target": "label"}, "hyperparameters": {"epochs": 1}, **spec})


@pytest.fixture
def production(tmp_path: Path, new_postgres_url: Callable[[], str]) -> Iterator[tuple[Stack, list[Redis], int]]:
    """A product with a Redis of its own, to be stopped."""
    port = free_port()
    servers = [start_redis(tmp_path, port)]
    stack = Stack(
        tmp_path / "stack",
        {
            "ANNEAL_DATABASE_URL": new_postgres_url(),
            "ANNEAL_BROKER_URL": f"redis://127.0.0.1:{port}/0",
            "ANNEAL_HEARTBEAT_S": "0.25",
            "ANNEAL_NUDGE_REPEAT_S": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])),
        },
    )
    try:
        yield stack.up(), servers, port
    finally:
        stack.down()
        for server in servers:
            server.kill()
            server.wait(10)


@pytest.mark.parametrize(("count", "away_s"), [(3, 0), pytest.param(100, 60, marks=pytest.mark.slow)])
def test_redis_stopped(production: tuple[Stack, list[Redis], int], tmp_path: Path, count: int, away_s: float) -> None:
    stack, servers, port = production
    with stack.client() as client:
        dataset = upload(client, TRAIN)
        succeeded(client, submit(client, classify(dataset["id"], hyperparameters={"epochs": 1})))
        servers[0].kill()
        servers[0].wait(10)
        jobs, slowest, stopped = [], 0.0, time.monotonic()
        for seed in range(count):
            started = time.monotonic()
            jobs.append(submit(client, classify(dataset["id"], seed=seed, hyperparameters={"epochs": 1})))
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(max(0, stopped + away_s * (seed + 1) / count - time.monotonic()))
        assert slowest < 1.5
        ready = httpx.get(f"{stack.url}/readyz", timeout=30)
        assert ready.status_code == 200  # jobs are taken without a broker
        assert ready.json()["checks"]["broker"] != "ok"
        assert {client.get(f"/jobs/{job_id}").json()["status"] for job_id in jobs} == {"queued"}
        servers.append(start_redis(tmp_path, port))
        for job_id in jobs:
            job = succeeded(client, job_id)
            assert (job["attempt"], job["failures"]) == (1, 0)


def test_a_connection_that_breaks_as_a_message_comes(production: tuple[Stack, list[Redis], int]) -> None:
    """A worker that had to tell the broker of the message's arrival would wait for ever to be let do so."""
    stack, _, port = production
    with closing(SeveringProxy(port)) as proxy, stack.client() as client:
        stack.stop("train")
        stack.environment["ANNEAL_BROKER_URL"] = f"redis://127.0.0.1:{proxy.port}/0"
        stack.start("train", "workers", "--queue", "train")
        dataset = upload(client, ROWS, "tiny.csv")["id"]
        succeeded(client, submit(client, tiny(dataset)))
        proxy.arm(queue.RUN_JOB.encode())
        jobs = [submit(client, tiny(dataset, seed=1))]
        assert proxy.severed.wait(30)
        time.sleep(3)  # longer than the client tries again by itself
        proxy.mend()
        jobs.append(submit(client, tiny(dataset, seed=2)))
        for job_id in jobs:
            assert succeeded(client, job_id)["attempt"] == 1
        told = redis.Redis(port=port).info("commandstats")
        assert "cmdstat_brpop" in told
        assert not {"cmdstat_zadd", "cmdstat_zrem"} & set(told)


@pytest.mark.slow
def test_redis_that_accepts_and_never_answers(production: tuple[Stack, list[Redis], int]) -> None:
    """A stopped process keeps its port open: submissions are answered at once, and run when it goes on."""
    stack, servers, _ = production
    with stack.client() as client:
        dataset = upload(client, ROWS, "tiny.csv")["id"]
        succeeded(client, submit(client, tiny(dataset)))
        servers[0].send_signal(signal.SIGSTOP)
        took = []
        try:
            jobs = []
            for seed in range(100):
                began = time.monotonic()
                jobs.append(submit(client, tiny(dataset, seed=seed)))
                took.append(time.monotonic() - began)
        finally:
            servers[0].send_signal(signal.SIGCONT)
        assert statistics.quantiles(took, n=100)[98] < 1, sorted(took)[-3:]
        assert statistics.median(took) < 0.05
        for job_id in jobs:
            job = succeeded(client, job_id)
            assert (job["attempt"], job["failures"]) == (1, 0)


@pytest.mark.slow
def test_every_message_lost(production: tuple[Stack, list[Redis], int]) -> None:
    """FLUSHALL with fifty queued jobs: all run within two nudges of a worker's arrival."""
    stack, _, port = production
    with stack.client() as client:
        dataset = upload(client, ROWS, "tiny.csv")["id"]
        stack.stop("train")
        jobs = [submit(client, tiny(dataset, seed=seed)) for seed in range(50)]
        server = redis.Redis(port=port)
        server.flushall()
        stack.start("train", "workers", "--queue", "train")
        wait_until(lambda: client.get(f"/jobs/{jobs[0]}").json()["status"] != "queued", 35)
        server.flushall()
        for job_id in jobs:
            assert succeeded(client, job_id)["attempt"] == 1


@pytest.mark.slow
def test_two_hundred_nudges_for_one_job(production: tuple[Stack, list[Redis], int]) -> None:
    stack, _, port = production
    with stack.client() as client:
        dataset = upload(client, ROWS, "tiny.csv")["id"]
        stack.start("other", "workers", "--queue", "train")
        job_id = submit(client, tiny(dataset))
        app = queue.create_celery(StoreSettings(broker_url=f"redis://127.0.0.1:{port}/0"))
        for _ in range(200):
            queue.publish(app, job_id, "finetune")
        assert succeeded(client, job_id)["attempt"] == 1
        wait_until(lambda: redis.Redis(port=port).llen("train") == 0, 60)
        assert [event["type"] for event in client.get(f"/jobs/{job_id}/events").json()["data"]].count("running") == 1


@pytest.mark.slow
def test_a_job_longer_than_the_visibility_timeout(production: tuple[Stack, list[Redis], int]) -> None:
    """Redis would deliver an unacknowledged message again; of ours it knows nothing any more."""
    stack, _, _ = production
    with stack.client() as client:
        dataset = str(upload(client, TRAIN)["id"])
        stack.stop("train")
        stack.start("one", "workers_with_a_short_visibility")
        stack.start("two", "workers_with_a_short_visibility")
        job = succeeded(client, submit(client, long_job(dataset)))
        assert (job["attempt"], job["failures"]) == (1, 0)
