"""Why a queued job waits, and how many run before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.orm import Session

from store import workers
from store.database import database_now
from store.queue import INGEST, READING, TRAIN, queue_of
from store.records import JobDependencyRecord, JobRecord
from store.states import State

# What `claim` asks for beside the state: neither backing off nor waiting for other jobs.
CLAIMABLE = (JobRecord.not_before <= database_now(), JobRecord.waiting_for == 0)


class Reason(StrEnum):
    """Why a queued job does not run yet."""

    JOBS = "waiting_for_jobs"
    BACK_OFF = "backing_off"
    NO_WORKER = "no_worker_online"
    WORKER = "waiting_for_worker"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued job's place; `jobs` are those it waits for, `until` the end of its back-off (seconds, epoch)."""

    ahead: int
    reason: Reason
    jobs: tuple[str, ...] = ()
    until: float | None = None


def in_queues(queues: Sequence[str]) -> ColumnElement[bool]:
    """The condition that a job waits in one of these queues: what reads foreign files has one of its own."""
    kinds = {INGEST: JobRecord.kind.in_(READING), TRAIN: JobRecord.kind.not_in(READING)}
    return or_(*(kinds[queue] for queue in queues))


def place(session: Session, job: JobRecord) -> Waiting:
    """Return a queued job's place among those that a worker could claim now."""
    ahead = (
        select(func.count())
        .where(
            JobRecord.state == State.QUEUED,
            in_queues([queue_of(job.kind)]),
            *CLAIMABLE,
            (JobRecord.priority > job.priority) | ((JobRecord.priority == job.priority) & (JobRecord.id < job.id)),
        )
        .scalar_subquery()
    )
    served = exists().where(workers.online, workers.serves(queue_of(job.kind)))
    now, before, somebody = session.execute(select(database_now(), ahead, served)).one()
    if job.waiting_for:
        return Waiting(before, Reason.JOBS, jobs=_unfinished(session, job.id))
    if job.not_before > now:
        return Waiting(before, Reason.BACK_OFF, until=job.not_before)
    return Waiting(before, Reason.WORKER if somebody else Reason.NO_WORKER)


def _unfinished(session: Session, job_id: str) -> tuple[str, ...]:
    query = (
        select(JobRecord.id)
        .join(JobDependencyRecord, JobDependencyRecord.depends_on == JobRecord.id)
        .where(JobDependencyRecord.job_id == job_id, JobRecord.state != State.SUCCEEDED)
        .order_by(JobRecord.id)
    )
    return tuple(session.scalars(query))
