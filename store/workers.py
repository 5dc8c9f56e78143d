"""Which worker processes there are: each says every few seconds that it lives; what it runs is its job's `owner`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, delete, select, update
from sqlalchemy.orm import Session

from store.database import database_now
from store.records import JobRecord, WorkerRecord
from store.states import HELD, State

BEAT_S = 5.0
ONLINE_S = 15.0  # without a word for longer, a worker is taken for gone
FORGOTTEN_S = 86_400.0

online = WorkerRecord.seen_at > database_now() - ONLINE_S


@dataclass(frozen=True, slots=True)
class Presence:
    """What a worker process says of itself."""

    name: str
    hostname: str
    pid: int
    queues: tuple[str, ...]
    device: dict[str, Any]


def serves(queue: str) -> ColumnElement[bool]:
    """The condition that a worker serves a queue."""
    return cast(WorkerRecord.queues, Text).contains(f'"{queue}"', autoescape=True)


def arrive(session: Session, presence: Presence) -> None:
    """Write a new worker's row, and have every waiting job announced again: it may be the first to hear of them."""
    session.execute(delete(WorkerRecord).where(WorkerRecord.name == presence.name))
    session.add(
        WorkerRecord(
            name=presence.name,
            hostname=presence.hostname,
            pid=presence.pid,
            queues=list(presence.queues),
            device=presence.device,
        )
    )
    session.execute(
        update(JobRecord)
        .where(JobRecord.state == State.QUEUED, JobRecord.not_before <= database_now(), JobRecord.waiting_for == 0)
        .where(JobRecord.nudge_at > database_now())
        .values(nudge_at=database_now())
        .execution_options(synchronize_session=False)
    )


def beat(session: Session, name: str) -> bool:
    """Say that a worker lives; False when its row is gone."""
    told = update(WorkerRecord).where(WorkerRecord.name == name).values(seen_at=database_now())
    return session.scalar(told.returning(WorkerRecord.name)) is not None


def leave(session: Session, name: str) -> None:
    """Remove the row of a worker that ends."""
    session.execute(delete(WorkerRecord).where(WorkerRecord.name == name))


def forget_old(session: Session) -> None:
    """Remove the rows of workers that ended without a word a day ago."""
    session.execute(delete(WorkerRecord).where(WorkerRecord.seen_at < database_now() - FORGOTTEN_S))


def listing(session: Session) -> list[tuple[WorkerRecord, bool, str | None, str | None]]:
    """Return every worker by name: its row, whether it is online, its job and the project of that."""
    query = (
        select(WorkerRecord, online, JobRecord.id, JobRecord.project)
        .outerjoin(JobRecord, (JobRecord.owner == WorkerRecord.name) & JobRecord.state.in_(HELD))
        .order_by(WorkerRecord.name)
    )
    return [(worker, there, job_id, project) for worker, there, job_id, project in session.execute(query)]


def idle_queues(session: Session) -> set[str]:
    """Return the queues for which an online worker waits: one with a job looks for the next by itself."""
    busy = select(JobRecord.owner).where(JobRecord.state.in_(HELD), JobRecord.owner.is_not(None))
    idle = select(WorkerRecord.queues).where(online, WorkerRecord.name.not_in(busy))
    return {queue for queues in session.scalars(idle) for queue in queues}
