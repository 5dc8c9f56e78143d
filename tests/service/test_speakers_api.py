"""Voices through the front door: from recordings of speakers to who somebody is, and what a gallery does not hear."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from media_files import packed, wav
from servers import Stack
from sklearn.metrics import roc_curve
from support import problem, submit, succeeded, upload

RATE = 8000
TESTED = [(speaker, number) for speaker in range(200, 212) for number in range(4)]


def voice(speaker: int, number: int, samples: int = 1600, channels: int = 1, rate: int = RATE) -> bytes:
    """Somebody's recording: three tones that are this speaker's, each as loud as chance has it, with some noise."""
    tones = np.random.default_rng(1000 + speaker).uniform(200, 3500, 3)
    chance = np.random.default_rng([speaker, number])
    time_N = np.arange(samples) / rate
    samples_N = sum(
        chance.uniform(0.5, 1) * np.sin(2 * np.pi * pitch * time_N + chance.uniform(0, 6)) for pitch in tones
    )
    return wav(5_000 * (samples_N + chance.normal(0, 0.2, samples))[:, None].repeat(channels, 1), rate)


def silence(channels: int = 1) -> bytes:
    return wav(np.zeros((1600, channels)))


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def archive(path: Path, recordings: list[tuple[int, int]]) -> Path:
    return packed(path, {f"s{speaker:03}/{number}.wav": voice(speaker, number) for speaker, number in recordings})


@pytest.fixture(scope="module")
def voices(running: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The job of the model `voices`, tested on speakers whom it never heard."""
    folder = tmp_path_factory.mktemp("voices")
    train = upload(running, archive(folder / "voices.zip", [(s, number) for s in range(30) for number in range(4)]))
    test = upload(running, archive(folder / "test.zip", TESTED))
    return succeeded(running, submit(running, {
        "kind": "finetune", "task": "speaker-embedding", "architecture": {"name": "speaker-net", "size": "tiny"},
        "dataset": {"train": train["id"], "test": test["id"]}, "columns": {"target": "label"},
        "split": {"group": "label", "validation": 0.3}, "output": {"model": "voices"},
        "hyperparameters": {"epochs": 15, "batch_size": 16, "learning_rate": 3e-3},
        "task_config": {"embedding_size": 16},
    }))  # fmt: skip


