"""Published checkpoints: from these alone training resumes or a model is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store import ids
from store.artifacts import Artifact
from store.errors import Fenced, NotFound
from store.records import ArtifactRecord, CheckpointFileRecord, CheckpointRecord, JobRecord
from store.states import CancelMode
from store.token import Token
from store.transition import record_event


@dataclass(frozen=True, slots=True)
class Retention:
    """How many checkpoints of each run are kept: the newest, and beside them those with the best score."""

    keep_last: int = 2
    keep_best: int = 1


@dataclass(frozen=True, slots=True)
class NewCheckpoint:
    """A checkpoint whose files are stored; `files` maps path to sha256."""

    run: str
    step: int
    files: Mapping[str, str]
    finished: bool = False
    score: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)


def publish(session: Session, token: Token, new: NewCheckpoint, retention: Retention) -> str:
    """Make a checkpoint the one to resume from, and forget those beyond the retention.

    Returns its id; Fenced when the job is lost to another worker.
    """
    checkpoint = CheckpointRecord(
        id=ids.new_id(ids.CHECKPOINT),
        job_id=token.job_id,
        attempt=token.attempt,
        run=new.run,
        step=new.step,
        finished=new.finished,
        score=new.score,
        metrics=dict(new.metrics),
    )
    told = record_event(
        session,
        token,
        "checkpoint",
        f"Checkpoint of run {new.run} at step {new.step}.",
        data={"checkpoint_id": checkpoint.id, "run": new.run, "step": new.step},
    )
    if told is None:
        raise Fenced(f"Attempt {token.attempt} of {token.job_id} no longer holds the job.")
    session.add(checkpoint)
    session.flush()
    session.add_all(
        CheckpointFileRecord(checkpoint_id=checkpoint.id, path=path, sha256=sha256)
        for path, sha256 in new.files.items()
    )
    session.flush()
    keep(session, token.job_id, retention)
    return checkpoint.id


def keep(session: Session, job_id: str, retention: Retention) -> None:
    """Forget what is beyond the retention; never a checkpoint that another job starts from."""
    newest_first = of_job(session, job_id)[::-1]
    kept: set[str] = set()
    for run in {checkpoint.run for checkpoint in newest_first}:
        runs = [checkpoint for checkpoint in newest_first if checkpoint.run == run]
        scored = [checkpoint for checkpoint in runs if checkpoint.score is not None]
        # Of equals the first, as training and `best` have it: what is the best stays it while nothing is better.
        best = sorted(scored, key=lambda checkpoint: checkpoint.score or 0.0)[::-1]
        kept |= {checkpoint.id for checkpoint in (*runs[: retention.keep_last], *best[: retention.keep_best])}
    _forget(session, [checkpoint.id for checkpoint in newest_first if checkpoint.id not in kept])


def of_job(session: Session, job_id: str) -> list[CheckpointRecord]:
    """Return a job's published checkpoints, oldest first."""
    query = select(CheckpointRecord).where(CheckpointRecord.job_id == job_id).order_by(CheckpointRecord.id)
    return list(session.scalars(query))


def files(session: Session, checkpoint_id: str) -> dict[str, Artifact]:
    """Return a checkpoint's files by path."""
    query = (
        select(CheckpointFileRecord.path, ArtifactRecord.sha256, ArtifactRecord.bytes)
        .join(ArtifactRecord, CheckpointFileRecord.sha256 == ArtifactRecord.sha256)
        .where(CheckpointFileRecord.checkpoint_id == checkpoint_id)
        .order_by(CheckpointFileRecord.path)
    )
    return {path: Artifact(sha256, size) for path, sha256, size in session.execute(query)}


def get(session: Session, job_id: str, checkpoint_id: str) -> CheckpointRecord:
    """Return a job's checkpoint; NotFound otherwise."""
    checkpoint = session.get(CheckpointRecord, checkpoint_id)
    if checkpoint is None or checkpoint.job_id != job_id:
        raise NotFound(
            f'Job {job_id} has no checkpoint "{checkpoint_id}".',
            hint=f"List them with GET /api/v1/jobs/{job_id}/checkpoints.",
        )
    return checkpoint


def best(found: Sequence[CheckpointRecord]) -> set[str]:
    """Return the ids of those with the best score of their run."""
    tops: dict[str, CheckpointRecord] = {}
    for checkpoint in found:
        top = tops.get(checkpoint.run)
        if checkpoint.score is not None and (top is None or checkpoint.score > (top.score or 0.0)):
            tops[checkpoint.run] = checkpoint
    return {checkpoint.id for checkpoint in tops.values()}


def after_cancel(session: Session, job_id: str, mode: CancelMode) -> None:
    """Forget what a cancelled job is not to keep; the newest checkpoint of a run holds its best weights too."""
    if mode is CancelMode.DISCARD:
        _forget(session, [checkpoint.id for checkpoint in of_job(session, job_id)])
    elif mode is CancelMode.KEEP_BEST:
        keep(session, job_id, Retention(keep_last=1, keep_best=0))


def forget_all(session: Session, job_id: str) -> None:
    """Forget a job's checkpoints: it has ended, and what they were for is done."""
    _forget(session, [checkpoint.id for checkpoint in of_job(session, job_id)])


def _forget(session: Session, unwanted: Sequence[str]) -> None:
    started_from = select(JobRecord.start_checkpoint_id).where(JobRecord.start_checkpoint_id.in_(unwanted))
    gone = set(unwanted) - set(session.scalars(started_from))
    if not gone:
        return
    # A job that starts from one of them may be committed just now: then they stay until the next time.
    with suppress(IntegrityError), session.begin_nested():
        session.execute(delete(CheckpointFileRecord).where(CheckpointFileRecord.checkpoint_id.in_(gone)))
        session.execute(delete(CheckpointRecord).where(CheckpointRecord.id.in_(gone)))
