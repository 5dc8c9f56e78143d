"""Identifiers: a prefix that says what it is and a ULID, so that ids sort by age."""

from __future__ import annotations

from ulid import ULID

DATASET, JOB, CHECKPOINT, MODEL, VERSION, EVENT, KEY, PREDICTION, WEBHOOK, DELIVERY, UPLOAD = (
    "ds", "job", "ck", "mdl", "ver", "evt", "key", "pred", "whk", "msg", "up",
)  # fmt: skip


def new_id(prefix: str) -> str:
    """Return a fresh id such as `job_01J…`."""
    return f"{prefix}_{ULID()}"


def earliest_id(prefix: str, at: float) -> str:
    """Return what sorts before every id made at or after a time, in seconds since the epoch."""
    return f"{prefix}_{ULID.from_timestamp(at)!s:.10}"
