"""Whether this process stood still: its machine slept or was halted, and most likely all that is on it."""

from __future__ import annotations

import time


class Standstill:
    """Looks at the clock again and again, and tells when more has passed than is ever between two looks.

    At the wall's clock: the monotonic one stops while a laptop sleeps, and leases run out by the other.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._looked_at = time.time()

    def is_over(self) -> bool:
        """Look, and tell whether a standstill has just ended."""
        before, self._looked_at = self._looked_at, time.time()
        return self._looked_at - before > self._longest_s
