"""OpenAI's batches: a file of requests, answered by one prediction job; its answers become files when they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.dependencies import JobsKey, Listing
from service.errors import ApiError
from service.job_requests import StoredRequest
from service.openai_jobs import listing
from service.openai_models import EmbeddingRequest, check_width, embedding_body
from service.openai_objects import Batch
from service.openai_retries import submit_once
from service.prediction_jobs import submit_listed
from service.state import Opened, State
from store import commands, files, ids, jobs, models
from store.artifacts import Artifact
from store.keys import Principal
from store.records import JobRecord
from store.states import State as JobState

router = APIRouter(prefix="/v1/batches", tags=["openai"])

EMBEDDINGS = "/v1/embeddings"
MOST_REQUESTS = 50_000
INDEX, OUTPUT, ERRORS = "batch_index", "batch_output", "batch_errors"  # files of a batch, by purpose


class BatchCreate(StoredRequest):
    """A file of requests to one endpoint, all of one model."""

    input_file_id: str
    endpoint: Literal["/v1/embeddings"]
    completion_window: Literal["24h"]
    metadata: dict[str, Any] | None = None
    output_expires_after: None = None


class Line(BaseModel):
    """One request of the file."""

    model_config = ConfigDict(extra="forbid")

    custom_id: str = Field(min_length=1, max_length=512)
    method: Literal["POST"]
    url: Literal["/v1/embeddings"]
    body: EmbeddingRequest

    @property
    def inputs(self) -> list[Any]:
        """What is to be embedded."""
        return self.body.input if isinstance(self.body.input, list) else [self.body.input]


@router.post("")
def create_batch(asked: BatchCreate, request: Request, state: Opened, caller: JobsKey) -> Batch:
    """Check the file and queue a job for it; what is wrong with a line is told at once."""
    with state.database.read() as session:
        file = files.get(session, caller.project, asked.input_file_id, "batch")
        lines = list(_lines(state.artifacts.path(file.sha256).read_bytes()))
    inputs = state.artifacts.write([orjson.dumps([value for line in lines for value in line.inputs])])
    index = [[line.custom_id, len(line.inputs), line.body.encoding_format, line.body.dimensions] for line in lines]
    kept = state.artifacts.write([orjson.dumps(index)])

    def submit(session: Session) -> JobRecord:
        version = models.resolve(session, caller.project, lines[0].body.model)
        spec = {**asked.model_dump(), "model": lines[0].body.model, "requests": len(lines)}
        job = submit_listed(state, session, caller, version, spec, inputs, "embed")
        state.artifacts.register(session, kept)
        session.flush()
        files.add(session, project=caller.project, filename="index.json", purpose=INDEX, artifact=kept, job_id=job.id)
        return job

    job = submit_once(state, request, caller, asked.model_dump_json(), submit)
    with state.database.read() as session:
        return Batch.of(session, jobs.get(session, caller.project, job.id))


def _lines(content: bytes) -> Iterator[Line]:
    first: Line | None = None
    known: set[str] = set()
    for number, text in enumerate(content.splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = Line.model_validate_json(text)
        except ValidationError as error:
            found = error.errors()[0]
            where = ".".join(map(str, found["loc"]))
            raise _wrong(number, f"{where}: {found['msg']}" if where else found["msg"]) from None
        first = first or line
        if line.body.model != first.body.model:
            raise _wrong(number, f'model is "{line.body.model}", but the first line has "{first.body.model}"')
        if line.custom_id in known or not line.inputs or len(known) >= MOST_REQUESTS:
            repeated = f'custom_id "{line.custom_id[:80]}" is there already' if line.custom_id in known else None
            raise _wrong(number, repeated or ("input is empty" if not line.inputs else "there are too many requests"))
        known.add(line.custom_id)
        yield line
    if first is None:
        raise _wrong(1, "there is no request")


def _wrong(number: int, what: str) -> ApiError:
    return ApiError(
        400,
        "invalid_request",
        f"Line {number} of the file: {what}.",
        hint='Each line is {"custom_id", "method": "POST", "url": "/v1/embeddings", "body": {"model", "input"}}.',
        param="input_file_id",
    )


@router.get("")
def list_batches(
    state: Opened,
    caller: JobsKey,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Listing[Batch]:
    """Return batches, newest first."""
    query = select(JobRecord).where(
        JobRecord.project == caller.project,
        JobRecord.kind == jobs.PREDICT,
        JobRecord.spec["input_file_id"].as_string().is_not(None),
    )
    if after is not None:
        query = query.where(JobRecord.id < after)
    with state.database.write() as session:
        rows = session.scalars(query.order_by(JobRecord.id.desc()).limit(limit + 1)).all()
        return listing([_settled(state, session, job) for job in rows], limit)


@router.get("/{batch_id}")
def get_batch(batch_id: str, state: Opened, caller: JobsKey) -> Batch:
    """Return a batch; once its job has succeeded, with the files of its answers."""
    with state.database.write() as session:
        return _settled(state, session, _batch(session, caller, batch_id))


@router.post("/{batch_id}/cancel")
def cancel_batch(batch_id: str, state: Opened, caller: JobsKey) -> Batch:
    """Cancel a batch."""
    with state.database.write() as session:
        _batch(session, caller, batch_id)
        return Batch.of(session, commands.cancel(session, caller.project, batch_id))


def _batch(session: Session, caller: Principal, batch_id: str) -> JobRecord:
    job = jobs.get(session, caller.project, batch_id)
    if "input_file_id" not in job.spec:
        raise jobs.no_such_job(batch_id)
    return job


def _settled(state: State, session: Session, job: JobRecord) -> Batch:
    """Write the batch's files the first time that somebody looks after its end."""
    if job.state == JobState.SUCCEEDED and "counts" not in (job.result or {}):
        _write_files(state, session, job)
    return Batch.of(session, job)


