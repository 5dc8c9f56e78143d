"""A POST that makes something: once for each Idempotency-Key; one that makes a job says where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from fastapi import Response
from sqlalchemy.orm import Session

from service import library
from service.job_views import JobView, job_view
from service.state import State
from store import idempotency, jobs
from store.keys import Principal
from store.records import JobRecord

T = TypeVar("T", bound="Made")


class Made(Protocol):
    """What has an id."""

    id: Any


def once(
    session: Session,
    caller: Principal,
    key: str | None,
    request: tuple[str, ...],
    find: Callable[[str], T],
    make: Callable[[Session], T],
) -> T:
    """Return what `make` makes, or `find` of what it made when the same request came with the same key."""
    earlier = idempotency.begin(session, caller.project, key, idempotency.fingerprint(*request)) if key else None
    if earlier is not None:
        return find(earlier.resource_id or "")
    made = make(session)
    if key:
        idempotency.finish(session, caller.project, key, made.id)
    return made


def submitted(
    state: State,
    caller: Principal,
    response: Response,
    key: str | None,
    request: tuple[str, ...],
    submit: Callable[[Session], JobRecord],
) -> JobView:
    """Return the job that `submit` makes, or the one that it made when the same request came with the same key."""
    library.warm()
    with state.database.write() as session:
        job = once(session, caller, key, request, lambda job_id: jobs.get(session, caller.project, job_id), submit)
        session.flush()
        session.refresh(job)
        view = job_view(session, job)
    state.sweeper.wake()
    response.headers["Location"] = view.urls["self"]
    return view
