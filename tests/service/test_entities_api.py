"""Entities through the front door: tagged tokens are uploaded, learned from and found in running text."""

from __future__ import annotations

import json
import random
from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient
from servers import Stack
from support import submit, succeeded, upload

TINY = {"name": "bert", "layers": 1, "width": 32, "heads": 2}
PLACES = ("Basel", "New York", "北京", "上海")
PEOPLE = ("Ada", "Alan Turing", "王 小明")


def sentences(rows: int, seed: int) -> list[list[tuple[str, str]]]:
    """Tokens with their tags; which kind an entity is follows from its words and from what stands before it."""
    draw = random.Random(seed)
    found = []
    for _ in range(rows):
        tokens = [("we", "O"), ("saw", "O")]
        for before, names, kind in (("mister", PEOPLE, "PER"), ("in", PLACES, "LOC")):
            words = draw.choice(names).split()
            tokens += [(before, "O"), *((word, f"{'I' if place else 'B'}-{kind}") for place, word in enumerate(words))]
        found.append(tokens)
    return found


def as_conll(rows: list[list[tuple[str, str]]]) -> str:
    return "\n\n".join("\n".join(f"{token}\t{tag}" for token, tag in row) for row in rows) + "\n"


def as_jsonl(rows: list[list[tuple[str, str]]]) -> str:
    return "\n".join(json.dumps({"words": [w for w, _ in row], "ner": [tag for _, tag in row]}) for row in rows)


@pytest.fixture(scope="module")
def found(running: httpx.Client) -> dict[str, Any]:
    """The finetune job whose model is "entities", from a base model that has read the tokens only."""
    train = upload(running, as_conll(sentences(60, 0)), "train.conll")
    test = upload(running, as_conll(sentences(20, 1)), "test.conll")
    candidate = train["task_candidates"][0]
    assert (candidate["task"], candidate["target"], candidate["inputs"]) == ("token-classification", "tags", ["tokens"])
    succeeded(running, submit(running, {
        "kind": "pretrain", "task": "masked-tokens", "dataset": train["id"], "architecture": TINY,
        "columns": {"text": "tokens"}, "hyperparameters": {"epochs": 3}, "output": {"model": "entities-base"},
    }))  # fmt: skip
    return succeeded(running, submit(running, {
        "kind": "finetune", "task": "token-classification", "base_model": "entities-base",
        "columns": {"target": "tags"}, "dataset": {"train": train["id"], "test": test["id"]},
        "hyperparameters": {"epochs": 60, "learning_rate": 3e-3}, "output": {"model": "entities"},
    }))  # fmt: skip


def test_entities_are_found_in_words_and_in_running_text(running: httpx.Client, found: dict[str, Any]) -> None:
    measured = found["result"]["metrics"]["test"]
    assert measured["f1"] > 0.95
    assert {kind: scores["count"] for kind, scores in measured["entities"].items()} == {"LOC": 20, "PER": 20}
    text, words = "we saw mister Alan Turing in New York", ["we", "saw", "mister", "王", "小明", "in", "北京"]
    body = {"inputs": [text, words, {"tokens": words}, {"text": text}, ["", " "], 7]}
    answer = running.post("/models/entities/predict", json=body).json()
    written, tagged = answer["outputs"][:2]
    assert [(one["label"], one["text"], text[one["start"] : one["end"]]) for one in written["entities"]] == [
        ("PER", "Alan Turing", "Alan Turing"),
        ("LOC", "New York", "New York"),
    ]
    assert written["tags"] is None
    assert tagged["tags"] == ["O", "O", "O", "B-PER", "I-PER", "O", "B-LOC"]
    assert [(one["start"], one["end"], one["text"]) for one in tagged["entities"]] == [(3, 5, "王小明"), (6, 7, "北京")]
    assert answer["outputs"][2:] == [tagged, written, None, None]
    assert [error["message"] for error in answer["errors"]] == [
        'Input 4, "tokens": the text is empty.',
        'Input 5, "tokens": 7 is neither a text nor a list of words.',
    ]


def test_hugging_face_s_client_finds_entities(embedded: Stack, found: dict[str, Any]) -> None:
    hub = InferenceClient(model=f"{embedded.url}/hf/models/entities", token=embedded.key)
    first, second = hub.token_classification("we saw mister Ada in Basel")
    assert [(one.entity_group, one.word, one.start, one.end) for one in (first, second)] == [
        ("PER", "Ada", 14, 17),
        ("LOC", "Basel", 21, 26),
    ]
    assert 0.5 < (first.score or 0) <= 1


def test_a_tag_that_cannot_stand_where_it_does_fails_the_job_with_row_and_position(running: httpx.Client) -> None:
    rows = sentences(30, 2)
    rows[6][1] = ("saw", "I-PER")
    dataset = upload(running, as_jsonl(rows), "wrong.jsonl")
    body = {"kind": "finetune", "task": "token-classification", "dataset": dataset["id"], "architecture": TINY}
    job_id = submit(running, {**body, "columns": {"target": "ner"}, "hyperparameters": {"epochs": 1}})
    error = running.get(f"/jobs/{job_id}", params={"wait": 60}).json()["error"]
    assert error["message"].startswith('Row 7, column "ner", position 2: "I-PER" cannot stand behind "O"')
    assert error["param"] == "columns.target"
    job_id = submit(running, {
        **body, "columns": {"target": "ner"}, "hyperparameters": {"epochs": 1}, "task_config": {"scheme": "iob1"},
    })  # fmt: skip
    assert succeeded(running, job_id)["status"] == "succeeded"
