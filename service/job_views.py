"""Jobs and what belongs to them as callers see them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel
from sqlalchemy.orm import Session

from service.times import rfc3339
from store import waiting
from store.records import AttemptRecord, EventRecord, JobRecord, MetricRecord
from store.states import State
from store.waiting import Reason, Waiting


class QueuePlace(BaseModel):
    """Where a queued job stands and why it waits; `jobs` are those it waits for, `until` the end of a back-off."""

    position: int
    ahead: int
    reason: Reason
    jobs: list[str] | None = None
    until: str | None = None

    @classmethod
    def of(cls, place: Waiting) -> QueuePlace:
        """Return the view of a place."""
        return cls(
            position=place.ahead + 1,
            ahead=place.ahead,
            reason=place.reason,
            jobs=list(place.jobs) or None,
            until=rfc3339(place.until),
        )


class JobView(BaseModel):
    """A job as callers see it."""

    id: str
    object: Literal["job"] = "job"
    kind: str
    task: str | None
    name: str | None
    retry_of: str | None
    status: str
    status_reason: str | None
    created_at: str | None
    queued_at: str | None
    started_at: str | None
    finished_at: str | None
    attempt: int
    failures: int
    priority: int
    queue: QueuePlace | None
    progress: dict[str, Any] | None
    metrics: dict[str, Any]
    worker: str | None
    error: dict[str, Any] | None
    result: dict[str, Any] | None
    spec: dict[str, Any]
    resolved: dict[str, Any] | None
    warnings: list[Any]
    metadata: dict[str, Any]
    urls: dict[str, str]

    @classmethod
    def of(cls, job: JobRecord, place: Waiting | None = None) -> JobView:
        """Return the view of a job; `place` is a queued one's."""
        url = f"/api/v1/jobs/{job.id}"
        return cls(
            id=job.id,
            kind=job.kind,
            task=job.task,
            name=job.name,
            retry_of=job.retry_of,
            status=job.state,
            status_reason=job.status_reason,
            created_at=rfc3339(job.created_at),
            queued_at=rfc3339(job.queued_at),
            started_at=rfc3339(job.started_at),
            finished_at=rfc3339(job.finished_at),
            attempt=job.attempt,
            failures=job.failures,
            priority=job.priority,
            queue=None if place is None else QueuePlace.of(place),
            progress=progress_view(job.progress),
            metrics=job.metrics or {"latest": {}, "best": {}},
            worker=job.owner,
            error=job.error,
            result=job.result,
            spec=job.spec,
            resolved=job.resolved,
            warnings=job.warnings,
            metadata=job.user_metadata,
            urls={
                "self": url,
                **{part: f"{url}/{part}" for part in ("events", "metrics", "logs", "checkpoints", "attempts")},
            },
        )


def job_view(session: Session, job: JobRecord) -> JobView:
    """Return the view of a job with its place in the queue."""
    return JobView.of(job, waiting.place(session, job) if job.state == State.QUEUED else None)


def progress_view(stored: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a job's progress with its time as text."""
    return stored and {**stored, "updated_at": rfc3339(stored.get("updated_at"))}


class EventView(BaseModel):
    """Something that happened to a job."""

    id: str
    object: Literal["event"] = "event"
    job_id: str
    sequence: int
    type: str
    message: str
    data: dict[str, Any]
    created_at: str | None

    @classmethod
    def of(cls, event: EventRecord) -> EventView:
        """Return the view of an event."""
        return cls(
            id=f"evt_{event.id}",
            job_id=event.job_id,
            sequence=event.sequence,
            type=event.type,
            message=event.message,
            data=event.data,
            created_at=rfc3339(event.created_at),
        )


class MetricView(BaseModel):
    """What was measured at one step."""

    id: str
    run: str
    split: str
    step: int
    epoch: float
    attempt: int
    values: dict[str, Any]
    created_at: str | None

    @classmethod
    def of(cls, point: MetricRecord) -> MetricView:
        """Return the view of a measurement."""
        return cls(
            id=str(point.id),
            run=point.run,
            split=point.split,
            step=point.step,
            epoch=point.epoch,
            attempt=point.attempt,
            values=point.measured,
            created_at=rfc3339(point.created_at),
        )


class AttemptView(BaseModel):
    """One execution of a job."""

    number: int
    worker: str
    started_at: str | None
    ended_at: str | None
    exit_reason: str | None
    environment: dict[str, Any] | None

    @classmethod
    def of(cls, attempt: AttemptRecord) -> AttemptView:
        """Return the view of an attempt."""
        return cls(
            number=attempt.number,
            worker=attempt.worker,
            started_at=rfc3339(attempt.started_at),
            ended_at=rfc3339(attempt.ended_at),
            exit_reason=attempt.exit_reason,
            environment=attempt.environment,
        )
