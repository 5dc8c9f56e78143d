"""Recordings through the front door: upload, look, finetune, predict; and what is wrong with a recording."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest
import soundfile
from huggingface_hub import InferenceClient
from media_files import packed, tone, wav
from servers import Stack
from support import SHARED, classify, problem, submit, succeeded, upload

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
TINY = {"name": "conv-transformer", "size": "tiny"}
REAL = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not in shared/data beside the repository")


def glide(number: int, rising: bool) -> bytes:
    """A tone that rises or falls, of another pitch and length each time."""
    return tone(0.1 + number % 7 / 50, pitch=350 + number * 37 % 500, rise=2.2 if rising else 0.45)


def glides(path: Path, count: int, first: int = 0) -> Path:
    numbers = range(first, first + count)
    members = {f"{'rising' if n % 2 else 'falling'}/{n}.wav": glide(n, n % 2 == 1) for n in numbers}
    return packed(path, members)


def as_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.fixture(scope="module")
def heard(running: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A succeeded job whose model `glides` tells rising tones from falling ones."""
    folder = tmp_path_factory.mktemp("glides")
    train, test = upload(running, glides(folder / "train.zip", 60)), upload(running, glides(folder / "t.zip", 20, 100))
    assert [(one["task"], one["target"]) for one in train["task_candidates"]] == [
        ("audio-classification", "label"),
        ("contrastive-audio", None),
        ("masked-audio", None),
    ]
    assert train["warnings"] == []
    job = succeeded(running, submit(running, {
        "kind": "finetune", "task": "audio-classification", "architecture": TINY, "columns": {"target": "label"},
        "dataset": {"train": train["id"], "test": test["id"]}, "output": {"model": "glides"},
        "hyperparameters": {"epochs": 25, "learning_rate": 3e-3},
    }))  # fmt: skip
    return {**job, "train": train["id"], "test": test["id"]}


def test_upload_finetune_predict(running: httpx.Client, heard: dict[str, Any]) -> None:
    assert heard["result"]["metrics"]["test"]["accuracy"] > 0.85
    assert heard["warnings"] == []
    drawn = running.get("/models/glides/versions/1").json()["pictures"]
    assert {"confusion-matrix", "precision-recall", "roc"} <= set(drawn)
    answered = succeeded(
        running, running.post("/models/glides/predict-dataset", json={"dataset": heard["test"]}).json()["id"]
    )
    assert answered["result"]["errors"] == 0
    card = running.get("/models/glides/schema").json()
    assert card["input"]["anyOf"][0]["contentMediaType"] == "audio/*"
    body = card["curl"].split("-d '")[1].removesuffix("'")
    example = running.post("/models/glides/predict", content=body, headers={"Content-Type": "application/json"})
    assert example.json()["errors"] == []
    (seen,) = running.get(f"/datasets/{heard['train']}/preview", params={"model": "glides", "rows": 1}).json()["seen"]
    assert seen["spectrogram"].startswith("data:image/png;base64,")
    assert (seen["mels"], seen["rate"], seen["warnings"]) == (40, 8000, [])


def test_upload_pretrain_finetune_predict(
    embedded: Stack, running: httpx.Client, heard: dict[str, Any], tmp_path: Path
) -> None:
    members = {f"{n}.wav": glide(n, n % 2 == 1) for n in range(300, 340)}
    unlabelled = upload(running, packed(tmp_path / "unlabelled.zip", members))
    candidates = [(one["task"], one["target"]) for one in unlabelled["task_candidates"]]
    assert candidates == [("contrastive-audio", None), ("masked-audio", None)]
    # Neither task nor architecture is named: the data say what they are.
    base = succeeded(running, submit(running, {
        "kind": "pretrain", "dataset": unlabelled["id"], "hyperparameters": {"max_steps": 8},
        "architecture": TINY, "output": {"model": "glides-base"},
    }))  # fmt: skip
    assert base["task"] == "contrastive-audio"
    answer = running.post("/models/glides-base/predict", json={"inputs": [as_base64(glide(7, True))]}).json()
    assert len(answer["outputs"][0]["embedding"]) == 32
    tuned = succeeded(running, submit(running, {
        "kind": "finetune", "task": "audio-classification", "base_model": "glides-base",
        "columns": {"target": "label"}, "dataset": {"train": heard["train"], "test": heard["test"]},
        "hyperparameters": {"epochs": 25, "learning_rate": 3e-3}, "output": {"model": "tuned-glides"},
    }))  # fmt: skip
    assert tuned["result"]["metrics"]["test"]["accuracy"] > 0.85
    assert tuned["warnings"] == []
    inputs = [as_base64(glide(201, True)), as_base64(glide(202, False))]
    found = running.post("/models/tuned-glides/predict", json={"inputs": inputs}).json()
    assert [output["label"] for output in found["outputs"]] == ["rising", "falling"]
    hub = InferenceClient(model=f"{embedded.url}/hf/models/tuned-glides", token=embedded.key)
    for ranked in (hub.audio_classification(glide(201, True)), hub.audio_classification(glide(201, True), top_k=2)):
        assert [one.label for one in ranked] == ["rising", "falling"]
        assert ranked[0].score == pytest.approx(found["outputs"][0]["score"], abs=1e-4)


