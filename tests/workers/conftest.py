"""A running product for the tests of the workers, on each column, with short leases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from servers import Stack
from support import TRAIN, long_job, submit, succeeded, upload, weights_digest

QUICK = {"ANNEAL_LEASE_S": "3", "ANNEAL_HEARTBEAT_S": "0.25", "ANNEAL_NUDGE_REPEAT_S": "1", "ANNEAL_STOP_GRACE_S": "4"}


@pytest.fixture(scope="session", params=["embedded", "production"])
def column(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The product with a lease of three seconds."""
    stack = Stack(tmp_path_factory.mktemp(f"workers-{request.param}"), dict(QUICK))
    if request.param == "production":
        stack.environment |= {
            "ANNEAL_DATABASE_URL": request.getfixturevalue("new_postgres_url")(),
            # A database of its own: workers of another product on the same queues would swallow our messages.
            "ANNEAL_BROKER_URL": request.getfixturevalue("redis_url").removesuffix("/0") + "/1",
        }
    try:
        yield stack.up()
    finally:
        stack.down()


@pytest.fixture(scope="session")
def client(column: Stack) -> Iterator[httpx.Client]:
    with column.client() as opened:
        yield opened


@pytest.fixture(scope="session")
def rows(client: httpx.Client) -> str:
    return str(upload(client, TRAIN)["id"])


@pytest.fixture(scope="session")
def undisturbed(client: httpx.Client, rows: str) -> tuple[dict[str, Any], str]:
    """A job that nobody disturbed, and the digest of its weights."""
    job = succeeded(client, submit(client, long_job(rows)))
    return job, weights_digest(client, job)
