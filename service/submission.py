"""A POST that makes a job: once for each Idempotency-Key, answered with the job and where it is."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Response
from sqlalchemy.orm import Session

from service.job_views import JobView, job_view
from service.state import State
from store import idempotency, jobs
from store.keys import Principal
from store.records import JobRecord


def submitted(
    state: State,
    caller: Principal,
    response: Response,
    key: str | None,
    request: tuple[str, ...],
    submit: Callable[[Session], JobRecord],
) -> JobView:
    """Return the job that `submit` makes, or the one that it made when the same request came with the same key."""
    with state.database.write() as session:
        fingerprint = idempotency.fingerprint(*request)
        earlier = idempotency.begin(session, caller.project, key, fingerprint) if key else None
        if earlier is not None:
            job = jobs.get(session, caller.project, earlier.resource_id or "")
        else:
            job = submit(session)
            if key:
                idempotency.finish(session, caller.project, key, job.id)
        session.flush()
        session.refresh(job)
        view = job_view(session, job)
    state.sweeper.wake()
    response.headers["Location"] = view.urls["self"]
    return view