def test_the_worst_mistakes_are_drawn_as_their_spectrograms(running: httpx.Client, heard: dict[str, Any]) -> None:
    job = succeeded(running, submit(running, {
        "kind": "finetune", "task": "audio-classification", "architecture": TINY, "columns": {"target": "label"},
        "dataset": {"train": heard["train"], "test": heard["test"]}, "output": {"model": "deaf"},
        "hyperparameters": {"max_steps": 1, "learning_rate": 1e-6},
    }))  # fmt: skip
    counts = job["result"]["metrics"]["test"]["confusion_matrix"]["counts"]
    wrong = counts[0][1] + counts[1][0]
    assert wrong >= 5, counts
    address = running.get("/models/deaf/versions/1").json()["pictures"]["mistakes"]
    response = running.get(address.removeprefix("/api/v1"))
    assert (response.status_code, response.headers["content-type"]) == (200, "image/svg+xml")
    drawing = ElementTree.fromstring(response.text)
    lines = ["".join(one.itertext()) for one in drawing.iter(f"{SVG}text")]
    shown = min(wrong, 12)
    assert f"{f'{shown} of {wrong}' if wrong > shown else f'all {wrong}'} mistakes on 20 test rows" in lines
    named = [re.fullmatch(r"0\.\d s, row (\d+), (\w+)/\d+\.wav", line) for line in lines]
    tiles = [(int(found[1]), found[2]) for found in named if found]
    images = [one.get("href") or one.get(f"{LINK}href") for one in drawing.iter(f"{SVG}image")]
    assert len(images) == len(tiles) == shown
    preview = running.get(f"/datasets/{heard['test']}/preview", params={"model": "deaf", "rows": 20}).json()
    assert images == [preview["seen"][row - 1]["spectrogram"] for row, _ in tiles]
    # What a recording is, by its folder, is what is written as its label, and it was taken for the other.
    meant = [line.removeprefix("is ").split(",")[0] for line in lines if line.startswith("is ")]
    assert meant == [label for _, label in tiles]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"task_config": {"augmentation": "photo"}}, "task_config.augmentation", "'photo'"),
        ({"task_config": {"temperature": 0}}, "task_config.temperature", "0"),
        ({"architecture": "resnet"}, "architecture", 'Architecture "resnet" is for image data'),
    ],
)
def test_what_is_wrong_with_a_pretraining_is_said_before_it_is_queued(
    running: httpx.Client, heard: dict[str, Any], fields: dict[str, Any], param: str, said: str
) -> None:
    body = {"kind": "pretrain", "task": "contrastive-audio", "dataset": heard["train"], **fields}
    response = running.post("/jobs", json=body)
    found = problem(response, 422, response.json()["code"])
    assert found["param"].startswith(param)
    assert said in found["detail"]


def test_a_recording_comes_as_it_is_in_a_form_or_as_base64(running: httpx.Client, heard: dict[str, Any]) -> None:
    content = glide(201, True)
    url = "/models/glides/predict"
    as_json = running.post(url, json={"inputs": [as_base64(content), {"audio": as_base64(content)}]}).json()
    raw = running.post(url, content=content, headers={"Content-Type": "audio/wav"}).json()
    form = running.post(url, files=[("inputs", ("a.wav", content, "audio/wav")), ("inputs", ("b.wav", content))]).json()
    outputs = [*as_json["outputs"], *raw["outputs"], *form["outputs"]]
    assert [output["label"] for output in outputs] == ["rising"] * 5
    assert max(output["score"] for output in outputs) - min(output["score"] for output in outputs) < 1e-4
    assert raw["errors"] == form["errors"] == []
    refused = running.post(url, content=b"rising", headers={"Content-Type": "text/plain"})
    assert refused.status_code == 415
    assert "audio/*" in refused.text


