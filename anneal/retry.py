"""When to try a request again, and after how long."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
LONGEST_RETRY_AFTER_S = 60.0


@dataclass(frozen=True)
class RetryPolicy:
    """How often to try again and the pauses between: exponential, capped, with jitter. Times in seconds."""

    retries: int = 5
    first_pause_s: float = 0.25
    longest_pause_s: float = 8.0

    def pause_s(self, attempt: int, retry_after_s: float | None = None) -> float:
        """Return the pause after a failed attempt (0 is the first), at least what the service asks."""
        backoff = min(self.longest_pause_s, self.first_pause_s * 2.0**attempt)
        jittered = backoff * random.uniform(0.75, 1.25)  # noqa: S311 (spreads clients out; no secret)
        return max(jittered, retry_after_s or 0.0)


def is_retryable(status: int, headers: Mapping[str, str]) -> bool:
    """Say whether an answer invites another try: the service's own word first, then its status."""
    if headers.get("x-should-retry") == "false":
        return False
    if (retry_after_s(headers) or 0.0) > LONGEST_RETRY_AFTER_S:
        return False
    # 409 with Retry-After: the first try, whose answer was lost, is still being worked on.
    return status in RETRIED_STATUSES or (status == 409 and "retry-after" in headers)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that Retry-After asks for, written as a number or as a date; None without one."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
