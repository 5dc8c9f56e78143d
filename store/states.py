"""A job's states and the only steps between them, as data.

queued ─▶ running ─▶ succeeded | failed
running ─▶ pausing ─▶ paused ─▶ queued (resume)       queued ─▶ paused
running, pausing ─▶ cancelling ─▶ cancelled           queued, paused ─▶ cancelled
lost lease, crash or drain: running ─▶ queued (or failed), pausing ─▶ paused, cancelling ─▶ cancelled
a job it depends on failed: queued, paused ─▶ failed
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class CancelMode(StrEnum):
    """What is kept of a job that is cancelled while it runs."""

    KEEP_BEST = "keep_best"
    CHECKPOINT_NOW = "checkpoint_now"
    DISCARD = "discard"


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
# In these a worker holds the lease and has a child process.
HELD = frozenset({State.RUNNING, State.PAUSING, State.CANCELLING})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.PAUSED, State.CANCELLED, State.FAILED}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.PAUSING, State.CANCELLING, State.QUEUED}),
    # A failure while pausing is a failure; completion wins over pause; resume may come before it took effect.
    State.PAUSING: frozenset({State.PAUSED, State.RUNNING, State.SUCCEEDED, State.FAILED, State.CANCELLING}),
    State.PAUSED: frozenset({State.QUEUED, State.CANCELLED, State.FAILED}),
    # Cancel wins over a later completion and over a later failure.
    State.CANCELLING: frozenset({State.CANCELLED}),
    State.CANCELLED: frozenset(),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
}
