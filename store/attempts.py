"""What a worker does with the job it holds. Everything here is fenced: without the current token nothing is written.

The token is (job id, attempt number). `attempt` goes up by one at each claim and is never reset, so a worker
whose lease was lost finds no row to update and learns that it must stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, func, insert, select, update
from sqlalchemy.orm import Session

from store import checkpoints
from store.database import database_now
from store.errors import Fenced
from store.records import (
    AttemptRecord,
    JobRecord,
    MetricRecord,
)
from store.states import HELD, CancelMode, State
from store.token import Token
from store.transition import transition
from store.waiting import CLAIMABLE, in_queues

# How many times the first wait a job waits before it is tried again.
BACK_OFF = (1.0, 5.0, 30.0, 120.0)


@dataclass(frozen=True, slots=True)
class Orders:
    """What a supervisor is to do, as its job's row says it."""

    state: State
    cancel_mode: CancelMode | None = None


@dataclass(frozen=True, slots=True)
class CrashBudget:
    """How often a job may crash before it fails for good, and how many seconds it waits after the first time."""

    max_failures: int = 3
    back_off_s: float = 1.0

    def wait_s(self, failures: int) -> float:
        """Return how long to wait after so many earlier failures."""
        return self.back_off_s * BACK_OFF[min(failures, len(BACK_OFF) - 1)]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Values measured at one step of one run (`pretrained`, `scratch`, ...) on one split."""

    run: str
    split: str
    step: int
    epoch: float
    values: dict[str, float | None]


def claim(session: Session, job_id: str, worker: str, lease_s: float) -> JobRecord | None:
    """Win a queued job that is due, or return None: another worker has it, or nothing is to be done."""
    return _claimed(session, job_id, worker, lease_s)


_ATTEMPT = insert(AttemptRecord)


def _claimed(session: Session, job_id: str | ScalarSelect[str], worker: str, lease_s: float) -> JobRecord | None:
    job = transition(
        session,
        job_id,
        source=(State.QUEUED,),
        target=State.RUNNING,
        message=f"Claimed by {worker}.",
        where=CLAIMABLE,
        attempt=JobRecord.attempt + 1,
        owner=worker,
        lease_until=database_now() + lease_s,
        nudge_at=None,
        started_at=func.coalesce(JobRecord.started_at, database_now()),
    )
    if job is not None:
        session.connection().execute(_ATTEMPT, {"job_id": job.id, "number": job.attempt, "worker": worker})
    return job


def claim_next(session: Session, queues: Sequence[str], worker: str, lease_s: float) -> JobRecord | None:
    """Win the job that is next in these queues (the most urgent, then the oldest), or return None when nothing is due.

    Whichever job a nudge names, the next one is taken: so priorities hold although brokers deliver in order, and
    any nudge that arrives moves them.
    """
    wanted = (
        select(JobRecord.id)
        .where(JobRecord.state == State.QUEUED, *CLAIMABLE, in_queues(queues))
        .order_by(JobRecord.priority.desc(), JobRecord.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return _claimed(session, wanted.scalar_subquery(), worker, lease_s)


def seconds_before(session: Session, token: Token) -> float:
    """Return how long the job ran in its earlier attempts, in seconds."""
    total = session.scalar(
        select(func.sum(AttemptRecord.ended_at - AttemptRecord.started_at)).where(
            AttemptRecord.job_id == token.job_id, AttemptRecord.number < token.attempt
        )
    )
    return float(total or 0.0)


def heartbeat(
    session: Session,
    token: Token,
    lease_s: float,
    *,
    progress: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    measurements: Sequence[Measurement] = (),
) -> Orders:
    """Extend the lease, store what was reported, and return the state, which is the command. Fenced if lost."""
    values: dict[str, Any] = {"lease_until": database_now() + lease_s}
    if progress is not None:
        values["progress"] = progress
    if metrics is not None:
        values["metrics"] = metrics
    if len(values) > 1:
        values["updated_at"] = database_now()
    row = session.execute(
        update(JobRecord)
        .where(*token.guards(), JobRecord.state.in_(HELD))
        .values(**values)
        .returning(JobRecord.state, JobRecord.cancel_mode)
    ).one_or_none()
    if row is None:
        raise Fenced(f"Attempt {token.attempt} of {token.job_id} no longer holds the job.")
    if measurements:
        session.execute(
            insert(MetricRecord),
            [
                {
                    "job_id": token.job_id,
                    "attempt": token.attempt,
                    "run": point.run,
                    "split": point.split,
                    "step": point.step,
                    "epoch": point.epoch,
                    "measured": point.values,
                }
                for point in measurements
            ],
        )
    return Orders(State(row.state), CancelMode(row.cancel_mode) if row.cancel_mode else None)


def complete(session: Session, token: Token, result: dict[str, Any], warnings: Sequence[Any] = ()) -> JobRecord:
    """End the job as succeeded; Fenced when it was cancelled or lost first, and then nothing must be kept."""
    job = transition(
        session,
        token.job_id,
        source=(State.RUNNING, State.PAUSING),
        target=State.SUCCEEDED,
        message="Job succeeded.",
        where=token.guards(),
        result=result,
        finished_at=database_now(),
        lease_until=None,
        nudge_at=None,
    )
    if job is None:
        raise Fenced(f"Attempt {token.attempt} of {token.job_id} no longer may complete the job.")
    if warnings:
        job.warnings = [*job.warnings, *warnings]
    end_attempt(session, token, "succeeded")
    return job


def fail(session: Session, token: Token, error: dict[str, Any]) -> JobRecord | None:
    """End the job as failed by an expected error: it is never retried. A requested cancel still wins."""
    job = _failed(session, token, error, token.guards()) or _cancelled(session, token)
    return _ended(session, token, job, "failed")


def give_up(session: Session, token: Token, reason: str, wait_s: float = 0.0) -> JobRecord | None:
    """Let go of a job for no fault of its own, to run again after `wait_s` seconds: no failure is counted."""
    job = (
        transition(
            session,
            token.job_id,
            source=(State.RUNNING,),
            target=State.QUEUED,
            message=f"Back in the queue: {reason}.",
            where=token.guards(),
            queued_at=database_now(),
            not_before=database_now() + wait_s,
            lease_until=None,
            owner=None,
            nudge_at=database_now() + wait_s,
        )
        or _paused(session, token)
        or _cancelled(session, token)
    )
    return _ended(session, token, job, reason)


def crash(
    session: Session,
    token: Token,
    reason: str,
    budget: CrashBudget,
    *,
    where: Sequence[ColumnElement[bool]] = (),
) -> JobRecord | None:
    """Count a crash or a lost lease: back to the queue with back-off, or failed when the budget is spent."""
    failures = session.get_one(JobRecord, token.job_id).failures
    guards = (*token.guards(), JobRecord.failures == failures, *where)
    if failures + 1 >= budget.max_failures:
        job = _failed(session, token, _crash_error(failures + 1, reason), guards, failures=failures + 1)
    else:
        delay = budget.wait_s(failures)
        job = transition(
            session,
            token.job_id,
            source=(State.RUNNING,),
            target=State.QUEUED,
            message=f"Will run again in {delay:g} s: {reason}.",
            where=guards,
            failures=failures + 1,
            queued_at=database_now(),
            not_before=database_now() + delay,
            nudge_at=database_now() + delay,
            lease_until=None,
            owner=None,
        ) or _paused(session, token, where)
    return _ended(session, token, job or _cancelled(session, token, where), reason)


def _crash_error(failures: int, reason: str) -> dict[str, Any]:
    return {
        "code": "crashed",
        "message": f"The job crashed {failures} times; the last time: {reason}.",
        "hint": "Read its logs (GET /api/v1/jobs/{id}/logs), then submit it again with other settings.",
        "param": None,
        "retryable": False,
    }


def _failed(
    session: Session,
    token: Token,
    error: dict[str, Any],
    guards: Sequence[ColumnElement[bool]],
    **values: Any,
) -> JobRecord | None:
    return transition(
        session,
        token.job_id,
        source=(State.RUNNING, State.PAUSING),
        target=State.FAILED,
        message=str(error["message"]),
        data={"code": error["code"]},
        where=guards,
        error=error,
        status_reason=error["message"],
        finished_at=database_now(),
        lease_until=None,
        nudge_at=None,
        **values,
    )


def _ended(session: Session, token: Token, job: JobRecord | None, reason: str) -> JobRecord | None:
    if job is not None:
        end_attempt(session, token, reason)
    return job


def _paused(session: Session, token: Token, where: Sequence[ColumnElement[bool]] = ()) -> JobRecord | None:
    return transition(
        session,
        token.job_id,
        source=(State.PAUSING,),
        target=State.PAUSED,
        message="Job paused.",
        where=(*token.guards(), *where),
        lease_until=None,
        owner=None,
        nudge_at=None,
    )


def _cancelled(session: Session, token: Token, where: Sequence[ColumnElement[bool]] = ()) -> JobRecord | None:
    job = transition(
        session,
        token.job_id,
        source=(State.CANCELLING,),
        target=State.CANCELLED,
        message="Job cancelled.",
        where=(*token.guards(), *where),
        finished_at=database_now(),
        lease_until=None,
        nudge_at=None,
    )
    if job is not None:
        checkpoints.after_cancel(session, job.id, CancelMode(job.cancel_mode or CancelMode.KEEP_BEST))
    return job


def end_attempt(session: Session, token: Token, reason: str) -> None:
    """Write when and why an attempt ended, once."""
    session.execute(
        update(AttemptRecord)
        .where(
            AttemptRecord.job_id == token.job_id,
            AttemptRecord.number == token.attempt,
            AttemptRecord.ended_at.is_(None),
        )
        .values(ended_at=database_now(), exit_reason=reason)
    )


def describe(session: Session, token: Token, environment: dict[str, Any], resolved: dict[str, Any]) -> None:
    """Store the device, thread count and versions an attempt runs with, and the numbers behind every "auto"."""
    held = session.scalar(
        update(JobRecord)
        .where(*token.guards(), JobRecord.state.in_(HELD))
        .values(resolved=resolved, updated_at=database_now())
        .returning(JobRecord.id)
    )
    if held is None:
        raise Fenced(f"Attempt {token.attempt} of {token.job_id} no longer holds the job.")
    session.execute(
        update(AttemptRecord)
        .where(AttemptRecord.job_id == token.job_id, AttemptRecord.number == token.attempt)
        .values(environment=environment)
    )
