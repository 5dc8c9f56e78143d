"""Translation through the front door: pairs, pretraining by denoising, a job, predictions in every protocol."""

from __future__ import annotations

import json
import random
from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from servers import Stack
from support import problem, submit, succeeded, upload

from service.huggingface_translation import TranslationParameters

DIGITS = {"zero": "零", "one": "一", "two": "二", "three": "三", "four": "四", "five": "五", "six": "六"}
TINY = {"name": "seq2seq", "layers": 1, "width": 64}
READ = {"max_length": 32, "vocabulary_size": 330}
FAST = {"epochs": 30, "learning_rate": 5e-3, "batch_size": 8, "dropout": 0.0}


def pairs(rows: int, seed: int = 0) -> list[dict[str, str]]:
    draw = random.Random(seed)
    chosen = [draw.choices(list(DIGITS), k=draw.randint(3, 5)) for _ in range(rows)]
    return [{"en": " ".join(some), "zh": "".join(DIGITS[word] for word in some)} for some in chosen]


def lines(rows: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(row) for row in rows)


@pytest.fixture(scope="module")
def digits(running: httpx.Client) -> dict[str, Any]:
    """The dataset of pairs, and a model of the name digits."""
    dataset = upload(running, lines(pairs(120)), "pairs.jsonl")
    body = {
        "kind": "finetune", "task": "translation", "dataset": dataset["id"], "columns": {"text": "en", "target": "zh"},
        "architecture": TINY, "preprocessing": READ, "hyperparameters": FAST, "output": {"model": "digits"},
    }  # fmt: skip
    return {"dataset": dataset, "job": succeeded(running, submit(running, body))}


def predict(api: httpx.Client, inputs: list[Any], **parameters: Any) -> dict[str, Any]:
    response = api.post("/models/digits/predict", json={"inputs": inputs, "parameters": parameters})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_from_pairs_to_translations(running: httpx.Client, digits: dict[str, Any]) -> None:
    first = digits["dataset"]["task_candidates"][0]
    assert (first["task"], first["target"], first["inputs"]) == ("translation", "zh", ["en"])
    metrics = digits["job"]["result"]["metrics"]
    assert metrics["train"]["translated_rows"] == 96
    assert metrics["validation"]["translated_rows"] == 24
    assert metrics["validation"]["chrf"] > 15
    assert metrics["train"]["nats_per_character"] < 1.5  # of 7 digits by chance: 1.9

    (long, missing), plain = predict(running, ["one " * 60, ""])["outputs"], predict(running, ["one two six"])
    assert missing is None
    assert long["source_tokens"] == 32
    (answer,) = plain["outputs"]
    assert set(answer["translation"]) <= set("".join(DIGITS.values()))
    assert (answer["finish_reason"], plain["warnings"], plain["errors"]) == ("stop", [], [])
    (short,) = predict(running, [{"en": "one two six"}], beam_width=4, length_penalty=0.5, max_new_tokens=1)["outputs"]
    assert (short["target_tokens"], short["finish_reason"]) == (1, "length")


def test_a_stream_is_the_answer(running: httpx.Client, digits: dict[str, Any]) -> None:
    (answer,) = predict(running, ["five four three"])["outputs"]
    body = {"inputs": ["five four three"], "stream": True}
    with running.stream("POST", "/models/digits/predict", json=body) as response:
        found = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    assert "".join(one["text"] for one in found[:-1]) == answer["translation"]
    assert found[-1]["outputs"][0]["translation"] == answer["translation"]


def test_every_row_of_a_dataset(running: httpx.Client, digits: dict[str, Any]) -> None:
    rows = pairs(9, seed=5)
    dataset = upload(running, lines(rows), "more.jsonl")["id"]
    body = {"dataset": dataset, "text": "en", "parameters": {"beam_width": 2}, "keep": ["zh"]}
    created = running.post("/models/digits/predict-dataset", json=body)
    assert created.status_code == 202, created.text
    job = succeeded(running, created.json()["id"])
    answers = [json.loads(line) for line in running.get(f"/jobs/{job['id']}/output").text.splitlines()]
    alone = predict(running, [row["en"] for row in rows], beam_width=2)["outputs"]
    assert [one["output"]["translation"] for one in answers] == [one["translation"] for one in alone]


def test_hugging_face_s_client(embedded: Stack, running: httpx.Client, digits: dict[str, Any]) -> None:
    client = InferenceClient(model=f"{embedded.url}/hf/models/digits", token=embedded.key)
    (answer,) = predict(running, ["one two six"], beam_width=3)["outputs"]
    asked = client.translation("one two six", generate_parameters={"num_beams": 3})
    assert asked.translation_text == answer["translation"]
    with pytest.raises(HfHubHTTPError, match="src_lang"):
        client.translation("one", src_lang="en", tgt_lang="zh")
    for wrong, param in (({"num_beams": 0}, "beam_width"), ({"max_new_tokens": 0}, "max_new_tokens")):
        with pytest.raises(HfHubHTTPError, match=rf"parameters\.{param}: Input should be greater") as refusal:
            client.translation("one", generate_parameters=wrong)
        assert refusal.value.response.status_code == 422
    headers = {"Authorization": f"Bearer {embedded.key}"}
    streamed = {"inputs": "one", "stream": True}
    refused = httpx.post(f"{embedded.url}/hf/models/digits", json=streamed, headers=headers, timeout=30)
    assert refused.status_code == 422
    assert "task is translation" in refused.text
    assert "Leave stream out" in refused.text
    completion = {"model": "digits", "prompt": "one"}
    refused = httpx.post(f"{embedded.url}/v1/completions", json=completion, headers=headers, timeout=30)
    assert refused.status_code == 400
    assert "its task is translation" in refused.text


