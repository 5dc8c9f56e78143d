"""OpenAI's own client, unmodified, against the running service, on both columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI
from registered import TEXTS, register, register_text
from servers import Stack
from support import TRAIN, new_key, wait_until


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{stack.url}/v1", api_key=stack.key) as opened:
        yield opened


@pytest.fixture(scope="module")
def file(client: OpenAI) -> Any:
    made = client.files.create(file=TRAIN, purpose="fine-tune")
    assert (made.purpose, made.bytes, made.object) == ("fine-tune", TRAIN.stat().st_size, "file")
    return client.files.wait_for_processing(made.id, poll_interval=0.1)


@pytest.fixture(scope="module")
def job(client: OpenAI, file: Any) -> Any:
    """A succeeded job of nothing but a model and a file."""
    made = client.fine_tuning.jobs.create(
        model="mlp",
        training_file=file.id,
        hyperparameters={"n_epochs": 2},
        suffix="By Open AI",
        seed=3,
        metadata={"for": "tests"},
    )
    assert made.status in ("queued", "running")
    return ended(client, made.id)


def ended(client: OpenAI, job_id: str) -> Any:
    def look() -> Any:
        found = client.fine_tuning.jobs.retrieve(job_id)
        return found if found.status in ("succeeded", "failed", "cancelled") else None

    return wait_until(look, 60)


def test_files(client: OpenAI, file: Any) -> None:
    assert file.status == "processed"
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == TRAIN.read_bytes()
    notes = client.files.create(file=("notes.txt", b"anything"), purpose="user_data")
    bad = client.files.create(file=("bad.csv", b"a,b\n1,2\n1,2,3\n"), purpose="fine-tune")
    wrong = client.files.wait_for_processing(bad.id, poll_interval=0.1)
    assert (wrong.status, notes.status) == ("error", "processed")
    assert "3" in (wrong.status_details or "")
    newest = [one.id for one in client.files.list(limit=2)]  # pages itself
    assert newest[:2] == [bad.id, notes.id]
    assert file.id in newest
    oldest = [one.id for one in client.files.list(limit=1, order="asc")]
    assert oldest == newest[::-1]
    assert [one.id for one in client.files.list(purpose="user_data")] == [notes.id]
    deleted = client.files.delete(notes.id)
    assert (deleted.id, deleted.deleted) == (notes.id, True)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(notes.id)
    client.files.delete(bad.id)


def test_an_upload_in_parts(client: OpenAI) -> None:
    content = b"a,label\n" + b"".join(b"%d,%s\n" % (n, b"xy"[n % 2 : n % 2 + 1]) for n in range(50))
    upload = client.uploads.create(filename="parts.csv", bytes=len(content), purpose="fine-tune", mime_type="text/csv")
    parts = [client.uploads.parts.create(upload.id, data=piece).id for piece in (content[100:], content[:100])]
    with pytest.raises(openai.BadRequestError, match="bytes together"):
        client.uploads.complete(upload.id, part_ids=parts[:1])
    done = client.uploads.complete(upload.id, part_ids=parts[::-1])
    assert (done.status, done.file and done.file.filename) == ("completed", "parts.csv")
    assert done.file is not None
    assert client.files.content(done.file.id).read() == content
    assert client.files.wait_for_processing(done.file.id, poll_interval=0.1).status == "processed"
    other = client.uploads.create(filename="x.csv", bytes=5, purpose="fine-tune", mime_type="text/csv")
    assert client.uploads.cancel(other.id).status == "cancelled"
    with pytest.raises(openai.NotFoundError):
        client.uploads.parts.create(other.id, data=b"x")


def test_a_fine_tuning_job(client: OpenAI, api: httpx.Client, file: Any, job: Any) -> None:
    assert (job.status, job.error, job.training_file) == ("succeeded", None, file.id)
    assert job.fine_tuned_model == "by-open-ai:1"
    assert (job.model, job.seed, job.metadata) == ("mlp", 3, {"for": "tests"})
    assert (job.hyperparameters.n_epochs, job.method.type) == (2, "supervised")
    assert job.finished_at >= job.created_at
    ours = api.get(f"/jobs/{job.id}").json()
    assert (ours["task"], ours["resolved"]["columns"]["target"]) == ("tabular-classification", "diagnosis")
    found = [one.id for one in client.fine_tuning.jobs.list(limit=1, metadata={"for": "tests"})]
    assert found == [job.id]
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=2))
    assert events[0].message == "Job succeeded."
    assert (events[-1].message, events[-1].level) == ("Job submitted.", "info")
    assert len(events) > 2
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert checkpoints[0].fine_tuning_job_id == job.id
    assert checkpoints[0].step_number == checkpoints[0].metrics.step > 0
    (answer,) = api.post(f"/models/{job.fine_tuned_model}/predict", json={"inputs": [row()]}).json()["outputs"]
    assert answer["label"] in ("malignant", "benign")


def row() -> dict[str, float]:
    header, first = TRAIN.read_text().splitlines()[:2]
    named = dict(zip(header.split(","), first.split(","), strict=True))
    return {name: float(value) for name, value in named.items() if name != "diagnosis"}


def test_pause_resume_cancel(client: OpenAI, file: Any, job: Any) -> None:
    long = client.fine_tuning.jobs.create(
        model="mlp",
        training_file=file.id,
        validation_file=file.id,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50_000, "batch_size": 32}}},
        extra_body={"task": "tabular-classification", "columns": {"target": "diagnosis"}, "priority": 5},
    )
    assert long.validation_file == file.id
    try:
        client.fine_tuning.jobs.pause(long.id)
        wait_until(lambda: client.fine_tuning.jobs.retrieve(long.id).status == "paused")
        # A free worker may have taken it before the answer is read.
        assert client.fine_tuning.jobs.resume(long.id).status in ("queued", "running")
    finally:
        client.fine_tuning.jobs.cancel(long.id)
    assert ended(client, long.id).status == "cancelled"


def test_a_request_that_is_sent_again(stack: Stack, file: Any) -> None:
    body = {"model": "mlp", "training_file": file.id, "hyperparameters": {"n_epochs": 1}, "seed": 11}
    ids = []
    with httpx.Client(base_url=f"{stack.url}/v1", headers={"Authorization": f"Bearer {stack.key}"}) as plain:
        for count in ("0", "1", "2", "0", "1"):
            headers = {"x-stainless-retry-count": count}
            ids.append(plain.post("/fine_tuning/jobs", json=body, headers=headers).json()["id"])
    assert ids[0] == ids[1] == ids[2] != ids[3] == ids[4]


def test_models(stack: Stack, client: OpenAI, job: Any) -> None:
    made = client.models.retrieve("by-open-ai")
    assert (made.id, made.object, made.owned_by) == ("by-open-ai:1", "model", "default")
    assert made.id in [one.id for one in client.models.list()]
    with pytest.raises(openai.NotFoundError, match="nobody"):
        client.models.retrieve("nobody")
    register(stack, "short-lived")
    gone = client.models.delete("short-lived:1")
    assert (gone.id, gone.deleted) == ("short-lived:1", True)
    with pytest.raises(openai.NotFoundError, match="short-lived"):
        client.models.retrieve("short-lived:1")


@pytest.fixture(scope="module")
def embedder(stack: Stack) -> str:
    register_text(stack, "embedder", pretrained_only=True)
    return "embedder"


def native(api: httpx.Client, inputs: Any) -> Any:
    return np.array(api.post("/models/embedder/embed", json={"inputs": list(inputs)}).json()["embeddings"])


def test_embeddings(client: OpenAI, api: httpx.Client, embedder: str) -> None:
    expected = native(api, TEXTS)
    for options in ({}, {"encoding_format": "float"}, {"dimensions": expected.shape[1]}):
        answer = client.embeddings.create(model=embedder, input=list(TEXTS), **options)  # type: ignore[arg-type]
        assert np.allclose([one.embedding for one in answer.data], expected, atol=1e-6)
    assert [one.index for one in answer.data] == list(range(len(TEXTS)))
    assert answer.model == "embedder:1"
    assert answer.usage.total_tokens == sum(len(text) + 2 for text in TEXTS)  # a character each, and two around them
    (one,) = client.embeddings.create(model=embedder, input=TEXTS[0]).data
    assert np.allclose(one.embedding, expected[0], atol=1e-5)


def test_a_batch(client: OpenAI, api: httpx.Client, embedder: str) -> None:
    inputs: list[Any] = [TEXTS[0], list(TEXTS[1:3]), "  "]
    lines = [
        {"custom_id": f"r{n}", "method": "POST", "url": "/v1/embeddings", "body": {"model": embedder, "input": value}}
        for n, value in enumerate(inputs)
    ]
    file = client.files.create(file=("b.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h", metadata={"a": "b"}
    )
    assert batch.request_counts is not None
    assert batch.request_counts.total == 3
    done = wait_until(lambda: (b := client.batches.retrieve(batch.id)).status == "completed" and b, 60)
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed, done.metadata) == (3, 2, 1, {"a": "b"})
    answers = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    assert [answer["custom_id"] for answer in answers] == ["r0", "r1"]
    found = [one["embedding"] for answer in answers for one in answer["response"]["body"]["data"]]
    assert np.allclose(found, native(api, TEXTS[:3]), atol=1e-5)
    (error,) = (json.loads(line) for line in client.files.content(done.error_file_id).text.splitlines())
    assert (error["custom_id"], error["error"]["code"]) == ("r2", "invalid_input")
    assert client.batches.retrieve(batch.id) == done
    assert api.get(f"/predictions/{batch.id}").status_code == 404  # it takes another scope
    assert batch.id in [one.id for one in client.batches.list(limit=1)]
    client.files.create(file=("rows.csv", b"a,b\n1,2\n"), purpose="fine-tune")
    assert {one.purpose for one in client.files.list()} >= {"batch", "batch_output", "batch_errors", "fine-tune"}


def test_a_batch_that_is_cancelled(client: OpenAI, embedder: str) -> None:
    body = {"model": embedder, "input": [TEXTS[0]] * 20}
    lines = [{"custom_id": f"r{n}", "method": "POST", "url": "/v1/embeddings", "body": body} for n in range(200)]
    file = client.files.create(file=("b.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    wait_until(lambda: client.batches.retrieve(batch.id).status == "cancelled")
    assert client.batches.retrieve(batch.id).output_file_id is None


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda c: c.files.create(file=("a.csv", b"x"), purpose="vision"), openai.BadRequestError, "fine-tune"),
        (lambda c: c.files.create(file=("a.csv", b""), purpose="fine-tune"), openai.BadRequestError, "empty"),
        (lambda c: c.files.content("file_1"), openai.NotFoundError, "file_1"),
        (
            lambda c: c.fine_tuning.jobs.create(model="mlp", training_file="ds_1"),
            openai.NotFoundError,
            "ds_1",
        ),
        (lambda c: c.fine_tuning.jobs.retrieve("job_1"), openai.NotFoundError, "job_1"),
        (lambda c: c.embeddings.create(model="nobody", input="x"), openai.NotFoundError, "nobody"),
        (lambda c: c.embeddings.create(model="embedder", input=" "), openai.BadRequestError, "empty"),
        (
            lambda c: c.embeddings.create(model="embedder", input="x", dimensions=3),
            openai.BadRequestError,
            "dimensions",
        ),
        (
            lambda c: c.batches.create(
                input_file_id=c.files.create(file=("b.jsonl", b"{}"), purpose="batch").id,
                endpoint="/v1/embeddings",
                completion_window="24h",
            ),
            openai.BadRequestError,
            "Line 1",
        ),
        (
            lambda c: c.batches.create(input_file_id="file_1", endpoint="/v1/moderations", completion_window="24h"),
            openai.UnprocessableEntityError,
            "endpoint",
        ),
    ],
)
def test_errors(client: OpenAI, embedder: str, call: Any, error: type[openai.APIStatusError], said: str) -> None:
    with pytest.raises(error) as caught:
        call(client)
    assert said in caught.value.message
    assert caught.value.type == "invalid_request_error"
    assert caught.value.code


def test_errors_of_a_job_and_of_a_key(stack: Stack, client: OpenAI, file: Any) -> None:
    for options, said in (
        ({"hyperparameters": {"n_epochs": 0}}, "epochs"),
        ({"hyperparameters": {"learning_rate_multiplier": 2.0}}, "learning_rate"),
        ({"extra_body": {"taks": "x"}}, "taks"),
        ({"extra_body": {"task": "tabular-classification", "columns": {"target": "x"}}}, '"x" not found'),
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            client.fine_tuning.jobs.create(model="mlp", training_file=file.id, **options)  # type: ignore[arg-type]
        assert caught.value.status_code in (400, 422)
        assert said in caught.value.message
    with pytest.raises(openai.BadRequestError, match="suggests no task for text"):
        client.fine_tuning.jobs.create(model="bert", training_file=file.id)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="key_1.x").models.list()
    with pytest.raises(openai.PermissionDeniedError, match="datasets"):
        client.with_options(api_key=new_key(stack, scopes=("predict",))).files.list()
