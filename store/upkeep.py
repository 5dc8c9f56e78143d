"""What keeps jobs moving: announce what is due, take back what was lost, throw away what is old.

Any number of processes may run this at once; each step is a conditional update that one of them wins.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from time import monotonic

import structlog
from celery import Celery
from sqlalchemy import func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from store import attempts, files, idempotency, queue, uploads, webhooks, workers
from store.artifacts import ArtifactStore
from store.attempts import CrashBudget
from store.collection import Collector
from store.database import Database, database_now
from store.parts import PartStore
from store.records import JobRecord
from store.settings import StoreSettings
from store.standstill import Standstill
from store.states import HELD, State
from store.token import Token

log = structlog.get_logger(__name__)

SWEEP_S = 0.5
COLLECT_S = 10.0
BATCH = 100


@dataclass(frozen=True, slots=True)
class Due:
    """A job to announce."""

    job_id: str
    kind: str


def due(session: Session, nudge_repeat_s: float) -> list[Due]:
    """Return the queued jobs whose nudge is due, urgent ones first, and put their next nudge off."""
    candidates = (
        select(JobRecord.id)
        .where(JobRecord.nudge_at <= database_now(), JobRecord.state == State.QUEUED)
        .order_by(JobRecord.priority.desc(), JobRecord.id)
        .limit(BATCH)
    )
    rows = session.execute(
        update(JobRecord)
        .where(
            JobRecord.id.in_(candidates),
            JobRecord.nudge_at <= database_now(),
            JobRecord.state == State.QUEUED,
        )
        .values(nudge_at=database_now() + nudge_repeat_s)
        .returning(JobRecord.id, JobRecord.kind, JobRecord.priority)
    ).all()
    return [Due(row.id, row.kind) for row in sorted(rows, key=lambda row: (-row.priority, row.id))]


_EXPIRED = (
    select(JobRecord.id, JobRecord.attempt)
    .where(JobRecord.lease_until < database_now(), JobRecord.state.in_(HELD))
    .order_by(JobRecord.lease_until)
    .limit(BATCH)
)


def reap(session: Session, budget: CrashBudget) -> list[str]:
    """Take jobs whose lease ran out from their workers; return their ids.

    The lease is checked again inside the update: a worker that completed in between keeps its success.
    """
    reaped = []
    for row in session.execute(_EXPIRED).all():
        token = Token(row.id, row.attempt)
        if attempts.crash(session, token, "the worker stopped answering", budget, only_if_expired=True):
            reaped.append(row.id)
    return reaped


class Sweeper:
    """A thread that sweeps twice a second and whenever it is woken."""

    def __init__(self, database: Database, celery: Celery, settings: StoreSettings) -> None:
        self._database = database
        self._celery = celery
        self._settings = settings
        self._budget = CrashBudget(settings.max_failures, settings.back_off_s)
        self._collector = Collector(database, ArtifactStore(settings.artifacts_dir), settings.artifact_grace_s)
        self._parts = PartStore(settings.uploads_dir)
        self._collect_at = monotonic() + COLLECT_S
        self._standstill = Standstill(settings.lease_s / 2)
        self._reap_at = monotonic()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Start sweeping."""
        self._thread.start()

    def wake(self) -> None:
        """Sweep now: a job was just committed."""
        self._wake.set()

    def stop(self) -> None:
        """Stop after the sweep under way."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.sweep()
                if monotonic() >= self._collect_at:
                    self._collect_at = monotonic() + COLLECT_S
                    self._database.empty_log()
                    uploads.sweep(self._database, self._parts, self._settings.artifact_grace_s)
                    self._collector.collect()
            except (SQLAlchemyError, OSError) as error:
                log.warning("sweep failed; will try again", error=str(error))
            self._wake.wait(SWEEP_S)
            self._wake.clear()

    def sweep(self) -> None:
        """Take back lost jobs, then announce every due one."""
        if self._standstill.is_over():
            log.warning("this process stood still; jobs' workers have a lease's time to be heard again")
            self._reap_at = monotonic() + self._settings.lease_s
        if not self.anything_to_do():
            return
        with self._database.write() as session:
            reaped = reap(session, self._budget) if monotonic() >= self._reap_at else []
            found = due(session, self._settings.nudge_repeat_s)
            # A worker with a job looks for the next one by itself: messages to it would only pile up.
            heard = workers.idle_queues(session) if found else set()
            idempotency.forget_old(session)
            files.forget_old(session)
            workers.forget_old(session)
            webhooks.forget_old(session)
        for job_id in reaped:
            log.warning("lease expired", job=job_id)
        for job in found:
            if queue.queue_of(job.kind) in heard and not self._announce(job):
                return  # a silent broker costs its time-out once, not for each job; leases have to be looked at

    def anything_to_do(self) -> bool:
        """Look with a read first: SQLite has one writer, and most sweeps find nothing."""
        with self._database.read() as session:
            # The first of each index: planners that look for any such row may read the whole table.
            nudge_at, lease_until = (
                select(func.min(column)).where(column.is_not(None)).scalar_subquery()
                for column in (JobRecord.nudge_at, JobRecord.lease_until)
            )
            return bool(session.scalar(select((nudge_at <= database_now()) | (lease_until < database_now()))))

    def _announce(self, job: Due) -> bool:
        try:
            queue.publish(self._celery, job.job_id, job.kind)
            return True
        except Exception as error:  # whatever a broker's client raises, the nudge repeats
            log.warning(
                "broker unreachable; the job stays queued and is announced again",
                error=str(error),
                job=job.job_id,
            )
            return False
