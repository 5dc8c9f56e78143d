"""A job's attempt from claim to end: claim it, lay out its files, supervise its child, publish what comes out."""

from __future__ import annotations

from pathlib import Path

import structlog

from store import attempts
from store.attempts import Token
from store.errors import Fenced, StoreError
from workers import assignment, publication
from workers.attempt import Attempt, Ending
from workers.context import Context

log = structlog.get_logger(__name__)


def run_job(context: Context, job_id: str) -> None:
    """Run one attempt of a job if it is still to be had; whatever happens, the job's row says so."""
    if context.drain.requested():
        return  # what was fetched before the drain is announced again, to a worker that stays
    with context.database.write() as session:
        job = attempts.claim(session, job_id, context.name, context.settings.lease_s)
    if job is None:
        return
    token = Token(job.id, job.attempt)
    directory = context.settings.work_dir / job.id / f"attempt-{job.attempt}"
    try:
        _run(context, token, directory)
    except Fenced as error:
        log.warning("stopped", job=job_id, reason=str(error))
        _let_go(context, token)
    except StoreError as error:
        with context.database.write() as session:
            attempts.fail(session, token, _as_json(error))
    finally:
        assignment.remove(directory)


def _run(context: Context, token: Token, directory: Path) -> None:
    given = assignment.prepare(context, token, directory)
    attempt = Attempt(context, token, given)
    ending = attempt.supervise()
    log.info("attempt ended", job=token.job_id, attempt=token.attempt, how=ending.value)
    with context.database.write() as session:
        if ending is Ending.CRASHED:
            attempts.crash(session, token, attempt.reason, context.settings.max_failures)
        elif ending is Ending.STOPPED:
            attempts.give_up(session, token, attempt.reason)
        elif ending is Ending.REFUSED:
            publication.refuse(session, token, attempt.error)
    if ending is Ending.FINISHED:
        publication.publish(context, token, attempt.result)


def _let_go(context: Context, token: Token) -> None:
    """End what is still ours: a cancel that came with the last step, or a job kept from a database that was away."""
    with context.database.write() as session:
        attempts.give_up(session, token, "its worker could not finish it")


def _as_json(error: StoreError) -> dict[str, object]:
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "param": error.param,
        "retryable": False,
    }
