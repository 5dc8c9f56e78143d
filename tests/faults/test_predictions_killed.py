"""Stop a prediction job in every way: its file is that of an undisturbed run, and no row is answered twice."""

from __future__ import annotations

import os
import random
import signal
from typing import Any

import httpx
import pytest
from processes import child, kill_worker
from registered import register_text
from servers import Stack
from support import succeeded, upload, wait_for_state, wait_until

ROWS = 4000

pytestmark = pytest.mark.either_column


@pytest.fixture(scope="module")
def said(column: Stack, client: httpx.Client) -> str:
    """The id of some seconds' worth of texts for the model `slow`."""
    register_text(column, "slow", layers=2, width=128)
    draw = random.Random(0)
    texts = ["".join(draw.choices("etaoin shrdlu", k=draw.randint(30, 90))).strip() or "a" for _ in range(ROWS)]
    return str(upload(client, "id,said\n" + "".join(f"{n},{text}\n" for n, text in enumerate(texts)))["id"])


def start(client: httpx.Client, dataset: str) -> str:
    body = {"dataset": dataset, "format": "csv", "keep": ["id"], "checkpoint_every_s": 0.2, "text": "said"}
    return str(client.post("/models/slow/predict-dataset", json=body).json()["id"])


def segments(client: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    events = client.get(f"/jobs/{job_id}/events").json()["data"]
    return [event["data"] for event in events if event["type"] == "checkpoint"]


def one_more(client: httpx.Client, job_id: str) -> None:
    """Wait for another segment."""
    before = len(segments(client, job_id))
    wait_until(lambda: len(segments(client, job_id)) > before)


def test_the_file_of_a_run_that_was_disturbed(column: Stack, client: httpx.Client, said: str) -> None:
    whole = succeeded(client, start(client, said))
    expected = client.get(f"/jobs/{whole['id']}/output").content
    assert expected.count(b"\n") == ROWS + 1
    assert whole["progress"]["eta_seconds"] == 0

    job_id = start(client, said)
    one_more(client, job_id)
    os.kill(child(column), signal.SIGKILL)
    one_more(client, job_id)
    client.post(f"/jobs/{job_id}/pause")
    paused = wait_for_state(client, job_id, "paused")
    assert 0 < paused["progress"]["fraction"] < 1
    client.post(f"/jobs/{job_id}/resume")
    one_more(client, job_id)
    kill_worker(column)
    column.start("train", "workers", "--queue", "train")
    job = succeeded(client, job_id)
    assert (job["attempt"], job["failures"]) == (4, 2)
    assert client.get(f"/jobs/{job_id}/output").content == expected
    assert job["result"] == whole["result"]
    runs = [segment["run"] for segment in segments(client, job_id)]
    assert len(runs) == len(set(runs)) > 3
    assert client.get(f"/jobs/{job_id}/checkpoints").json()["data"] == []
