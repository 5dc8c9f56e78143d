"""The one place where a job's state changes, together with its numbered event."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, insert, update
from sqlalchemy.orm import Session

from store.database import database_now
from store.records import EventRecord, JobRecord
from store.states import TRANSITIONS, State


def transition(
    session: Session,
    job_id: str,
    *,
    source: Collection[State],
    target: State,
    message: str,
    where: Collection[ColumnElement[bool]] = (),
    data: dict[str, Any] | None = None,
    **values: Any,
) -> JobRecord | None:
    """Move a job from one of `source` to `target` if every condition still holds; return it, or None.

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
    return job


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
    session.execute(
        insert(EventRecord).values(
            job_id=job.id, sequence=job.last_sequence, type=str(kind), message=message, data=data or {}
        )
    )
