"""The right to write about a job: its id and the number of the attempt that holds it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement

from store.records import JobRecord


@dataclass(frozen=True, slots=True)
class Token:
    """The right to write about a job."""

    job_id: str
    attempt: int

    def guards(self) -> tuple[ColumnElement[bool], ...]:
        """The condition that the token is still the current one."""
        return (JobRecord.id == self.job_id, JobRecord.attempt == self.attempt)
