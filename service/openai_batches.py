"""OpenAI's batches: a file of requests, answered by one prediction job; its answers become files when they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.dependencies import JobsKey, Listing
from service.errors import ApiError
from service.job_requests import StoredRequest
from service.library import read_design
from service.openai_completions import CompletionRequest, check_writes, completion_body
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

MOST_REQUESTS = 50_000
CustomId = Annotated[str, Field(min_length=1, max_length=512)]
INDEX, OUTPUT, ERRORS = "batch_index", "batch_output", "batch_errors"  # files of a batch, by purpose


class BatchCreate(StoredRequest):
    """A file of requests to one endpoint, all of one model."""

    input_file_id: str
    endpoint: Literal["/v1/embeddings", "/v1/completions"]
    completion_window: Literal["24h"]
    metadata: dict[str, Any] | None = None
    output_expires_after: None = None


class EmbeddingLine(BaseModel):
    """One request of a file of embeddings."""

    model_config = ConfigDict(extra="forbid")
    operation: ClassVar[Literal["embed"]] = "embed"

    custom_id: CustomId
    method: Literal["POST"]
    url: Literal["/v1/embeddings"]
    body: EmbeddingRequest

    def inputs(self) -> list[Any]:
        """Return what the job answers."""
        return self.body.input if isinstance(self.body.input, list) else [self.body.input]

    def note(self) -> list[Any]:
        """Return what `response` needs."""
        return [self.body.encoding_format, self.body.dimensions]

    @staticmethod
    def response(outputs: list[dict[str, Any]], ref: str, note: list[Any]) -> dict[str, Any]:
        """Return the body of the response to a request with these answers; ApiError for a wrong width."""
        encoding, dimensions = note
        check_width(dimensions, len(outputs[0]["embedding"]))
        tokens = sum(one["positions"] for one in outputs)
        return embedding_body([one["embedding"] for one in outputs], ref, tokens, encoding)


class CompletionLine(BaseModel):
    """One request of a file of completions."""

    model_config = ConfigDict(extra="forbid")
    operation: ClassVar[Literal["complete"]] = "complete"

    custom_id: CustomId
    method: Literal["POST"]
    url: Literal["/v1/completions"]
    body: CompletionRequest

    def inputs(self) -> list[Any]:
        """Return what the job answers."""
        parameters = [self.body.parameters(choice) for choice in range(self.body.choices)]
        return [{"input": prompt, "parameters": one} for prompt in self.body.prompts for one in parameters]

    def note(self) -> list[Any]:
        """Return what `response` needs."""
        return [self.body.choices]

    @staticmethod
    def response(outputs: list[dict[str, Any]], ref: str, note: list[Any]) -> dict[str, Any]:
        """Return the body of the response to a request with these answers."""
        return completion_body(outputs, note[0], ref)


Line = EmbeddingLine | CompletionLine
LINES: dict[str, type[Line]] = {"/v1/embeddings": EmbeddingLine, "/v1/completions": CompletionLine}


@router.post("")
def create_batch(asked: BatchCreate, request: Request, state: Opened, caller: JobsKey) -> Batch:
    """Check the file and queue a job for it; what is wrong with a line is told at once."""
    with state.database.read() as session:
        file = files.get(session, caller.project, asked.input_file_id, "batch")
        lines = list(_lines(state.artifacts.path(file.sha256).read_bytes(), asked.endpoint))
    inputs = state.artifacts.write([orjson.dumps([value for line in lines for value in line.inputs()])])
    index = [[line.custom_id, len(line.inputs()), *line.note()] for line in lines]
    kept = state.artifacts.write([orjson.dumps(index)])

    def submit(session: Session) -> JobRecord:
        version = models.resolve(session, caller.project, lines[0].body.model)
        if lines[0].operation == "complete":
            check_writes(read_design(state.artifacts, models.files(session, version.record.id)), version.ref)
        spec = {**asked.model_dump(), "model": lines[0].body.model, "requests": len(lines)}
        job = submit_listed(state, session, caller, version, spec, inputs, lines[0].operation)
        state.artifacts.register(session, kept)
        session.flush()
        files.add(session, project=caller.project, filename="index.json", purpose=INDEX, artifact=kept, job_id=job.id)
        return job

    job = submit_once(state, request, caller, asked.model_dump_json(), submit)
    with state.database.read() as session:
        return Batch.of(session, jobs.get(session, caller.project, job.id))


def _lines(content: bytes, endpoint: str) -> Iterator[Line]:
    first: Line | None = None
    known: set[str] = set()
    for number, text in enumerate(content.splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = LINES[endpoint].model_validate_json(text)
        except ValidationError as error:
            found = error.errors()[0]
            where = ".".join(map(str, found["loc"]))
            raise _wrong(number, f"{where}: {found['msg']}" if where else found["msg"], endpoint) from None
        first = first or line
        if line.body.model != first.body.model:
            message = f'model is "{line.body.model}", but the first line has "{first.body.model}"'
            raise _wrong(number, message, endpoint)
        if line.custom_id in known or not line.inputs() or len(known) >= MOST_REQUESTS:
            repeated = f'custom_id "{line.custom_id[:80]}" is there already' if line.custom_id in known else None
            other = "there are too many requests" if line.inputs() else "input is empty"
            raise _wrong(number, repeated or other, endpoint)
        known.add(line.custom_id)
        yield line
    if first is None:
        raise _wrong(1, "there is no request", endpoint)


def _wrong(number: int, what: str, endpoint: str) -> ApiError:
    asked = "input" if endpoint == "/v1/embeddings" else "prompt"
    return ApiError(
        400,
        "invalid_request",
        f"Line {number} of the file: {what}.",
        hint='Each line is {"custom_id", "method": "POST", '
        f'"url": "{endpoint}", "body": {{"model", "{asked}"}}}}; each is for the same endpoint.',
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
    for number, (custom_id, count, *note) in enumerate(orjson.loads(index)):
        rows = [orjson.loads(next(lines)) for _ in range(count)]
        about = {"id": f"batch_req_{job.id.partition('_')[2]}_{number}", "custom_id": custom_id}
        response, error = _response(LINES[job.spec["endpoint"]], rows, ref, note)
        if error is None:
            completed += 1
            told = {"status_code": 200, "request_id": about["id"], "body": response}
            good += _written({**about, "response": told, "error": None})
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


def _response(
    kind: type[Line], rows: list[dict[str, Any]], ref: str, note: list[Any]
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the body of a request's response, or what was wrong with it."""
    wrong = next((row["error"] for row in rows if row["error"]), None)
    if wrong is not None:
        return None, {"code": wrong["code"], "message": wrong["message"]}
    try:
        return kind.response([row["output"] for row in rows], ref, note), None
    except ApiError as error:
        return None, {"code": error.code, "message": error.message}


def _written(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
