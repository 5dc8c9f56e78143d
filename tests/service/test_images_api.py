"""Images through the front door: upload, look, pretrain, finetune, predict; and what is wrong with a request."""

from __future__ import annotations

import base64
import io
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient
from media_files import encoded, packed, picture, png
from PIL import Image
from servers import Stack
from support import SHARED, classify, problem, submit, succeeded, upload

TINY = {"name": "resnet", "size": "tiny"}
CURL = {"Content-Type": "application/json"}
REAL = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not in shared/data beside the repository")


def stripes(number: int, upright: bool) -> bytes:
    """A picture of stripes, upright or level, of other colours each time."""
    image = picture(number, (24, 20)).resize((3, 3)).resize((24, 20))
    for place in range(0, 24, 6):
        box = (place, 0, place + 3, 20) if upright else (0, place, 24, place + 3)
        image.paste((number * 37 % 256, 255, 255 - number % 200), box)
    return encoded(image, "JPEG" if number % 2 else "PNG")


def striped(path: Path, count: int, first: int = 0) -> Path:
    members = {
        f"{'upright' if number % 2 else 'level'}/{number}.{'jpg' if number % 2 else 'png'}": stripes(
            number, number % 2 == 1
        )
        for number in range(first, first + count)
    }
    return packed(path, members)


