"""From nudge to end: claim what is due, lay out its files, supervise its child, publish what comes out."""

from __future__ import annotations

from pathlib import Path

import structlog

from store import attempts
from store.attempts import CrashBudget
from store.errors import Fenced, StoreError
from store.galleries import Moved
from store.records import JobRecord
from store.token import Token
from workers import assignment, publication
from workers.attempt import Attempt, Ending
from workers.context import Context

log = structlog.get_logger(__name__)

_LONGEST_WAIT_S = 30.0


def run_jobs(context: Context) -> None:
    """Run what is due in this worker's queues, one job after the other, until nothing is or the worker drains.

    What was announced before a drain is announced again, to a worker that stays.
    """
    while not context.drain.requested():
        context.starter.prepare()
        with context.database.write() as session:
            job = attempts.claim_next(session, context.queues, context.name, context.settings.lease_s)
        if job is None:
            break
        _run_attempt(context, job)
    assignment.remove_leftovers(context)  # of a killed worker's job that has ended without another attempt


def _run_attempt(context: Context, job: JobRecord) -> None:
    """Run one attempt; whatever happens, the job's row says so."""
    token = Token(job.id, job.attempt)
    directory = context.settings.work_dir / job.id / f"attempt-{job.attempt}"
    try:
        _run(context, token, directory)
    except Fenced as error:
        log.warning("stopped", job=job.id, reason=str(error))
        _let_go(context, token)
    except Moved as error:
        with context.database.write() as session:
            # The longer a gallery grows while it moves, the longer its job lets others go first.
            wait_s = min(_LONGEST_WAIT_S, float(token.attempt))
            attempts.give_up(session, token, error.message.rstrip("."), wait_s=wait_s)
    except StoreError as error:
        with context.database.write() as session:
            attempts.fail(session, token, _as_json(error))
    except OSError as error:
        # A full disk, or a file system that is away. Not the job's fault: it costs no failure.
        log.warning("the worker cannot use its files", job=job.id, error=str(error))
        reason = f"its worker could not use its files: {error.strerror or error}"
        with context.database.write() as session:
            attempts.give_up(session, token, reason, wait_s=_wait_for_room_s(context))
    finally:
        assignment.remove(directory)


def _run(context: Context, token: Token, directory: Path) -> None:
    given = assignment.prepare(context, token, directory)
    attempt = Attempt(context, token, given)
    ending = attempt.supervise()
    log.info("attempt ended", job=token.job_id, attempt=token.attempt, how=ending.value)
    with context.database.write() as session:
        if ending is Ending.CRASHED:
            attempts.crash(session, token, attempt.reason, _budget(context))
        elif ending is Ending.STOPPED:
            attempts.give_up(session, token, attempt.reason)
        elif ending is Ending.NO_ROOM:
            attempts.give_up(session, token, attempt.reason, wait_s=_wait_for_room_s(context))
        elif ending is Ending.OUT_OF_TIME:
            attempts.fail(session, token, _out_of_time(given.max_runtime_s))
        elif ending is Ending.REFUSED:
            publication.refuse(session, token, attempt.error)
    if ending is Ending.FINISHED:
        publication.publish(context, token, attempt.result)


def _budget(context: Context) -> CrashBudget:
    return CrashBudget(context.settings.max_failures, context.settings.back_off_s)


def _wait_for_room_s(context: Context) -> float:
    return _budget(context).wait_s(2)


def _let_go(context: Context, token: Token) -> None:
    """End what is still ours: a cancel that came with the last step, or a job kept from a database that was away."""
    with context.database.write() as session:
        attempts.give_up(session, token, "its worker could not finish it")


def _out_of_time(max_runtime_s: float | None) -> dict[str, object]:
    return {
        "code": "max_runtime_exceeded",
        "message": f"The job ran for the {max_runtime_s:g} seconds that resources.max_runtime_s allows.",
        "hint": 'Promote its last checkpoint, or go on from there: POST .../retry {"from": "last_checkpoint", '
        '"max_runtime_s": ...}.',
        "param": "resources.max_runtime_s",
        "retryable": False,
    }


def _as_json(error: StoreError) -> dict[str, object]:
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "param": error.param,
        "retryable": False,
    }