@pytest.fixture
def gallery(running: httpx.Client, voices: dict[str, Any], request: pytest.FixtureRequest) -> str:
    """The address of a gallery of its own, named after the test."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:60]
    made = running.post("/galleries", json={"name": name, "model": "voices"})
    assert made.status_code == 201, made.text
    return f"/galleries/{name}"


def test_speakers_are_told_apart_who_were_never_heard(
    running: httpx.Client, voices: dict[str, Any], gallery: str
) -> None:
    measured = voices["result"]["metrics"]["validation"]
    assert measured["new_subjects"] == measured["subjects"] == 9
    assert measured["auc"] > 0.85, measured
    for speaker in (101, 102, 103):
        enrolled = {"name": f"speaker {speaker}", "inputs": [text(voice(speaker, number)) for number in range(3)]}
        answer = running.post(f"{gallery}/subjects", json=enrolled)
        assert (answer.status_code, answer.json()["warnings"]) == (201, [])
    asked = [text(voice(speaker, 9)) for speaker in (101, 102, 103)]
    found = running.post(f"{gallery}/identify", json={"inputs": asked}).json()
    names = [one["candidates"][0]["name"] for one in found["outputs"]]
    assert names == ["speaker 101", "speaker 102", "speaker 103"]
    assert found["warnings"] == []
    wrong = running.post(f"{gallery}/identify", json={"inputs": [text(b"no sound")]}).json()
    assert wrong["errors"][0]["code"] == "invalid_input"


def test_two_voices_are_verified(running: httpx.Client, voices: dict[str, Any], gallery: str) -> None:
    def verify(*recordings: tuple[int, int], **more: Any) -> dict[str, Any]:
        inputs = [text(voice(*one)) for one in recordings]
        answer = running.post(f"{gallery}/verify", json={"inputs": inputs, **more})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    pairs = [((101, 1), (101, 2)), ((101, 1), (102, 2))]
    same, other = (verify(*pair) for pair in pairs)
    vectors = running.post("/models/voices/predict", json={"inputs": [text(voice(101, n)) for n in (1, 2)]}).json()
    one, two = (np.array(output["embedding"]) for output in vectors["outputs"])
    assert same["score"] == pytest.approx(one @ two, abs=1e-4)
    assert same["threshold"]["source"] == "evaluation"
    for answer in (same, other):
        assert answer["verified"] == (answer["score"] >= answer["threshold"]["value"])
    # Between the two scores is a threshold by which the voices are one, and two.
    assert same["score"] > other["score"]
    between = (same["score"] + other["score"]) / 2
    assert [verify(*pair, threshold=between)["verified"] for pair in pairs] == [True, False]

    enrolled = {"name": "Ada", "inputs": [text(voice(101, number)) for number in (3, 4)]}
    assert running.post(f"{gallery}/subjects", json=enrolled).status_code == 201
    assert verify((101, 3), subject="Ada")["score"] == pytest.approx(1, abs=1e-4)
    named = verify((101, 1), subject="Ada", threshold=between)
    assert (named["subject"]["name"], named["score"]) == ("Ada", named["subject"]["score"])
    assert named["score"] > verify((102, 1), subject="Ada")["score"]
    form = [("file", ("1.wav", voice(101, 1), "audio/wav")), ("file", ("2.wav", voice(101, 2), "audio/wav"))]
    assert running.post(f"{gallery}/verify", files=form).json()["score"] == pytest.approx(same["score"], abs=1e-4)


def test_errors_of_verification_are_those_of_the_embeddings(running: httpx.Client, voices: dict[str, Any]) -> None:
    """The metrics of unheard speakers against those that scikit-learn's ROC curve of all pairs gives."""
    measured = voices["result"]["metrics"]["test"]
    assert measured["subjects"] == measured["new_subjects"] == 12
    inputs = [text(voice(*one)) for one in TESTED]
    outputs = running.post("/models/voices/predict", json={"inputs": inputs}).json()["outputs"]
    unit = np.array([output["embedding"] for output in outputs])
    numbers = list(combinations(range(len(TESTED)), 2))
    same = [TESTED[first][0] == TESTED[second][0] for first, second in numbers]
    scores = [float(unit[first] @ unit[second]) for first, second in numbers]
    assert measured["pairs"] == {"same": sum(same), "different": len(same) - sum(same)}
    false, true, _ = roc_curve(same, scores, drop_intermediate=False)
    missed = 1 - true
    nearest = np.abs(missed - false).argmin()
    assert measured["eer"] == pytest.approx((missed + false)[nearest] / 2, abs=0.005)
    # A target in a hundred, both mistakes as dear, by what refusing everybody costs.
    assert measured["min_dcf"] == pytest.approx((0.01 * missed + 0.99 * false).min() / 0.01, abs=0.005)
    assert 0 < measured["eer"] < 0.3, measured
    assert measured["eer"] < measured["min_dcf"] < 1, measured


ODD = [
    (voice(101, 20, channels=8), "mixed_channels", "the mean of the 8 channels is read."),
    (voice(101, 21, samples=3200, rate=2 * RATE), "resampled", "resampled from 16000 to 8000 samples a second."),
    (voice(101, 22, samples=31 * RATE), "truncated", "only the first 30 of 31.0 s are read."),
]