def as_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_upload_pretrain_finetune_predict(stack: Stack, api: httpx.Client, tmp_path: Path) -> None:
    unlabelled = upload(api, packed(tmp_path / "u.zip", {f"{n}.png": stripes(n * 2, n % 2 == 0) for n in range(40)}))
    labelled = upload(api, striped(tmp_path / "stripes.zip", 60))
    test = upload(api, striped(tmp_path / "test.zip", 30, 100))
    assert [(c["task"], c["target"]) for c in unlabelled["task_candidates"]] == [("contrastive-images", None)]
    assert [c["task"] for c in labelled["task_candidates"]] == ["image-classification", "contrastive-images"]
    assert labelled["warnings"] == []
    (images,) = [column["media"] for column in labelled["columns"] if column["type"] == "image"]
    assert images["formats"] == {"PNG": 30, "JPEG": 30}
    assert images["width"] == {"min": 24, "mean": 24.0, "max": 24}
    row = api.get(f"/datasets/{labelled['id']}/preview").json()["rows"][0]
    assert (row["label"], row["image"]["format"], row["image"]["height"]) == ("level", "PNG", 20)
    small = base64.b64decode(row["image"]["thumbnail"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(small)).size == (64, 53)
    assert (
        api.get(f"/datasets/{labelled['id']}/schema").json()["json_schema"]["properties"]["image"]["type"] == "object"
    )

    # Neither task nor architecture of the base model is named: the data say what they are.
    base = succeeded(api, submit(api, {
        "kind": "pretrain", "dataset": unlabelled["id"], "hyperparameters": {"max_steps": 6},
        "architecture": TINY, "output": {"model": "stripes-base"},
    }))  # fmt: skip
    assert base["task"] == "contrastive-images"
    tuned = succeeded(api, submit(api, {
        "kind": "finetune", "task": "image-classification", "base_model": "stripes-base", "compare": True,
        "columns": {"target": "label"}, "dataset": {"train": labelled["id"], "test": test["id"]},
        "hyperparameters": {"epochs": 12, "learning_rate": 3e-3}, "output": {"model": "stripes"},
    }))  # fmt: skip
    assert tuned["result"]["metrics"]["test"]["accuracy"] > 0.8
    assert tuned["result"]["comparison"]["rows"] == 30
    assert tuned["warnings"] == []

    (seen,) = api.get(f"/datasets/{labelled['id']}/preview", params={"model": "stripes", "rows": 1}).json()["seen"]
    square = Image.open(io.BytesIO(base64.b64decode(seen["image"].removeprefix("data:image/png;base64,"))))
    assert (square.size, square.mode, seen["warnings"]) == ((24, 24), "RGB", [])
    answered = succeeded(api, api.post("/models/stripes/predict-dataset", json={"dataset": test["id"]}).json()["id"])
    assert answered["result"]["errors"] == 0

    good = as_base64(stripes(201, True))
    inputs = [good, {"image": f"data:image/jpeg;base64,{good}"}, "no picture", as_base64(b"GIF89a"), 7]
    answer = api.post("/models/stripes/predict", json={"inputs": inputs, "parameters": {"top_k": 1}}).json()
    assert answer["outputs"][0] == answer["outputs"][1]
    assert answer["outputs"][0]["label"] == "upright"
    assert answer["outputs"][2:] == [None, None, None]
    assert [(error["index"], error["code"]) for error in answer["errors"]] == [(n, "invalid_input") for n in (2, 3, 4)]
    assert "is a GIF image" in answer["errors"][1]["message"]
    hub = InferenceClient(model=f"{stack.url}/hf/models/stripes", token=stack.key)
    for ranked in (hub.image_classification(stripes(201, True)), hub.image_classification(stripes(201, True), top_k=2)):
        assert [one.label for one in ranked] == ["upright", "level"]
        assert ranked[0].score == pytest.approx(answer["outputs"][0]["score"], abs=1e-5)
    embedded = api.post("/models/stripes-base/predict", json={"inputs": [good]}).json()
    assert len(embedded["outputs"][0]["embedding"]) == 64
    card = api.get("/models/stripes/schema").json()
    body = card["curl"].split("-d '")[1].removesuffix("'")
    assert api.post("/models/stripes/predict", content=body, headers=CURL).json()["errors"] == []


def test_two_images_are_learned_as_one_and_changed_at_random(running: httpx.Client, tmp_path: Path) -> None:
    body = {
        "kind": "finetune", "task": "image-classification", "architecture": TINY, "columns": {"target": "label"},
        "dataset": upload(running, striped(tmp_path / "mixed.zip", 60))["id"], "output": {"model": "mixed"},
        "task_config": {"augmentation": "random", "mix": "both"},
        "hyperparameters": {"epochs": 12, "learning_rate": 3e-3}, "split": {"validation": 0.3},
    }  # fmt: skip
    job = succeeded(running, submit(running, body))
    assert job["result"]["metrics"]["validation"]["accuracy"] > 0.7
    refused = running.post("/jobs", json={**body, "task_config": {"mix": "all"}})
    assert problem(refused, 422, refused.json()["code"])["param"] == "task_config.mix"
    assert "'mixup', 'cutmix' or 'both'" in refused.json()["detail"]


def test_a_damaged_image_is_named_skipped_or_set_aside(running: httpx.Client, tmp_path: Path) -> None:
    members = {"a/1.png": png(1), "a/2.png": png(2)[:-60], "b/3.png": png(3), "b/4.gif": encoded(picture(), "GIF")}
    path = packed(tmp_path / "some.zip", members)
    dataset = upload(running, path)
    assert dataset["status"] == "invalid"
    errors = dataset["validation"]["errors"]
    assert [(e["row"], e["column"], e["rule"], e["value"]) for e in errors] == [
        (2, "image", "damaged_image", "a/2.png"),
        (4, "image", "not_an_image", "b/4.gif"),
    ]
    kept = upload(running, path, on_bad_rows="quarantine")
    assert (kept["status"], kept["num_rows"], kept["validation"]["error_count"]) == ("ready", 2, 2)
    aside = running.get(f"/datasets/{kept['id']}/quarantine").text.splitlines()
    assert len(aside) == 2
    assert '"text": "a/2.png"' in aside[0]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"architecture": "bert"}, "architecture", 'Architecture "bert" is for text data'),
        ({"architecture": {"name": "resnet", "size": "19"}}, "architecture.size", "'19'"),
        ({"architecture": {"name": "resnet", "depths": [1, 1]}}, "architecture", "depths has 2 stages and widths 3"),
        ({"preprocessing": {"size": 4}}, "preprocessing.size", "4"),
        ({"preprocessing": {"fit": "squeeze"}}, "preprocessing.fit", "'squeeze'"),
        (
            {"preprocessing": {"normalization": {"mean": [0.5, 0.5], "deviation": [1, 1]}}},
            "preprocessing.normalization",
            "each needs 1 (grey) or 3 (red, green, blue)",
        ),
        (
            {"preprocessing": {"channels": "colour", "normalization": {"mean": [0.5], "deviation": [1]}}},
            "preprocessing.normalization",
            "of 1 channel (grey), but images are read in 3 channels (red, green, blue)",
        ),
        ({"task_config": {"augmentation": "strong"}}, "task_config.augmentation", "'strong'"),
        ({"columns": {"target": "lable"}}, "columns.target", 'Did you mean "label"?'),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_queued(
    running: httpx.Client, pictures: str, fields: dict[str, Any], param: str, said: str
) -> None:
    body = {"kind": "finetune", "task": "image-classification", "dataset": pictures, "columns": {"target": "label"}}
    response = running.post("/jobs", json={**body, **fields})
    found = problem(response, 422, response.json()["code"])
    assert found["param"].startswith(param)
    assert said in found["detail"]


