"""What can be wrong with texts, through the front door: each is said with what, where, the value and the fix."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from support import finished, problem, submit, succeeded, upload

TINY = {"name": "bert", "layers": 1, "width": 32, "heads": 2}
SENTENCES = [f"this is {word} sentence number {n}" for n in range(12) for word in ("one", "a good", "a bad")]


def as_lines(rows: list[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, rows))


def failed(api: httpx.Client, **body: Any) -> dict[str, Any]:
    """Submit a job that is to fail, at once and not again, and return its error."""
    job = finished(api, submit(api, {"kind": "finetune", "hyperparameters": {"epochs": 1}, **body}))
    assert (job["status"], job["attempt"]) == ("failed", 1), job
    error: dict[str, Any] = job["error"]
    assert error["hint"]
    return error


@pytest.fixture(scope="module")
def base(running: httpx.Client) -> str:
    """The name of a base model on texts."""
    dataset = upload(running, "\n".join(SENTENCES), "plain.txt")["id"]
    succeeded(running, submit(running, {
        "kind": "pretrain", "task": "masked-tokens", "dataset": dataset, "architecture": TINY,
        "hyperparameters": {"epochs": 1}, "output": {"model": "texts-base"},
    }))  # fmt: skip
    return "texts-base"


def test_one_label_and_empty_texts_fail_with_the_column_and_the_row(running: httpx.Client) -> None:
    same = upload(running, as_lines([{"text": text, "label": "same"} for text in SENTENCES]), "same.jsonl")["id"]
    asked = {"task": "text-classification", "architecture": TINY, "columns": {"target": "label"}}
    body = {"kind": "finetune", "dataset": same, **asked}
    refused = problem(running.post("/jobs", json=body), 422, "invalid_data")
    assert (refused["param"], refused["hint"][:11]) == ("columns.target", "Add example")
    assert refused["detail"] == 'Column "label" has only the value "same"; there is nothing to predict.'
    # Another label that is not among the training rows is seen when they are.
    rows = [{"text": text, "label": "same", "part": "train"} for text in SENTENCES]
    rows[-1] = {**rows[-1], "label": "other", "part": "validation"}
    error = failed(running, dataset=upload(running, as_lines(rows), "parts.jsonl")["id"], split={"column": "part"},
                   **asked)  # fmt: skip
    assert 'Column "label" has only the class "same" among the training rows' in error["message"]
    rows = [{"text": text, "label": "ab"[n % 2]} for n, text in enumerate(SENTENCES)]
    rows[6]["text"] = " \n "
    error = failed(running, dataset=upload(running, as_lines(rows), "blank.jsonl")["id"], **asked)
    assert error["message"] == 'Row 7, column "text": the text is empty.'
    numbers = upload(running, as_lines([{"text": text, "stars": 3.5} for text in SENTENCES]), "stars.jsonl")["id"]
    body = {"kind": "finetune", "task": "text-regression", "columns": {"target": "stars"}, "dataset": numbers}
    refused = problem(running.post("/jobs", json=body), 422, "invalid_data")
    assert refused["detail"] == 'Column "stars" has the same value in every row; there is nothing to predict.'
    unlabelled = upload(running, as_lines([{"text": text, "about": []} for text in SENTENCES]), "none.jsonl",
                        column_types=json.dumps({"about": "strings"}))  # fmt: skip
    body = {"kind": "finetune", "task": "multi-label-text-classification", "columns": {"target": "about"},
            "dataset": unlabelled["id"]}  # fmt: skip
    refused = problem(running.post("/jobs", json=body), 422, "invalid_data")
    assert refused["detail"] == 'Column "about" has no value at all; there is nothing to predict.'


def test_a_line_of_a_megabyte_is_read_as_far_as_it_fits_and_said(running: httpx.Client, base: str) -> None:
    long = "word " * 210_000
    rows = [{"text": text, "label": "ab"[n % 2]} for n, text in enumerate([*SENTENCES, long])]
    dataset = upload(running, as_lines(rows), "long.jsonl")
    assert dataset["validation"]["error_count"] == 0
    job = succeeded(running, submit(running, {
        "kind": "finetune", "task": "text-classification", "base_model": base, "dataset": dataset["id"],
        "columns": {"target": "label"}, "hyperparameters": {"epochs": 1}, "output": {"model": "long"},
        "split": {"validation": 0.0},
    }))  # fmt: skip
    assert "1 of 37 training rows have more than 256 tokens" in " ".join(job["warnings"])
    answer = running.post("/models/long/predict", json={"inputs": [long]}).json()
    assert answer["errors"] == []
    assert "only the first 256 of" in answer["warnings"][0]["message"]


def test_rows_of_every_part_that_are_cut_are_said(running: httpx.Client, base: str) -> None:
    """A score on test rows that were not read whole is not to be trusted without being told."""
    rows = [{"text": text, "label": "ab"[n % 2], "part": "train"} for n, text in enumerate(SENTENCES)]
    rows += [{"text": "word " * 300, "label": "ab"[n % 2], "part": "test"} for n in range(40)]
    job = succeeded(running, submit(running, {
        "kind": "finetune", "task": "text-classification", "base_model": base, "split": {"column": "part"},
        "dataset": upload(running, as_lines(rows), "test-cut.jsonl")["id"],
        "columns": {"text": "text", "target": "label"}, "hyperparameters": {"epochs": 1},
    }))  # fmt: skip
    (said,) = [warning for warning in job["warnings"] if "have more than" in warning]
    assert said.startswith("40 of 40 test rows have more than 256 tokens; the rest of them is not read.")


@pytest.mark.parametrize("kind", ["wordpiece", "bytes"])
def test_a_tokenizer_is_fitted_on_a_megabyte_without_a_space(running: httpx.Client, kind: str) -> None:
    """Such a line is one word, and fitting on it whole would take the square of its length: hours."""
    dataset = upload(running, "x" * 1_100_000, "one-word.txt")["id"]
    job = succeeded(running, submit(running, {
        "kind": "pretrain", "task": "masked-tokens", "dataset": dataset, "architecture": TINY,
        "preprocessing": {"tokenizer": kind}, "hyperparameters": {"epochs": 1}, "output": {"model": f"one-word-{kind}"},
    }))  # fmt: skip
    said = " ".join(job["warnings"])
    assert ("1 of 1 training rows have more than 256 tokens" in said) == (kind == "bytes"), said
    answer = running.post(f"/models/one-word-{kind}/embed", json={"inputs": ["x" * 1_100_000]})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("kind", "task", "columns"),
    [
        ("pretrain", "next-token-prediction", {}),
        ("finetune", "text-generation", {}),
        ("finetune", "translation", {"text": "text", "target": "label"}),
    ],
)
def test_words_without_their_spaces_are_refused_before_anything_is_queued(
    running: httpx.Client, kind: str, task: str, columns: dict[str, str]
) -> None:
    rows = [{"text": text, "label": text} for text in SENTENCES]
    body = {"kind": kind, "task": task, "dataset": upload(running, as_lines(rows), "spaces.jsonl")["id"],
            "columns": columns, "preprocessing": {"tokenizer": "wordpiece"}}  # fmt: skip
    refused = problem(running.post("/jobs", json=body), 422, "invalid_config")
    assert "pieces of words say nothing of the spaces" in refused["detail"]
    assert refused["param"] == "preprocessing.tokenizer"
    assert refused["hint"] == 'Set preprocessing.tokenizer to "bytes" or "characters".'


def test_bytes_of_several_encodings_are_named_with_their_row(running: httpx.Client) -> None:
    lines = [json.dumps({"text": f"汇率 {text}"}, ensure_ascii=False).encode() for text in SENTENCES]
    lines[4] = '{"text": "汇率今天"}'.encode("gb18030")
    dataset = upload(running, b"\n".join(lines), "mixed.jsonl")
    assert dataset["status"] == "invalid"
    (error,) = running.get(f"/datasets/{dataset['id']}/errors").json()["errors"]
    assert error["row"] == 5
    assert error["remedy"]


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (["O", "I-PER", "O"], ("Row 4", "I-PER", "2")),
        (["B-PER", "I-LOC", "O"], ("Row 4", "I-LOC", "2")),
        (["O", "O", "X-PER"], ("Row 4", "X-PER", "3")),
        (["O", "O"], ("Row 4", "3", "2")),
    ],
)
def test_tags_that_cannot_be_are_named_with_row_and_position(
    running: httpx.Client, tags: list[str], said: tuple[str, ...]
) -> None:
    rows = [{"tokens": ["Ada", "saw", "Bern"], "tags": ["B-PER", "O", "B-LOC"]} for _ in range(12)]
    rows[3]["tags"] = tags
    dataset = upload(running, as_lines(rows), "tags.jsonl")["id"]
    error = failed(running, task="token-classification", architecture=TINY, dataset=dataset,
                   columns={"target": "tags", "text": "tokens"})  # fmt: skip
    assert all(part in error["message"] for part in said), error


@pytest.mark.parametrize("task", ["translation", "text-generation"])
def test_a_target_that_is_too_long_is_named_with_its_row(running: httpx.Client, task: str) -> None:
    rows = [{"source": "one two", "target": "eins zwei"} for _ in range(12)]
    rows[2]["target"] = "drei " * 30
    dataset = upload(running, as_lines(rows), "pairs.jsonl")["id"]
    name = {"translation": "seq2seq", "text-generation": "gpt"}[task]
    error = failed(running, task=task, architecture={**TINY, "name": name}, dataset=dataset,
                   preprocessing={"max_length": 24}, columns={"text": "source", "target": "target"})  # fmt: skip
    assert 'Row 3, column "target"' in error["message"]
    assert "24" in error["message"]
    assert "max_length" in error["hint"]


def test_a_base_model_that_does_not_fit_is_refused_before_anything_is_queued(running: httpx.Client, base: str) -> None:
    rows = [{"text": text, "label": "ab"[n % 2]} for n, text in enumerate(SENTENCES)]
    dataset = upload(running, as_lines(rows), "rows.jsonl")["id"]
    body = {"kind": "finetune", "task": "text-classification", "dataset": dataset, "columns": {"target": "label"}}
    assert "nobody" in problem(running.post("/jobs", json={**body, "base_model": "nobody"}), 404, "not_found")["detail"]
    # The tokenizer comes with the base model, so that another one cannot be asked for.
    other = running.post("/jobs", json={**body, "base_model": base, "preprocessing": {"tokenizer": "bytes"}})
    found = problem(other, 422, other.json()["code"])
    assert found["param"].startswith("preprocessing")
    other = running.post("/jobs", json={**body, "base_model": base, "architecture": "gpt"})
    assert problem(other, 422, "invalid_config")["param"] == "architecture"
