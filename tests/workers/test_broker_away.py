"""Redis stopped while jobs are submitted: they are taken, and run once it is back."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from servers import Stack, free_port, require_binary, wait_for_port
from support import TRAIN, classify, submit, succeeded, upload

Redis = subprocess.Popen[bytes]


def start_redis(directory: Path, port: int) -> Redis:
    process = subprocess.Popen(
        [
            require_binary("redis-server", "redis-server"),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(directory),
            "--save",
            "",
            "--appendonly",
            "no",
        ],
        stdout=subprocess.DEVNULL,
    )
    wait_for_port(port)
    return process


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
        },
    )
    try:
        yield stack.up(), servers, port
    finally:
        stack.down()
        for server in servers:
            server.kill()
            server.wait(10)


def test_redis_stopped(production: tuple[Stack, list[Redis], int], tmp_path: Path) -> None:
    stack, servers, port = production
    with stack.client() as client:
        dataset = upload(client, TRAIN)
        succeeded(client, submit(client, classify(dataset["id"], hyperparameters={"epochs": 1})))
        servers[0].kill()
        servers[0].wait(10)
        jobs, slowest = [], 0.0
        for seed in range(3):
            started = time.monotonic()
            jobs.append(submit(client, classify(dataset["id"], seed=seed, hyperparameters={"epochs": 1})))
            slowest = max(slowest, time.monotonic() - started)
        assert slowest < 1.5
        ready = httpx.get(f"{stack.url}/readyz", timeout=30)
        assert ready.status_code == 200  # jobs are taken without a broker
        assert ready.json()["checks"]["broker"] != "ok"
        assert {client.get(f"/jobs/{job_id}").json()["status"] for job_id in jobs} == {"queued"}
        servers.append(start_redis(tmp_path, port))
        for job_id in jobs:
            job = succeeded(client, job_id)
            assert (job["attempt"], job["failures"]) == (1, 0)
