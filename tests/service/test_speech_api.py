"""Transcripts through the front door: upload, finetune, predict, and when words are heard."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from media_files import packed, wav
from servers import Stack
from support import problem, submit, succeeded, upload

from learning.transcripts import distance, words, words_with_places

RATE = 8000
# Each letter is a tone; a short silence parts letters, a long one words.
PITCHES = {"a": 400, "b": 750, "c": 1300, "好": 2400}
BETWEEN_A_AND_B = {"m": 560}
LETTER, BETWEEN, SPACE = 0.07, 0.03, 0.15


def said(text: str) -> bytes:
    """A recording of a text, letter by letter."""
    time_N = np.arange(round(LETTER * RATE)) / RATE
    parts = [np.zeros(round(BETWEEN * RATE))]
    for letter in text:
        if letter == " ":
            parts.append(np.zeros(round(SPACE * RATE)))
        else:
            pitch = {**PITCHES, **BETWEEN_A_AND_B}[letter]
            parts += [12_000 * np.sin(2 * np.pi * pitch * time_N), np.zeros(round(BETWEEN * RATE))]
    return wav(np.concatenate(parts)[:, None], RATE)


def texts(count: int, seed: int) -> list[str]:
    generator = random.Random(seed)
    word = lambda: "".join(generator.choices(list(PITCHES), k=generator.randint(1, 3)))  # noqa: E731
    return [" ".join(word() for _ in range(generator.randint(1, 3))) for _ in range(count)]


def spoken(path: Path, transcripts: list[str]) -> Path:
    lines = ["file,transcript", *(f"wav/{number}.wav,{text}" for number, text in enumerate(transcripts))]
    files = {f"wav/{number}.wav": said(text) for number, text in enumerate(transcripts)}
    return packed(path, {"manifest.csv": "\n".join(lines) + "\n", **files})


JOB = {
    "kind": "finetune",
    "task": "speech-recognition",
    "architecture": {"name": "deepspeech", "size": "tiny"},
    "columns": {"target": "transcript"},
}


@pytest.fixture(scope="module")
def writes(running: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A succeeded job whose model `letters` writes down tones."""
    folder = tmp_path_factory.mktemp("letters")
    train = upload(running, spoken(folder / "train.zip", texts(100, 0)))
    test = upload(running, spoken(folder / "test.zip", texts(20, 1)))
    first = train["task_candidates"][0]
    assert (first["task"], first["target"], first["inputs"]) == ("speech-recognition", "transcript", ["audio"])
    job = succeeded(running, submit(running, {
        **JOB, "dataset": {"train": train["id"], "test": test["id"]}, "output": {"model": "letters"},
        "task_config": {"augmentation": "none"}, "hyperparameters": {"epochs": 25, "learning_rate": 1e-2},
    }))  # fmt: skip
    return {**job, "train": train["id"], "test": test["id"]}


def test_upload_finetune_predict(embedded: Stack, running: httpx.Client, writes: dict[str, Any]) -> None:
    measured = writes["result"]["metrics"]["test"]
    assert measured["cer"] < 0.05
    assert measured["character_accuracy"] == pytest.approx(1 - measured["cer"])
    transcripts = texts(20, 1)
    for aligned in measured["alignments"]:
        assert aligned["said"] == transcripts[aligned["row"] - 1]
        assert aligned["heard"] != aligned["said"]
        assert any(pair["kind"] != "equal" for pair in aligned["words"]) == (
            words(aligned["said"]) != words(aligned["heard"])
        )
    address = running.get("/models/letters/versions/1").json()["pictures"]["confusion-matrix"]
    drawn = httpx.get(f"{embedded.url}{address}", headers={"Authorization": f"Bearer {embedded.key}"}).text
    assert "test characters right" in drawn
    assert sum(one["deletions"] for one in measured["alignments"]) == measured["deletions"]
    answer = running.post("/models/letters/predict", content=said("ab 好 cab"), headers={"Content-Type": "audio/wav"})
    (output,) = answer.json()["outputs"]
    assert output["text"] == "ab 好 cab"
    assert 0.5 < output["score"] <= 1
    assert [word["word"] for word in output["words"]] == ["ab", "好", "cab"]
    # 0.03 silence, then 0.1 a letter and 0.15 a space; a letter is heard somewhere within its tone.
    for word, start, end in zip(output["words"], (0.03, 0.38, 0.63), (0.23, 0.48, 0.93), strict=True):
        assert start - 0.05 <= word["start"] < word["end"] <= end + 0.05
        assert 0.5 < word["score"] <= 1
    hub = InferenceClient(model=f"{embedded.url}/hf/models/letters", token=embedded.key)
    heard = hub.automatic_speech_recognition(said("ab 好 cab"))
    assert heard.text == "ab 好 cab"
    assert [(chunk.text, *chunk.timestamp) for chunk in heard.chunks or []] == [
        (word["word"], pytest.approx(word["start"]), pytest.approx(word["end"])) for word in output["words"]
    ]


