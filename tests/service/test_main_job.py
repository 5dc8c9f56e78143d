"""The main job through the front door, on both columns: upload, pretrain, finetune, predict."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import httpx

DATA = Path(__file__).parents[2] / "anneal" / "data"


def upload(api: httpx.Client, path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        created = api.post("/datasets", files={"file": (path.name, file)})
    assert created.status_code == 201, created.text
    ready = api.get(f"/datasets/{created.json()['id']}", params={"wait": 60}).json()
    assert ready["status"] == "ready", ready
    return ready


def run(api: httpx.Client, **spec: Any) -> dict[str, Any]:
    created = api.post("/jobs", json=spec)
    assert created.status_code == 202, created.text
    job = api.get(f"/jobs/{created.json()['id']}", params={"wait": 60}).json()
    assert job["status"] == "succeeded", job
    return job


def test_pretrain_finetune_predict(api: httpx.Client) -> None:
    unlabelled, few, test = (upload(api, DATA / f"breast_cancer_{n}.csv") for n in ("unlabeled", "few10", "test"))
    assert (unlabelled["num_rows"], few["num_rows"], test["num_rows"]) == (456, 20, 113)
    base = run(
        api,
        kind="pretrain",
        task="masked-features",
        dataset=unlabelled["id"],
        hyperparameters={"epochs": 20},
        output={"model": "base"},
    )
    assert base["result"]["ref"].startswith("base:")
    tuned = run(
        api,
        kind="finetune",
        task="tabular-classification",
        base_model="base",
        compare=True,
        columns={"target": "diagnosis"},
        dataset={"train": few["id"], "test": test["id"]},
        output={"model": "tuned", "aliases": ["production"]},
    )
    comparison = tuned["result"]["comparison"]
    assert comparison["rows"] == 113
    assert comparison["gain"] == comparison["pretrained"]["accuracy"] - comparison["scratch"]["accuracy"]
    with (DATA / "breast_cancer_test.csv").open() as file:
        rows = list(csv.DictReader(file))
    truth = [row.pop("diagnosis") for row in rows]
    answer = api.post(
        "/models/tuned@production/predict",
        json={"inputs": [{name: float(value) for name, value in row.items()} for row in rows]},
    ).json()
    assert answer["model"] == {"name": "tuned", "version": tuned["result"]["version"], "alias": "production"}
    hits = sum(output["label"] == label for output, label in zip(answer["outputs"], truth, strict=True))
    # What the endpoint answers is what the job measured, to the row.
    assert hits / len(truth) == comparison["pretrained"]["accuracy"] > 0.85
    preview = api.get(f"/datasets/{test['id']}/preview", params={"model": "tuned", "rows": 2}).json()
    assert [set(seen["features"]) for seen in preview["seen"]] == [set(rows[0])] * 2
    assert all(abs(value) < 10 for seen in preview["seen"] for (value, *_) in seen["features"].values())
    other = api.post("/datasets", files={"file": ("other.csv", "a,b\n1,2\n")}).json()["id"]
    assert api.get(f"/datasets/{other}", params={"wait": 60}).json()["status"] == "ready"
    refused = api.get(f"/datasets/{other}/preview", params={"model": "tuned"})
    assert (refused.status_code, refused.json()["param"]) == (422, "dataset")
    lineage = api.get(f"/models/tuned/versions/{tuned['result']['version']}/lineage").json()
    assert lineage["base_model"] == "base"
    assert lineage["datasets"]["train"]["sha256"] == few["sha256"]