def written(content: bytes, format: str, subtype: str | None = None) -> bytes:
    """A recording in another format."""
    samples_NC, rate = soundfile.read(io.BytesIO(content), always_2d=True)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples_NC, rate, subtype=subtype, format=format)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("format", "subtype", "type"),
    [
        ("WAV", "PCM_U8", "audio/wav"),
        ("FLAC", None, "audio/flac"),
        ("OGG", None, "audio/ogg"),
        ("MP3", None, "audio/mpeg"),
    ],
)
def test_a_recording_may_be_of_any_format(
    running: httpx.Client, heard: dict[str, Any], format: str, subtype: str | None, type: str
) -> None:
    contents = [written(glide(number, rising), format, subtype) for number, rising in ((201, True), (202, False))]
    for content, label in zip(contents, ("rising", "falling"), strict=True):
        answer = running.post("/models/glides/predict", content=content, headers={"Content-Type": type}).json()
        assert (answer["errors"], answer["warnings"]) == ([], [])
        assert [output["label"] for output in answer["outputs"]] == [label]
    cut = contents[0][: len(contents[0]) // 2]
    refused = running.post("/models/glides/predict", content=cut, headers={"Content-Type": type})
    answer = running.post("/models/glides/predict", json={"inputs": [as_base64(cut), as_base64(contents[1])]}).json()
    assert "cut off" in refused.text or "cannot be decoded" in refused.text
    assert "0x" not in refused.text
    assert [error["index"] for error in answer["errors"]] == [0]
    assert answer["outputs"][1]["label"] == "falling"


def test_a_recording_that_is_too_large_for_a_request_is_told_of_the_job_that_takes_it(
    running: httpx.Client, heard: dict[str, Any]
) -> None:
    recording = wav(np.zeros((33 << 19, 1)))
    refused = running.post("/models/glides/predict", content=recording, headers={"Content-Type": "audio/wav"})
    assert "POST /api/v1/models/{ref}/predict-dataset" in problem(refused, 413, "too_large")["hint"]


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"", "invalid_input", "the file is empty"),
        (glide(1, True)[:-200], "invalid_input", "is a WAV recording cut off"),
        (b"RIFF\x04\0\0\0WAVE", "invalid_input", "that cannot be decoded: Error in WAV file. No 'data' chunk marker."),
        (
            tone()[:24] + bytes(4) + tone()[28:],
            "invalid_input",
            "its rate or number of channels is none that there can be",
        ),
        (wav(np.zeros((0, 1))), "invalid_input", "is a recording without a sample"),
        (b"\x89PNG\r\n\x1a\n", "invalid_input", "is a PNG image"),
        (tone(0.2, channels=8), "mixed_channels", "the mean of the 8 channels is read"),
        (tone(0.2, 96_000), "resampled", "resampled from 96000 to 8000 samples a second"),
        (wav(np.zeros((1600, 1))), "silent", "the recording is silent"),
        (tone(31), "truncated", "only the first 30 of 31.0 s are read"),
    ],
)
def test_what_is_odd_about_a_recording_is_said(
    running: httpx.Client, heard: dict[str, Any], content: bytes, code: str, said: str
) -> None:
    body = {"inputs": [as_base64(content), as_base64(glide(202, False))]}
    answer = running.post("/models/glides/predict", json=body).json()
    (found,) = answer["errors"] or answer["warnings"]
    assert (found["index"], found["code"]) == (0, code)
    assert said in found["message"]
    assert (answer["outputs"][0] is None) == (code == "invalid_input")
    assert answer["outputs"][1]["label"] == "falling"


def test_a_job_says_what_of_its_recordings_is_not_read_as_it_is(running: httpx.Client, tmp_path: Path) -> None:
    odd = {
        "a/stereo.wav": tone(0.2, channels=2),
        "a/fast.wav": tone(0.2, 96_000),
        "b/silent.wav": wav(np.zeros((900, 1))),
    }
    plain = {f"{'ab'[n % 2]}/{n}.wav": glide(n, n % 2 == 1) for n in range(8)}
    dataset = upload(running, packed(tmp_path / "odd.zip", {**plain, **odd}))
    job = succeeded(running, submit(running, {
        "kind": "finetune", "task": "audio-classification", "architecture": TINY, "columns": {"target": "label"},
        "dataset": dataset["id"], "hyperparameters": {"max_steps": 2},
    }))  # fmt: skip
    said = " ".join(warning["message"] if isinstance(warning, dict) else warning for warning in job["warnings"])
    assert "1 training recording has more than one channel; their mean is read." in said
    assert "1 training recording has another rate than 8000" in said
    assert "1 training recording is silent" in said


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"architecture": "resnet"}, "architecture", 'Architecture "resnet" is for image data'),
        ({"preprocessing": {"mels": 4}}, "preprocessing.mels", "4"),
        ({"preprocessing": {"rate": 300}}, "preprocessing.rate", "300"),
        ({"task_config": {"augmentation": "loud"}}, "task_config.augmentation", "'loud'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_queued(
    running: httpx.Client, heard: dict[str, Any], fields: dict[str, Any], param: str, said: str
) -> None:
    body = {"kind": "finetune", "task": "audio-classification", "columns": {"target": "label"}}
    response = running.post("/jobs", json={**body, "dataset": heard["train"], **fields})
    found = problem(response, 422, response.json()["code"])
    assert found["param"].startswith(param)
    assert said in found["detail"]


def test_a_table_holds_no_recordings(running: httpx.Client, rows: str) -> None:
    found = problem(running.post("/jobs", json=classify(rows, task="audio-classification")), 422, "invalid_data")
    assert "learns from recordings, and no column to read holds any" in found["detail"]


@REAL
def test_real_words_from_upload_to_prediction(running: httpx.Client) -> None:
    train = upload(running, SHARED / "fsdd_few10_word.zip")
    test = upload(running, SHARED / "fsdd_test.zip")
    job = succeeded(running, submit(running, {
        "kind": "finetune", "task": "audio-classification", "dataset": {"train": train["id"], "test": test["id"]},
        "columns": {"target": "text"}, "hyperparameters": {"max_steps": 60}, "output": {"model": "digits"},
    }))  # fmt: skip
    assert job["result"]["metrics"]["test"]["accuracy"] > 0.3
    assert len(job["result"]["metrics"]["test"]["confusion_matrix"]["labels"]) == 10