def test_a_beam_and_a_batch_answer_the_same_text(running: httpx.Client, writes: dict[str, Any]) -> None:
    inputs = [base64.b64encode(said(text)).decode() for text in ("c", "aa b", "好好 abc 好")]
    body = {"inputs": inputs, "parameters": {"beam_width": 8}}
    outputs = running.post("/models/letters/predict", json=body).json()["outputs"]
    assert [output["text"] for output in outputs] == ["c", "aa b", "好好 abc 好"]
    # A character of a script without spaces is a word.
    assert [word["word"] for word in outputs[2]["words"]] == ["好", "好", "abc", "好"]
    refused = running.post("/models/letters/predict", json={**body, "parameters": {"beam_width": 0}})
    assert "beam_width" in refused.text
    assert refused.status_code == 422


def test_a_language_model_of_the_transcripts_is_weighed_where_it_is_asked_for(
    running: httpx.Client, writes: dict[str, Any]
) -> None:
    body = {"inputs": [base64.b64encode(said("ab cab")).decode()], "parameters": {"beam_width": 8}}

    def text(**parameters: float) -> str:
        asked = {**body, "parameters": {"beam_width": 8, **parameters}}
        (output,) = running.post("/models/letters/predict", json=asked).json()["outputs"]
        return str(output["text"])

    assert text(language_weight=0.3) == "ab cab"
    assert len(text(language_weight=0.3, character_bonus=10)) > len("ab cab")
    alone = running.post("/models/letters/predict", json={**body, "parameters": {"language_weight": 1}})
    assert alone.status_code == 422
    assert "set a beam_width of 2 or more" in alone.text


def counted(sentences: list[str], most: int) -> dict[str, dict[str, int]]:
    """How often each character follows up to `most` - 1 others: of all pieces of sentences, one after another."""
    pieces = Counter(
        whole[max(0, end - length) : end]
        for whole in (f"\n{sentence}\n" for sentence in sentences)
        for end in range(2, len(whole) + 1)
        for length in range(1, min(most, end) + 1)
    )
    found: dict[str, dict[str, int]] = {}
    for piece, count in pieces.items():
        found.setdefault(piece[:-1], {})[piece[-1]] = count
    return found


