"""What a caller does with jobs: submit, look, pause, resume, cancel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, bindparam, func, select
from sqlalchemy.orm import Session

from store import ids
from store.database import database_now
from store.errors import IllegalTransition, NotFound
from store.records import (
    AttemptRecord,
    CheckpointRecord,
    EventRecord,
    JobDatasetRecord,
    JobRecord,
    MetricRecord,
)
from store.states import TERMINAL, State
from store.transition import record_event, transition

INGEST = "ingest"  # the kind of the job that makes a dataset out of an upload


@dataclass(frozen=True, slots=True)
class NewJob:
    """A request, checked and resolved."""

    kind: str
    project: str
    spec: Mapping[str, Any]
    task: str | None = None
    name: str | None = None
    resolved: Mapping[str, Any] | None = None
    datasets: Mapping[str, str] = field(default_factory=dict)
    base_version_id: str | None = None
    start_checkpoint_id: str | None = None
    priority: int = 0
    user_metadata: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[Any, ...] = ()


def submit(session: Session, new: NewJob) -> JobRecord:
    """Write a queued job, due at once; the sweeper announces it after the commit."""
    job = JobRecord(
        id=ids.new_id(ids.JOB),
        project=new.project,
        kind=new.kind,
        task=new.task,
        name=new.name,
        state=State.QUEUED,
        spec=dict(new.spec),
        resolved=dict(new.resolved) if new.resolved is not None else None,
        base_version_id=new.base_version_id,
        start_checkpoint_id=new.start_checkpoint_id,
        priority=new.priority,
        user_metadata=dict(new.user_metadata),
        warnings=list(new.warnings),
        nudge_at=database_now(),
        updated_at=database_now(),
    )
    session.add(job)
    session.flush()
    session.add_all(
        JobDatasetRecord(job_id=job.id, role=role, dataset_id=dataset_id) for role, dataset_id in new.datasets.items()
    )
    session.flush()
    record_event(session, job.id, State.QUEUED, "Job submitted.")
    return job


def get(session: Session, project: str, job_id: str) -> JobRecord:
    """Return the project's job; NotFound otherwise."""
    job = session.get(JobRecord, job_id)
    if job is None or job.project != project:
        raise _no_such_job(job_id)
    return job


# Made once and run below the ORM: services poll a job more than they do anything else.
_SNAPSHOT = select(JobRecord.__table__).where(
    JobRecord.id == bindparam("job_id"), JobRecord.project == bindparam("project")
)


def snapshot(session: Session, project: str, job_id: str) -> Row[Any]:
    """Return the project's job as a plain row, with the record's fields; NotFound otherwise."""
    row = session.connection().execute(_SNAPSHOT, {"job_id": job_id, "project": project}).one_or_none()
    if row is None:
        raise _no_such_job(job_id)
    return row


def _no_such_job(job_id: str) -> NotFound:
    return NotFound(f'No job "{job_id}".', hint="List jobs with GET /api/v1/jobs.")


def _locked(session: Session, project: str, job_id: str) -> JobRecord:
    """Return the job as it is now and stays until the transaction ends: a command tries one state after the other."""
    get(session, project, job_id)
    return session.scalars(
        select(JobRecord).where(JobRecord.id == job_id).with_for_update().execution_options(populate_existing=True)
    ).one()


def cancel(session: Session, project: str, job_id: str) -> JobRecord:
    """Cancel a job: at once while nobody runs it, else by asking its worker. Cancelling twice is harmless."""
    job = _locked(session, project, job_id)
    if job.state in (State.CANCELLED, State.CANCELLING):
        return job
    changed = transition(
        session,
        job_id,
        source=(State.QUEUED, State.PAUSED),
        target=State.CANCELLED,
        message="Job cancelled before it ran.",
        finished_at=database_now(),
        nudge_at=None,
    ) or transition(
        session,
        job_id,
        source=(State.RUNNING, State.PAUSING),
        target=State.CANCELLING,
        message="Cancellation requested.",
    )
    return changed or _refuse(job, "cancelled")


