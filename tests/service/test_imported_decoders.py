"""Models that write, from elsewhere, through the front door: imported, asked, and finetuned for every task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import transformers
from foreign_models import ARCHITECTURES, END, SENTENCES, TEXTS, contents, small_decoder, small_marian, zipped
from support import submit, succeeded, upload

FEW = {"epochs": 30, "batch_size": 8, "learning_rate": 3e-3}


def send(api: httpx.Client, directory: Path, model: str) -> dict[str, Any]:
    """Import a directory as an archive and return the job once it has succeeded."""
    content = zipped(contents(directory))
    made = api.post("/models", files={"file": ("model.zip", content)}, data={"model": model})
    assert made.status_code == 202, made.text
    return succeeded(api, made.json()["id"])


def as_lines(rows: list[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, rows))


@pytest.fixture(scope="module")
def decoders(running: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The directories that models were imported from, by kind; each is named "their-" and its kind."""
    found = {}
    for kind in ("gpt", "qwen3"):
        found[kind] = small_decoder(kind, tmp_path_factory.mktemp(kind))
        job = send(running, found[kind], f"their-{kind}")
        assert (job["kind"], job["task"], job["warnings"]) == ("import", "next-token-prediction", []), job
        version = running.get(f"/models/their-{kind}/versions/1").json()
        assert (version["kind"], version["architecture"]) == ("base", ARCHITECTURES[kind])
    return found


def written_by(directory: Path, text: str) -> str:
    """Return twelve tokens behind a text, as Transformers writes them; a character that is not whole is left out."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory).eval()
    begun = torch.tensor([tokenizer(END + text).input_ids])
    written = model.generate(begun, attention_mask=torch.ones_like(begun), max_new_tokens=12, do_sample=False)
    return str(tokenizer.decode(written[0, begun.shape[1] :], skip_special_tokens=True)).rstrip("\ufffd")


def written_here(api: httpx.Client, model: str, texts: list[str]) -> list[str]:
    body = {"inputs": texts, "parameters": {"max_new_tokens": 12}}
    return [one["text"] for one in api.post(f"/models/{model}/predict", json=body).json()["outputs"]]


@pytest.mark.parametrize("kind", ["gpt", "qwen3"])
def test_an_imported_decoder_writes_and_learns_on_as_transformers_has_it(
    running: httpx.Client, decoders: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    """Continued pretraining: another dataset, the same task, the base model's tokenizer and weights to begin with."""
    texts = ["Number 7 comes", "\u6570\u5b57"]
    assert written_here(running, f"their-{kind}", texts) == [written_by(decoders[kind], text) for text in texts]
    rows = upload(running, as_lines([{"text": text} for text in TEXTS]), "numbers.jsonl")["id"]
    job = succeeded(running, submit(running, {
        "kind": "pretrain", "task": "next-token-prediction", "dataset": rows, "base_model": f"their-{kind}",
        "hyperparameters": {"epochs": 20, "learning_rate": 3e-3}, "output": {"model": f"their-{kind}"},
    }))  # fmt: skip
    assert job["result"]["ref"] == f"their-{kind}:2"
    for file in running.get(f"/models/their-{kind}/versions/2/files").json()["data"]:
        found = running.get(f"/models/their-{kind}/versions/2/files/{file['path']}")
        (tmp_path / file["path"]).write_bytes(found.content)
    assert (tmp_path / "tokenizer.json").read_text() == (decoders[kind] / "tokenizer.json").read_text()
    after = written_here(running, f"their-{kind}:2", texts)
    assert "after number" in after[0]
    assert after == [written_by(tmp_path, text) for text in texts]


