"""What a worker does with the job it holds. Everything here is fenced: without the current token nothing is written.

The token is (job id, attempt number). `attempt` goes up by one at each claim and is never reset, so a worker
whose lease was lost finds no row to update and learns that it must stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Boolean, Float, Update, bindparam, func, insert, or_, select, update
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
from store.token import STILL_HELD, THE_JOB, Token
from store.transition import Transition
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


_ATTEMPT = insert(AttemptRecord)
_CLAIM: dict[str, Any] = {
    "attempt": JobRecord.attempt + 1,
    "owner": bindparam("worker"),
    "lease_until": database_now() + bindparam("lease_s", type_=Float),
    "nudge_at": None,
    "started_at": func.coalesce(JobRecord.started_at, database_now()),
}
_CLAIMED = Transition((State.QUEUED,), State.RUNNING, where=CLAIMABLE, **_CLAIM)


def claim(session: Session, job_id: str, worker: str, lease_s: float) -> JobRecord | None:
    """Win a queued job that is due, or return None: another worker has it, or nothing is to be done."""
    return _claim(session, _CLAIMED, {"job_id": job_id}, worker, lease_s)


def claim_next(session: Session, queues: Sequence[str], worker: str, lease_s: float) -> JobRecord | None:
    """Win the job that is next in these queues (the most urgent, then the oldest), or return None when nothing is due.

    Whichever job a nudge names, the next one is taken: so priorities hold although brokers deliver in order, and
    any nudge that arrives moves them.
    """
    return _claim(session, _next_claimed(tuple(queues)), {}, worker, lease_s)


@cache
def _next_claimed(queues: tuple[str, ...]) -> Transition:
    wanted = (
        select(JobRecord.id)
        .where(JobRecord.state == State.QUEUED, *CLAIMABLE, in_queues(queues))
        .order_by(JobRecord.priority.desc(), JobRecord.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return Transition((State.QUEUED,), State.RUNNING, of=wanted.scalar_subquery(), where=CLAIMABLE, **_CLAIM)


def _claim(
    session: Session, claimed: Transition, bound: dict[str, Any], worker: str, lease_s: float
) -> JobRecord | None:
    job = claimed.take(session, {**bound, "worker": worker, "lease_s": lease_s}, f"Claimed by {worker}.")
    if job is not None:
        session.connection().execute(_ATTEMPT, {"job_id": job.id, "number": job.attempt, "worker": worker})
    return job


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
    told = {"progress": progress, "metrics": metrics}
    bound = {f"new_{name}": value for name, value in told.items() if value is not None}
    row = session.execute(_beaten(tuple(bound)), token.bound(lease_s=lease_s, **bound)).one_or_none()
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


@cache
def _beaten(told: tuple[str, ...]) -> Update:
    values: dict[str, Any] = {name.removeprefix("new_"): bindparam(name) for name in told}
    if told:
        values["updated_at"] = database_now()
    return (
        update(JobRecord)
        .where(*STILL_HELD, JobRecord.state.in_(HELD))
        .values(lease_until=database_now() + bindparam("lease_s", type_=Float), **values)
        .returning(JobRecord.state, JobRecord.cancel_mode)
        .execution_options(synchronize_session=False)
    )


_NOBODYS: dict[str, Any] = {"lease_until": None, "nudge_at": None}
_SUCCEEDED = Transition(
    (State.RUNNING, State.PAUSING),
    State.SUCCEEDED,
    where=STILL_HELD,
    result=bindparam("new_result"),
    finished_at=database_now(),
    **_NOBODYS,
)


def complete(session: Session, token: Token, result: dict[str, Any], warnings: Sequence[Any] = ()) -> JobRecord:
    """End the job as succeeded; Fenced when it was cancelled or lost first, and then nothing must be kept."""
    job = _SUCCEEDED.take(session, token.bound(new_result=result), "Job succeeded.")
    if job is None:
        raise Fenced(f"Attempt {token.attempt} of {token.job_id} no longer may complete the job.")
    if warnings:
        job.warnings = [*job.warnings, *warnings]
    end_attempt(session, token, "succeeded")
    return job


# Who takes a job back for a lease that ran out looks at the lease again: its worker may have been heard in between.
_ENDED = (*STILL_HELD, or_(bindparam("whatever_the_lease", type_=Boolean), JobRecord.lease_until < database_now()))
_FAILED = Transition(
    (State.RUNNING, State.PAUSING),
    State.FAILED,
    where=_ENDED,
    failures=JobRecord.failures + bindparam("crashes"),
    error=bindparam("new_error"),
    status_reason=bindparam("new_reason"),
    finished_at=database_now(),
    **_NOBODYS,
)
_QUEUED_AGAIN = Transition(
    (State.RUNNING,),
    State.QUEUED,
    where=_ENDED,
    failures=JobRecord.failures + bindparam("crashes"),
    owner=None,
    lease_until=None,
    queued_at=database_now(),
    not_before=database_now() + bindparam("wait_s", type_=Float),
    nudge_at=database_now() + bindparam("wait_s", type_=Float),
)
_PAUSED = Transition((State.PAUSING,), State.PAUSED, where=_ENDED, owner=None, **_NOBODYS)
_CANCELLED = Transition((State.CANCELLING,), State.CANCELLED, where=_ENDED, finished_at=database_now(), **_NOBODYS)


def fail(session: Session, token: Token, error: dict[str, Any]) -> JobRecord | None:
    """End the job as failed by an expected error: it is never retried. A requested cancel still wins."""
    bound = token.bound(whatever_the_lease=True)
    job = _failed(session, bound, error) or _cancelled(session, bound)
    return _ended(session, token, job, "failed")


def give_up(session: Session, token: Token, reason: str, wait_s: float = 0.0) -> JobRecord | None:
    """Let go of a job for no fault of its own, to run again after `wait_s` seconds: no failure is counted."""
    bound = token.bound(whatever_the_lease=True)
    again = {**bound, "wait_s": wait_s, "crashes": 0}
    job = _QUEUED_AGAIN.take(session, again, f"Back in the queue: {reason}.") or _stopped(session, bound)
    return _ended(session, token, job, reason)


def crash(
    session: Session, token: Token, reason: str, budget: CrashBudget, *, only_if_expired: bool = False
) -> JobRecord | None:
    """Count a crash or a lost lease: back to the queue with back-off, or failed when the budget is spent.

    With `only_if_expired` nothing happens to a job whose lease has been extended meanwhile.
    """
    bound = token.bound(whatever_the_lease=not only_if_expired)
    # It does not change while the token is current: counting ends the attempt.
    failures = session.connection().scalar(_FAILURES, {"job_id": token.job_id}) or 0
    if failures + 1 >= budget.max_failures:
        job = _failed(session, bound, _crash_error(failures + 1, reason), crashes=1) or _cancelled(session, bound)
    else:
        wait_s = budget.wait_s(failures)
        again = {**bound, "wait_s": wait_s, "crashes": 1}
        message = f"Will run again in {wait_s:g} s: {reason}."
        job = _QUEUED_AGAIN.take(session, again, message) or _stopped(session, bound)
    return _ended(session, token, job, reason)


_FAILURES = select(JobRecord.failures).where(THE_JOB)


def _crash_error(failures: int, reason: str) -> dict[str, Any]:
    return {
        "code": "crashed",
        "message": f"The job crashed {failures} times; the last time: {reason}.",
        "hint": "Read its logs (GET /api/v1/jobs/{id}/logs), then submit it again with other settings.",
        "param": None,
        "retryable": False,
    }


def _failed(session: Session, bound: dict[str, Any], error: dict[str, Any], crashes: int = 0) -> JobRecord | None:
    message = str(error["message"])
    bound = {**bound, "new_error": error, "new_reason": message, "crashes": crashes}
    return _FAILED.take(session, bound, message, {"code": error["code"]})


def _stopped(session: Session, bound: dict[str, Any]) -> JobRecord | None:
    return _PAUSED.take(session, bound, "Job paused.") or _cancelled(session, bound)


def _cancelled(session: Session, bound: dict[str, Any]) -> JobRecord | None:
    job = _CANCELLED.take(session, bound, "Job cancelled.")
    if job is not None:
        checkpoints.after_cancel(session, job.id, CancelMode(job.cancel_mode or CancelMode.KEEP_BEST))
    return job


def _ended(session: Session, token: Token, job: JobRecord | None, reason: str) -> JobRecord | None:
    if job is not None:
        end_attempt(session, token, reason)
    return job


_ATTEMPT_ENDED = (
    update(AttemptRecord)
    .where(
        AttemptRecord.job_id == bindparam("of_job"),
        AttemptRecord.number == bindparam("of_number"),
        AttemptRecord.ended_at.is_(None),
    )
    .values(ended_at=database_now(), exit_reason=bindparam("reason"))
)


def end_attempt(session: Session, token: Token, reason: str) -> None:
    """Write when and why an attempt ended, once."""
    bound = {"of_job": token.job_id, "of_number": token.attempt, "reason": reason}
    session.connection().execute(_ATTEMPT_ENDED, bound)


def describe(session: Session, token: Token, environment: dict[str, Any], resolved: dict[str, Any]) -> None:
    """Store the device, thread count and versions an attempt runs with, and the numbers behind every "auto"."""
    held = session.scalar(
        update(JobRecord)
        .where(*STILL_HELD, JobRecord.state.in_(HELD))
        .values(resolved=resolved, updated_at=database_now())
        .returning(JobRecord.id),
        token.bound(),
    )
    if held is None:
        raise Fenced(f"Attempt {token.attempt} of {token.job_id} no longer holds the job.")
    session.execute(
        update(AttemptRecord)
        .where(AttemptRecord.job_id == token.job_id, AttemptRecord.number == token.attempt)
        .values(environment=environment)
    )