@pytest.fixture(scope="module")
def pictures(running: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of some labelled images."""
    return str(upload(running, striped(tmp_path_factory.mktemp("data") / "stripes.zip", 20))["id"])


def test_images_are_no_table_and_a_table_no_images(running: httpx.Client, pictures: str, rows: str) -> None:
    body = {"kind": "finetune", "task": "tabular-classification", "dataset": pictures, "columns": {"target": "label"}}
    found = problem(running.post("/jobs", json=body), 422, "invalid_data")
    assert found["param"] == "columns"
    assert 'Column "image" holds images' in found["detail"]
    assert "columns.ignore" in found["hint"]
    found = problem(running.post("/jobs", json=classify(rows, task="image-classification")), 422, "invalid_data")
    assert found["param"] == "columns"
    assert "no column to read holds any" in found["detail"]


def test_a_dry_run_says_what_it_takes(running: httpx.Client, pictures: str) -> None:
    body = {"kind": "finetune", "task": "image-classification", "dataset": pictures, "columns": {"target": "label"}}
    found = running.post("/jobs", params={"dry_run": "true"}, json={**body, "architecture": TINY}).json()
    assert (found["valid"], found["errors"], found["train_rows"]) == (True, [], 20)
    grey = {"normalization": {"mean": [0.5], "deviation": [0.5]}}
    found = running.post("/jobs", params={"dry_run": "true"}, json={**body, "preprocessing": grey}).json()
    assert (found["valid"], [one["pointer"] for one in found["errors"]]) == (False, ["/preprocessing/normalization"])


def some_of(name: str, each: int) -> tuple[bytes, list[tuple[str, bytes]]]:
    """So many images of each class of a real archive, as an archive, and as pairs of label and image."""
    buffer = io.BytesIO()
    seen: dict[str, int] = {}
    pairs = []
    with zipfile.ZipFile(SHARED / name) as source, zipfile.ZipFile(buffer, "w") as target:
        for member in source.namelist():
            label = member.split("/")[0]
            seen[label] = seen.get(label, 0) + 1
            if seen[label] <= each:
                target.writestr(member, source.read(member))
                pairs.append((label, source.read(member)))
    return buffer.getvalue(), pairs


@REAL
@pytest.mark.parametrize(
    ("name", "steps", "least"),
    [("mnist", 60, 0.6), pytest.param("clothing10", 160, 0.15, marks=pytest.mark.slow)],
    ids=["mnist", "clothing10"],
)
def test_real_images_from_upload_to_prediction(api: httpx.Client, name: str, steps: int, least: float) -> None:
    train = upload(api, SHARED / f"{name}_few10.zip")
    content, pairs = some_of(f"{name}_test.zip", 10)
    test = upload(api, content, "test.zip")
    job = succeeded(api, submit(api, {
        "kind": "finetune", "task": "image-classification", "columns": {"target": "label"},
        "dataset": {"train": train["id"], "test": test["id"]}, "hyperparameters": {"max_steps": steps},
        "output": {"model": f"real-{name}"},
    }))  # fmt: skip
    measured = job["result"]["metrics"]["test"]
    assert measured["accuracy"] > least
    assert len(measured["confusion_matrix"]["labels"]) == 10
    inputs = [as_base64(image) for _, image in pairs]
    answer = api.post(f"/models/real-{name}/predict", json={"inputs": inputs}).json()
    assert answer["errors"] == []
    right = sum(output["label"] == label for output, (label, _) in zip(answer["outputs"], pairs, strict=True))
    assert right / len(pairs) == pytest.approx(measured["accuracy"], abs=0.011)
