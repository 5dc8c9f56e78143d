"""Status for those who wait: long polls, streams, series for plots, the end of a log, and a queue without workers."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
from servers import Stack
from support import TRAIN, classify, submit, succeeded, upload

from service.series import downsample
from store.records import MetricRecord


def test_a_change_is_seen_at_once(api: httpx.Client, stack: Stack) -> None:
    """A long poll and a stream both answer within a second of a change; a poll without a change answers 304."""
    rows = str(upload(api, TRAIN)["id"])
    first = submit(api, classify(rows, hyperparameters={"epochs": 5000}))
    api.post(f"/jobs/{first}/pause")
    job = api.post("/jobs", json=classify(rows, depends_on=[first])).json()
    assert job["queue"]["jobs"] == [first]
    tag = api.get(f"/jobs/{job['id']}").headers["etag"]
    began = time.monotonic()
    unchanged = api.get(f"/jobs/{job['id']}", params={"wait": 1}, headers={"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.headers["retry-after"]) == (304, "1")
    assert 1 <= time.monotonic() - began < 3
    seen: dict[str, float] = {}

    def poll() -> None:
        with stack.client() as own:
            answer = own.get(f"/jobs/{job['id']}", params={"wait": 30}, headers={"If-None-Match": tag})
            assert answer.json()["status"] == "paused"
            seen["poll"] = time.monotonic()

    def read() -> None:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": "1"}
        with stack.client() as own, own.stream("GET", f"/jobs/{job['id']}/events", headers=headers) as response:
            lines = response.iter_lines()
            assert next(lines) == "id: 2"
            assert next(lines) == "event: paused"
            seen["stream"] = time.monotonic()

    threads = [threading.Thread(target=target) for target in (poll, read)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    assert api.post(f"/jobs/{job['id']}/pause").json()["status"] == "paused"
    paused = time.monotonic()
    for thread in threads:
        thread.join(10)
    assert set(seen) == {"poll", "stream"}
    assert all(at - paused < 1 for at in seen.values()), (seen, paused)
    for job_id in (job["id"], first):
        api.post(f"/jobs/{job_id}/cancel")


def test_a_poll_sees_what_changed_after_the_end(running: httpx.Client, trained: dict[str, Any]) -> None:
    """Answers to polls are kept for as long as the job's row stays as it was, and no longer."""
    path = f"/jobs/{trained['id']}"
    before = running.get(path)
    assert running.get(path).headers["etag"] == before.headers["etag"]
    running.patch(path, json={"metadata": {"seen": "once"}})
    after = running.get(path)
    assert after.json()["metadata"] == {"seen": "once"}
    assert after.headers["etag"] != before.headers["etag"]
    assert {**after.json(), "metadata": None} == {**before.json(), "metadata": None}


def test_a_series_for_a_plot(running: httpx.Client, rows: str) -> None:
    job_id = submit(running, classify(rows, hyperparameters={"epochs": 60}, output={"model": "plot"}))
    succeeded(running, job_id)
    whole = running.get(f"/jobs/{job_id}/metrics").json()["data"]
    few = running.get(f"/jobs/{job_id}/metrics", params={"points": 10}).json()
    assert not few["has_more"]
    for run, split in {(point["run"], point["split"]) for point in whole}:
        series, kept = (
            [point for point in points if (point["run"], point["split"]) == (run, split)]
            for points in (whole, few["data"])
        )
        assert len(kept) <= 10
        assert (kept[0], kept[-1]) == (series[0], series[-1])
        for extreme in (min, max):
            assert extreme(p["values"]["loss"] for p in kept) == extreme(p["values"]["loss"] for p in series)
    assert running.get(f"/jobs/{job_id}/metrics", params={"points": 3}).status_code == 422


def test_a_step_measured_twice_counts_once() -> None:
    points = [
        MetricRecord(id=number, job_id="j", attempt=attempt, run="r", split="train", step=step, measured={"loss": loss})
        for number, attempt, step, loss in [(1, 1, 10, 0.5), (2, 1, 20, 0.4), (3, 2, 20, 0.3), (4, 2, 30, 0.2)]
    ]
    assert [(point.step, point.attempt) for point in downsample(points, 4)] == [(10, 1), (20, 2), (30, 2)]


def test_the_end_of_a_log(running: httpx.Client, trained: dict[str, Any]) -> None:
    lines = running.get(f"/jobs/{trained['id']}/logs").text.splitlines(keepends=True)
    assert len(lines) > 3
    assert running.get(f"/jobs/{trained['id']}/logs", params={"tail": 2}).text == "".join(lines[-2:])


def test_nobody_is_there(tmp_path: Path) -> None:
    """Without a worker a job says so, and the queue shows none."""
    alone = Stack(tmp_path).up(workers=False)
    try:
        with alone.client() as api:
            created = api.post("/datasets", files={"file": ("t.csv", b"a,b\n1,2\n")}).json()
            job = api.get("/jobs", params={"kind": "ingest"}).json()["data"][0]
            assert job["queue"]["reason"] == "no_worker_online"
            assert api.get("/queue").json()["workers"] == []
            alone.start("ingest", "workers", "--queue", "ingest")
            ready = api.get(f"/datasets/{created['id']}", params={"wait": 30}).json()
            assert ready["status"] in ("ready", "invalid")
            (worker,) = api.get("/queue").json()["workers"]
            assert (worker["queues"], worker["online"], worker["busy"]) == (["ingest"], True, False)
            alone.stop("ingest")
            assert api.get("/queue").json()["workers"] == []
    finally:
        alone.down()
