"""OpenAI's fine-tuning jobs: the same jobs, by that protocol's names."""

from __future__ import annotations

import re
import time
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from service import job_requests
from service.changes import Seen
from service.dependencies import JobsKey, Listing
from service.errors import ApiError
from service.job_requests import JobCreate, StoredRequest
from service.library import importing
from service.openai_objects import FineTuningJob, JobCheckpoint, JobEvent
from service.openai_retries import submit_once
from service.state import Opened, State
from store import checkpoints, commands, datasets, jobs, models
from store.datasets import PROCESSING
from store.errors import NotFound
from store.keys import Principal
from store.records import EventRecord, JobRecord

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["openai"])

TRAINING = ("pretrain", "finetune")
MOST_WAIT_S = 30.0  # for a file that is still being read
Limit = Annotated[int, Query(ge=1, le=100)]


class FineTune(StoredRequest):
    """A fine-tuning job in the protocol's words; any other field is one of our own jobs'."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: str = Field(description="A model's ref to start from, or an architecture to train from scratch.")
    training_file: str = Field(description="A dataset's id.")
    validation_file: str | None = None
    hyperparameters: dict[str, Any] = Field(
        default_factory=dict, description="n_epochs and batch_size, and ours by their own names."
    )
    method: dict[str, Any] | None = Field(None, description="Only supervised.")
    suffix: str | None = Field(None, max_length=64, description="Name of the model in the registry.")
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    metadata: dict[str, Any] | None = None
    integrations: list[Any] | None = Field(None, max_length=0)


@router.post("")
async def create_fine_tuning_job(asked: FineTune, request: Request, state: Opened, caller: JobsKey) -> FineTuningJob:
    """Queue a job. Without task and columns it learns what the training file suggests first."""
    await _until_read(state, caller, asked.training_file)

    def submit(session: Session) -> JobRecord:
        return jobs.submit(session, job_requests.resolved(session, caller.project, _native(session, caller, asked)))

    job = await to_thread.run_sync(
        submit_once, state, request, caller, asked.model_dump_json(exclude_unset=True), submit
    )
    return FineTuningJob.of(job)


async def _until_read(state: State, caller: Principal, dataset_id: str) -> None:
    """Wait for a file that was uploaded a moment ago."""
    until = time.monotonic() + MOST_WAIT_S

    def look() -> tuple[str, str, Seen]:
        with state.database.read() as session:
            dataset = datasets.get(session, caller.project, dataset_id)
            return dataset.status, dataset.job.id, Seen(dataset.job.last_sequence)

    while True:
        status, job_id, seen = await to_thread.run_sync(look)
        left_s = until - time.monotonic()
        if status != PROCESSING or left_s <= 0:
            return
        await state.changes.wait(job_id, seen, left_s)


def _native(session: Session, caller: Principal, asked: FineTune) -> JobCreate:
    """Return the job in our own words."""
    body: dict[str, Any] = dict(asked.model_extra or {})
    body.setdefault("kind", "finetune")
    files = {"train": asked.training_file, "validation": asked.validation_file}
    body["dataset"] = {role: file for role, file in files.items() if file}
    architecture = _architecture(asked.model)
    if architecture is None:
        body["base_model"] = asked.model
    else:
        body.setdefault("architecture", architecture)
    body["hyperparameters"] = _hyperparameters(asked)
    if asked.suffix:
        body["output"] = {"model": _name(asked.suffix), **body.get("output", {})}
    body |= {name: value for name in ("seed", "metadata") if (value := getattr(asked, name)) is not None}
    if body["kind"] == "finetune" and "task" not in body:
        body = {**_suggested(session, caller, asked, architecture), **body}
    try:
        return JobCreate.model_validate(body)
    except ValidationError as error:
        found = [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_url=False)]
        raise RequestValidationError(found) from None


def _architecture(name: str) -> str | None:
    with importing:
        from learning.architectures import ARCHITECTURES

    return name if name in ARCHITECTURES else None


def _hyperparameters(asked: FineTune) -> dict[str, Any]:
    method = asked.method or {"type": "supervised"}
    if method.get("type") != "supervised":
        raise ApiError(400, "invalid_request", "Only the method supervised is served.", param="method.type")
    given = {**(method.get("supervised") or {}).get("hyperparameters", {}), **asked.hyperparameters}
    factor = given.pop("learning_rate_multiplier", "auto")
    if factor not in ("auto", None, 1):
        raise ApiError(
            400,
            "invalid_config",
            f"learning_rate_multiplier is {factor!r}; only auto is known, since learning rates follow from the data.",
            hint='Give the rate itself: hyperparameters={"learning_rate": 0.001}.',
            param="hyperparameters.learning_rate_multiplier",
        )
    epochs = given.pop("n_epochs", None)
    return given if epochs is None else {"epochs": epochs, **given}


def _name(suffix: str) -> str:
    """Return a suffix as a name that the registry takes."""
    return re.sub(r"[^a-z0-9._-]+", "-", suffix.lower()).strip("-._") or "model"


def _suggested(session: Session, caller: Principal, asked: FineTune, architecture: str | None) -> dict[str, Any]:
    """Return the task, and the columns that go with it, that a file suggests to a model of this modality."""
    with importing:
        from learning.architectures import architecture_named
        from learning.tasks import TASKS

    dataset = datasets.get(session, caller.project, asked.training_file)
    if architecture is None:
        modality = models.resolve(session, caller.project, asked.model).record.modality
    else:
        modality = architecture_named(architecture).modality
    for one in (dataset.record.description or {}).get("task_candidates", []):
        task = TASKS.get(one["task"])
        if task is not None and (task.kind, task.modality) == ("finetune", modality):
            columns = {name: one[name] for name in ("target", "inputs") if one.get(name)}
            return {"task": task.name, "columns": columns}
    raise ApiError(
        400,
        "invalid_config",
        f"The training file suggests no task for {modality} data.",
        hint='Say what to learn: extra_body={"task": "...", "columns": {"target": "..."}}.',
        param="task",
    )


@router.get("")
def list_fine_tuning_jobs(
    request: Request, state: Opened, caller: JobsKey, after: str | None = None, limit: Limit = 20
) -> Listing[FineTuningJob]:
    """Return training jobs, newest first; `metadata[key]=value` leaves those that have it."""
    query = select(JobRecord).where(JobRecord.project == caller.project, JobRecord.kind.in_(TRAINING))
    for name, value in request.query_params.items():
        if found := re.fullmatch(r"metadata\[(.+)\]", name):
            query = query.where(JobRecord.user_metadata[found[1]].as_string() == value)
    if after is not None:
        query = query.where(JobRecord.id < after)
    with state.database.read() as session:
        rows = session.scalars(query.order_by(JobRecord.id.desc()).limit(limit + 1)).all()
        return listing([FineTuningJob.of(job) for job in rows], limit)


def listing(found: list[Any], limit: int) -> Listing[Any]:
    """Return a part of a list, of which there was one entry more if there are more."""
    shown = Listing[Any].of(found[:limit])
    shown.has_more = len(found) > limit
    return shown


def _training(session: Session, caller: Principal, job_id: str) -> JobRecord:
    job = jobs.get(session, caller.project, job_id)
    if job.kind not in TRAINING:
        raise jobs.no_such_job(job_id)
    return job


@router.get("/{job_id}")
def get_fine_tuning_job(job_id: str, state: Opened, caller: JobsKey) -> FineTuningJob:
    """Return a job."""
    with state.database.read() as session:
        return FineTuningJob.of(_training(session, caller, job_id))


@router.post("/{job_id}/cancel")
def cancel_fine_tuning_job(job_id: str, state: Opened, caller: JobsKey) -> FineTuningJob:
    """Cancel a job."""
    with state.database.write() as session:
        _training(session, caller, job_id)
        return FineTuningJob.of(commands.cancel(session, caller.project, job_id))


@router.post("/{job_id}/pause")
def pause_fine_tuning_job(job_id: str, state: Opened, caller: JobsKey) -> FineTuningJob:
    """Stop a job at a checkpoint, to be resumed."""
    with state.database.write() as session:
        _training(session, caller, job_id)
        return FineTuningJob.of(commands.pause(session, caller.project, job_id))


@router.post("/{job_id}/resume")
def resume_fine_tuning_job(job_id: str, state: Opened, caller: JobsKey) -> FineTuningJob:
    """Queue a paused job again."""
    with state.database.write() as session:
        _training(session, caller, job_id)
        job = FineTuningJob.of(commands.resume(session, caller.project, job_id))
    state.sweeper.wake()
    return job


@router.get("/{job_id}/events")
def list_fine_tuning_events(
    job_id: str, state: Opened, caller: JobsKey, after: str | None = None, limit: Limit = 20
) -> Listing[JobEvent]:
    """Return what happened to a job, the latest first."""
    query = select(EventRecord).where(EventRecord.job_id == job_id)
    if after is not None:
        number = after.removeprefix("evt_")
        if not number.isdecimal() or len(number) > 18:
            raise NotFound(f'No event "{after[:80]}".', hint="Give the id of an event of this list.")
        query = query.where(EventRecord.id < int(number))
    with state.database.read() as session:
        _training(session, caller, job_id)
        rows = session.scalars(query.order_by(EventRecord.id.desc()).limit(limit + 1)).all()
        return listing([JobEvent.of(event) for event in rows], limit)


@router.get("/{job_id}/checkpoints")
def list_fine_tuning_checkpoints(
    job_id: str, state: Opened, caller: JobsKey, after: str | None = None, limit: Limit = 10
) -> Listing[JobCheckpoint]:
    """Return a job's checkpoints, the latest first."""
    with state.database.read() as session:
        _training(session, caller, job_id)
        found = [one for one in checkpoints.of_job(session, job_id)[::-1] if after is None or one.id < after]
        return listing([JobCheckpoint.of(one) for one in found[: limit + 1]], limit)
