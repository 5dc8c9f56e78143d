"""Images of every kind, and other tasks and networks on them, through the front door."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import transformers
from foreign_models import contents, zipped
from media_files import deep_png, encoded, packed, picture, png
from PIL import Image
from support import finished, submit, succeeded, upload

TINY = {"name": "resnet", "size": "tiny"}
FEW = {"max_steps": 6}
SIDE = 16


def shade(value: int, kind: str = "PNG") -> bytes:
    """A grey square of about one value."""
    noise = np.random.default_rng(value).integers(-8, 8, (SIDE, SIDE))
    return encoded(Image.fromarray(np.clip(value + noise, 0, 255).astype(np.uint8)).convert("RGB"), kind)


def shades(path: Path, classes: dict[str, int], each: int = 12) -> Path:
    """Folders of squares about as light as their class."""
    return packed(
        path, {f"{name}/{n}.png": shade(value + 2 * n) for name, value in classes.items() for n in range(each)}
    )


def as_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def tuned(api: httpx.Client, dataset: str, model: str, **more: Any) -> dict[str, Any]:
    """Finetune for a few steps and return the job."""
    body = {
        "kind": "finetune", "task": "image-classification", "dataset": dataset, "columns": {"target": "label"},
        "hyperparameters": FEW, "output": {"model": model}, **more,
    }  # fmt: skip
    return succeeded(api, submit(api, body))


@pytest.fixture(scope="module")
def two(running: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of dark and light squares."""
    return str(upload(running, shades(tmp_path_factory.mktemp("two") / "two.zip", {"dark": 20, "light": 200}))["id"])