def _write_files(state: State, session: Session, job: JobRecord) -> None:
    answers, index = (_content(state, session, job, purpose) for purpose in (files.OUTPUT, INDEX))
    lines = iter(answers.splitlines())
    ref, good, bad = (job.resolved or {})["ref"], bytearray(), bytearray()
    completed = failed = 0
    for number, (custom_id, count, encoding, dimensions) in enumerate(orjson.loads(index)):
        rows = [orjson.loads(next(lines)) for _ in range(count)]
        about = {"id": f"batch_req_{job.id.partition('_')[2]}_{number}", "custom_id": custom_id}
        error = _error_of(rows, dimensions)
        if error is None:
            completed += 1
            good += _written({**about, "response": _response(rows, ref, encoding, about["id"]), "error": None})
        else:
            failed += 1
            bad += _written({**about, "response": None, "error": error})
    for purpose, content in ((OUTPUT, good), (ERRORS, bad)):
        if content:
            _keep(session, state, job, purpose, state.artifacts.write([bytes(content)]))
    counts = {"total": completed + failed, "completed": completed, "failed": failed}
    job.result = {**(job.result or {}), "counts": counts}
    session.flush()


def _content(state: State, session: Session, job: JobRecord, purpose: str) -> bytes:
    file = files.of_job(session, job.id, purpose)
    assert file is not None  # written with the job, or with its end
    return state.artifacts.path(file.sha256).read_bytes()


def _keep(session: Session, state: State, job: JobRecord, purpose: str, artifact: Artifact) -> None:
    state.artifacts.register(session, artifact)
    session.flush()
    # Two who look at once write the same file: one of them fails, and finds it there the next time.
    file_id = f"{ids.FILE}_{job.id.partition('_')[2][:-1]}{'01'[purpose == ERRORS]}"
    filename = f"{job.id}.{purpose}.jsonl"
    files.add(
        session,
        project=job.project,
        filename=filename,
        purpose=purpose,
        artifact=artifact,
        job_id=job.id,
        file_id=file_id,
    )


def _error_of(rows: list[dict[str, Any]], dimensions: int | None) -> dict[str, Any] | None:
    wrong = next((row["error"] for row in rows if row["error"]), None)
    if wrong is not None:
        return {"code": wrong["code"], "message": wrong["message"]}
    try:
        check_width(dimensions, len(rows[0]["output"]["embedding"]))
    except ApiError as error:
        return {"code": error.code, "message": error.message}
    return None


def _response(rows: list[dict[str, Any]], ref: str, encoding: str, request_id: str) -> dict[str, Any]:
    tokens = sum(row["output"]["positions"] for row in rows)
    body = embedding_body([row["output"]["embedding"] for row in rows], ref, tokens, encoding)
    return {"status_code": 200, "request_id": request_id, "body": body}


def _written(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
