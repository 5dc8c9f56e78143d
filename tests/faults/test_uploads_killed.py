"""kill -9 of the API and of the worker while files are sent and read: each ends ready or invalid, and nothing stays."""

from __future__ import annotations

import random
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import QUICK, Stack
from sqlalchemy import select
from support import stack_database, wait_until

from store.artifacts import ArtifactStore
from store.collection import _POINTERS
from store.records import UploadRecord

UPLOADS = 50
PART = 4096
# Kills of the worker must not use up what an ingestion may fail.
PATIENT = {"ANNEAL_MAX_FAILURES": "1000", "ANNEAL_BACK_OFF_S": "0.01", "ANNEAL_ARTIFACT_GRACE_S": "5"}


@pytest.fixture(params=["embedded", "production"])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    """The product on each column, with short leases and a short grace for files that nothing points at."""
    made = Stack(tmp_path / "stack", QUICK | PATIENT)
    if request.param == "production":
        made.environment |= {
            "ANNEAL_DATABASE_URL": request.getfixturevalue("new_postgres_url")(),
            "ANNEAL_BROKER_URL": request.getfixturevalue("redis_url").removesuffix("/0") + "/3",
        }
    try:
        yield made.up()
    finally:
        made.down()


def content(number: int) -> bytes:
    """Return a table of several parts; every seventh has a wrong row."""
    draw = random.Random(number)
    lines = [f"{draw.random()},{draw.choice('xyz')}" for _ in range(draw.randrange(300, 3000))]
    if number % 7 == 0:
        lines[200] = "1,2,3,4"
    return ("a,b\n" + "\n".join(lines) + "\n").encode()


def persistent(api: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    """Send a request until it is answered, whatever dies meanwhile; a POST is one request however often it is sent."""
    if method == "POST":
        options["headers"] = {"Idempotency-Key": uuid.uuid4().hex}
    until = time.monotonic() + 300
    while True:
        with suppress(httpx.TransportError):
            answer = api.request(method, path, **options)
            if answer.status_code < 500 and answer.headers.get("retry-after") is None:
                return answer
        assert time.monotonic() < until, (method, path)
        time.sleep(0.1)


def whole(api: httpx.Client, number: int) -> str:
    """Upload a file in one go, and return its dataset."""
    answer = persistent(api, "POST", "/datasets", files={"file": (f"{number}.csv", content(number))})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def in_parts(api: httpx.Client, number: int) -> str:
    """Upload a file in parts, asking again and again what is missing, and return its dataset."""
    data = content(number)
    body = {"filename": f"{number}.csv", "bytes": len(data), "part_bytes": PART}
    path = f"/uploads/{persistent(api, 'POST', '/uploads', json=body).json()['id']}"
    while missing := persistent(api, "GET", path).json()["missing_parts"]:
        for part in missing:
            piece = data[(part - 1) * PART : part * PART]
            assert persistent(api, "PUT", f"{path}/parts/{part}", content=piece).status_code == 200
    completed = persistent(api, "POST", f"{path}/complete")
    assert completed.json()["status"] == "completed", completed.text
    answer = persistent(api, "POST", "/datasets", json={"upload_id": path.rpartition("/")[2]})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def kill(stack: Stack, draw: random.Random, over: threading.Event) -> int:
    """Kill the API or the worker at random moments, and start it again, until it is enough; return how often."""
    kills = 0
    while not over.wait(draw.uniform(0.2, 2.0)):
        name = draw.choice(["api", "ingest"])
        stack.stop(name, signal.SIGKILL)
        if name == "api":
            stack.start("api", "service")
            stack.wait_ready()
        else:
            stack.start("ingest", "workers", "--queue", "ingest")
        kills += 1
    return kills


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_uploads_and_many_kills(stack: Stack) -> None:
    over = threading.Event()
    with ThreadPoolExecutor(1) as killer, ThreadPoolExecutor(4) as senders, stack.client() as api:
        kills = killer.submit(kill, stack, random.Random(5), over)
        try:
            made = [senders.submit(in_parts if number % 2 else whole, api, number) for number in range(UPLOADS)]
            ids = {number: future.result() for number, future in enumerate(made)}
            abandoned = _abandoned(api)
        finally:
            over.set()
        assert kills.result() >= 5
        ended = {number: _ended(api, dataset_id) for number, dataset_id in ids.items()}
        for number, dataset in ended.items():
            assert dataset["status"] == ("invalid" if number % 7 == 0 else "ready"), dataset
            assert persistent(api, "GET", f"/datasets/{dataset['id']}/content").content == content(number)
        # What was not finished can still be: its part is there.
        assert api.get(f"/uploads/{abandoned}").json()["missing_parts"] == [2]
        for number in range(0, UPLOADS, 2):
            assert api.delete(f"/datasets/{ids[number]}").status_code == 204
        wait_until(lambda: not _astray(stack), 60, every_s=1)
        assert api.put(f"/uploads/{abandoned}/parts/2", content=b"x").status_code == 200


def _abandoned(api: httpx.Client) -> str:
    body = {"filename": "left.csv", "bytes": PART + 1, "part_bytes": PART}
    upload_id = str(persistent(api, "POST", "/uploads", json=body).json()["id"])
    assert persistent(api, "PUT", f"/uploads/{upload_id}/parts/1", content=b"x" * PART).status_code == 200
    return upload_id


def _ended(api: httpx.Client, dataset_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        dataset: dict[str, Any] = persistent(api, "GET", f"/datasets/{dataset_id}", params={"wait": 30}).json()
        return dataset if dataset["status"] != "processing" else None

    found = wait_until(look, 120)
    assert found is not None
    return found


def _astray(stack: Stack) -> list[str]:
    """Return the files that nothing points at, and what of uploads and attempts is left over."""
    artifacts, uploads, work = (stack.data_dir / name for name in ("artifacts", "uploads", "work"))
    stored = ArtifactStore(artifacts)
    database = stack_database(stack)
    try:
        with database.read() as session:
            wanted = {digest for pointer in _POINTERS for digest in session.scalars(select(pointer))}
            open_ids = set(session.scalars(select(UploadRecord.id).where(UploadRecord.source_sha256.is_(None))))
    finally:
        database.close()
    there = {digest for prefix in range(256) for digest in stored.digests(f"{prefix:02x}")}
    assert wanted - {None} <= there, "a file that a row points at is gone"
    return [
        *(there - wanted),
        *(path.name for path in artifacts.glob("incoming/*")),
        *(path.name for path in uploads.glob("*") if path.name not in open_ids),
        *(str(path) for path in uploads.glob("*/incoming/*")),
        *(path.name for path in work.glob("*")),
    ]
