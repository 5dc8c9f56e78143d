"""A job's events as they happen, as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from service.job_views import EventView
from store import jobs
from store.database import Database
from store.records import JobRecord
from store.states import TERMINAL

POLL_S = 0.5
HEARTBEAT_POLLS = 30


def event_stream(database: Database, job_id: str, after: int) -> StreamingResponse:
    """Return the stream from the event after a sequence number to the job's end."""
    return StreamingResponse(
        _lines(database, job_id, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _lines(database: Database, job_id: str, after: int) -> AsyncIterator[str]:
    quiet = 0
    while True:
        found, ended = await run_in_threadpool(_look, database, job_id, after)
        for event in found:
            after = event.sequence
            yield f"id: {event.sequence}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n"
        if ended and not found:
            return
        quiet = 0 if found else quiet + 1
        if quiet and quiet % HEARTBEAT_POLLS == 0:
            yield ": still here\n\n"  # keeps proxies from closing a quiet connection
        if not found:
            await asyncio.sleep(POLL_S)


def _look(database: Database, job_id: str, after: int) -> tuple[list[EventView], bool]:
    with database.read() as session:
        found = [EventView.of(event) for event in jobs.events(session, job_id, after=after)]
        return found, session.get_one(JobRecord, job_id).state in TERMINAL
