"""Jobs through the API: lists, waiting, events, commands, idempotency, and what a job shows while it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from support import (
    TRAIN,
    classify,
    long_job,
    problem,
    submit,
    succeeded,
    upload,
    wait_for_state,
    wait_for_step,
    weights_digest,
)

ENDLESS = {"epochs": 100_000}


@pytest.fixture(scope="module")
def endless(running: httpx.Client, rows: str) -> Iterator[str]:
    """A job that runs until it is told to stop."""
    job_id = submit(running, classify(rows, hyperparameters=ENDLESS))
    wait_for_step(running, job_id)
    yield job_id
    if running.get(f"/jobs/{job_id}").json()["status"] not in ("cancelled", "succeeded", "failed"):
        running.post(f"/jobs/{job_id}/cancel")
        wait_for_state(running, job_id, "cancelled")


def test_what_a_finished_job_shows(running: httpx.Client, rows: str, trained: dict[str, Any]) -> None:
    assert (trained["kind"], trained["task"], trained["attempt"], trained["failures"]) == (
        "finetune",
        "tabular-classification",
        1,
        0,
    )
    assert trained["created_at"] <= trained["queued_at"] <= trained["started_at"] <= trained["finished_at"]
    assert trained["result"]["ref"] == "shared:1"
    assert trained["error"] is None
    assert trained["queue"] is None
    assert trained["progress"]["fraction"] == 1.0
    # Every "auto" has become a number.
    numbers = trained["resolved"]["hyperparameters"]
    for name in ("epochs", "batch_size", "learning_rate", "dropout", "evaluate_every_epochs"):
        assert isinstance(numbers[name], int | float), name
    assert numbers["epochs"] == 2
    assert trained["spec"]["hyperparameters"] == {"epochs": 2}
    assert trained["metrics"]["latest"]["scratch"]["validation"]["accuracy"] > 0.5
    assert trained["metrics"]["best"]["scratch"]["validation"]["step"] > 0
    for name, url in trained["urls"].items():
        assert running.get(url.removeprefix("/api/v1")).status_code == 200, name


def test_etag_and_wait(running: httpx.Client, trained: dict[str, Any]) -> None:
    path = f"/jobs/{trained['id']}"
    first = running.get(path)
    tag = first.headers["etag"]
    assert tag.startswith('"')
    assert "retry-after" not in first.headers
    for given in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        again = running.get(path, headers={"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert running.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    started = time.monotonic()
    assert running.get(path, params={"wait": 20}).json()["status"] == "succeeded"
    assert time.monotonic() - started < 5


def test_a_finished_job_takes_no_command(running: httpx.Client, trained: dict[str, Any]) -> None:
    for command in ("cancel", "pause", "resume"):
        response = running.post(f"/jobs/{trained['id']}/{command}")
        assert "succeeded" in problem(response, 409, "illegal_transition")["detail"]
        assert response.headers["x-should-retry"] == "false"
    problem(running.post("/jobs/job_0/cancel"), 404, "not_found")


def test_events(running: httpx.Client, trained: dict[str, Any]) -> None:
    path = f"/jobs/{trained['id']}/events"
    whole = running.get(path).json()
    sequences = [event["sequence"] for event in whole["data"]]
    assert sequences == list(range(1, len(sequences) + 1))
    types = [event["type"] for event in whole["data"]]
    assert types[:2] == ["queued", "running"]
    assert types[-1] == "succeeded"
    assert "checkpoint" in types
    part = running.get(path, params={"after": 1, "limit": 1}).json()
    assert [event["sequence"] for event in part["data"]] == [2]
    assert part["has_more"] is True
    assert running.get(path, params={"after": sequences[-1]}).json()["data"] == []
    problem(running.get("/jobs/job_0/events"), 404, "not_found")


def stream(api: httpx.Client, job_id: str, **headers: str) -> list[dict[str, Any]]:
    events, current = [], {}
    with api.stream("GET", f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream", **headers}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if name:
                current[name] = value
            elif current:
                events.append(current | {"data": json.loads(current["data"])})
                current = {}
    return events


def test_event_stream(running: httpx.Client, trained: dict[str, Any]) -> None:
    whole = stream(running, trained["id"])
    listed = running.get(f"/jobs/{trained['id']}/events").json()["data"]
    assert [event["data"] for event in whole] == listed
    assert [event["id"] for event in whole] == [str(event["sequence"]) for event in listed]
    assert [event["event"] for event in whole] == [event["type"] for event in listed]
    rest = stream(running, trained["id"], **{"Last-Event-ID": "2"})
    assert [event["data"] for event in rest] == listed[2:]
    problem(running.get(f"/jobs/{trained['id']}/events", headers={"Last-Event-ID": "x"}), 422, "invalid_request")


def test_series_logs_checkpoints_attempts(running: httpx.Client, trained: dict[str, Any]) -> None:
    path = f"/jobs/{trained['id']}"
    series = running.get(f"{path}/metrics").json()
    assert series["has_more"] is False
    splits = {point["split"] for point in series["data"]}
    assert {"train", "validation"} <= splits
    assert all(point["run"] == "scratch" and point["attempt"] == 1 for point in series["data"])
    steps = [point["step"] for point in series["data"] if point["split"] == "validation"]
    assert steps == sorted(steps)
    first = running.get(f"{path}/metrics", params={"limit": 1}).json()
    assert (len(first["data"]), first["has_more"]) == (1, True)
    rest = running.get(f"{path}/metrics", params={"after": first["data"][0]["id"], "run": "scratch"}).json()
    assert rest["data"] == series["data"][1:]
    assert running.get(f"{path}/metrics", params={"run": "none"}).json()["data"] == []
    log = running.get(f"{path}/logs")
    assert log.headers["content-type"].startswith("text/plain")
    assert "--- attempt-1" in log.text
    assert "validation: " in log.text
    (checkpoint,) = running.get(f"{path}/checkpoints").json()["data"]
    assert checkpoint["finished"] is True
    assert checkpoint["id"] == trained["result"]["checkpoint_id"]
    (attempt,) = running.get(f"{path}/attempts").json()["data"]
    assert (attempt["number"], attempt["exit_reason"]) == (1, "succeeded")
    assert attempt["started_at"] < attempt["ended_at"]
    assert attempt["environment"]["device"]


def test_wait_returns_what_changed(running: httpx.Client, endless: str) -> None:
    path = f"/jobs/{endless}"
    first = running.get(path)
    assert first.headers["retry-after"] == "1"
    changed = running.get(path, params={"wait": 10}, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    assert changed.json()["progress"]["step"] > first.json()["progress"]["step"]
    started = time.monotonic()
    assert running.get(path, params={"wait": 1}).json()["status"] == "running"
    assert 0.9 < time.monotonic() - started < 5


def test_progress_of_a_running_job(running: httpx.Client, endless: str) -> None:
    job = wait_for_step(running, endless, 200)
    progress = job["progress"]
    assert progress["phase"] == "training"
    assert 0 < progress["fraction"] < 1
    assert 0 < progress["step"] < progress["total_steps"]
    assert progress["examples_per_second"] > 0
    assert progress["eta_seconds"] > 0
    assert progress["updated_at"].endswith("Z")
    assert job["worker"]
    assert job["queue"] is None


def test_waiting_jobs(running: httpx.Client, rows: str, endless: str) -> None:
    """While the only worker is busy: order, positions, patches, cancel, pause, and a dataset in use."""
    low, high, third = (
        submit(running, classify(rows, priority=priority, name=f"waiting {priority}", metadata={"n": priority}))
        for priority in (0, 5, 1)
    )
    queue = running.get("/queue").json()
    assert [job["id"] for job in queue["running"]] == [endless]
    assert [(job["id"], job["position"]) for job in queue["queued"]] == [(high, 1), (third, 2), (low, 3)]
    job = running.get(f"/jobs/{low}").json()
    place = {"position": 3, "ahead": 2, "reason": "waiting_for_worker", "jobs": None, "until": None}
    assert job["queue"] == place
    assert {name: queue["queued"][2][name] for name in place} == place
    (worker,) = (worker for worker in queue["workers"] if worker["queues"] == ["train"])
    assert (worker["online"], worker["busy"], worker["job_id"]) == (True, True, endless)
    assert worker["device"]["cpus"] >= 1
    assert job["progress"] is None
    patched = running.patch(f"/jobs/{low}", json={"priority": 9, "name": "first", "metadata": {"k": [1, None]}}).json()
    assert (patched["priority"], patched["name"], patched["metadata"]) == (9, "first", {"k": [1, None]})
    assert patched["queue"]["position"] == 1
    assert running.get(f"/jobs/{low}").json() == patched
    problem(running.patch(f"/jobs/{low}", json={"state": "succeeded"}), 422, "invalid_request")
    problem(running.patch(f"/jobs/{low}", json={"priority": 101}), 422, "invalid_request")
    body = problem(running.delete(f"/datasets/{rows}"), 409, "conflict")
    assert "in use by job" in body["detail"]
    assert running.post(f"/jobs/{high}/cancel").json()["status"] == "cancelled"
    assert running.post(f"/jobs/{third}/pause").json()["status"] == "paused"
    assert running.post(f"/jobs/{third}/pause").json()["status"] == "paused"
    assert [job["id"] for job in running.get("/queue").json()["queued"]] == [low]
    assert running.post(f"/jobs/{third}/resume").json()["status"] == "queued"
    assert running.post(f"/jobs/{third}/resume").json()["status"] == "queued"
    assert running.get("/jobs", params={"name": "first"}).json()["data"][0]["id"] == low
    for job_id in (low, third):
        assert running.post(f"/jobs/{job_id}/cancel").json()["status"] == "cancelled"
    types = [event["type"] for event in running.get(f"/jobs/{third}/events").json()["data"]]
    assert types == ["queued", "paused", "queued", "cancelled"]


def test_pages(running: httpx.Client, rows: str, endless: str) -> None:
    made = [submit(running, classify(rows, name="paged")) for _ in range(5)]
    for job_id in made:
        running.post(f"/jobs/{job_id}/cancel")
    made.sort()

    def page(**params: Any) -> tuple[list[str], bool]:
        body = running.get("/jobs", params={"name": "paged", **params}).json()
        ids = [job["id"] for job in body["data"]]
        assert body["object"] == "list"
        assert (body["first_id"], body["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        return ids, body["has_more"]

    assert page() == (made[::-1], False)
    assert page(limit=5) == (made[::-1], False)
    assert page(limit=2) == ([made[4], made[3]], True)
    assert page(limit=2, after=made[3]) == ([made[2], made[1]], True)
    assert page(limit=2, after=made[1]) == ([made[0]], False)
    assert page(limit=2, order="asc") == (made[:2], True)
    assert page(limit=3, order="asc", after=made[1]) == (made[2:], False)
    # The page before a cursor is the one next to it.
    assert page(limit=2, before=made[0]) == ([made[2], made[1]], True)
    assert page(limit=2, before=made[3]) == ([made[4]], False)
    assert page(limit=2, order="asc", before=made[4]) == ([made[2], made[3]], True)
    assert page(order="asc", after=made[0], before=made[4]) == (made[1:4], False)
    assert page(status="cancelled")[0] == made[::-1]
    assert page(status="running") == ([], False)
    assert page(kind="pretrain") == ([], False)
    ingests = running.get("/jobs", params={"kind": "ingest"}).json()["data"]
    assert {job["kind"] for job in ingests} == {"ingest"}
    assert "ingest" not in {job["kind"] for job in running.get("/jobs").json()["data"]}


def test_cancel_a_running_job(running: httpx.Client, endless: str) -> None:
    """The last test with this job: a stream that is open meanwhile hears of it and ends."""
    pool = ThreadPoolExecutor(1)
    live = pool.submit(stream, running, endless)
    time.sleep(0.5)
    started = time.monotonic()
    assert running.post(f"/jobs/{endless}/cancel").json()["status"] == "cancelling"
    assert running.post(f"/jobs/{endless}/cancel").status_code == 200
    problem(running.post(f"/jobs/{endless}/pause"), 409, "illegal_transition")
    job = wait_for_state(running, endless, "cancelled", timeout_s=5)
    assert time.monotonic() - started < 3
    # By default what there is of it is kept.
    assert [event["event"] for event in live.result(15)][-3:] == ["cancelling", "checkpoint", "cancelled"]
    pool.shutdown()
    assert job["finished_at"]
    assert job["failures"] == 0
    for command in ("pause", "resume"):
        body = problem(running.post(f"/jobs/{endless}/{command}"), 409, "illegal_transition")
        assert "cancelled" in body["detail"]
        assert body["hint"]
    assert running.post(f"/jobs/{endless}/cancel").json()["status"] == "cancelled"


def test_a_pause_taken_back(running: httpx.Client, rows: str) -> None:
    job_id = submit(running, classify(rows, hyperparameters=ENDLESS))
    step = wait_for_step(running, job_id)["progress"]["step"]
    running.post(f"/jobs/{job_id}/pause")
    answer = running.post(f"/jobs/{job_id}/resume").json()
    assert answer["status"] in ("running", "queued")
    job = wait_for_step(running, job_id, step + 100)
    assert job["failures"] == 0
    running.post(f"/jobs/{job_id}/cancel")
    assert wait_for_state(running, job_id, "cancelled")["failures"] == 0


@pytest.fixture(scope="module")
def undisturbed(running: httpx.Client, rows: str) -> dict[str, Any]:
    return succeeded(running, submit(running, long_job(rows)))


def test_pause_and_resume_change_nothing(running: httpx.Client, rows: str, undisturbed: dict[str, Any]) -> None:
    job_id = submit(running, long_job(rows))
    wait_for_step(running, job_id, 50)
    assert running.post(f"/jobs/{job_id}/pause").json()["status"] == "pausing"
    assert running.post(f"/jobs/{job_id}/pause").json()["status"] == "pausing"
    paused = wait_for_state(running, job_id, "paused")
    stopped_at = running.get(f"/jobs/{job_id}/checkpoints").json()["data"][-1]["step"]
    assert 0 < stopped_at < paused["progress"]["total_steps"]
    assert paused["worker"] is None
    assert running.post(f"/jobs/{job_id}/resume").json()["status"] == "queued"
    job = succeeded(running, job_id)
    assert (job["attempt"], job["failures"]) == (2, 0)
    assert job["result"]["metrics"] == undisturbed["result"]["metrics"]
    assert job["metrics"] == undisturbed["metrics"]  # the best of the first attempt is not forgotten
    assert weights_digest(running, job) == weights_digest(running, undisturbed)


def test_continue_from_a_checkpoint(running: httpx.Client, rows: str, trained: dict[str, Any]) -> None:
    checkpoint = trained["result"]["checkpoint_id"]
    other = upload(running, "\n".join(TRAIN.read_text().splitlines()[:200]) + "\n", "fewer.csv")
    body = classify(
        other["id"],
        continue_from=checkpoint,
        hyperparameters={"epochs": 3, "learning_rate": 0.00123},
        output={"model": "continued"},
    )
    job = succeeded(running, submit(running, body))
    assert job["resolved"]["hyperparameters"]["learning_rate"] == 0.00123
    lineage = running.get(f"/models/continued/versions/{job['result']['version']}/lineage").json()
    assert lineage["continued_from"] == checkpoint
    assert lineage["datasets"]["train"]["sha256"] == other["sha256"]
    before, after = (job["result"]["metrics"]["train"]["loss"] for job in (trained, job))
    assert after < before  # it went on instead of starting anew
    body = classify(rows, continue_from=checkpoint, task_config={"label_smoothing": 0.1})
    assert problem(running.post("/jobs", json=body), 422, "invalid_config")["param"] == "task_config"
    body = classify(rows, continue_from=checkpoint, architecture="mlp")
    problem(running.post("/jobs", json=body), 422, "invalid_config")


def test_what_is_not_found_is_told_with_the_field_that_names_it(running: httpx.Client, rows: str) -> None:
    wrong = {
        "dataset": {"dataset": "ds_0"},
        "dataset.test": {"dataset": {"train": rows, "test": "ds_0"}},
        "base_model": {"base_model": "nobody"},
    }
    for field, change in wrong.items():
        body = problem(running.post("/jobs", json=classify(rows) | change), 404, "not_found")
        assert body["param"] == field
