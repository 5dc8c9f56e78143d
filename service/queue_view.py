"""What waits, what runs, and who is there to run it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import select

from service.dependencies import JobsKey
from service.job_views import QueuePlace, progress_view
from service.state import Opened
from service.times import rfc3339
from store import waiting, workers
from store.records import JobRecord, WorkerRecord
from store.states import HELD, State

router = APIRouter(prefix="/queue", tags=["jobs"])

SHOWN = 100


class Waiting(QueuePlace):
    """A queued job, its place and why it waits."""

    id: str
    kind: str
    name: str | None
    priority: int


class Running(BaseModel):
    """A job that a worker holds."""

    id: str
    kind: str
    name: str | None
    status: str
    worker: str | None
    progress: dict[str, Any] | None


class Worker(BaseModel):
    """A process that runs one job at a time; `job_id` is told for this project's jobs, `busy` for any."""

    name: str
    hostname: str
    queues: list[str]
    device: dict[str, Any]
    online: bool
    busy: bool
    job_id: str | None
    started_at: str | None
    seen_at: str | None

    @classmethod
    def of(cls, worker: WorkerRecord, online: bool, job_id: str | None) -> Worker:
        """Return the view of a worker that is free, or has a job that may be told."""
        return cls(
            name=worker.name,
            hostname=worker.hostname,
            queues=worker.queues,
            device=worker.device,
            online=online,
            busy=job_id is not None,
            job_id=job_id,
            started_at=rfc3339(worker.started_at),
            seen_at=rfc3339(worker.seen_at),
        )


class Queue(BaseModel):
    """The project's jobs that are not finished, and every worker."""

    running: list[Running]
    queued: list[Waiting]
    queued_total: int
    workers: list[Worker]


@router.get("")
def get_queue(state: Opened, caller: JobsKey) -> Queue:
    """Return running jobs, the first hundred queued ones in the order in which they will start, and the workers."""
    unfinished = select(JobRecord).where(JobRecord.project == caller.project)
    with state.database.read() as session:
        running = session.scalars(unfinished.where(JobRecord.state.in_(HELD)).order_by(JobRecord.id))
        queued = session.scalars(
            unfinished.where(JobRecord.state == State.QUEUED).order_by(JobRecord.priority.desc(), JobRecord.id)
        ).all()
        return Queue(
            running=[
                Running(
                    id=job.id,
                    kind=job.kind,
                    name=job.name,
                    status=job.state,
                    worker=job.owner,
                    progress=progress_view(job.progress),
                )
                for job in running
            ],
            # Jobs of other projects count too: the position is when it will start, not how it ranks here.
            queued=[
                Waiting(
                    id=job.id,
                    kind=job.kind,
                    name=job.name,
                    priority=job.priority,
                    **QueuePlace.of(waiting.place(session, job)).model_dump(),
                )
                for job in queued[:SHOWN]
            ],
            queued_total=len(queued),
            workers=[
                _told(Worker.of(worker, online, job_id), project, caller.project)
                for worker, online, job_id, project in workers.listing(session)
            ],
        )


def _told(worker: Worker, project: str | None, asker: str) -> Worker:
    return worker if project in (None, asker) else worker.model_copy(update={"job_id": None})