def test_further_sentences_are_kept_with_a_model_and_weighed(running: httpx.Client, writes: dict[str, Any]) -> None:
    data = {"train": writes["train"], "test": writes["test"]}
    succeeded(running, submit(running, {
        **JOB, "dataset": data, "output": {"model": "cabs"},
        "task_config": {"augmentation": "none", "sentences": ["CB  cb"] * 300},
        "hyperparameters": {"epochs": 25, "learning_rate": 1e-2},
    }))  # fmt: skip
    kept, digests = {}, {}
    for name in ("letters", "cabs"):
        version = f"/models/{name}/versions/1/files"
        kept[name] = running.get(f"{version}/config.json").json()["targets"]["counts"]
        digests[name] = {file["path"]: file["sha256"] for file in running.get(version).json()["data"]}
    assert kept["letters"] == {"order": 5, "characters": 6, "counts": counted(texts(100, 0), 5)}
    assert kept["cabs"] == {"order": 5, "characters": 6, "counts": counted([*texts(100, 0), *["cb cb"] * 300], 5)}
    assert kept["cabs"]["counts"]["c"]["b"] == kept["letters"]["counts"]["c"]["b"] + 600
    # Sentences teach the network nothing: what it hears is the same, and so is the likeliest path.
    assert digests["cabs"]["model.safetensors"] == digests["letters"]["model.safetensors"]
    body = {"inputs": [base64.b64encode(said("ab cm")).decode()]}

    def text(model: str, **parameters: float) -> str:
        (output,) = running.post(f"/models/{model}/predict", json={**body, "parameters": parameters}).json()["outputs"]
        return str(output["text"])

    assert text("cabs") == text("letters")
    assert text("cabs", beam_width=16) == text("letters", beam_width=16) != "cb cb"
    assert text("letters", beam_width=16, language_weight=3) != "cb cb"
    assert text("cabs", beam_width=16, language_weight=3) == "cb cb"

    succeeded(running, submit(running, {
        **JOB, "dataset": data, "output": {"model": "wordless"}, "hyperparameters": {"max_steps": 1},
        "task_config": {"language_order": 0, "sentences": ["cb"]},
    }))  # fmt: skip
    assert running.get("/models/wordless/versions/1/files/config.json").json()["targets"]["counts"] is None
    asked = {**body, "parameters": {"beam_width": 2, "language_weight": 1}}
    refused = problem(running.post("/models/wordless/predict", json=asked), 422, "invalid_config")
    assert "language_order of 0" in refused["detail"]


def test_pretrained_on_recordings_without_transcripts_finetuned_and_asked(
    running: httpx.Client, writes: dict[str, Any], tmp_path: Path
) -> None:
    members = {f"{number}.wav": said(text) for number, text in enumerate(texts(60, 7))}
    unlabelled = upload(running, packed(tmp_path / "unlabelled.zip", members))
    suggested = [(one["task"], one["target"]) for one in unlabelled["task_candidates"]]
    assert suggested == [("contrastive-audio", None), ("masked-audio", None)]
    base = succeeded(running, submit(running, {
        "kind": "pretrain", "task": "masked-audio", "architecture": JOB["architecture"], "dataset": unlabelled["id"],
        "hyperparameters": {"max_steps": 40, "learning_rate": 3e-3}, "output": {"model": "letters-base"},
    }))  # fmt: skip
    assert 0 < base["result"]["metrics"]["train"]["loss"] < 0.8  # values have a deviation of 1
    answer = running.post("/models/letters-base/predict", json={"inputs": [base64.b64encode(said("abc")).decode()]})
    assert len(answer.json()["outputs"][0]["embedding"]) == 32
    job = succeeded(running, submit(running, {
        "kind": "finetune", "task": "speech-recognition", "base_model": "letters-base",
        "columns": JOB["columns"], "dataset": {"train": writes["train"], "test": writes["test"]},
        "task_config": {"augmentation": "none", "joined": 2}, "hyperparameters": {"epochs": 25, "learning_rate": 1e-2},
        "output": {"model": "tuned-letters"},
    }))  # fmt: skip
    assert job["result"]["metrics"]["test"]["cer"] < 0.05
    headers = {"Content-Type": "audio/wav"}
    answer = running.post("/models/tuned-letters/predict", content=said("ab 好 cab"), headers=headers).json()
    assert answer["outputs"][0]["text"] == "ab 好 cab"
    refused = running.post("/jobs", json={
        "kind": "pretrain", "task": "masked-audio", "architecture": "speaker-net", "dataset": unlabelled["id"],
    })  # fmt: skip
    assert "it keeps nothing of when something is heard" in problem(refused, 422, refused.json()["code"])["detail"]


