"""What OpenAI's client sends again when it heard no answer: a header says so, and it gets what the first one made."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request
from sqlalchemy.orm import Session

from service.state import State
from store import idempotency, jobs
from store.keys import Principal
from store.records import JobRecord

RETRY_COUNT = "x-stainless-retry-count"


def submit_once(
    state: State, request: Request, caller: Principal, body: str, submit: Callable[[Session], JobRecord]
) -> JobRecord:
    """Return the job that `submit` makes, or that the same request made just before when this is its retry."""
    fingerprint = idempotency.fingerprint(request.url.path, body)
    key, count = f"openai {fingerprint}", request.headers.get(RETRY_COUNT, "0")
    with state.database.write() as session:
        if count == "0":
            idempotency.forget(session, caller.project, key)
        earlier = idempotency.begin(session, caller.project, key, fingerprint)
        if earlier is not None and earlier.resource_id:
            return jobs.get(session, caller.project, earlier.resource_id)
        job = submit(session)
        idempotency.finish(session, caller.project, key, job.id)
        session.flush()
        session.refresh(job)
    state.sweeper.wake()
    return job
