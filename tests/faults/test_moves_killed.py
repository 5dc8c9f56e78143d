"""Stop a gallery's move in every way: it goes on where it was, the gallery answers meanwhile, and is moved once."""

from __future__ import annotations

import base64
import os
import signal
from typing import Any

import httpx
import pytest
from media_files import png
from processes import child, kill_worker
from registered import register_faces
from servers import Stack
from sqlalchemy import func, select
from support import problem, stack_database, succeeded, wait_for_state, wait_until

from store.gallery_records import SampleEmbeddingRecord

EACH, SUBJECTS = 64, 5
STAFF = "/galleries/staff"

pytestmark = pytest.mark.either_column


def text(number: int) -> str:
    return base64.b64encode(png(number)).decode()


@pytest.fixture(scope="module")
def staff(column: Stack, client: httpx.Client) -> list[str]:
    """The ids of whom a gallery of some hundred files knows, and a slow model to move it to, with two versions."""
    register_faces(column, "quick")
    for _ in range(2):
        register_faces(column, "slow", side=48)
    assert client.post("/galleries", json={"name": "staff", "model": "quick"}).status_code == 201
    found = []
    for subject in range(SUBJECTS):
        inputs = [text(subject * EACH + number) for number in range(EACH)]
        found.append(client.post(f"{STAFF}/subjects", json={"name": f"{subject}", "inputs": inputs}).json()["id"])
    return found


def start(client: httpx.Client, model: str) -> str:
    return str(client.post(f"{STAFF}/move", json={"model": model, "checkpoint_every_s": 0.1}).json()["id"])


def embedded(client: httpx.Client, job_id: str) -> list[int]:
    """How many samples were embedded at a time."""
    events = client.get(f"/jobs/{job_id}/events").json()["data"]
    return [event["data"]["samples"] for event in events if event["type"] == "embedded"]


def some_more(client: httpx.Client, job_id: str) -> None:
    """Wait until further samples have been embedded."""
    before = len(embedded(client, job_id))
    wait_until(lambda: len(embedded(client, job_id)) > before)


def nearest(client: httpx.Client, number: int) -> tuple[str, str, float]:
    """By which model a file is identified, as whom, and how near."""
    answer: dict[str, Any] = client.post(f"{STAFF}/identify", json={"inputs": [text(number)]}).json()
    best = answer["outputs"][0]["candidates"][0]
    return answer["model"]["name"], best["name"], best["score"]


def left_over(stack: Stack) -> int | None:
    database = stack_database(stack)
    try:
        with database.read() as session:
            return session.scalar(select(func.count()).select_from(SampleEmbeddingRecord))
    finally:
        database.close()


def test_a_move_that_was_disturbed(column: Stack, client: httpx.Client, staff: list[str]) -> None:
    job_id = start(client, "slow:1")
    some_more(client, job_id)
    os.kill(child(column), signal.SIGKILL)
    assert client.get(STAFF).json()["move"] == {"model": "slow:1", "job": job_id}
    assert job_id in problem(client.post(f"{STAFF}/move", json={"model": "quick"}), 409, "conflict")["detail"]
    refused = problem(client.delete("/models/slow/versions/1"), 409, "conflict")
    assert 'the gallery "staff" is being moved to' in refused["detail"]
    assert job_id in refused["hint"]
    some_more(client, job_id)
    client.post(f"/jobs/{job_id}/pause")
    paused = wait_for_state(client, job_id, "paused")
    assert 0 < paused["progress"]["fraction"] < 1
    assert nearest(client, 3) == ("quick", "0", pytest.approx(1, abs=1e-5))
    # Who comes or goes meanwhile is no trouble.
    assert client.post(f"{STAFF}/subjects", json={"name": "new", "inputs": [text(9_999)]}).status_code == 201
    assert client.delete(f"{STAFF}/subjects/{staff[0]}").status_code == 204
    client.post(f"/jobs/{job_id}/resume")
    some_more(client, job_id)
    kill_worker(column)
    column.start("train", "workers", "--queue", "train")
    job = succeeded(client, job_id)
    assert (job["failures"], job["result"]["samples"]) == (2, (SUBJECTS - 1) * EACH + 1)
    assert sum(embedded(client, job_id)) <= SUBJECTS * EACH + 1  # none of them twice
    moved = client.get(STAFF).json()
    assert (moved["model"], moved["move"]) == ("slow:1", None)
    for number, who in ((EACH + 3, "1"), (9_999, "new")):
        assert nearest(client, number) == ("slow", who, pytest.approx(1, abs=1e-4))
    assert left_over(column) == 0


def test_a_move_that_is_cancelled_and_tried_again(column: Stack, client: httpx.Client, staff: list[str]) -> None:
    before = client.get(STAFF).json()
    job_id = start(client, "slow:2")
    some_more(client, job_id)
    client.post(f"/jobs/{job_id}/cancel")
    wait_for_state(client, job_id, "cancelled")
    assert client.get(STAFF).json() == before
    assert nearest(client, EACH + 3)[1] == "1"
    done = sum(embedded(client, job_id))
    again = succeeded(client, client.post(f"/jobs/{job_id}/retry", json={}).json()["id"])
    assert sum(embedded(client, again["id"])) == before["samples"] - done > 0
    assert client.get(STAFF).json()["model"] == "slow:2"
    assert left_over(column) == 0
