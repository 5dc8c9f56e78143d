"""A job as its row holds it, for polls: services ask for one more than for all else.

Equal rows are one job unchanged, so what was made of one can be kept. Read below the ORM by a statement made once, with
JSON left as text: reading it would cost more than the query.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import JSON, Connection, Text, bindparam, cast, select

from store.jobs import no_such_job
from store.records import JobRecord

_COLUMNS = tuple(JobRecord.__table__.columns)
_JSON = tuple(isinstance(column.type, JSON) for column in _COLUMNS)
_QUERY = select(
    *(cast(column, Text) if is_json else column for column, is_json in zip(_COLUMNS, _JSON, strict=True))
).where(JobRecord.id == bindparam("job_id"), JobRecord.project == bindparam("project"))


Snapshot = tuple[Any, ...]


def snapshot(connection: Connection, project: str, job_id: str) -> Snapshot:
    """Return the row of the project's job; NotFound otherwise."""
    row = connection.execute(_QUERY, {"job_id": job_id, "project": project}).one_or_none()
    if row is None:
        raise no_such_job(job_id)
    return tuple(row)


def record(row: Snapshot) -> JobRecord:
    """Return a row as a record that belongs to no session."""
    values = {
        column.key: json.loads(value) if is_json and value is not None else value
        for column, is_json, value in zip(_COLUMNS, _JSON, row, strict=True)
    }
    return JobRecord(**values)


def characters(row: Snapshot) -> int:
    """Return the length of a row's texts."""
    return sum(len(value) for value in row if isinstance(value, str))
