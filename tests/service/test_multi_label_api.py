"""Images with several labels each, through the front door: from a manifest to labels, on every route."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import InferenceClient
from media_files import encoded, packed
from PIL import Image
from servers import Stack
from support import problem, submit, succeeded, upload
from test_images_api import as_base64

TINY = {"name": "resnet", "size": "tiny"}
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}


def patches(number: int) -> tuple[bytes, list[str]]:
    """A grey picture with a patch of each of its colours, none at all now and then."""
    generator = np.random.default_rng(number)
    pixels = generator.integers(90, 140, (24, 24, 3), dtype=np.uint8)
    labels = [name for name in COLOURS if generator.random() < 0.5]
    for name, place in zip(labels, generator.permutation(9), strict=False):
        top, left = 8 * (place // 3), 8 * (place % 3)
        pixels[top : top + 8, left : left + 8] = COLOURS[name]
    return encoded(Image.fromarray(pixels)), labels


def lines_of(count: int, first: int = 0) -> tuple[dict[str, bytes], dict[str, list[str]]]:
    made = {f"{number}.png": patches(number) for number in range(first, first + count)}
    return {name: content for name, (content, _) in made.items()}, {name: labels for name, (_, labels) in made.items()}


@pytest.fixture(scope="module")
def colours(running: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A succeeded job that learned from JSON lines and was tested on a CSV with bars; its model is `colours`."""
    directory = tmp_path_factory.mktemp("colours")
    members, labels = lines_of(80)
    lines = "\n".join(json.dumps({"file": name, "labels": some}) for name, some in labels.items())
    train = upload(running, packed(directory / "train.zip", {"metadata.jsonl": lines, **members}))
    first = train["task_candidates"][0]
    assert (first["task"], first["target"]) == ("multi-label-image-classification", "labels")
    members, labels = lines_of(30, 500)
    rows = "\n".join(["file,labels", *(f"{name},{'|'.join(some) or '[]'}" for name, some in labels.items())])
    archive = packed(directory / "test.zip", {"manifest.csv": rows, **members})
    test = upload(running, archive, column_types=json.dumps({"labels": "strings"}))
    assert test["validation"]["error_count"] == 0
    job = succeeded(running, submit(running, {
        "kind": "finetune", "task": "multi-label-image-classification", "columns": {"target": "labels"},
        "dataset": {"train": train["id"], "test": test["id"]}, "architecture": TINY,
        "task_config": {"augmentation": "none"}, "split": {"validation": 0.2},
        "hyperparameters": {"epochs": 25, "learning_rate": 5e-3}, "output": {"model": "colours"},
    }))  # fmt: skip
    return {"job": job, "test": test["id"], "train": train["id"]}


def test_every_label_is_learned_and_measured(colours: dict[str, Any]) -> None:
    assert colours["job"]["warnings"] == []
    metrics = colours["job"]["result"]["metrics"]["test"]
    assert metrics["mean_average_precision"] > 0.95
    assert metrics["f1_micro"] > 0.85
    assert set(metrics["labels"]) == set(COLOURS)
    assert sum(one["count"] for one in metrics["labels"].values()) == sum(len(patches(n)[1]) for n in range(500, 530))


