"""Jobs: submit, look, wait; what a caller tells one to do is in job_commands."""

from __future__ import annotations

import hashlib
import time
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from service import job_requests
from service.changes import Seen
from service.dependencies import Authorization, IdempotencyKey, JobsKey, Listing, Paged, Scheme, Wait, authorize
from service.dry_run import DryRun, DryRunRoute
from service.dry_run import dry_run as look_at
from service.job_requests import JobCreate
from service.job_views import AttemptView, EventView, JobView, MetricView, job_view
from service.series import downsample
from service.state import Opened, State
from service.submission import submitted
from store import jobs, snapshots, waiting
from store.database import database_now
from store.errors import Conflict
from store.records import JobRecord
from store.states import TERMINAL
from store.states import State as JobState
from store.waiting import Waiting

router = APIRouter(prefix="/jobs", tags=["jobs"])
submission = APIRouter(prefix="/jobs", tags=["jobs"], route_class=DryRunRoute)

LOOK_AGAIN_S = 5.0
MOST_EVENTS = 2**31 - 1  # what the column holds
# Answers to polls that are kept, and the longest row of which one is: together some 30 megabytes at most.
KEPT_ANSWERS, MOST_KEPT_CHARACTERS = 256, 1 << 16


@submission.post(
    "",
    status_code=202,
    response_model=JobView,
    responses={200: {"model": DryRun, "description": "With dry_run."}},
)
def create_job(
    asked: JobCreate,
    state: Opened,
    caller: JobsKey,
    response: Response,
    *,
    key: IdempotencyKey = None,
    dry_run: Annotated[bool, Query(description="Only say what is wrong, or what the job would be and take.")] = False,
) -> JobView | Response:
    """Queue a pretrain or finetune job; with `dry_run`, look at the request and write nothing (200)."""
    if dry_run:
        return JSONResponse(look_at(state, caller.project, asked).model_dump())

    def submit(session: Session) -> JobRecord:
        return jobs.submit(session, job_requests.resolved(session, caller.project, asked))

    return submitted(state, caller, response, key, ("jobs", asked.model_dump_json()), submit)


@router.get("")
def list_jobs(
    state: Opened,
    caller: JobsKey,
    page: Paged,
    status: JobState | None = None,
    kind: Annotated[str | None, Query(description='Default: all but "ingest".')] = None,
    name: str | None = None,
) -> Listing[JobView]:
    """Return the project's jobs, newest first."""
    query = select(JobRecord).where(JobRecord.project == caller.project)
    query = query.where(JobRecord.kind == kind if kind else JobRecord.kind != jobs.INGEST)
    if status:
        query = query.where(JobRecord.state == status)
    if name:
        query = query.where(JobRecord.name == name)
    with state.database.read() as session:
        found = session.scalars(page.apply(query, JobRecord.id))
        return Listing[JobView].of([job_view(session, job) for job in found], page)


