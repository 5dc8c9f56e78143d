"""The one place where a job's state changes, together with its numbered event."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, insert, select, update
from sqlalchemy.orm import Session

from store import webhooks
from store.database import database_now
from store.queue import INGEST
from store.records import EventRecord, JobDependencyRecord, JobRecord
from store.states import TERMINAL, TRANSITIONS, State
from store.webhooks import Event

# Made once and run below the ORM, like others on the path of every job: making one takes longer than running it.
_EVENT = insert(EventRecord)


def transition(
    session: Session,
    job_id: str | ScalarSelect[str],
    *,
    source: Collection[State],
    target: State,
    message: str,
    where: Collection[ColumnElement[bool]] = (),
    data: dict[str, Any] | None = None,
    **values: Any,
) -> JobRecord | None:
    """Move a job (by id, or by a query for one) from one of `source` to `target` if every condition still holds.

    Returns the job, or None.

    The conditions are re-checked by the UPDATE itself, so of several who try exactly one succeeds.
    """
    assert all(target in TRANSITIONS[state] for state in source), (source, target)
    job = session.scalar(
        update(JobRecord)
        .where(JobRecord.id == job_id, JobRecord.state.in_(source), *where)
        .values(state=target, last_sequence=JobRecord.last_sequence + 1, updated_at=database_now(), **values)
        .returning(JobRecord)
        .execution_options(populate_existing=True)
    )
    if job is not None:
        _write_event(session, job, target, message, data)
        announce(session, job)
        if target in TERMINAL:
            _tell_dependents(session, job)
    return job


def announce(session: Session, job: JobRecord) -> None:
    """Have the project's webhooks told of the state that a job came to; an ingestion is its dataset's business."""
    event = f"job.{job.state}"
    if event in set(Event) and job.kind != INGEST:
        about = {"id": job.id, "kind": job.kind, "name": job.name, "status": job.state, "metadata": job.user_metadata}
        webhooks.announce(session, job.project, event, {**about, "error": job.error})


def _tell_dependents(session: Session, ended: JobRecord) -> None:
    """Make the jobs that wait for this one due, or fail them with its reason; both within its own transaction."""
    waiting = select(JobDependencyRecord.job_id).where(JobDependencyRecord.depends_on == ended.id)
    if ended.state == State.SUCCEEDED:
        session.execute(
            update(JobRecord)
            .where(JobRecord.id.in_(waiting), JobRecord.waiting_for > 0)
            .values(waiting_for=JobRecord.waiting_for - 1)
            .execution_options(synchronize_session=False)
        )
        session.execute(
            update(JobRecord)
            .where(JobRecord.id.in_(waiting), JobRecord.waiting_for == 0, JobRecord.state == State.QUEUED)
            .values(nudge_at=database_now(), queued_at=database_now())
            .execution_options(synchronize_session=False)
        )
        return
    for job_id in session.scalars(waiting.order_by(JobDependencyRecord.job_id)).all():
        error = dependency_error(ended)
        transition(
            session,
            job_id,
            source=(State.QUEUED, State.PAUSED),
            target=State.FAILED,
            message=error["message"],
            data={"code": error["code"], "job_id": ended.id},
            error=error,
            status_reason=error["message"],
            finished_at=database_now(),
            nudge_at=None,
        )


def dependency_error(ended: JobRecord) -> dict[str, Any]:
    """Return why a job cannot run whose dependency ended otherwise than by success."""
    how = _ENDED_AS[State(ended.state)]
    reason = f": {ended.error['message']}" if ended.error else "."
    return {
        "code": "dependency_failed",
        "message": f"Job {ended.id}, on which this one depends, {how}{reason}",
        "hint": f"See GET /api/v1/jobs/{ended.id}; run it again with POST .../retry, then this one.",
        "param": "depends_on",
        "retryable": False,
    }


_ENDED_AS = {State.FAILED: "failed", State.CANCELLED: "was cancelled"}


def record_event(
    session: Session,
    job_id: str,
    kind: str,
    message: str,
    *,
    data: dict[str, Any] | None = None,
    where: Collection[ColumnElement[bool]] = (),
) -> JobRecord | None:
    """Write an event that changes no state, if the conditions hold; return the job, or None."""
    job = session.scalar(
        update(JobRecord)
        .where(JobRecord.id == job_id, *where)
        .values(last_sequence=JobRecord.last_sequence + 1, updated_at=database_now())
        .returning(JobRecord)
        .execution_options(populate_existing=True)
    )
    if job is not None:
        _write_event(session, job, kind, message, data)
    return job


def _write_event(session: Session, job: JobRecord, kind: str, message: str, data: dict[str, Any] | None) -> None:
    values = {"sequence": job.last_sequence, "type": str(kind), "message": message, "data": data or {}}
    session.connection().execute(_EVENT, {"job_id": job.id, **values})
