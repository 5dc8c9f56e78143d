"""The process that trains, ended twenty times at random steps: the weights are those of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from processes import child
from servers import QUICK, Stack
from support import TRAIN, long_job, submit, succeeded, upload, weights_digest

KILLS = 20


@pytest.fixture(scope="module", params=["embedded", "production"])
def patient(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The product with a large budget of crashes and hardly any wait after one."""
    stack = Stack(tmp_path_factory.mktemp("patient"), {**QUICK, "ANNEAL_MAX_FAILURES": "100"})
    stack.environment["ANNEAL_BACK_OFF_S"] = "0.001"
    if request.param == "production":
        stack.environment["ANNEAL_DATABASE_URL"] = request.getfixturevalue("new_postgres_url")()
        stack.environment["ANNEAL_BROKER_URL"] = request.getfixturevalue("redis_url").removesuffix("/0") + "/2"
    try:
        yield stack.up()
    finally:
        stack.down()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_twenty_times(patient: Stack, number: signal.Signals) -> None:
    draw = random.Random(number)
    with patient.client() as api:
        body = {**long_job(str(upload(api, TRAIN)["id"])), "checkpointing": {"every_steps": 100}}
        whole = succeeded(api, submit(api, body))
        job_id = submit(api, body)
        for kill in range(1, KILLS + 1):
            wait_to_pass(api, job_id, whole["progress"]["total_steps"] * kill // (KILLS + 2) - draw.randrange(100))
            with suppress(ProcessLookupError):
                os.kill(child(patient), number)
        job = succeeded(api, job_id, 300)
        assert job["failures"] >= KILLS * 0.9  # one may have hit a child that was about to be replaced
        assert weights_digest(api, job) == weights_digest(api, whole)
        assert job["result"]["metrics"] == whole["result"]["metrics"]
        versions = api.get("/models/long/versions", params={"limit": 100}).json()["data"]
        assert sum(version["job_id"] == job_id for version in versions) == 1


def wait_to_pass(api: httpx.Client, job_id: str, step: int) -> None:
    while True:
        job: dict[str, Any] = api.get(f"/jobs/{job_id}").json()
        assert job["status"] in ("queued", "running"), job
        if job["status"] == "running" and ((job["progress"] or {}).get("step") or 0) >= step:
            return
