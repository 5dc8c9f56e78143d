"""Checkpoints through the API, on both columns: how many are kept, and models out of them while the job runs."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from support import TRAIN, classify, problem, submit, upload, wait_for_state, wait_until

POLICY = {"every_steps": 400, "keep_last": 2, "keep_best": 1}


@pytest.fixture(scope="module")
def datasets() -> dict[httpx.URL, str]:
    return {}


@pytest.fixture
def running_job(api: httpx.Client, datasets: dict[httpx.URL, str]) -> str:
    """A job that runs for minutes and has written more checkpoints than it keeps."""
    if api.base_url not in datasets:
        datasets[api.base_url] = str(upload(api, TRAIN)["id"])
    body = classify(
        datasets[api.base_url],
        hyperparameters={"epochs": 20_000, "evaluate_every_epochs": 10},
        output={"model": "promoted"},
        checkpointing=POLICY,
    )
    job_id = submit(api, body)
    wait_until(lambda: len(events(api, job_id, "checkpoint")) >= 5, 60)
    return job_id


def events(api: httpx.Client, job_id: str, kind: str) -> list[dict[str, Any]]:
    found = api.get(f"/jobs/{job_id}/events").json()["data"]
    return [event for event in found if event["type"] == kind]


def checkpoints(api: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = api.get(f"/jobs/{job_id}/checkpoints").json()["data"]
    return listed


def test_kept_and_promoted(api: httpx.Client, running_job: str) -> None:
    kept = checkpoints(api, running_job)
    assert 2 <= len(kept) <= 3
    assert [entry["step"] for entry in kept] == sorted(entry["step"] for entry in kept)
    (best,) = (entry for entry in kept if entry["is_best"])
    assert best["score"] == max(entry["score"] for entry in kept)
    assert best["metrics"]["validation"]["accuracy"] > 0.5
    assert best["bytes"] == sum(file["bytes"] for file in best["files"]) > 0

    url = f"/jobs/{running_job}/checkpoints/{best['id']}/promote"
    answer = api.post(url, json={"aliases": ["early"]})
    assert answer.status_code == 201, answer.text
    version = answer.json()
    assert (version["model"], version["aliases"], version["job_id"]) == ("promoted", ["early"], running_job)
    assert answer.headers["location"] == version["urls"]["self"]
    lineage = api.get(version["urls"]["lineage"].removeprefix("/api/v1")).json()
    assert (lineage["checkpoint_id"], lineage["step"], lineage["weights"]) == (best["id"], best["step"], "best")
    example = api.get("/models/promoted@early/schema").json()["example"]
    (output,) = api.post("/models/promoted@early/predict", json={"inputs": [example]}).json()["outputs"]
    assert output["label"] in ("benign", "malignant", "B", "M")
    keyed = [api.post(url, json={"model": "keyed"}, headers={"Idempotency-Key": f"promote-{best['id']}"}) for _ in "ab"]
    assert [(one.status_code, one.json()["ref"]) for one in keyed] == [(201, "keyed:1")] * 2
    last = api.post(url, json={"weights": "last", "model": "another"}).json()
    assert last["ref"] == "another:1"
    assert api.get(f"/jobs/{running_job}").json()["status"] == "running"

    problem(api.post(url, json={"weights": "worst"}), 422, "invalid_request")
    problem(api.post(f"/jobs/{running_job}/checkpoints/ck_none/promote", json={}), 404, "not_found")
    api.post(f"/jobs/{running_job}/cancel", json={"mode": "keep_best"})
    wait_for_state(api, running_job, "cancelled")
    # One is left, the newest; its best weights are the best of the whole run.
    (left,) = checkpoints(api, running_job)
    assert left["step"] >= kept[-1]["step"]
    assert api.post(f"/jobs/{running_job}/checkpoints/{left['id']}/promote").status_code == 201


@pytest.mark.parametrize(("mode", "least", "most"), [("checkpoint_now", 2, 3), ("discard", 0, 0)])
def test_cancel_modes(api: httpx.Client, running_job: str, mode: str, least: int, most: int) -> None:
    before = len(events(api, running_job, "checkpoint"))
    api.post(f"/jobs/{running_job}/cancel", json={"mode": mode})
    wait_for_state(api, running_job, "cancelled")
    assert least <= len(checkpoints(api, running_job)) <= most
    if mode == "checkpoint_now":
        assert len(events(api, running_job, "checkpoint")) > before
