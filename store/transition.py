"""The one place where a job's state changes, together with its numbered event."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, bindparam, insert, select, update
from sqlalchemy.orm import Session

from store import webhooks
from store.database import database_now
from store.queue import INGEST
from store.records import EventRecord, JobDependencyRecord, JobRecord
from store.states import HELD, TERMINAL, TRANSITIONS, State
from store.token import STILL_HELD, THE_JOB, Token
from store.webhooks import Event

# Made once and run below the ORM, like others on the path of every job: making one takes longer than running it.
_EVENT = insert(EventRecord)


class Transition:
    """A way from one of `source` to `target`, if every condition still holds. Made once, at import.

    The UPDATE itself checks the conditions again, so of several who try exactly one succeeds. What differs from time
    to time stands in conditions and values as a bound parameter; `job_id` is one, unless a query finds the job.
    """

    def __init__(
        self,
        source: Collection[State],
        target: State,
        *,
        of: ScalarSelect[str] | None = None,
        where: Collection[ColumnElement[bool]] = (),
        **values: Any,
    ) -> None:
        assert all(target in TRANSITIONS[state] for state in source), (source, target)
        self.target = target
        self._statement = (
            update(JobRecord)
            .where(THE_JOB if of is None else JobRecord.id == of, JobRecord.state.in_(source), *where)
            .values(state=target, last_sequence=JobRecord.last_sequence + 1, updated_at=database_now(), **values)
            .returning(JobRecord)
            # What the session knows of the job is replaced by what is returned.
            .execution_options(populate_existing=True, synchronize_session=False)
        )

    def take(
        self, session: Session, bound: Mapping[str, Any], message: str, data: dict[str, Any] | None = None
    ) -> JobRecord | None:
        """Move the job and write its event; return the job, or None when a condition does not hold."""
        job = session.scalar(self._statement, bound)
        if job is not None:
            _write_event(session, job, self.target, message, data)
            announce(session, job)
            if self.target in TERMINAL:
                _tell_dependents(session, job)
        return job


_FAILED_WITH_ANOTHER = Transition(
    (State.QUEUED, State.PAUSED),
    State.FAILED,
    error=bindparam("new_error"),
    status_reason=bindparam("new_reason"),
    finished_at=database_now(),
    nudge_at=None,
)


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
    error = dependency_error(ended)
    for job_id in session.scalars(waiting.order_by(JobDependencyRecord.job_id)).all():
        bound = {"job_id": job_id, "new_error": error, "new_reason": error["message"]}
        _FAILED_WITH_ANOTHER.take(session, bound, error["message"], {"code": error["code"], "job_id": ended.id})


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


_TOLD = (
    update(JobRecord)
    .where(THE_JOB)
    .values(last_sequence=JobRecord.last_sequence + 1, updated_at=database_now())
    .returning(JobRecord)
    .execution_options(populate_existing=True, synchronize_session=False)
)
_TOLD_BY_ITS_HOLDER = _TOLD.where(*STILL_HELD, JobRecord.state.in_(HELD))


def record_event(
    session: Session,
    job: str | Token,
    kind: str,
    message: str,
    *,
    data: dict[str, Any] | None = None,
) -> JobRecord | None:
    """Write an event that changes no state; return the job, or None when a token is given that no longer holds it."""
    if isinstance(job, Token):
        told = session.scalar(_TOLD_BY_ITS_HOLDER, job.bound())
    else:
        told = session.scalar(_TOLD, {"job_id": job})
    if told is not None:
        _write_event(session, told, kind, message, data)
    return told


def _write_event(session: Session, job: JobRecord, kind: str, message: str, data: dict[str, Any] | None) -> None:
    values = {"sequence": job.last_sequence, "type": str(kind), "message": message, "data": data or {}}
    session.connection().execute(_EVENT, {"job_id": job.id, **values})
