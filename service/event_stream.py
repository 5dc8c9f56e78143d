"""A job's events as they happen, as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from anyio import CapacityLimiter, to_thread
from fastapi.responses import StreamingResponse

from service.changes import Changes, Seen
from service.job_views import EventView
from store import jobs
from store.database import Database
from store.records import JobRecord
from store.states import TERMINAL

HEARTBEAT_S = 15.0


class EventStreams:
    """The streams of one process, which share a watcher and two threads."""

    def __init__(self, database: Database, changes: Changes, threads: CapacityLimiter) -> None:
        self._database = database
        self._changes = changes
        self._threads = threads

    def response(self, job_id: str, after: int) -> StreamingResponse:
        """Return the stream from the event after a sequence number to the job's end."""
        return StreamingResponse(
            self._lines(job_id, after),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def _lines(self, job_id: str, after: int) -> AsyncIterator[str]:
        while True:
            found, ended = await to_thread.run_sync(self._look, job_id, after, limiter=self._threads)
            for event in found:
                after = event.sequence
                yield f"id: {event.sequence}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n"
            if ended and not found:
                return
            if not found and not await self._changes.wait(job_id, Seen(after), HEARTBEAT_S):
                yield ": still here\n\n"  # keeps proxies from closing a quiet connection

    def _look(self, job_id: str, after: int) -> tuple[list[EventView], bool]:
        with self._database.read() as session:
            found = [EventView.of(event) for event in jobs.events(session, job_id, after=after)]
            return found, session.get_one(JobRecord, job_id).state in TERMINAL