@router.get("/{job_id}", response_model=JobView)
async def get_job(
    job_id: str,
    state: Opened,
    _: Scheme,
    authorization: Authorization = "",
    wait: Wait = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Return a job with its ETag.

    With `wait`, not before it has ended, or differs from If-None-Match if that is given, or the time is over.
    """
    until = time.monotonic() + wait
    while True:
        answer = await to_thread.run_sync(_answer, state, authorization, job_id, limiter=state.pollers)
        changed = not _names(if_none_match, answer.tag)
        left_s = until - time.monotonic()
        if answer.finished or (changed and if_none_match is not None) or left_s <= 0:
            break
        # Looked at again now and then all the same: a place in the queue moves without the job's row.
        await state.changes.wait(job_id, answer.seen, min(left_s, LOOK_AGAIN_S))
    headers = {"ETag": answer.tag, **({} if answer.finished else {"Retry-After": "1"})}
    if not changed:
        return Response(status_code=304, headers=headers)
    return Response(answer.body, media_type="application/json", headers=headers)


def _names(if_none_match: str | None, tag: str) -> bool:
    given = (if_none_match or "").split(",")
    return any(entry.strip().removeprefix("W/") in (tag, "*") for entry in given)


class _Answer(NamedTuple):
    body: bytes
    tag: str
    seen: Seen
    finished: bool

    @classmethod
    def of(cls, job: JobRecord, place: Waiting | None = None) -> _Answer:
        body = JobView.of(job, place).model_dump_json().encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        return cls(body, tag, Seen(job.last_sequence, job.updated_at), job.state in TERMINAL)


def _answer(state: State, authorization: str, job_id: str) -> _Answer:
    # Services poll this more than all else: who asks and what for without a transaction, on one thread.
    with state.database.look() as connection:
        row = snapshots.snapshot(connection, authorize(connection, authorization, "jobs").project, job_id)
    known = _unqueued(row) if snapshots.characters(row) <= MOST_KEPT_CHARACTERS else _unqueued.__wrapped__(row)
    if known is not None:
        return known
    job = snapshots.record(row)
    with state.database.read() as session:
        return _Answer.of(job, waiting.place(session, job))


@lru_cache(maxsize=KEPT_ANSWERS)
def _unqueued(row: snapshots.Snapshot) -> _Answer | None:
    """Return the answer for a job, or None for one that is queued: its place changes without its row."""
    job = snapshots.record(row)
    return None if job.state == JobState.QUEUED else _Answer.of(job)


class JobPatch(job_requests.StoredRequest):
    """What may change about a job; the priority only until it has ended."""

    name: str | None = Field(None, max_length=200)
    priority: int | None = Field(None, ge=-100, le=100)
    metadata: dict[str, Any] | None = None


@router.patch("/{job_id}")
def change_job(job_id: str, patch: JobPatch, state: Opened, caller: JobsKey) -> JobView:
    """Change a job's name, priority or metadata."""
    with state.database.write() as session:
        job = jobs.get(session, caller.project, job_id)
        changes = patch.model_dump(exclude_none=True)
        if "priority" in changes and job.state in TERMINAL:
            raise Conflict(
                f"Job {job_id} is {job.state}; its priority means nothing any more.",
                hint="Leave priority out.",
                param="priority",
            )
        if "metadata" in changes:
            changes["user_metadata"] = changes.pop("metadata")
        for field, value in changes.items():
            setattr(job, field, value)
        job.updated_at = database_now()
        session.flush()
        return job_view(session, job)


@router.get("/{job_id}/events", response_model=Listing[EventView])
def job_events(
    job_id: str,
    request: Request,
    state: Opened,
    caller: JobsKey,
    after: Annotated[int, Query(ge=0, le=MOST_EVENTS, description="Only events after this sequence number.")] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 100,
    last_event_id: Annotated[int | None, Header(ge=0, le=MOST_EVENTS)] = None,
) -> Response | Listing[EventView]:
    """Return what happened to a job: a list, or a stream when `Accept: text/event-stream` asks for one."""
    with state.database.read() as session:
        jobs.get(session, caller.project, job_id)
        if "text/event-stream" in request.headers.get("accept", ""):
            return state.streams.response(job_id, last_event_id or after)
        found = [EventView.of(event) for event in jobs.events(session, job_id, after=after, limit=limit + 1)]
    listing = Listing[EventView].of(found[:limit])
    listing.has_more = len(found) > limit
    return listing


@router.get("/{job_id}/metrics")
def job_metrics(
    job_id: str,
    state: Opened,
    caller: JobsKey,
    run: str | None = None,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="Only measurements after this id.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    points: Annotated[int | None, Query(ge=4, le=1000, description="At most so many of each run and split.")] = None,
) -> Listing[MetricView]:
    """Return what a job measured, oldest first, page by page.

    With `points`, the whole of each series at once, thinned out: the first and the last point, and the lowest and
    the highest loss of equal parts between; steps that a resumed attempt measured again count once.
    """
    with state.database.read() as session:
        jobs.get(session, caller.project, job_id)
        if points is not None:
            every = jobs.metrics(session, job_id, run=run, after=after, limit=None)
            return Listing[MetricView].of([MetricView.of(point) for point in downsample(every, points)])
        found = jobs.metrics(session, job_id, run=run, after=after, limit=limit + 1)
    listing = Listing[MetricView].of([MetricView.of(point) for point in found[:limit]])
    listing.has_more = len(found) > limit
    return listing


@router.get("/{job_id}/logs", response_class=PlainTextResponse)
def job_logs(
    job_id: str,
    state: Opened,
    caller: JobsKey,
    tail: Annotated[int | None, Query(ge=1, le=100_000, description="Only the last so many lines.")] = None,
) -> PlainTextResponse:
    """Return what each attempt's process wrote on its standard error, the last megabyte of each."""
    with state.database.read() as session:
        jobs.get(session, caller.project, job_id)
    directory = state.settings.job_logs_dir / job_id
    texts = []
    for path in sorted(directory.glob("attempt-*.log"), key=lambda path: int(path.stem.removeprefix("attempt-"))):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - (1 << 20)))
            texts.append(f"--- {path.stem}\n{file.read().decode(errors='replace')}")
    text = "".join(texts)
    return PlainTextResponse(text if tail is None else "".join(text.splitlines(keepends=True)[-tail:]))


@router.get("/{job_id}/attempts")
def job_attempts(job_id: str, state: Opened, caller: JobsKey) -> Listing[AttemptView]:
    """Return a job's attempts, oldest first."""
    with state.database.read() as session:
        jobs.get(session, caller.project, job_id)
        listing = Listing[AttemptView].of([AttemptView.of(entry) for entry in jobs.attempts(session, job_id)])
    listing.first_id = listing.last_id = None
    return listing