def test_a_length_penalty_of_nothing_counts() -> None:
    theirs = {"generate_parameters": {"length_penalty": 0.0, "num_beams": 3}, "length_penalty": 2.0, "beam_width": 2}
    assert TranslationParameters.read(theirs).native() == {"beam_width": 3, "length_penalty": 0.0}
    assert TranslationParameters.read({"length_penalty": 0.0}).native() == {"length_penalty": 0.0}


def test_denoising_makes_a_base_model(running: httpx.Client, digits: dict[str, Any]) -> None:
    texts = [{"text": text} for row in pairs(40, seed=2) for text in row.values()]
    dataset = upload(running, lines(texts), "texts.jsonl")["id"]
    base = succeeded(running, submit(running, {
        "kind": "pretrain", "dataset": dataset, "architecture": TINY, "preprocessing": READ,
        "hyperparameters": {"epochs": 2}, "output": {"model": "base"},
    }))  # fmt: skip
    assert base["task"] == "denoising"
    embedded = running.post("/models/base/embed", json={"inputs": ["one", "三"]}).json()
    assert embedded["width"] == 64
    tuned = succeeded(running, submit(running, {
        "kind": "finetune", "task": "translation", "dataset": digits["dataset"]["id"], "base_model": "base",
        "columns": {"text": "en", "target": "zh"}, "hyperparameters": {"epochs": 1}, "output": {"model": "tuned"},
    }))  # fmt: skip
    measured = tuned["result"]["metrics"]["validation"]
    assert 1 < measured["perplexity"] < 165  # by chance as many as there are tokens


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"columns": {"text": "en", "target": "en"}}, "columns", "cannot be the text as well"),
        ({"columns": {"text": "en", "target": "cn"}}, "columns.target", "not found"),
        ({"columns": {"text": "eng", "target": "zh"}}, "columns.text", "not found"),
        ({"columns": {"text": "en"}}, "columns.target", "exactly one column"),
        ({"columns": {"text": "en", "targets": ["zh", "zh"]}}, "columns.target", "exactly one column"),
        ({"architecture": "bert"}, "architecture", "Architectures for it: seq2seq"),
        ({"task": "text-classification", "architecture": "seq2seq"}, "architecture", "cannot learn the task"),
        ({"task_config": {"label_smoothing": 2}}, "task_config.label_smoothing", "less than 1"),
    ],
)
def test_what_cannot_be_learned_is_said_before_anything_is_queued(
    running: httpx.Client, digits: dict[str, Any], fields: dict[str, Any], param: str, said: str
) -> None:
    body = {"kind": "finetune", "task": "translation", "columns": {"text": "en", "target": "zh"}, **fields}
    response = running.post("/jobs", json={"dataset": digits["dataset"]["id"], **body})
    assert response.status_code == 422, response.text
    assert param in response.text
    assert said in response.text


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"en": "one", "zh": " "}, 'Row 4, column "zh": the text is empty'),
        ({"en": "", "zh": "一"}, 'Row 4, column "en": the text is empty'),
        (
            {"en": "one", "zh": "".join(map(chr, range(0x4E00, 0x4E28)))},
            'Row 4, column "zh": the target has',
        ),
    ],
)
def test_a_row_that_cannot_be_learned_is_named(running: httpx.Client, row: dict[str, str], said: str) -> None:
    dataset = upload(running, lines([*pairs(3), row, *pairs(3)]), "bad.jsonl")["id"]
    job = submit(running, {
        "kind": "finetune", "task": "translation", "dataset": dataset, "columns": {"text": "en", "target": "zh"},
        "architecture": TINY, "preprocessing": READ,
    })  # fmt: skip
    ended = running.get(f"/jobs/{job}", params={"wait": 60}).json()
    while ended["status"] in ("queued", "running"):
        ended = running.get(f"/jobs/{job}", params={"wait": 30}).json()
    assert ended["status"] == "failed"
    assert said in ended["error"]["message"]


@pytest.mark.parametrize(
    ("parameters", "param"),
    [({"beam_width": 0}, "beam_width"), ({"length_penalty": "much"}, "length_penalty"), ({"beams": 4}, "beams")],
)
def test_a_wrong_parameter_is_named(
    running: httpx.Client, digits: dict[str, Any], parameters: dict[str, Any], param: str
) -> None:
    response = running.post("/models/digits/predict", json={"inputs": ["one"], "parameters": parameters})
    assert problem(response, 422, "invalid_config")["param"].startswith(f"parameters.{param}")