def events(response: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    lines = [block.split("\n") for block in response.text.split("\n\n") if block and not block.startswith(":")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in lines]


@pytest.mark.parametrize("as_bytes", [True, False])
def test_a_long_recording_is_heard_in_windows_and_can_be_followed(
    running: httpx.Client, writes: dict[str, Any], as_bytes: bool
) -> None:
    text = " ".join(texts(32, 5))
    recording = said(text)
    seconds = len(recording) / 2 / RATE
    assert seconds > 3 * 5  # windows
    address = "/models/letters/predict"
    whole = running.post(address, content=recording, headers={"Content-Type": "audio/wav"}).json()
    assert whole["warnings"] == []
    (answer,) = whole["outputs"]
    assert distance(text, answer["text"]) < 0.05 * len(text)
    assert [word["word"] for word in answer["words"]] == [word for word, *_ in words_with_places(answer["text"])]
    starts = [word["start"] for word in answer["words"]]
    assert starts == sorted(starts)
    assert seconds - 1 < answer["words"][-1]["end"] <= seconds
    if as_bytes:
        headers = {"Content-Type": "audio/wav"}
        streamed = running.post(address, params={"stream": "true"}, content=recording, headers=headers)
    else:
        body = {"inputs": [base64.b64encode(recording).decode()], "stream": True}
        streamed = running.post(address, json=body)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *pieces, last = events(streamed)
    assert len(pieces) >= 3
    assert {name for name, _ in pieces} == {"text"}
    assert "".join(piece["text"] for _, piece in pieces) == answer["text"]
    assert last[0] == "answer"
    assert last[1]["outputs"] == [answer]
    inputs = [base64.b64encode(one).decode() for one in (recording, said("c"))]
    by_beams = running.post(address, json={"inputs": inputs, "parameters": {"beam_width": 40}}).json()["outputs"]
    assert distance(text, by_beams[0]["text"]) < 0.05 * len(text)
    assert by_beams[1]["text"] == "c"


def test_hugging_face_s_stream_is_for_texts_that_go_on(
    embedded: Stack, running: httpx.Client, writes: dict[str, Any]
) -> None:
    body = {"inputs": base64.b64encode(said("c")).decode(), "stream": True, "parameters": {"details": True}}
    headers = {"Authorization": f"Bearer {embedded.key}"}
    refused = httpx.post(f"{embedded.url}/hf/models/letters", json=body, headers=headers, timeout=30)
    assert refused.status_code == 422, refused.text
    assert "task is speech-recognition" in refused.text


def test_a_long_recording_that_is_damaged_at_its_end_is_refused_at_once(
    running: httpx.Client, writes: dict[str, Any]
) -> None:
    recording = said(" ".join(texts(32, 5)))
    good = base64.b64encode(said("c")).decode()
    body = {"inputs": [base64.b64encode(recording[: len(recording) * 9 // 10]).decode(), good]}
    found = running.post("/models/letters/predict", json=body).json()
    assert found["outputs"][0] is None
    assert "cut off" in found["errors"][0]["message"]
    assert found["outputs"][1]["text"] == "c"


def test_a_long_recording_is_silent_when_nothing_is_heard_in_any_window(
    running: httpx.Client, writes: dict[str, Any]
) -> None:
    silence = np.zeros((40 * RATE, 1))
    late = np.concatenate([silence, np.frombuffer(said("ab")[44:], "<i2")[:, None]])
    body = {"inputs": [base64.b64encode(wav(samples, RATE)).decode() for samples in (late, silence)]}
    found = running.post("/models/letters/predict", json=body).json()
    assert found["errors"] == []
    assert [(one["index"], one["code"]) for one in found["warnings"]] == [(1, "silent")]
    assert "the recording is silent" in found["warnings"][0]["message"]
    assert found["outputs"][0]["text"].endswith("ab")
    assert found["outputs"][0]["words"][-1]["start"] > 40


def test_a_dataset_is_written_down(running: httpx.Client, writes: dict[str, Any]) -> None:
    started = running.post("/models/letters/predict-dataset", json={"dataset": writes["test"]}).json()
    assert succeeded(running, started["id"])["result"]["errors"] == 0


def test_a_transcript_longer_than_its_recording_fails_the_job_by_its_row(running: httpx.Client, tmp_path: Path) -> None:
    transcripts = texts(12, 2)
    files = {f"{number}.wav": said(text) for number, text in enumerate(transcripts)}
    transcripts[4] = "abc " * 40
    lines = ["file,transcript", *(f"{number}.wav,{text}" for number, text in enumerate(transcripts))]
    dataset = upload(running, packed(tmp_path / "long.zip", {"manifest.csv": "\n".join(lines) + "\n", **files}))
    (warned,) = [one for one in dataset["warnings"] if one["code"] == "long_transcripts"]
    assert "1 transcript is too long" in warned["message"]
    assert "rows 5." in warned["message"]
    job = running.get(f"/jobs/{submit(running, {**JOB, 'dataset': dataset['id']})}", params={"wait": 60}).json()
    assert job["status"] == "failed"
    assert 'Row 5, column "transcript": the transcript has 159 characters' in job["error"]["message"]


def test_characters_that_were_never_learned_are_named_and_count_as_wrong(
    running: httpx.Client, writes: dict[str, Any], tmp_path: Path
) -> None:
    # What is heard is right but for its spelling: each `a` is written as a letter that no training row has.
    right, spelling = texts(20, 1), str.maketrans({"a": "龍"})
    wrong = ["ÿ", *(text.translate(spelling) for text in right[1:])]
    lines = ["file,transcript", *(f"wav/{number}.wav,{text}" for number, text in enumerate(wrong))]
    files = {f"wav/{number}.wav": said(text) for number, text in enumerate(right)}
    spelled = upload(running, packed(tmp_path / "spelled.zip", {"manifest.csv": "\n".join(lines) + "\n", **files}))
    checkpoint = running.get(f"/jobs/{writes['id']}/checkpoints").json()["data"][0]["id"]
    asked = {name: value for name, value in JOB.items() if name != "architecture"}
    job = succeeded(running, submit(running, {
        **asked, "dataset": {"train": writes["train"], "test": spelled["id"]}, "output": {"model": "spelled"},
        "continue_from": checkpoint, "hyperparameters": {"max_steps": 1, "learning_rate": 1e-7},
    }))  # fmt: skip
    dragons = "".join(wrong).count("龍")
    assert dragons > 10
    said_of_it = f"{dragons + 1} characters of test transcripts were never learned and count as wrong: 龍, ÿ."
    assert job["warnings"].count(said_of_it) == 1, job["warnings"]
    assert not any("never learned" in warning for warning in writes["warnings"])

    measured, before = job["result"]["metrics"]["test"], writes["result"]["metrics"]["test"]
    characters = sum(map(len, wrong))
    assert measured["cer"] >= (dragons + 1) / characters
    assert measured["cer"] <= before["cer"] + (dragons + len(right[0])) / characters
    assert measured["exact"] <= sum("龍" not in text for text in wrong[1:]) / len(wrong)
    assert all(one["said"] == wrong[one["row"] - 1] for one in measured["alignments"])
    assert {one["row"] for one in measured["alignments"]} >= {n for n, text in enumerate(wrong, 1) if "龍" in text}
    words_said = [pair["said"] for one in measured["alignments"] for pair in one["words"] if pair["kind"] != "equal"]
    assert "龍" in words_said
    assert "ÿ" in words_said
    assert any("龍" in str(one["said"]) for one in measured["errors"])
    address = running.get("/models/spelled/versions/1").json()["pictures"]["mistakes"]
    drawn = running.get(address.removeprefix("/api/v1")).text
    assert "said: ÿ" in drawn
    for text in (json.dumps(measured, ensure_ascii=False), drawn):
        assert "\ufffd" not in text


def test_what_does_not_fit_is_said_before_anything_is_queued(running: httpx.Client, writes: dict[str, Any]) -> None:
    body = {**JOB, "dataset": writes["train"]}
    wrong = running.post("/jobs", json={**body, "task_config": {"augmentation": "loud"}})
    assert problem(wrong, 422, wrong.json()["code"])["param"].startswith("task_config.augmentation")
    none = running.post("/jobs", json={**body, "columns": {}})
    assert "exactly one column" in problem(none, 422, none.json()["code"])["detail"]
