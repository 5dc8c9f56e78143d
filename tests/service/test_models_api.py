"""The registry and predictions through the API: versions, aliases, files, lineage, and loaded models."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from servers import Stack
from support import DATA, classify, problem, stack_database, submit, succeeded

from store import keys, models
from store.artifacts import ArtifactStore
from store.records import ArtifactRecord


@pytest.fixture(scope="module")
def second(running: httpx.Client, rows: str, trained: dict[str, Any]) -> dict[str, Any]:
    """Another version of the shared model."""
    return succeeded(running, submit(running, classify(rows, output={"model": "shared"}, seed=8)))


@pytest.fixture(scope="module")
def example(running: httpx.Client, trained: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = running.get("/models/shared/schema").json()["example"]
    return found


def test_versions(running: httpx.Client, trained: dict[str, Any], second: dict[str, Any]) -> None:
    model = running.get("/models/shared").json()
    assert (model["versions"], model["latest_version"], model["aliases"]) == (2, 2, {"production": 1})
    assert model["name"] in [entry["name"] for entry in running.get("/models", params={"limit": 100}).json()["data"]]
    listed = running.get("/models/shared/versions").json()["data"]
    assert [version["version"] for version in listed] == [2, 1]
    assert listed[1] == running.get("/models/shared/versions/1").json()
    assert (listed[1]["job_id"], listed[1]["aliases"], listed[1]["modality"]) == (
        trained["id"],
        ["production"],
        "tabular",
    )
    assert listed[0]["job_id"] == second["id"]
    assert running.get("/models/shared/versions", params={"limit": 1}).json()["has_more"] is True
    for name, url in listed[1]["urls"].items():
        if name != "predict":
            assert running.get(url.removeprefix("/api/v1")).status_code == 200, name
    problem(running.get("/models/none"), 404, "not_found")
    problem(running.get("/models/shared/versions/3"), 404, "not_found")


def test_lineage(running: httpx.Client, rows: str, trained: dict[str, Any]) -> None:
    lineage = running.get("/models/shared/versions/1/lineage").json()
    assert lineage["job_id"] == trained["id"]
    assert lineage["seed"] == 7
    content = (DATA / "breast_cancer_train.csv").read_bytes()
    assert lineage["datasets"]["train"] == {
        "id": rows,
        "name": "breast_cancer_train",
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert lineage["environment"]["torch"]
    assert lineage["base_model"] is None


def test_files(running: httpx.Client, trained: dict[str, Any]) -> None:
    files = running.get("/models/shared/versions/1/files").json()["data"]
    assert {"config.json", "model.safetensors"} <= {file["path"] for file in files}
    for file in files:
        response = running.get(f"/models/shared/versions/1/files/{file['path']}")
        assert (len(response.content), hashlib.sha256(response.content).hexdigest()) == (file["bytes"], file["sha256"])
        part = running.get(f"/models/shared/versions/1/files/{file['path']}", headers={"Range": "bytes=2-9"})
        assert (part.status_code, part.content) == (206, response.content[2:10])
        assert part.headers["content-range"] == f"bytes 2-9/{file['bytes']}"
    beyond = running.get("/models/shared/versions/1/files/config.json", headers={"Range": "bytes=99999999-"})
    assert beyond.status_code == 416
    body = problem(running.get("/models/shared/versions/1/files/none"), 404, "not_found")
    assert "config.json" in body["hint"]
    whole = running.get("/models/shared/versions/1/download")
    assert whole.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert archive.testzip() is None
        assert {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()} == {
            file["path"]: file["sha256"] for file in files
        }


def test_aliases_move_at_once(running: httpx.Client, second: dict[str, Any], example: dict[str, Any]) -> None:
    def put(alias: str, version: int) -> httpx.Response:
        return running.put(f"/models/shared/aliases/{alias}", json={"version": version})

    assert put("live", 1).json()["aliases"] == ["live", "production"]
    over = threading.Event()
    seen: set[int] = set()

    def look() -> None:
        while not over.is_set():
            answer = running.post("/models/shared@live/predict", json={"inputs": [example]})
            assert answer.status_code == 200, answer.text
            assert answer.json()["model"]["alias"] == "live"
            seen.add(answer.json()["model"]["version"])

    with ThreadPoolExecutor(3) as pool:
        looking = [pool.submit(look) for _ in range(3)]
        for number in (2, 1) * 10:
            assert put("live", number).json()["version"] == number
            assert running.get("/models/shared").json()["aliases"]["live"] == number
        over.set()
        for one in looking:
            one.result(10)
    assert seen == {1, 2}
    problem(put("live", 9), 404, "not_found")
    problem(put("UP", 1), 422, "invalid_request")
    problem(running.put("/models/none/aliases/live", json={"version": 1}), 404, "not_found")
    assert running.delete("/models/shared/aliases/live").status_code == 204
    problem(running.delete("/models/shared/aliases/live"), 404, "not_found")
    problem(running.post("/models/shared@live/predict", json={"inputs": [example]}), 404, "not_found")


def test_deleting_versions(running: httpx.Client, rows: str) -> None:
    for _ in range(2):
        succeeded(running, submit(running, classify(rows, output={"model": "short"}, hyperparameters={"epochs": 1})))
    path = "/models/short/versions"
    running.put("/models/short/aliases/live", json={"version": 2})
    body = problem(running.delete(f"{path}/2"), 409, "conflict")
    assert '"live"' in body["detail"]
    assert body["hint"] == "Move or delete the alias first."
    running.delete("/models/short/aliases/live")
    assert running.delete(f"{path}/2").status_code == 204
    assert running.get("/models/short").json()["latest_version"] == 1
    assert running.get("/models/short/schema").json()["model"]["version"] == 1  # the newest that is left
    assert running.delete(f"{path}/1").status_code == 204
    assert "no version any more" in problem(running.get("/models/short/schema"), 404, "not_found")["detail"]
    job = succeeded(running, submit(running, classify(rows, output={"model": "short"}, hyperparameters={"epochs": 1})))
    assert job["result"]["version"] == 3


def test_a_base_model_stays(running: httpx.Client, rows: str) -> None:
    base = succeeded(
        running,
        submit(
            running,
            {
                "kind": "pretrain",
                "dataset": rows,
                "columns": {"ignore": ["diagnosis"]},
                "output": {"model": "kept"},
                "hyperparameters": {"epochs": 1},
            },
        ),
    )
    assert base["task"] == "masked-features"
    succeeded(
        running,
        submit(
            running, classify(rows, base_model="kept", columns={"target": "diagnosis"}, hyperparameters={"epochs": 1})
        ),
    )
    body = problem(running.delete("/models/kept/versions/1"), 409, "conflict")
    assert "base model" in body["detail"]
    assert running.get("/models/breast_cancer_train-tabular-classification").status_code == 200  # the default name


def test_the_curl_line_works_as_printed(running: httpx.Client, embedded: Stack, trained: dict[str, Any]) -> None:
    schema = running.get("/models/shared@production/schema").json()
    assert schema["input"]["properties"]
    assert schema["output"]
    assert schema["model"] == {"name": "shared", "version": 1, "alias": "production"}
    printed = subprocess.run(
        ["bash", "-c", schema["curl"]],
        env={**os.environ, "ANNEAL_API_KEY": embedded.key},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    answer = running.post("/models/shared@production/predict", json={"inputs": [schema["example"]]}).json()
    assert json.loads(printed.stdout)["outputs"] == answer["outputs"]
    assert answer["outputs"][0]["label"] in ("malignant", "benign")


def test_what_an_answer_says(running: httpx.Client, second: dict[str, Any], example: dict[str, Any]) -> None:
    answer = running.post("/models/shared:2/predict", json={"inputs": [example] * 3}).json()
    assert answer["id"].startswith("pred_")
    assert answer["task"] == "tabular-classification"
    assert len(answer["outputs"]) == 3
    assert answer["timing"]["batch_size"] == 3
    assert answer["timing"]["inference_ms"] > 0
    again = running.post("/models/shared:2/predict", json={"inputs": [example]}).json()
    assert again["timing"]["load_ms"] == 0


def stored(stack: Stack, ref: str) -> tuple[str, dict[str, ArtifactRecord], int]:
    database = stack_database(stack)
    with database.read() as session:
        version = models.resolve(session, keys.DEFAULT_PROJECT, ref)
        files = models.files(session, version.record.id)
    database.close()
    return (
        version.record.id,
        files,
        sum(file.bytes for file in files.values()),
    )


def test_a_model_whose_files_are_damaged(embedded: Stack, running: httpx.Client, rows: str) -> None:
    job = succeeded(
        running, submit(running, classify(rows, output={"model": "damaged"}, seed=99, hyperparameters={"epochs": 1}))
    )
    assert job["result"]["ref"] == "damaged:1"
    digest = stored(embedded, "damaged")[1]["model.safetensors"].sha256
    path = ArtifactStore(embedded.data_dir / "artifacts").path(digest)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    problem(running.post("/models/damaged/predict", json={"inputs": [{}]}), 500, "corrupt_artifact")
    path.write_bytes(whole)
    assert running.post("/models/damaged/predict", json={"inputs": [{}]}).status_code == 200