def pause(session: Session, project: str, job_id: str) -> JobRecord:
    """Pause a job at its next checkpoint, or keep it from starting. Pausing twice is harmless."""
    job = _locked(session, project, job_id)
    if job.state in (State.PAUSED, State.PAUSING):
        return job
    changed = transition(
        session,
        job_id,
        source=(State.QUEUED,),
        target=State.PAUSED,
        message="Job paused before it ran.",
        nudge_at=None,
    ) or transition(session, job_id, source=(State.RUNNING,), target=State.PAUSING, message="Pause requested.")
    return changed or _refuse(job, "paused")


def resume(session: Session, project: str, job_id: str) -> JobRecord:
    """Queue a paused job again; while it is still pausing the pause is taken back."""
    job = _locked(session, project, job_id)
    if job.state in (State.QUEUED, State.RUNNING):
        return job
    changed = transition(
        session,
        job_id,
        source=(State.PAUSED,),
        target=State.QUEUED,
        message="Job resumed.",
        queued_at=database_now(),
        nudge_at=database_now(),
        not_before=0.0,
    ) or transition(session, job_id, source=(State.PAUSING,), target=State.RUNNING, message="Pause taken back.")
    return changed or _refuse(job, "resumed")


def _refuse(job: JobRecord, verb: str) -> JobRecord:
    hints = {State.CANCELLING: "Wait until it is cancelled, then submit a new job with the same body."}
    raise IllegalTransition(
        f"Job {job.id} is {job.state} and cannot be {verb}.",
        hint="Submit a new job with the same body." if job.state in TERMINAL else hints.get(State(job.state)),
    )


def events(session: Session, job_id: str, *, after: int = 0, limit: int = 100) -> list[EventRecord]:
    """Return a job's events in order, those after a sequence number."""
    query = select(EventRecord).where(EventRecord.job_id == job_id, EventRecord.sequence > after)
    return list(session.scalars(query.order_by(EventRecord.sequence).limit(limit)))


def metrics(session: Session, job_id: str, *, run: str | None, after: int, limit: int) -> list[MetricRecord]:
    """Return what a job measured, oldest first; the last attempt to measure a step is the one that counts."""
    query = select(MetricRecord).where(MetricRecord.job_id == job_id, MetricRecord.id > after)
    if run is not None:
        query = query.where(MetricRecord.run == run)
    return list(session.scalars(query.order_by(MetricRecord.id).limit(limit)))


def attempts(session: Session, job_id: str) -> list[AttemptRecord]:
    """Return a job's attempts, oldest first."""
    query = select(AttemptRecord).where(AttemptRecord.job_id == job_id).order_by(AttemptRecord.number)
    return list(session.scalars(query))


def checkpoints(session: Session, job_id: str) -> list[CheckpointRecord]:
    """Return a job's published checkpoints, oldest first."""
    query = select(CheckpointRecord).where(CheckpointRecord.job_id == job_id).order_by(CheckpointRecord.id)
    return list(session.scalars(query))


def queue_position(session: Session, job: JobRecord | Row[Any]) -> int:
    """Return how many queued jobs stand before this one; ingestions have a queue of their own."""
    query = select(func.count()).where(
        JobRecord.state == State.QUEUED,
        JobRecord.kind == INGEST if job.kind == INGEST else JobRecord.kind != INGEST,
        (JobRecord.priority > job.priority) | ((JobRecord.priority == job.priority) & (JobRecord.id < job.id)),
    )
    return session.scalar(query) or 0


def queue_depth(session: Session) -> dict[str, int]:
    """Return how many jobs are in each state that is not final."""
    query = select(JobRecord.state, func.count()).where(JobRecord.state.not_in(TERMINAL)).group_by(JobRecord.state)
    return {state: count for state, count in session.execute(query)}