@pytest.fixture(scope="module")
def three(running: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of three other classes."""
    classes = {"black": 8, "grey": 110, "white": 220}
    return str(upload(running, shades(tmp_path_factory.mktemp("three") / "three.zip", classes))["id"])


@pytest.fixture(scope="module")
def named(running: httpx.Client, two: str) -> str:
    """A classifier, by its name."""
    tuned(running, two, "squares", architecture=TINY, hyperparameters={"max_steps": 60, "learning_rate": 3e-3})
    return "squares"


def test_a_number_of_an_image(running: httpx.Client, tmp_path: Path) -> None:
    target = io.StringIO()
    values = range(20, 236, 6)
    csv.writer(target).writerows([("file", "light"), *((f"{value}.png", value / 255) for value in values)])
    path = packed(tmp_path / "light.zip", {"m.csv": target.getvalue(), **{f"{v}.png": shade(v) for v in values}})
    rows = upload(running, path)
    assert "image-regression" in [one["task"] for one in rows["task_candidates"]]
    job = tuned(
        running, rows["id"], "light", task="image-regression", columns={"target": "light"}, architecture=TINY,
        hyperparameters={"max_steps": 120, "learning_rate": 3e-3}, task_config={"augmentation": "none"},
    )  # fmt: skip
    assert job["result"]["metrics"]["train"]["rmse"] < 0.2
    inputs = [as_base64(shade(41)), as_base64(shade(203)), "none"]
    answer = running.post("/models/light/predict", json={"inputs": inputs}).json()
    dark, light, none = answer["outputs"]
    assert dark["value"] < light["value"]
    assert (none, [error["index"] for error in answer["errors"]]) == (None, [2])


def test_vgg(running: httpx.Client, two: str) -> None:
    job = tuned(running, two, "vgg", architecture={"name": "vgg", "size": "small"})
    assert job["spec"]["architecture"]["name"] == "vgg"
    (output,) = running.post("/models/vgg/predict", json={"inputs": [as_base64(shade(30))]}).json()["outputs"]
    assert set(output["probabilities"]) == {"dark", "light"}
    assert sum(output["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_a_classifier_is_the_base_of_one_of_other_classes(running: httpx.Client, named: str, three: str) -> None:
    tuned(running, three, "others", base_model=named)
    version = running.get("/models/others/versions/1").json()
    assert version["architecture"] == "resnet"
    lineage = running.get("/models/others/versions/1/lineage").json()
    assert lineage["base_model"] == named
    (output,) = running.post("/models/others/predict", json={"inputs": [as_base64(shade(10))]}).json()["outputs"]
    assert set(output["probabilities"]) == {"black", "grey", "white"}


def test_a_transformers_resnet_is_imported_and_finetuned(running: httpx.Client, two: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = transformers.ResNetForImageClassification(transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=3,
    )).eval()  # fmt: skip
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "preprocessor_config.json").write_text(
        '{"size": {"shortest_edge": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}'
    )
    made = running.post(
        "/models", files={"file": ("m.zip", zipped(contents(tmp_path / "theirs")))}, data={"model": "theirs"}
    )
    assert made.status_code == 202, made.text
    job = finished(running, made.json()["id"])
    assert (job["status"], job["result"]["model_type"]) == ("succeeded", "resnet"), job
    content = encoded(picture(5, (32, 32)))
    embedded = running.post("/models/theirs/embed", json={"inputs": [as_base64(content)]}).json()["embeddings"]
    pixels_CHW = torch.from_numpy(np.array(picture(5, (32, 32)))).permute(2, 0, 1) / 255
    mean, deviation = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    with torch.inference_mode():
        expected_D = theirs.resnet(((pixels_CHW - mean) / deviation)[None]).pooler_output.flatten()
    assert embedded[0] == pytest.approx(expected_D.tolist(), abs=1e-3)
    tuned(running, two, "from-theirs", base_model="theirs")
    (output,) = running.post("/models/from-theirs/predict", json={"inputs": [as_base64(content)]}).json()["outputs"]
    assert output["label"] in {"dark", "light"}


def test_a_file_as_it_is_is_an_input(running: httpx.Client, named: str) -> None:
    dark, light = shade(24), shade(204, "JPEG")
    url = f"/models/{named}/predict"
    expected = running.post(url, json={"inputs": [as_base64(dark), as_base64(light)]}).json()["outputs"]
    assert [one["label"] for one in expected] == ["dark", "light"]

    def labels(answer: httpx.Response) -> list[tuple[str, float]]:
        assert answer.status_code == 200, answer.text
        return [(one["label"], pytest.approx(one["score"], abs=1e-5)) for one in answer.json()["outputs"]]

    scores = [(one["label"], one["score"]) for one in expected]
    for kind, content, one in (
        ("application/octet-stream", dark, scores[0]), ("image/png", dark, scores[0]), ("image/jpeg", light, scores[1]),
    ):  # fmt: skip
        assert labels(running.post(url, content=content, headers={"Content-Type": kind})) == [one]
    files = [("file", ("a.png", dark, "image/png")), ("file", ("b.jpg", light, "image/jpeg"))]
    assert labels(running.post(url, files=files)) == scores
    refused = running.post(url, content=b"", headers={"Content-Type": "image/jpeg"}).json()
    assert (refused["outputs"], [one["index"] for one in refused["errors"]]) == ([None], [0])
    assert "is empty" in refused["errors"][0]["message"]


def test_unusual_images_are_read_and_warned_of(running: httpx.Client, tmp_path: Path) -> None:
    turned = picture(6, (20, 10))
    exif = turned.getexif()
    exif[0x0112] = 6
    grey = encoded(Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)))
    members = {
        "many/cmyk.jpg": encoded(picture(1, mode="CMYK"), "JPEG"), "many/grey16.png": grey,
        "many/colour16.png": deep_png(2, 3, 8), "many/w.webp": encoded(picture(4), "WEBP"),
        "many/turned.jpg": encoded(turned, "JPEG", exif=exif), "single/one.png": png(9),
    }  # fmt: skip
    rows = upload(running, packed(tmp_path / "odd.zip", members))
    assert (rows["status"], rows["num_rows"]) == ("ready", 6)
    said = {one["code"]: one["message"] for one in rows["warnings"]}
    for mode in ("CMYK", "I;16", "RGB;16"):
        assert f"1 of mode {mode}" in said["converted_images"]
    assert '"single"' in said["labels_once"]
    (media,) = [column["media"] for column in rows["columns"] if column["type"] == "image"]
    assert media["formats"] == {"JPEG": 2, "PNG": 3, "WebP": 1}
    shown = running.get(f"/datasets/{rows['id']}/preview").json()["rows"]
    (upright,) = [one["image"] for one in shown if one["file"] == "many/turned.jpg"]
    assert (upright["width"], upright["height"]) == (10, 20)


def test_an_image_of_no_byte_is_named(running: httpx.Client, tmp_path: Path) -> None:
    path = packed(tmp_path / "empty.zip", {"a/1.png": png(1), "a/2.png": b"", "b/3.png": png(3)})
    rows = upload(running, path)
    (error,) = rows["validation"]["errors"]
    assert (rows["status"], error["row"], error["value"]) == ("invalid", 2, "a/2.png")
    assert "is empty" in error["message"]
    assert upload(running, path, on_bad_rows="skip")["num_rows"] == 2
