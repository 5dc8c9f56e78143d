"""Datasets, repeated requests and the catalogue, through the front door."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
from servers import Stack
from support import (
    classify,
    problem,
    succeeded,
    upload,
    wait_for_state,
)


def test_the_same_key_sixteen_times(running: httpx.Client, rows: str) -> None:
    body = classify(rows, name="once", hyperparameters={"max_steps": 1})
    key = {"Idempotency-Key": f"k-{time.time_ns()}"}
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: running.post("/jobs", json=body, headers=key), range(16)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(running.get("/jobs", params={"name": "once"}).json()["data"]) == 1
    other = problem(running.post("/jobs", json=body | {"seed": 1}, headers=key), 422, "idempotency_mismatch")
    assert key["Idempotency-Key"] in other["detail"]
    succeeded(running, answers[0].json()["id"])
    assert running.post("/jobs", json=body, headers=key).json()["status"] == "succeeded"
    refused = {"Idempotency-Key": f"r-{time.time_ns()}"}
    problem(running.post("/jobs", json=body | {"task": "none"}, headers=refused), 422, "unknown_name")
    again = running.post("/jobs", json=body | {"name": "after a refusal"}, headers=refused)
    assert again.status_code == 202  # a refused request leaves its key free


def test_the_same_upload_twice(running: httpx.Client) -> None:
    key = {"Idempotency-Key": f"u-{time.time_ns()}"}

    def send(content: str, **fields: str) -> httpx.Response:
        return running.post("/datasets", files={"file": ("t.csv", content)}, data=fields, headers=key)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: send("a,b\n1,2\n3,4\n"), range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    problem(send("a,b\n1,2\n3,5\n"), 422, "idempotency_mismatch")
    problem(send("a,b\n1,2\n3,4\n", name="other"), 422, "idempotency_mismatch")
    problem(
        running.post("/datasets", files={"file": ("t.csv", "a\n1\n")}, headers={"Idempotency-Key": "x" * 256}),
        422,
        "invalid_request",
    )


def test_datasets(running: httpx.Client) -> None:
    made = upload(running, "a,b\n1,x\n2,y\n3,z\n", "small.csv", name="small", metadata='{"owner": "me"}')
    assert (made["status"], made["num_rows"], made["name"], made["metadata"]) == ("ready", 3, "small", {"owner": "me"})
    path = f"/datasets/{made['id']}"
    assert running.get(path + "/preview", params={"rows": 2}).json() == {
        "columns": ["a", "b"],
        "rows": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
        "indices": [0, 1],
    }
    assert running.get(path + "/content").content == b"a,b\n1,x\n2,y\n3,z\n"
    part = running.get(path + "/content", headers={"Range": "bytes=4-6"})
    assert (part.status_code, part.content) == (206, b"1,x")
    assert running.get(path + "/errors").json() == {"error_count": 0, "errors_by_rule": {}, "errors": []}
    found = running.get("/datasets", params={"name": "small", "status": "ready"}).json()["data"]
    assert [dataset["id"] for dataset in found] == [made["id"]]
    for status in ("processing", "invalid"):
        assert running.get("/datasets", params={"name": "small", "status": status}).json()["data"] == []
    assert running.delete(path).status_code == 204
    problem(running.delete(path), 404, "not_found")
    problem(running.get(path + "/preview"), 404, "not_found")


def test_skipped_rows(running: httpx.Client) -> None:
    lines = ["a,label"] + [f"{n},{n % 2}" for n in range(200)]
    lines[100] = "x,y,z"
    dataset = upload(running, "\n".join(lines), on_bad_rows="skip")
    assert (dataset["status"], dataset["num_rows"]) == ("ready", 199)
    (error,) = running.get(f"/datasets/{dataset['id']}/errors").json()["errors"]
    assert error["row"] == 100


def test_a_deleted_dataset_ends_its_ingestion(running: httpx.Client) -> None:
    created = running.post("/datasets", files={"file": ("t.csv", "a\n" + "1\n" * 300_000)}).json()
    assert running.delete(f"/datasets/{created['id']}").status_code == 204
    wait_for_state(running, created["ingestion_job_id"], "cancelled", timeout_s=10)


def test_the_catalogue(running: httpx.Client) -> None:
    tasks = {task["name"]: task for task in running.get("/tasks").json()["data"]}
    assert tasks["tabular-classification"]["kind"] == "finetune"
    assert all(task["description"] for task in tasks.values())
    assert "mlp" in [entry["name"] for entry in running.get("/architectures").json()["data"]]
    schema = running.get("/architectures/mlp/schema").json()
    epochs = schema["hyperparameters"]["properties"]["epochs"]
    assert epochs["default"] == "auto"
    assert epochs["description"]
    problem(running.get("/architectures/mpl/schema"), 422, "unknown_name")
    assert "csv" in [entry["name"] for entry in running.get("/formats").json()["data"]]


def test_a_request_id_is_echoed(running: httpx.Client, embedded: Stack) -> None:
    assert running.get("/jobs", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    odd = running.get("/jobs", headers={"x-request-id": "a b\t<script>"}).headers["x-request-id"]
    assert odd.startswith("req_")
