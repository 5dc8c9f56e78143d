"""How far a job over many rows is, and when it is time to keep what it has."""

from __future__ import annotations

import time

from workers.child import Channel

PROGRESS_S = 0.5
FIRST_RATE_S = 0.2  # before that a rate says little


class Clock:
    """Says when what was made is to be kept, and tells how far the job is, by this attempt's own rate."""

    def __init__(self, channel: Channel, phase: str, count: int, before: int, every_s: float) -> None:
        self._channel = channel
        self._phase = phase
        self._count = count
        self._before = before
        self._every_s = every_s
        self._began = self._rested = time.monotonic()
        self._told = 0.0

    def is_due(self, done: int) -> bool:
        """Return whether to keep what was made, after so many rows in this attempt."""
        now = time.monotonic()
        if now - self._told > PROGRESS_S or self._before + done == self._count:
            self.tell(done)
        return self._channel.stop_requested or now - self._rested > self._every_s

    def rest(self) -> None:
        """Begin anew: what was made is kept."""
        self._rested = time.monotonic()

    def tell(self, done: int) -> None:
        """Send progress."""
        self._told = time.monotonic()
        elapsed, answered = self._told - self._began, self._before + done
        rate = done / elapsed if done and elapsed > FIRST_RATE_S else None
        self._channel.send(
            "progress",
            phase=self._phase,
            rows=answered,
            total_rows=self._count,
            fraction=answered / self._count if self._count else 1.0,
            examples_per_second=rate,
            eta_seconds=(self._count - answered) / rate if rate else None,
            updated_at=time.time(),
        )
