"""For how long no heartbeat of an attempt has come through."""

from __future__ import annotations

import threading
from time import monotonic

from store.standstill import Standstill

# A worker that cannot reach the database must have stopped before somebody else may start.
MARGIN_S = 5.0
LEAST_PATIENCE = 0.6  # of a lease that is hardly longer than the margin


class Silence:
    """Begins again with each heartbeat; while a machine stands still nobody is to be heard, and after it the margin is
    left to be heard in.

    Several threads may ask; whoever asks first after a standstill finds it.
    """

    def __init__(self, lease_s: float) -> None:
        self._patience_s = max(lease_s - MARGIN_S, LEAST_PATIENCE * lease_s)
        self._lock = threading.Lock()
        self._since = monotonic()
        self._standstill = Standstill(self._patience_s / 2)

    def end(self) -> None:
        """Take note of a heartbeat that came through."""
        with self._lock:
            self._since = monotonic()

    def seconds(self) -> float:
        """Return how long it has lasted."""
        with self._lock:
            if self._standstill.is_over():
                margin_s = min(MARGIN_S, self._patience_s)
                self._since = max(self._since, monotonic() - self._patience_s + margin_s)
            return monotonic() - self._since

    def is_too_long(self) -> bool:
        """Tell whether it has lasted for almost a lease."""
        return self.seconds() > self._patience_s
