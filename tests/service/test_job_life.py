"""A job's life beyond one run: dependencies, time limits, other settings on resume, retry, clone."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from support import (
    TRAIN,
    classify,
    finished,
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


def pretrain(rows: str, **spec: Any) -> dict[str, Any]:
    body = {"kind": "pretrain", "dataset": rows, "columns": {"ignore": ["diagnosis"]}}
    return {**body, "hyperparameters": {"epochs": 3}, **spec}


def events(api: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get(f"/jobs/{job_id}/events").json()["data"]
    return found


def test_a_finetune_waits_for_its_pretrain(api: httpx.Client) -> None:
    """On both columns, submitted at once; the child names its base by the job or by the name that it will have."""
    rows = upload(api, TRAIN)["id"]
    parent = submit(api, pretrain(rows, output={"model": "to-come"}))
    child = submit(api, classify(rows, base_model=parent, compare=True))
    named = submit(api, classify(rows, base_model="to-come", depends_on=[parent]))
    for job_id in (child, named):
        job = succeeded(api, job_id)
        assert job["started_at"] >= api.get(f"/jobs/{parent}").json()["finished_at"]
        lineage = api.get(f"/models/{job['result']['model']}/versions/{job['result']['version']}/lineage").json()
        assert lineage["base_version_id"]
        assert job["resolved"]["architecture"] == "mlp"
    assert succeeded(api, child)["result"]["comparison"]["verdict"]


def test_a_failed_parent_fails_its_child(running: httpx.Client, rows: str) -> None:
    parent = submit(running, pretrain(rows, hyperparameters=ENDLESS))
    child = submit(running, classify(rows, base_model=parent))
    grandchild = submit(running, classify(rows, depends_on=[child]))
    waiting = running.get(f"/jobs/{child}").json()
    assert waiting["status"] == "queued"
    running.post(f"/jobs/{parent}/cancel", json={"mode": "discard"})
    for job_id in (child, grandchild):
        job = finished(running, job_id)
        assert (job["status"], job["error"]["code"], job["attempt"]) == ("failed", "dependency_failed", 0)
        assert "was cancelled" in job["status_reason"]
        assert job["error"]["hint"]
    refused = running.post("/jobs", json=classify(rows, base_model=parent))
    assert parent in problem(refused, 409, "dependency_failed")["detail"]
    problem(running.post("/jobs", json=classify(rows, base_model="job_0")), 422, "unknown_name")
    body = problem(running.post("/jobs", json=classify(rows, depends_on=["job_0"])), 422, "unknown_name")
    assert body["param"] == "depends_on"


def test_a_job_whose_time_is_over_goes_on_in_a_retry(running: httpx.Client, rows: str) -> None:
    """Its last checkpoint is exact: the retry makes the weights that one undisturbed run makes."""
    undisturbed = succeeded(running, submit(running, long_job(rows)))
    job = finished(running, submit(running, {**long_job(rows), "resources": {"max_runtime_s": 2.5}}))
    assert (job["status"], job["failures"]) == ("failed", 0)
    assert (job["error"]["code"], job["error"]["param"]) == ("max_runtime_exceeded", "resources.max_runtime_s")
    assert "2.5 seconds" in job["error"]["message"]
    (last,) = running.get(f"/jobs/{job['id']}/checkpoints").json()["data"][-1:]
    assert 0 < last["step"] < undisturbed["progress"]["total_steps"]
    answer = running.post(f"/jobs/{job['id']}/retry", json={"max_runtime_s": 600})
    assert answer.status_code == 202
    assert answer.headers["location"] == answer.json()["urls"]["self"]
    again = succeeded(running, answer.json()["id"])
    assert again["retry_of"] == job["id"]
    assert again["id"] != job["id"]
    assert weights_digest(running, again) == weights_digest(running, undisturbed)
    assert again["result"]["metrics"] == undisturbed["result"]["metrics"]
    fresh = succeeded(
        running, running.post(f"/jobs/{job['id']}/retry", json={"from": "start", "max_runtime_s": 600}).json()["id"]
    )
    assert weights_digest(running, fresh) == weights_digest(running, undisturbed)
    body = problem(running.post(f"/jobs/{again['id']}/retry"), 409, "illegal_transition")
    assert "clone" in body["hint"]
    assert running.get(f"/jobs/{job['id']}").json() == job  # a job that has ended never changes


def test_other_settings_on_resume(running: httpx.Client, rows: str) -> None:
    job_id = submit(running, classify(rows, hyperparameters=ENDLESS))
    wait_for_step(running, job_id, 50)
    refused = running.post(f"/jobs/{job_id}/resume", json={"hyperparameters": {"epochs": 4}})
    assert "only while it is paused" in problem(refused, 409, "illegal_transition")["detail"]
    running.post(f"/jobs/{job_id}/pause")
    paused = wait_for_state(running, job_id, "paused")
    for wrong in ({"batch_size": 8}, {"learning_rate": -1}, {"epochs": "many"}):
        body = problem(running.post(f"/jobs/{job_id}/resume", json={"hyperparameters": wrong}), 422, "invalid_request")
        assert body["errors"][0]["pointer"] == f"/hyperparameters/{next(iter(wrong))}"
    stopped = running.get(f"/jobs/{job_id}/checkpoints").json()["data"][-1]["step"]
    epochs = stopped // 15 + 20
    changes = {"epochs": epochs, "learning_rate": 0.00077}
    running.post(f"/jobs/{job_id}/resume", json={"hyperparameters": changes})
    job = succeeded(running, job_id)
    resolved = job["resolved"]["hyperparameters"]
    assert (resolved["epochs"], resolved["learning_rate"]) == (epochs, 0.00077)
    assert job["progress"]["total_steps"] < paused["progress"]["total_steps"]
    (resumed,) = [event for event in events(running, job_id) if "other settings" in event["message"]]
    assert resumed["data"]["changed"] == {"hyperparameters.epochs": epochs, "hyperparameters.learning_rate": 0.00077}


def test_a_clone_is_the_same_request_with_changes(running: httpx.Client, rows: str) -> None:
    original = submit(running, classify(rows, output={"model": "cloned"}))
    answer = running.post(
        f"/jobs/{original}/clone",
        json={"overrides": {"name": "cloned", "hyperparameters": {"learning_rate": 0.005}}},
    )
    assert answer.status_code == 202
    job = succeeded(running, answer.json()["id"])
    assert (job["name"], job["retry_of"]) == ("cloned", None)
    assert job["spec"]["hyperparameters"] == {"epochs": 2, "learning_rate": 0.005}
    assert job["spec"]["output"]["model"] == "cloned"
    wrong = {"overrides": {"hyperparameters": {"learning_rate": "fast"}}}
    body = problem(running.post(f"/jobs/{original}/clone", json=wrong), 422, "invalid_request")
    assert "learning_rate" in body["errors"][0]["pointer"]
    ingest = running.get("/jobs", params={"kind": "ingest"}).json()["data"][0]["id"]
    problem(running.post(f"/jobs/{ingest}/clone"), 409, "illegal_transition")


@pytest.mark.parametrize("command", ["retry", "clone"])
def test_one_key_makes_one_job(running: httpx.Client, rows: str, command: str) -> None:
    job_id = submit(running, classify(rows, hyperparameters={"epochs": 1}))
    running.post(f"/jobs/{job_id}/cancel")
    if finished(running, job_id)["status"] == "succeeded" and command == "retry":
        pytest.fail("the job had ended before it could be cancelled")
    answers = [running.post(f"/jobs/{job_id}/{command}", headers={"Idempotency-Key": f"{command}-once"}) for _ in "ab"]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]


def test_the_urgent_job_runs_first(running: httpx.Client, rows: str) -> None:
    busy = submit(running, classify(rows, hyperparameters=ENDLESS))
    wait_for_step(running, busy)
    order = [submit(running, classify(rows, hyperparameters={"epochs": 1}, priority=p)) for p in (0, -1, 7)]
    running.post(f"/jobs/{busy}/cancel")
    started = [succeeded(running, job_id)["started_at"] for job_id in order]
    assert started[2] < started[0] < started[1]
