"""The right to write about a job: its id and the number of the attempt that holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam

from store.records import JobRecord

# Conditions of statements that are made once; `Token.bound` gives what they are asked with.
THE_JOB = JobRecord.id == bindparam("job_id")
STILL_HELD = (THE_JOB, JobRecord.attempt == bindparam("held_attempt"))


@dataclass(frozen=True, slots=True)
class Token:
    """The right to write about a job."""

    job_id: str
    attempt: int

    def bound(self, **others: Any) -> dict[str, Any]:
        """Return the parameters by which STILL_HELD asks whether this is the current token, and others."""
        return {"job_id": self.job_id, "held_attempt": self.attempt, **others}