@pytest.mark.parametrize(
    ("kind", "task", "target", "metric"),
    [
        ("gpt", "text-classification", "label", "accuracy"),
        ("qwen3", "text-classification", "label", "accuracy"),
        ("gpt", "multi-label-text-classification", "labels", "f1_micro"),
        ("gpt", "text-regression", "amount", "r2"),
        ("gpt", "token-classification", "tags", "f1"),
    ],
)
def test_a_decoder_without_a_mask_is_finetuned_for_every_task(
    running: httpx.Client, decoders: dict[str, Path], kind: str, task: str, target: str, metric: str
) -> None:
    """GPT-2's and Qwen's tokenizers have one special token, the end of a text, and nothing to hide others with."""
    words = [f"the {one} is {two}".split() for one in ("card", "order") for two in ("lost", "here", "late", "red")]
    rows: list[dict[str, Any]] = []
    for each in words * 4:
        is_card = "card" in each
        text = {"tokens": each} if target == "tags" else {"text": " ".join(each)}
        value = {
            "label": "a" if is_card else "b", "labels": ["a"] if is_card else ["b", "c"], "amount": 2.0 * is_card,
            "tags": ["O", "B-card" if is_card else "B-order", "O", "O"],
        }[target]  # fmt: skip
        rows.append({**text, target: value})
    name = f"{kind}-{task}"
    job = succeeded(running, submit(running, {
        "kind": "finetune", "task": task, "base_model": f"their-{kind}", "output": {"model": name},
        "dataset": upload(running, as_lines(rows), f"{target}.jsonl")["id"], "hyperparameters": FEW,
        "columns": {"target": target}, "split": {"validation": 0.25},
    }))  # fmt: skip
    assert job["result"]["metrics"]["train"][metric] > 0.9, job["result"]["metrics"]
    inputs = [rows[0].get("tokens", "the card is lost"), rows[4].get("tokens", "the order is lost")]
    answer = running.post(f"/models/{name}/predict", json={"inputs": inputs}).json()
    assert answer["errors"] == []
    first, second = answer["outputs"]
    told = {"label": "label", "labels": "labels", "amount": "value", "tags": "tags"}[target]
    if target == "amount":
        assert first[told] > 1.5 > 0.5 > second[told]
    elif target == "labels":  # which come by probability
        assert [sorted(first[told]), sorted(second[told])] == [["a"], ["b", "c"]]
    else:
        assert [first[told], second[told]] == [rows[0][target], rows[4][target]]


def test_a_marian_with_its_own_special_tokens_learns_to_write(running: httpx.Client, tmp_path: Path) -> None:
    theirs = small_marian(tmp_path / "marian")
    job = send(running, tmp_path / "marian", "marian")
    assert (job["task"], job["result"]["model_type"], job["warnings"]) == ("denoising", "marian", []), job
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "marian")
    found = running.post("/models/marian/embed", json={"inputs": SENTENCES[:2]}).json()["embeddings"]
    with torch.no_grad():
        for text, embedding in zip(SENTENCES[:2], found, strict=True):
            hidden_TD = theirs.get_encoder()(torch.tensor([tokenizer(text).input_ids])).last_hidden_state[0]
            torch.testing.assert_close(torch.tensor(embedding), hidden_TD.mean(0), atol=1e-5, rtol=0)
    pairs = [{"en": text, "word": text.split(" is ")[1].split(",")[0]} for text in SENTENCES]
    succeeded(running, submit(running, {
        "kind": "finetune", "task": "translation", "base_model": "marian", "output": {"model": "marian-words"},
        "dataset": upload(running, as_lines(pairs * 8), "pairs.jsonl")["id"],
        "columns": {"text": "en", "target": "word"}, "split": {"validation": 0.0},
        "hyperparameters": {"epochs": 40, "batch_size": 8, "learning_rate": 3e-3, "dropout": 0.0},
    }))  # fmt: skip
    body = {"inputs": SENTENCES, "parameters": {"max_new_tokens": 8}}
    outputs = running.post("/models/marian-words/predict", json=body).json()["outputs"]
    assert [one["translation"] for one in outputs] == [pair["word"] for pair in pairs]
    for file in running.get("/models/marian-words/versions/1/files").json()["data"]:
        (tmp_path / file["path"]).write_bytes(
            running.get(f"/models/marian-words/versions/1/files/{file['path']}").content
        )
    opened = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert type(opened) is transformers.MarianMTModel
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    read = again(SENTENCES, padding=True, return_tensors="pt")
    written = opened.generate(
        input_ids=read.input_ids, attention_mask=read.attention_mask, max_new_tokens=8, num_beams=1
    )
    assert [again.decode(row, skip_special_tokens=True) for row in written] == [one["translation"] for one in outputs]
