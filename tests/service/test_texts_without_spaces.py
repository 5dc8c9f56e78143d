"""What went wrong with texts in silence or at run time, through the front door: upload, job, prediction."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import pytest
from support import finished, submit, succeeded, upload

TINY = {"name": "bert", "layers": 1, "width": 32, "heads": 2}
ENGLISH = ["the card works again", "my order fails today", "this app pleases me", "it annoys me"] * 15
CHINESE = ["这个餐馆很好吃", "我的订单今天没有到", "汇率今天上涨了", "很差"] * 15


def pretrained(api: httpx.Client, lines: list[str], task: str, model: str, **body: Any) -> dict[str, Any]:
    dataset = upload(api, "\n".join(lines), f"{model}.txt", format="text")["id"]
    return finished(api, submit(api, {
        "kind": "pretrain", "task": task, "dataset": dataset, "hyperparameters": {"epochs": 1},
        "output": {"model": model}, **body,
    }))  # fmt: skip


def labelled(api: httpx.Client, texts: list[str]) -> str:
    rows = [json.dumps({"text": text, "label": "ab"[place % 2]}) for place, text in enumerate(texts)]
    return str(upload(api, "\n".join(rows), "labelled.jsonl")["id"])


def test_chinese_to_a_base_model_of_english_is_warned_of(running: httpx.Client) -> None:
    job = pretrained(running, ENGLISH, "masked-tokens", "english-base", architecture=TINY)
    assert job["status"] == "succeeded", job
    warned = []
    for texts in (CHINESE, ENGLISH):
        job = succeeded(running, submit(running, {
            "kind": "finetune", "task": "text-classification", "dataset": labelled(running, texts),
            "base_model": "english-base", "columns": {"target": "label"}, "hyperparameters": {"epochs": 1},
            "split": {"validation": 0.0}, "output": {"model": "tuned"},
        }))  # fmt: skip
        warned.append([warning for warning in map(str, job["warnings"]) if "unknown" in warning])
    assert warned[1] == []
    (said,) = warned[0]
    assert '100% of the tokens of the training rows in column "text" are unknown to the model' in said
    assert "Choose a base model that knows this language" in said


@pytest.mark.parametrize("task", ["masked-tokens", "denoising"])
def test_blank_lines_are_left_out_of_pretraining(running: httpx.Client, task: str) -> None:
    lines = [*(line for text in ENGLISH for line in (text, "")), "the end"]
    job = pretrained(running, lines, task, f"blank-{task}", split={"validation": 0.0})
    assert job["status"] == "succeeded", job
    said = f'{len(ENGLISH)} of {len(lines)} training rows are blank in column "text" and are left out.'
    assert any(said in str(warning) for warning in job["warnings"]), job["warnings"]
    answer = running.post(f"/models/blank-{task}/predict", json={"inputs": ["the card"]}).json()
    assert len(answer["outputs"][0]["embedding"]) > 0


def test_nothing_but_blank_lines_fails_with_what_to_do(running: httpx.Client) -> None:
    for task in ("masked-tokens", "next-token-prediction"):
        job = pretrained(running, ["", " ", ""] * 20, task, f"nothing-{task}")
        assert (job["status"], job["attempt"]) == ("failed", 1)
        assert 'column "text" is blank in every training row' in job["error"]["message"]
        assert "Fill in the texts" in job["error"]["hint"]


def test_whole_words_of_chinese_in_bytes_are_learned(running: httpx.Client) -> None:
    job = pretrained(
        running, CHINESE, "masked-tokens", "whole-words", architecture=TINY, task_config={"whole_words": True},
        preprocessing={"tokenizer": "bytes", "vocabulary_size": 300}, hyperparameters={"epochs": 30},
    )  # fmt: skip
    assert job["status"] == "succeeded", job
    series = running.get(f"/jobs/{job['id']}/metrics", params={"limit": 100}).json()["data"]
    losses = [point["values"]["loss"] for point in series if point["split"] == "train"]
    # Of so many tokens one at random has the loss of the logarithm; a short run may measure itself but once.
    assert losses[-1] < math.log(300) - 1


@pytest.mark.parametrize("task", ["text-generation", "translation"])
def test_layers_join_in_where_the_head_has_no_weights(running: httpx.Client, task: str) -> None:
    rows = [json.dumps({"prompt": text, "reply": other}) for text, other in zip(ENGLISH, CHINESE, strict=True)]
    dataset = upload(running, "\n".join(rows), "pairs.jsonl")["id"]
    tiny = {"name": "gpt" if task == "text-generation" else "seq2seq", "layers": 1, "width": 32, "heads": 2}
    body = {
        "kind": "finetune", "task": task, "architecture": tiny, "dataset": dataset,
        "columns": {"text": "prompt", "target": "reply"},
        "hyperparameters": {"epochs": 2, "unfreeze_every_epochs": 1}, "output": {"model": f"joined-{task}"},
    }  # fmt: skip
    succeeded(running, submit(running, body))
    assert "outputs" in running.post(f"/models/joined-{task}/predict", json={"inputs": ["the card"]}).json()
