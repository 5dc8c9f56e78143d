"""Detection through the front door: a zip in COCO's form, pretraining, finetuning, boxes; and what is wrong with it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from media_files import coco, encoded, packed, picture
from PIL import Image
from servers import Stack
from support import SHARED, finished, submit, succeeded, upload

SIZE = (40, 30)
TINY = {"name": "resnet", "depths": [1, 1, 1], "widths": [8, 16, 32]}
HEAD = {"detector_config": {"stride": 4, "width": 24}}
REAL = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not in shared/data beside the repository")


def scene(number: int) -> tuple[bytes, list[tuple[str, list[float]]]]:
    """A dim picture with one red and one blue square on it, apart from each other, and where they are."""
    generator = np.random.default_rng(number)
    image = picture(number, SIZE).point(lambda value: value // 4)
    boxes = []
    for half, (label, colour) in enumerate((("blue", (30, 30, 250)), ("red", (250, 30, 30)))):
        side = int(generator.integers(8, 13))
        left, top = 20 * half + int(generator.integers(0, 20 - side)), int(generator.integers(0, SIZE[1] - side))
        image.paste(colour, (left, top, left + side, top + side))
        boxes.append((label, [left, top, side, side]))
    return encoded(image), boxes


def scenes(path: Path, numbers: range) -> Path:
    made = {f"images/{number}.png": scene(number) for number in numbers}
    sheet = coco({name.removeprefix("images/"): boxes for name, (_, boxes) in made.items()}, SIZE)
    return packed(path, {"annotations.json": sheet, **{name: content for name, (content, _) in made.items()}})


def detect(dataset: Any, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "finetune", "task": "object-detection", "dataset": dataset, "columns": {"target": "objects"},
        "hyperparameters": {"epochs": 30, "learning_rate": 4e-3}, "task_config": HEAD, **fields,
    }  # fmt: skip


def overlap(found: dict[str, Any], box: list[float]) -> float:
    x, y, width, height = box
    wide = min(found["x"] + found["width"], x + width) - max(found["x"], x)
    high = min(found["y"] + found["height"], y + height) - max(found["y"], y)
    shared = max(0, wide) * max(0, high)
    return shared / (found["width"] * found["height"] + width * height - shared)


def test_upload_pretrain_detect_predict(stack: Stack, api: httpx.Client, tmp_path: Path) -> None:
    train = upload(api, scenes(tmp_path / "scenes.zip", range(48)))
    test = upload(api, scenes(tmp_path / "test.zip", range(100, 116)))
    assert [(c["task"], c["target"]) for c in train["task_candidates"]] == [
        ("object-detection", "objects"),
        ("contrastive-images", None),
    ]
    succeeded(api, submit(api, {
        "kind": "pretrain", "dataset": train["id"], "architecture": TINY, "preprocessing": {"size": 40},
        "hyperparameters": {"max_steps": 3}, "output": {"model": "scenes-base"},
    }))  # fmt: skip
    parts = {"train": train["id"], "test": test["id"]}
    tuned = succeeded(api, submit(api, detect(parts, base_model="scenes-base", output={"model": "scenes"})))
    measured = tuned["result"]["metrics"]["test"]
    assert set(measured["classes"]) == {"blue", "red"}
    assert measured["objects"] == 32
    assert measured["map50"] > 0.8, measured
    version = api.get("/models/scenes/versions/1").json()
    assert version["metrics"]["test"]["map50"] == measured["map50"]
    assert set(version["pictures"]) == {"detections", "precision-recall"}
    drawn = api.get(version["pictures"]["detections"].removeprefix("/api/v1")).text
    assert drawn.count("<image") == 12
    assert "with scores of at least 0.3" in drawn

    content, boxes = scene(200)
    inputs = [base64.b64encode(content).decode()]
    answer = api.post("/models/scenes/predict", json={"inputs": inputs, "parameters": {"threshold": 0.2, "top_k": 2}})
    found = {one["label"]: one for one in answer.json()["outputs"][0]["objects"]}
    assert set(found) == {"blue", "red"}
    for label, box in boxes:
        assert overlap(found[label], box) > 0.5
    # A picture of the same, four times as large, as the body of the request.
    large = encoded(Image.open(io.BytesIO(content)).resize((160, 120), Image.Resampling.NEAREST))
    raw = api.post("/models/scenes/predict", content=large, headers={"Content-Type": "image/png"}).json()
    again = {one["label"]: one for one in raw["outputs"][0]["objects"]}
    for label, box in boxes:
        assert overlap(again[label], [4 * side for side in box]) > 0.5
    drawn = api.post("/models/scenes/predict", json={"inputs": inputs, "parameters": {"drawn": True}}).json()
    png = base64.b64decode(drawn["outputs"][0]["image"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(png)).size == SIZE
    hub = InferenceClient(model=f"{stack.url}/hf/models/scenes", token=stack.key)
    for boxed in (hub.object_detection(content), hub.object_detection(content, threshold=0.2)):
        first = {one.label: one for one in reversed(boxed)}
        assert set(first) == {"blue", "red"}
        for label, (x, y, width, height) in boxes:
            corners = first[label].box
            there = (corners.xmin, corners.ymin, corners.xmax, corners.ymax)
            assert there == pytest.approx((x, y, x + width, y + height), abs=3)
    wrong = api.post("/models/scenes/predict", json={"inputs": inputs, "parameters": {"threshold": 2}})
    assert wrong.status_code == 422
    assert "threshold" in wrong.text
    listed = succeeded(api, api.post("/models/scenes/predict-dataset", json={"dataset": test["id"]}).json()["id"])
    assert (listed["result"]["rows"], listed["result"]["errors"]) == (16, 0)


def test_wrong_annotations_are_named(running: httpx.Client, tmp_path: Path) -> None:
    content, boxes = scene(1)
    sheet = coco({"a.png": [*boxes, ("red", [30, 20, 25, 5])]}, SIZE)
    outside = upload(running, packed(tmp_path / "o.zip", {"annotations.json": sheet, "a.png": content}))
    (error,) = outside["validation"]["errors"]
    assert (error["rule"], error["row"]) == ("box_outside", 1)
    assert "reaches 15 pixels out of the image, 40 x 30" in error["message"]
    odd = coco({"a.png": boxes}, SIZE, categories=[{"id": 7, "name": "blue"}])
    (error,) = upload(running, packed(tmp_path / "u.zip", {"annotations.json": odd, "a.png": content}))["validation"][
        "errors"
    ]
    assert (error["rule"], "unknown category 8" in error["message"]) == ("unknown_category", True)


def test_what_cannot_be_detected_is_refused(api: httpx.Client, tmp_path: Path) -> None:
    empty = {f"{number}.png": scene(number)[0] for number in range(6)}
    sheet = coco({name: [] for name in empty}, SIZE, categories=[{"id": 1, "name": "red"}])
    blank = upload(api, packed(tmp_path / "empty.zip", {"annotations.json": sheet, **empty}))
    assert blank["status"] == "ready"
    failed = finished(api, submit(api, detect(blank["id"])))
    assert failed["status"] == "failed"
    assert "has no object in any of the" in failed["error"]["message"]
    some = upload(api, scenes(tmp_path / "some.zip", range(6)))
    wrong = api.post("/jobs", json=detect(some["id"], columns={"target": "file"}))
    assert (wrong.status_code, "Predict objects." in wrong.text) == (422, True)
    none = api.post("/jobs", json=detect(some["id"], task_config={"detector": "anchors"}))
    assert (none.status_code, "there is no detector" in none.text) == (422, True)


@REAL
@pytest.mark.slow
def test_blood_cells(api: httpx.Client) -> None:
    parts = {part: upload(api, SHARED / f"bccd_{part}.zip")["id"] for part in ("train", "test")}
    body = detect(
        parts, task_config={"augmentation": "overhead"},
        hyperparameters={"epochs": 15, "precision": "bf16"}, output={"model": "cells"},
    )  # fmt: skip
    measured = succeeded(api, submit(api, body), 520)["result"]["metrics"]["test"]
    assert measured["map50"] > 0.75, measured
