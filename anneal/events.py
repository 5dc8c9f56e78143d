"""A job's events, followed live over server-sent events and taken up again where a connection broke."""

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

from anneal.errors import ConnectionFailed, ServerError
from anneal.transport import Transport
from anneal.view import View

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
PAGE = 100
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0
FAILURES_ALLOWED = 12


class EventStream:
    """The events of one job after a sequence number; `last` is the number of the last one seen."""

    def __init__(self, transport: Transport, job_id: str, after: int = 0) -> None:
        self._transport = transport
        self._path = f"/jobs/{job_id}/events"
        self._job_path = f"/jobs/{job_id}"
        self._pause_s = FIRST_PAUSE_S
        self.last = after

    def follow(self) -> Iterator[View]:
        """Iterate until the job has ended, through broken connections and restarts of the service."""
        failures = 0
        while True:
            seen = self.last
            try:
                yield from self._connection()
                if self._has_ended():
                    # The end may have come between the stream's last event and the question.
                    yield from self.stored()
                    return
            except (ConnectionFailed, ServerError):
                failures = 0 if self.last > seen else failures + 1
                if failures > FAILURES_ALLOWED:
                    raise
            time.sleep(min(LONGEST_PAUSE_S, self._pause_s * 2**failures))

    def stored(self) -> Iterator[View]:
        """Iterate over the events that the service has stored so far."""
        while True:
            params = {"after": self.last, "limit": PAGE}
            answer = self._transport.json("GET", self._path, params=params)
            for event in answer["data"]:
                yield from self._new(event)
            if not answer.get("has_more") or not answer["data"]:
                return

    def _connection(self) -> Iterator[View]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.last:
            headers["Last-Event-ID"] = str(self.last)
        params = {"after": self.last} if self.last else {}
        with self._transport.stream(self._path, headers=headers, params=params) as response:
            for fields in parse(response.iter_lines()):
                if "retry" in fields:
                    self._pause_s = int(fields["retry"]) / 1000
                if "data" in fields:
                    yield from self._new(_event(fields))

    def _new(self, event: dict[str, Any]) -> Iterator[View]:
        sequence = int(event.get("sequence") or 0)
        if sequence and sequence <= self.last:
            return  # sent again after a reconnection
        self.last = max(self.last, sequence)
        yield View(event)

    def _has_ended(self) -> bool:
        return self._transport.json("GET", self._job_path)["status"] in TERMINAL


def parse(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Split server-sent lines into messages of fields (id, event, data, retry); comments are dropped."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if fields:
                yield fields
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields['data']}\n{value}" if name == "data" and "data" in fields else value


def _event(fields: dict[str, str]) -> dict[str, Any]:
    body = json.loads(fields["data"])
    whole = body if isinstance(body, dict) and "type" in body else {"data": body}
    sequence = int(fields["id"]) if fields.get("id", "").isdigit() else None
    return {"object": "event", "sequence": sequence, "type": fields.get("event", "message"), **whole}