def test_answers_have_the_labels_that_are_likely_enough(running: httpx.Client, colours: dict[str, Any]) -> None:
    pictures = [patches(number) for number in range(900, 912)]
    inputs = [as_base64(content) for content, _ in pictures]
    outputs = running.post("/models/colours/predict", json={"inputs": inputs}).json()["outputs"]
    right = [set(output["labels"]) == set(labels) for output, (_, labels) in zip(outputs, pictures, strict=True)]
    assert sum(right) >= 9
    for output in outputs:
        shares = output["probabilities"]
        assert output["labels"] == [label for label in shares if shares[label] >= 0.5]
        assert list(shares.values()) == sorted(shares.values(), reverse=True)

    def asked(**parameters: Any) -> list[dict[str, Any]]:
        body = {"inputs": inputs, "parameters": parameters}
        answered: list[dict[str, Any]] = running.post("/models/colours/predict", json=body).json()["outputs"]
        return answered

    assert all(len(one["labels"]) == 3 for one in asked(threshold=0))
    assert all(set(one["labels"]) == set(one["probabilities"]) for one in asked(threshold=0.9))
    assert all("red" not in one["labels"] for one in asked(threshold={"red": 1}))
    for threshold, said in (({"rad": 0.1}, "which is no label. Did you mean"), (2, "threshold: Input should")):
        body = {"inputs": inputs, "parameters": {"threshold": threshold}}
        response = running.post("/models/colours/predict", json=body)
        assert response.status_code == 422
        assert said in response.text
    card = running.get("/models/colours/schema").json()
    assert card["output"]["properties"]["labels"]["items"]["enum"] == ["blue", "green", "red"]
    assert set(card["parameters"]["properties"]) == {"probabilities", "threshold", "top_k"}


def test_other_protocols_have_the_labels_too(embedded: Stack, running: httpx.Client, colours: dict[str, Any]) -> None:
    content, _ = next(one for one in map(patches, range(900, 930)) if len(one[1]) == 2)
    (native,) = running.post("/models/colours/predict", json={"inputs": [as_base64(content)]}).json()["outputs"]
    headers = {"Content-Type": "image/png"}
    hub = InferenceClient(model=f"{embedded.url}/hf/models/colours", token=embedded.key, headers=headers)
    found = hub.image_classification(content)
    assert [one.label for one in found] == list(native["probabilities"])
    assert [one.score for one in found] == pytest.approx(list(native["probabilities"].values()), abs=1e-5)
    tensor = {"name": "input", "datatype": "BYTES", "shape": [1], "data": [as_base64(content)]}
    answer = running.post(f"{embedded.url}/v2/models/colours/infer", json={"inputs": [tensor]}).json()
    outputs = {one["name"]: one for one in answer["outputs"]}
    assert json.loads(outputs["labels"]["data"][0]) == native["labels"]
    assert outputs["probabilities"]["shape"] == [1, 3]
    named = running.get(f"{embedded.url}/v2/models/colours").json()["outputs"]
    assert [(one["name"], one["datatype"], one["shape"]) for one in named] == [
        ("labels", "BYTES", [-1]),
        ("probabilities", "FP32", [-1, 3]),
    ]
    assert json.loads(named[1]["parameters"]["columns"]) == ["blue", "green", "red"]


def test_a_whole_dataset_is_answered_as_a_table(running: httpx.Client, colours: dict[str, Any]) -> None:
    body = {"dataset": colours["test"], "format": "parquet", "parameters": {"threshold": 0.4}}
    done = succeeded(running, running.post("/models/colours/predict-dataset", json=body).json()["id"])
    content = running.get(f"/jobs/{done['id']}/output").content
    table = pq.read_table(io.BytesIO(content))
    assert {f"probabilities.{label}" for label in COLOURS} < set(table.column_names)
    assert len([json.loads(labels) for labels in table.column("labels").to_pylist()]) == 30


@pytest.mark.parametrize(
    ("columns", "code", "said"),
    [
        ({"target": "file"}, "invalid_data", 'Column "file" holds string values, which are no lists of labels'),
        ({"targets": ["labels", "file"]}, "invalid_data", "of several targets each is a label"),
        ({}, "invalid_config", "predicts a column of lists of labels, or a column for each label; the job names none"),
    ],
)
def test_what_holds_no_labels_is_refused(
    running: httpx.Client, colours: dict[str, Any], columns: dict[str, Any], code: str, said: str
) -> None:
    body = {"kind": "finetune", "task": "multi-label-image-classification", "columns": columns}
    refused = problem(running.post("/jobs", json={**body, "dataset": colours["test"]}), 422, code)
    assert said in refused["detail"]
