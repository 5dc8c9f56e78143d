"""What waits and what runs."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import select

from service.dependencies import JobsKey
from service.state import Opened
from store import jobs
from store.records import JobRecord
from store.states import HELD, State

router = APIRouter(prefix="/queue", tags=["jobs"])


class Waiting(BaseModel):
    """A queued job."""

    id: str
    kind: str
    position: int


class Running(BaseModel):
    """A job that a worker holds."""

    id: str
    kind: str
    status: str
    worker: str | None


class Queue(BaseModel):
    """The project's jobs that are not finished."""

    running: list[Running]
    queued: list[Waiting]


@router.get("")
def get_queue(state: Opened, caller: JobsKey) -> Queue:
    """Return running jobs, and queued ones in the order in which they will start."""
    unfinished = select(JobRecord).where(JobRecord.project == caller.project)
    with state.database.read() as session:
        running = session.scalars(unfinished.where(JobRecord.state.in_(HELD)).order_by(JobRecord.id))
        queued = session.scalars(
            unfinished.where(JobRecord.state == State.QUEUED).order_by(JobRecord.priority.desc(), JobRecord.id)
        )
        return Queue(
            running=[Running(id=job.id, kind=job.kind, status=job.state, worker=job.owner) for job in running],
            # Jobs of other projects count too: the position is when it will start, not how it ranks here.
            queued=[
                Waiting(id=job.id, kind=job.kind, position=jobs.queue_position(session, job) + 1) for job in queued
            ],
        )
