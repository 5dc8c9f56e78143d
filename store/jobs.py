"""Jobs submitted and looked at; what a caller tells one to do is in commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store import ids
from store.database import database_now
from store.errors import DependencyFailed, NotFound, UnknownReference
from store.records import (
    AttemptRecord,
    EventRecord,
    JobDatasetRecord,
    JobDependencyRecord,
    JobRecord,
    MetricRecord,
)
from store.states import TERMINAL, State
from store.transition import announce, dependency_error, record_event

INGEST = "ingest"  # the kind of the job that makes a dataset out of an upload
PREDICT = "predict"  # the kind of the job that answers for many inputs at once
IMPORT = "import"  # the kind of the job that makes a model out of files from elsewhere
MOVE = "move"  # the kind of the job by which a gallery comes to use another version


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
    depends_on: tuple[str, ...] = ()
    base_job_id: str | None = None  # the job whose version will be the base model
    retry_of: str | None = None
    resumes_job_id: str | None = None
    max_runtime_s: float | None = None
    priority: int = 0
    user_metadata: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[Any, ...] = ()


def submit(session: Session, new: NewJob) -> JobRecord:
    """Write a queued job, due at once or when the jobs it depends on have succeeded; the sweeper announces it then.

    DependencyFailed when one of them cannot succeed any more.
    """
    unfinished = check_dependencies(session, new.project, new.depends_on)
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
        base_job_id=new.base_job_id,
        retry_of=new.retry_of,
        resumes_job_id=new.resumes_job_id,
        waiting_for=unfinished,
        max_runtime_s=new.max_runtime_s,
        priority=new.priority,
        user_metadata=dict(new.user_metadata),
        warnings=list(new.warnings),
        nudge_at=None if unfinished else database_now(),
        updated_at=database_now(),
    )
    session.add(job)
    session.flush()
    session.add_all(
        JobDatasetRecord(job_id=job.id, role=role, dataset_id=dataset_id) for role, dataset_id in new.datasets.items()
    )
    session.add_all(JobDependencyRecord(job_id=job.id, depends_on=other) for other in new.depends_on)
    session.flush()
    record_event(session, job.id, State.QUEUED, "Job submitted.")
    announce(session, job)
    return job


def check_dependencies(session: Session, project: str, depends_on: Sequence[str]) -> int:
    """Return how many of these jobs have not succeeded yet, and keep them as they are until the transaction ends.

    UnknownReference for a job that is not there, DependencyFailed for one that cannot succeed any more.
    """
    # Locked in one order, whoever asks: a dependency that ended between the look and the commit would never tell us.
    others = session.scalars(
        select(JobRecord)
        .where(JobRecord.id.in_(depends_on), JobRecord.project == project)
        .order_by(JobRecord.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    for missing in sorted(set(depends_on) - {other.id for other in others}):
        raise UnknownReference(f'No job "{missing}".', hint="List jobs with GET /api/v1/jobs.", param="depends_on")
    for other in others:
        if other.state in (State.FAILED, State.CANCELLED):
            error = dependency_error(other)
            raise DependencyFailed(error["message"], hint=error["hint"], param="depends_on")
    return sum(other.state != State.SUCCEEDED for other in others)


def get(session: Session, project: str, job_id: str) -> JobRecord:
    """Return the project's job; NotFound otherwise."""
    job = session.get(JobRecord, job_id)
    if job is None or job.project != project:
        raise no_such_job(job_id)
    return job


def no_such_job(job_id: str) -> NotFound:
    """Return the error that a job is not there."""
    return NotFound(f'No job "{job_id}".', hint="List jobs with GET /api/v1/jobs.")


def events(session: Session, job_id: str, *, after: int = 0, limit: int = 100) -> list[EventRecord]:
    """Return a job's events in order, those after a sequence number."""
    query = select(EventRecord).where(EventRecord.job_id == job_id, EventRecord.sequence > after)
    return list(session.scalars(query.order_by(EventRecord.sequence).limit(limit)))


def metrics(session: Session, job_id: str, *, run: str | None, after: int, limit: int | None) -> list[MetricRecord]:
    """Return what a job measured, oldest first; steps measured again after a crash are there twice."""
    query = select(MetricRecord).where(MetricRecord.job_id == job_id, MetricRecord.id > after)
    if run is not None:
        query = query.where(MetricRecord.run == run)
    return list(session.scalars(query.order_by(MetricRecord.id).limit(limit)))


def attempts(session: Session, job_id: str) -> list[AttemptRecord]:
    """Return a job's attempts, oldest first."""
    query = select(AttemptRecord).where(AttemptRecord.job_id == job_id).order_by(AttemptRecord.number)
    return list(session.scalars(query))


def dependencies(session: Session, job_id: str) -> list[str]:
    """Return the ids of the jobs that a job depends on."""
    query = select(JobDependencyRecord.depends_on).where(JobDependencyRecord.job_id == job_id)
    return list(session.scalars(query.order_by(JobDependencyRecord.depends_on)))


def give_base_version(session: Session, job_id: str, version_id: str) -> None:
    """Tell the jobs that wait for a job's version which one it is."""
    session.execute(
        update(JobRecord)
        .where(JobRecord.base_job_id == job_id, JobRecord.base_version_id.is_(None))
        .values(base_version_id=version_id)
        .execution_options(synchronize_session=False)
    )


def queue_depth(session: Session) -> dict[str, int]:
    """Return how many jobs are in each state that is not final."""
    query = select(JobRecord.state, func.count()).where(JobRecord.state.not_in(TERMINAL)).group_by(JobRecord.state)
    return {state: count for state, count in session.execute(query)}
