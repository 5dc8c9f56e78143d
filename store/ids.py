"""Identifiers: a prefix that says what it is and a ULID, so that ids sort by age."""

from __future__ import annotations

import os
import time

from ulid import ULID

DATASET, JOB, CHECKPOINT, MODEL, VERSION, EVENT, KEY, PREDICTION, WEBHOOK, DELIVERY, UPLOAD, FILE = (
    "ds", "job", "ck", "mdl", "ver", "evt", "key", "pred", "whk", "msg", "up", "file",
)  # fmt: skip
GALLERY, SUBJECT, SAMPLE = "gal", "sub", "smp"


_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
_SHIFTS = range(120, -1, -10)


def new_id(prefix: str) -> str:
    """Return a fresh id such as `job_01J…`: 48 bits of milliseconds, 80 random ones.

    Every prediction has one, so it is spelled here, two digits at a time, in a fifth of the library's time.
    """
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    return f"{prefix}_" + "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def earliest_id(prefix: str, at: float) -> str:
    """Return what sorts before every id made at or after a time, in seconds since the epoch."""
    return f"{prefix}_{ULID.from_timestamp(at)!s:.10}"
