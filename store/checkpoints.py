"""Published checkpoints: from these alone training resumes or a model is built."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from store import ids
from store.errors import Fenced
from store.records import CheckpointFileRecord, CheckpointRecord, JobRecord
from store.states import HELD
from store.token import Token
from store.transition import record_event


def publish(
    session: Session,
    token: Token,
    *,
    run: str,
    step: int,
    finished: bool,
    score: float | None,
    metrics: dict[str, Any],
    files: dict[str, str],
) -> str:
    """Make a checkpoint the one to resume from; `files` maps path to sha256. Returns its id; Fenced if lost."""
    checkpoint = CheckpointRecord(
        id=ids.new_id(ids.CHECKPOINT),
        job_id=token.job_id,
        attempt=token.attempt,
        run=run,
        step=step,
        finished=finished,
        score=score,
        metrics=metrics,
    )
    told = record_event(
        session,
        token.job_id,
        "checkpoint",
        f"Checkpoint of run {run} at step {step}.",
        data={"checkpoint_id": checkpoint.id, "run": run, "step": step},
        where=(*token.guards(), JobRecord.state.in_(HELD)),
    )
    if told is None:
        raise Fenced(f"Attempt {token.attempt} of {token.job_id} no longer holds the job.")
    session.add(checkpoint)
    session.flush()
    session.add_all(
        CheckpointFileRecord(checkpoint_id=checkpoint.id, path=path, sha256=digest) for path, digest in files.items()
    )
    return checkpoint.id


def of_job(session: Session, job_id: str) -> list[CheckpointRecord]:
    """Return a job's published checkpoints, oldest first."""
    query = select(CheckpointRecord).where(CheckpointRecord.job_id == job_id).order_by(CheckpointRecord.id)
    return list(session.scalars(query))


def files(session: Session, checkpoint_id: str) -> dict[str, str]:
    """Return a checkpoint's files, path to sha256."""
    query = select(CheckpointFileRecord.path, CheckpointFileRecord.sha256)
    return dict(session.execute(query.where(CheckpointFileRecord.checkpoint_id == checkpoint_id)).all())


def discard(session: Session, job_id: str) -> None:
    """Forget a job's checkpoints, but none that another job starts from."""
    started_from = select(JobRecord.start_checkpoint_id).where(JobRecord.start_checkpoint_id.is_not(None))
    unwanted = [
        *session.scalars(
            select(CheckpointRecord.id).where(
                CheckpointRecord.job_id == job_id, CheckpointRecord.id.not_in(started_from)
            )
        )
    ]
    session.execute(delete(CheckpointFileRecord).where(CheckpointFileRecord.checkpoint_id.in_(unwanted)))
    session.execute(delete(CheckpointRecord).where(CheckpointRecord.id.in_(unwanted)))
