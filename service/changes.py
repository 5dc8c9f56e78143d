"""Wakes whoever waits for a job when its row has changed: one query a tick for all of them.

A waiter says what it has seen, and the watcher compares that with the rows, by primary key; so nothing is lost that
changed between the look and the wait, whatever the order of commits, and no broker or database has to notify.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from anyio import CapacityLimiter, to_thread
from sqlalchemy import bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from store.database import Database
from store.records import JobRecord

log = structlog.get_logger(__name__)

TICK_S = 0.2
_MOST_IDS = 500  # in one query
_SEEN = select(JobRecord.id, JobRecord.last_sequence, JobRecord.updated_at).where(
    JobRecord.id.in_(bindparam("ids", expanding=True))
)


class Seen(NamedTuple):
    """What tells one state of a job from the next; without a time, only its events count."""

    sequence: int
    updated_at: float | None = None


@dataclass(eq=False, slots=True)
class _Waiter:
    job_id: str
    seen: Seen
    woken: asyncio.Event

    def wants(self, now: Seen | None) -> bool:
        if now is None:
            return True  # the row is gone: its reader will say so
        return now.sequence > self.seen.sequence or self.seen.updated_at not in (None, now.updated_at)


class Changes:
    """The watcher of one process; belongs to its event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiters: set[_Waiter] = set()
        self._task: asyncio.Task[None] | None = None
        self._thread = CapacityLimiter(1)

    async def wait(self, job_id: str, seen: Seen, timeout_s: float) -> bool:
        """Return True as soon as the job differs from what was seen, or False after so many seconds."""
        with self._waiting(_Waiter(job_id, seen, asyncio.Event())) as waiter:
            try:
                async with asyncio.timeout(max(timeout_s, 0.0)):
                    await waiter.woken.wait()
            except TimeoutError:
                return False
        return True

    @contextmanager
    def _waiting(self, waiter: _Waiter) -> Iterator[_Waiter]:
        self._waiters.add(waiter)
        if self._task is None:
            self._task = asyncio.create_task(self._watch())
        try:
            yield waiter
        finally:
            self._waiters.discard(waiter)

    async def _watch(self) -> None:
        while self._waiters:
            ids = sorted({waiter.job_id for waiter in self._waiters})
            try:
                rows = await to_thread.run_sync(self._look, ids, limiter=self._thread)
            except SQLAlchemyError as error:
                log.warning("could not look for changes; will try again", error=str(error))
            else:
                for waiter in self._waiters:
                    if waiter.job_id in rows and waiter.wants(rows[waiter.job_id]):
                        waiter.woken.set()
            await asyncio.sleep(TICK_S)
        self._task = None

    def _look(self, ids: list[str]) -> dict[str, Seen | None]:
        found: dict[str, Seen | None] = dict.fromkeys(ids)
        with self._database.read() as session:
            for start in range(0, len(ids), _MOST_IDS):
                rows = session.connection().execute(_SEEN, {"ids": ids[start : start + _MOST_IDS]})
                found.update((row.id, Seen(row.last_sequence, row.updated_at)) for row in rows)
        return found
