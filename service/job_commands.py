"""What a caller tells a job to do: cancel, pause, resume, retry, clone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError
from sqlalchemy.orm import Session

from learning.config import TrainingSpec
from learning.errors import InvalidConfig
from service import job_requests
from service.dependencies import IdempotencyKey, JobsKey
from service.job_requests import JobCreate, Request, StoredRequest
from service.job_views import JobView, job_view
from service.state import Opened
from service.submission import submitted
from store import commands, jobs
from store.errors import IllegalTransition
from store.records import JobRecord
from store.states import CancelMode

router = APIRouter(prefix="/jobs", tags=["jobs"])


class Cancel(Request):
    """How to cancel a job that runs; one that waits has nothing to keep."""

    mode: CancelMode = Field(
        CancelMode.KEEP_BEST,
        description="keep_best: write a checkpoint at the next step and keep that alone, which holds the best weights "
        "too; checkpoint_now: keep the earlier ones as well; discard: stop at once and keep none.",
    )


class Changes(Request):
    """What may change about a job that stands still; the rest would make it another training."""

    epochs: int | None = Field(None, ge=1, le=100_000)
    max_steps: int | None = Field(None, ge=1, le=100_000_000)
    learning_rate: float | None = Field(None, gt=0, le=10)
    weight_decay: float | None = Field(None, ge=0, le=10)
    gradient_clip: float | None = Field(None, gt=0, le=1e6)
    evaluate_every_epochs: int | None = Field(None, ge=1, le=100_000)


class Resume(Request):
    """How to go on."""

    hyperparameters: Changes = Changes()
    max_runtime_s: float | None = Field(None, gt=0, le=10**8, description="New limit of all attempts together.")


class Retry(Request):
    """Where a retry begins, and what it may change."""

    start: Literal["start", "last_checkpoint"] = Field(
        "last_checkpoint", alias="from", description="last_checkpoint: go on exactly there, if there is one."
    )
    max_runtime_s: float | None = Field(None, gt=0, le=10**8, description="New limit; the time before counts no more.")


class Clone(StoredRequest):
    """Fields of the request to replace; an object is merged into the one that was sent."""

    overrides: dict[str, Any] = Field(default_factory=dict)


@router.post("/{job_id}/cancel")
def cancel_job(job_id: str, state: Opened, caller: JobsKey, how: Cancel | None = None) -> JobView:
    """Cancel a job: at once if it waits, within two seconds and a step if it runs."""
    mode = (how or Cancel()).mode
    with state.database.write() as session:
        return job_view(session, commands.cancel(session, caller.project, job_id, mode))


@router.post("/{job_id}/pause")
def pause_job(job_id: str, state: Opened, caller: JobsKey) -> JobView:
    """Stop a job at a checkpoint, to be resumed."""
    with state.database.write() as session:
        return job_view(session, commands.pause(session, caller.project, job_id))


@router.post("/{job_id}/resume")
def resume_job(job_id: str, state: Opened, caller: JobsKey, how: Resume | None = None) -> JobView:
    """Queue a paused job again; it goes on where it stopped, if asked for with other settings."""
    with state.database.write() as session:
        resolved = _changed(jobs.get(session, caller.project, job_id), how.hyperparameters) if how else None
        job = commands.resume(session, caller.project, job_id, resolved)
        if how and how.max_runtime_s:
            job.max_runtime_s = how.max_runtime_s
            session.flush()
        view = job_view(session, job)
    state.sweeper.wake()
    return view


def _changed(job: JobRecord, changes: Changes) -> dict[str, Any] | None:
    """Return the specification with the changes, or None when there are none."""
    wanted = changes.model_dump(exclude_unset=True)
    if not wanted:
        return None
    if "hyperparameters" not in (job.resolved or {}):
        raise InvalidConfig(f"Job {job.id} has no hyperparameters.", param="hyperparameters")
    assert job.resolved is not None
    resolved = {**job.resolved, "hyperparameters": {**job.resolved["hyperparameters"], **wanted}}
    return TrainingSpec.model_validate(resolved).model_dump(mode="json")


@router.post("/{job_id}/retry", status_code=202)
def retry_job(
    job_id: str,
    state: Opened,
    caller: JobsKey,
    response: Response,
    how: Retry | None = None,
    key: IdempotencyKey = None,
) -> JobView:
    """Queue a failed or cancelled job again, as a new job, from its last checkpoint or from its start."""
    how = how or Retry()

    def submit(session: Session) -> JobRecord:
        made = commands.retry(session, caller.project, job_id, from_checkpoint=how.start == "last_checkpoint")
        if how.max_runtime_s:
            made.max_runtime_s = how.max_runtime_s
        return made

    return submitted(state, caller, response, key, ("retry", job_id, how.model_dump_json()), submit)


@router.post("/{job_id}/clone", status_code=202)
def clone_job(
    job_id: str,
    state: Opened,
    caller: JobsKey,
    response: Response,
    how: Clone | None = None,
    key: IdempotencyKey = None,
) -> JobView:
    """Queue the same request again, as a new job, with some of its fields replaced."""
    how = how or Clone()

    def submit(session: Session) -> JobRecord:
        job = jobs.get(session, caller.project, job_id)
        if job.kind == jobs.INGEST:
            raise IllegalTransition(f"Job {job_id} reads an upload.", hint="Upload the file again.")
        if job.kind == jobs.IMPORT:
            hint = "Send the model again with POST /api/v1/models."
            raise IllegalTransition(f"Job {job_id} reads a model.", hint=hint)
        if job.kind == jobs.PREDICT:
            raise IllegalTransition(f"Job {job_id} only predicts.", hint="Ask for the prediction again.")
        if job.kind == jobs.MOVE:
            hint = "Move the gallery again with POST /api/v1/galleries/{gallery}/move."
            raise IllegalTransition(f"Job {job_id} moves a gallery.", hint=hint)
        asked = _checked(_merged(job.spec, how.overrides))
        return jobs.submit(session, job_requests.resolved(session, caller.project, asked))

    return submitted(state, caller, response, key, ("clone", job_id, how.model_dump_json()), submit)


def _merged(sent: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(sent)
    for name, value in overrides.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def _checked(body: dict[str, Any]) -> JobCreate:
    try:
        return JobCreate.model_validate(body)
    except ValidationError as error:
        found = [{**item, "loc": ("body", "overrides", *item["loc"])} for item in error.errors(include_url=False)]
        raise RequestValidationError(found) from None
