"""Predictions as jobs: a file for a dataset, in each format, and requests whose caller does not wait."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from servers import Stack
from support import classify, finished, new_key, problem, succeeded, upload, wait_until

from anneal.client import Client

pytestmark = pytest.mark.usefixtures("served")
ROWS = 700  # more than one block


def fruit(rows: int = ROWS) -> str:
    lines = [f"{n},{n % 17 if n % 50 else ''},{('red', 'blue', 'green')[n % 3]}" for n in range(rows)]
    return "\n".join(["id,size,colour", *lines])


@pytest.fixture(scope="module")
def rows(stack: Stack, served: str) -> str:
    with stack.client() as client:
        return str(upload(client, fruit(), "unseen.csv")["id"])


def predicted(api: httpx.Client, ref: str, **body: Any) -> dict[str, Any]:
    created = api.post(f"/models/{ref}/predict-dataset", json=body)
    assert created.status_code == 202, created.text
    assert created.headers["location"] == created.json()["urls"]["self"]
    return succeeded(api, created.json()["id"])


def output(api: httpx.Client, job: dict[str, Any]) -> bytes:
    answer = api.get(f"/jobs/{job['id']}/output")
    assert answer.status_code == 200, answer.text
    assert len(answer.content) == job["result"]["bytes"]
    return answer.content


def test_a_file_of_each_format(api: httpx.Client, rows: str, tmp_path: Path) -> None:
    inputs = [{"size": n % 17 if n % 50 else None, "colour": ("red", "blue", "green")[n % 3]} for n in range(ROWS)]
    alone = api.post("/models/fruit@best/predict", json={"inputs": inputs}).json()["outputs"]
    job = predicted(api, "fruit@best", dataset=rows, keep=["id", "colour"], name="all fruit")
    assert (job["kind"], job["task"], job["resolved"]["ref"]) == ("predict", "tabular-classification", "fruit:1")
    assert (job["result"]["rows"], job["result"]["errors"], job["warnings"]) == (ROWS, 0, [])
    assert (job["progress"]["rows"], job["progress"]["fraction"]) == (ROWS, 1.0)
    lines = [json.loads(line) for line in output(api, job).splitlines()]
    assert [line["index"] for line in lines] == list(range(ROWS))
    assert lines[4]["kept"] == {"id": 4, "colour": "blue"}
    assert [line["warnings"] != [] for line in lines[:4]] == [False, False, True, False]  # green was never seen
    for line, one in zip(lines, alone, strict=True):
        assert line["output"]["label"] == one["label"]
        assert line["output"]["score"] == pytest.approx(one["score"], abs=1e-6)
    table = list(csv.DictReader(io.StringIO(output(api, predicted(api, "fruit", dataset=rows, format="csv")).decode())))
    assert list(table[0]) == ["index", "label", "score", "probabilities.no", "probabilities.yes", "error"]
    assert [row["label"] for row in table] == [one["label"] for one in alone]
    path = tmp_path / "out.parquet"
    path.write_bytes(output(api, predicted(api, "fruit", dataset=rows, format="parquet", keep=["id"])))
    found = pq.read_table(path)
    assert found.column_names[:3] == ["index", "id", "label"]
    assert found["id"].to_pylist() == list(range(ROWS))
    assert found["probabilities.yes"].to_pylist() == pytest.approx(
        [one["probabilities"]["yes"] for one in alone], abs=1e-6
    )
    assert api.get(f"/jobs/{job['id']}/checkpoints").json()["data"] == []  # the segments are forgotten
    assert api.get(f"/jobs/{job['id']}/output", headers={"Range": "bytes=0-1"}).content == b'{"'


def test_parameters_and_rows_with_errors(stack: Stack, api: httpx.Client, tmp_path: Path) -> None:
    some = str(upload(api, "size,colour\n1,red\n2,7\n3,blue\n", column_types='{"colour": "string"}')["id"])
    with Client(stack.url, api_key=stack.key) as client:
        job = client.models.predict_dataset("fruit", some, parameters={"probabilities": False}).wait(timeout=60)
        lines = [json.loads(line) for line in job.save_output(tmp_path).read_bytes().splitlines()]
    assert [set(line["output"]) for line in lines] == [{"label", "score"}] * 3
    wrong = str(upload(api, "size,colour\n1,1\n2,2\n")["id"])  # a number for a colour
    failed = finished(api, api.post("/models/fruit/predict-dataset", json={"dataset": wrong}).json()["id"])
    assert (failed["status"], failed["error"]["code"]) == ("failed", "invalid_data")
    assert "None of the 2 rows" in failed["error"]["message"]
    assert '"colour"' in failed["error"]["message"]
    problem(api.get(f"/jobs/{failed['id']}/output"), 409, "illegal_transition")


@pytest.mark.parametrize(
    ("ref", "body", "status", "code", "said"),
    [
        ("fruit", {"dataset": "ds_1"}, 404, "not_found", "ds_1"),
        ("nobody", {}, 404, "not_found", "nobody"),
        ("fruit", {"keep": ["idd"]}, 422, "unknown_name", 'Did you mean "id"?'),
        ("fruit", {"parameters": {"tok_k": 1}}, 422, "invalid_config", "tok_k"),
        ("fruit", {"format": "xlsx"}, 422, "invalid_request", "format"),
        ("fruit", {"formt": "csv"}, 422, "invalid_request", "formt"),
    ],
)
def test_wrong_requests(
    api: httpx.Client, rows: str, ref: str, body: dict[str, Any], status: int, code: str, said: str
) -> None:
    answer = api.post(f"/models/{ref}/predict-dataset", json={"dataset": rows, **body})
    assert said in problem(answer, status, code)["detail"]


def test_a_dataset_without_the_columns(api: httpx.Client) -> None:
    other = str(upload(api, "size,color\n1,red\n")["id"])
    body = problem(api.post("/models/fruit/predict-dataset", json={"dataset": other}), 422, "unknown_name")
    assert '"colour"' in body["detail"]
    assert body["param"] == "dataset"


def test_what_a_prediction_job_is_not(api: httpx.Client, rows: str) -> None:
    job = predicted(api, "price", dataset=rows)
    assert set(json.loads(output(api, job).splitlines()[0])["output"]) == {"value"}
    problem(api.post(f"/jobs/{job['id']}/clone"), 409, "illegal_transition")
    problem(api.post(f"/jobs/{job['id']}/checkpoints/ck_1/promote"), 409, "illegal_transition")
    trained = api.get("/jobs", params={"kind": "finetune"}).json()["data"][0]
    assert "makes no file" in problem(api.get(f"/jobs/{trained['id']}/output"), 404, "not_found")["detail"]
    asked = classify(rows, columns={"target": "colour"}, base_model=job["id"])
    assert "makes no model" in problem(api.post("/jobs", json=asked), 422, "incompatible_model")["detail"]


def test_a_prediction_that_nobody_waits_for(stack: Stack, api: httpx.Client) -> None:
    inputs = [{"size": 3, "colour": "green"}, {"size": "big", "colour": "red"}]
    key = new_key(stack, scopes=("predict",))
    headers = {"Authorization": f"Bearer {key}", "Prefer": "wait=1, respond-async"}
    body = {"inputs": inputs, "parameters": {"top_k": 1}}
    now = api.post("/models/fruit/predict", json=body).json()
    asked = api.post("/models/fruit/predict", json=body, headers=headers)
    assert asked.status_code == 202, asked.text
    assert asked.headers["Preference-Applied"] == "respond-async"
    path = asked.headers["Location"].removeprefix("/api/v1")
    found = api.get(path, params={"wait": 30}, headers=headers).json()
    assert (found["status"], found["model"], found["task"]) == ("succeeded", "fruit:1", now["task"])
    assert found["outputs"][0]["label"] == now["outputs"][0]["label"]
    assert (found["outputs"][1], found["errors"], found["warnings"]) == (None, now["errors"], now["warnings"])
    problem(api.get(f"/predictions/{submitted_training(api)}"), 404, "not_found")
    problem(api.post("/models/fruit/predict", json={"inputs": []}, headers=headers), 422, "invalid_request")
    wrong = {"inputs": inputs, "parameters": {"top": 1}}
    problem(api.post("/models/fruit/predict", json=wrong, headers=headers), 422, "invalid_config")
    wait_until(lambda: api.get(path).json()["status"] == "succeeded")


def submitted_training(api: httpx.Client) -> str:
    return str(api.get("/jobs", params={"kind": "finetune"}).json()["data"][0]["id"])


def test_pause_and_resume_of_a_waiting_one(api: httpx.Client, rows: str) -> None:
    body = {"dataset": rows, "format": "csv"}
    job_id = api.post("/models/fruit/predict-dataset", json=body).json()["id"]
    api.post(f"/jobs/{job_id}/pause")
    api.post(f"/jobs/{job_id}/resume")
    paused = succeeded(api, job_id)
    assert output(api, paused) == output(api, predicted(api, "fruit", **body))