def test_a_gallery_warns_of_what_predict_warns_of(running: httpx.Client, gallery: str) -> None:
    inputs = [text(voice(101, 1)), *(text(content) for content, *_ in ODD)]
    expected = running.post("/models/voices/predict", json={"inputs": inputs}).json()["warnings"]
    assert [(one["index"], one["code"]) for one in expected] == [(n, code) for n, (_, code, _) in enumerate(ODD, 1)]
    assert all(said in one["message"] for one, (*_, said) in zip(expected, ODD, strict=True))

    key = {"Idempotency-Key": gallery}
    enrolled = [running.post(f"{gallery}/subjects", json={"name": "Ada", "inputs": inputs}, headers=key) for _ in "12"]
    assert [answer.status_code for answer in enrolled] == [201, 201]
    assert enrolled[0].json() == enrolled[1].json()
    subject = enrolled[0].json()
    assert (len(subject["samples"]), subject["warnings"]) == (4, expected)
    path = f"{gallery}/subjects/{subject['id']}"
    assert running.get(path).json() == {name: value for name, value in subject.items() if name != "warnings"}
    more = running.post(f"{path}/samples", content=ODD[0][0], headers={"Content-Type": "audio/wav"}).json()
    assert (len(more["samples"]), more["warnings"]) == (4, [{**expected[0], "index": 0, "message": (
        expected[0]["message"].replace("Input 1", "Input 0")
    )}])  # fmt: skip

    assert running.post(f"{gallery}/identify", json={"inputs": inputs}).json()["warnings"] == expected
    verified = running.post(f"{gallery}/verify", json={"inputs": inputs[:2]}).json()
    assert verified["warnings"] == expected[:1]
    named = running.post(f"{gallery}/verify", json={"inputs": inputs[:1], "subject": "Ada"}).json()
    assert (named["warnings"], named["score"]) == ([], pytest.approx(1, abs=1e-4))


def test_the_command_line_tells_warnings_by_their_files(
    embedded: Stack, running: httpx.Client, gallery: str, tmp_path: Path
) -> None:
    stereo, plain = tmp_path / "stereo.wav", tmp_path / "plain.wav"
    stereo.write_bytes(voice(101, 20, channels=2))
    plain.write_bytes(voice(101, 21))
    name = gallery.removeprefix("/galleries/")
    environment = {**os.environ, "ANNEAL_URL": embedded.url, "ANNEAL_API_KEY": embedded.key, "COLUMNS": "300"}
    for asked in (["enrol", name, "Ada", plain, stereo], ["identify", name, stereo], ["verify", name, plain, stereo]):
        command = [sys.executable, "-m", "anneal", "galleries", *map(str, asked)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        said = " ".join((ran.stdout + ran.stderr).split())
        assert "stereo.wav, warning: Input" in said, (asked, said)
        assert "the mean of the 2 channels is read." in said
        assert "plain.wav, warning" not in said


def test_nobody_is_known_by_silence(running: httpx.Client, gallery: str) -> None:
    enrol, quiet = f"{gallery}/subjects", text(silence(8))
    refused = problem(
        running.post(enrol, json={"name": "x", "inputs": [text(voice(101, 1)), quiet]}), 422, "empty_input"
    )
    assert refused["detail"] == 'Input 1, "audio": the recording is silent. Nobody can be known by it.'
    assert "send a file in which the subject can be heard" in refused["hint"]
    files = [("file", ("1.wav", silence(), "audio/wav"))]
    problem(running.post(enrol, data={"name": "x"}, files=files), 422, "empty_input")
    assert running.get(enrol).json()["data"] == []  # nothing of it was kept

    made = running.post(enrol, json={"name": "Ada", "inputs": [text(voice(101, 1))]}).json()
    problem(running.post(f"{enrol}/{made['id']}/samples", json={"inputs": [quiet]}), 422, "empty_input")
    assert running.get(gallery).json()["samples"] == 1

    asked = {"inputs": [quiet, text(b"no sound"), text(voice(101, 1, channels=2))]}
    found = running.post(f"{gallery}/identify", json=asked).json()
    assert found["outputs"][:2] == [None, None]
    assert found["outputs"][2]["candidates"][0]["score"] == pytest.approx(1, abs=1e-3)
    assert [(one["index"], one["code"]) for one in found["errors"]] == [(0, "empty_input"), (1, "invalid_input")]
    assert [(one["index"], one["code"]) for one in found["warnings"]] == [(0, "mixed_channels"), (2, "mixed_channels")]
    alone = running.post(f"{gallery}/identify", json={"inputs": [quiet]}).json()
    assert (alone["outputs"], alone["errors"][0]["code"]) == ([None], "empty_input")

    for pair in ({"inputs": [quiet, quiet]}, {"inputs": [quiet], "subject": "Ada"}):
        problem(running.post(f"{gallery}/verify", json=pair), 422, "empty_input")
