"""Steps that the tests of the queue share: a job made, claimed, brought to a state, looked at."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from store import attempts, commands, jobs
from store.database import Database, database_now
from store.records import AttemptRecord, EventRecord, JobRecord
from store.states import State
from store.token import Token

PROJECT = "test"
ERROR = {"code": "invalid_data", "message": "One class only."}


def submit(database: Database, **options: Any) -> str:
    with database.write() as session:
        return jobs.submit(session, jobs.NewJob(**{"kind": "finetune", "project": PROJECT, "spec": {}, **options})).id


def claim(database: Database, job_id: str, lease_s: float = 60) -> Token:
    with database.write() as session:
        job = attempts.claim(session, job_id, "worker", lease_s)
    assert job is not None
    return Token(job_id, job.attempt)


def look(database: Database, job_id: str) -> JobRecord:
    with database.read() as session:
        return session.get_one(JobRecord, job_id)


def events(database: Database, job_id: str) -> list[EventRecord]:
    with database.read() as session:
        return list(
            session.scalars(select(EventRecord).where(EventRecord.job_id == job_id).order_by(EventRecord.sequence))
        )


def attempt_rows(database: Database, job_id: str) -> list[AttemptRecord]:
    with database.read() as session:
        return jobs.attempts(session, job_id)


def know_artifact(session: Session, sha256: str, size: int) -> None:
    """Write the row of a file that need not be there, once."""
    session.execute(
        text("INSERT INTO artifacts VALUES (:sha256, :size, 0, 0) ON CONFLICT DO NOTHING"),
        {"sha256": sha256, "size": size},
    )


def make_due(database: Database, job_id: str) -> None:
    """Let the back-off be over."""
    with database.write() as session:
        session.execute(update(JobRecord).where(JobRecord.id == job_id).values(not_before=0.0, nudge_at=0.0))


def expire(database: Database, job_id: str) -> None:
    """Let the lease have run out."""
    with database.write() as session:
        session.execute(update(JobRecord).where(JobRecord.id == job_id).values(lease_until=database_now() - 1))


def bring_to(database: Database, state: State) -> Token:
    """Return the token of a job that came to a state the ordinary way; attempt 0 before any claim."""
    job_id = submit(database)
    if state is State.QUEUED:
        return Token(job_id, 0)
    token = claim(database, job_id)
    with database.write() as session:
        if state in (State.PAUSING, State.PAUSED):
            commands.pause(session, PROJECT, job_id)
        if state in (State.CANCELLING, State.CANCELLED):
            commands.cancel(session, PROJECT, job_id)
        if state in (State.PAUSED, State.CANCELLED):
            attempts.give_up(session, token, "asked to")
        if state is State.SUCCEEDED:
            attempts.complete(session, token, {})
        if state is State.FAILED:
            attempts.fail(session, token, ERROR)
    assert look(database, job_id).state == state
    return token
