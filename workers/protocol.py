"""What a supervisor and its child process say to each other: JSON lines, one message each.

To the child's stdin: first an assignment, then commands. From its stdout: messages, each with a `type`. When stdin
closes the child dies. This file imports neither side's world, so both can share it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

STOPPED_AT_CHECKPOINT = 75  # EX_TEMPFAIL: come back later
NO_ROOM = 74  # EX_IOERR: the disk is full; not the job's fault
EXPECTED_ERROR = 65  # EX_DATAERR: the caller's mistake, told in an `error` message

# What a fork server imports, by the kind of assignment; and the most that it and its owner say at once.
TRAINING, INGESTION = "training", "ingestion"
FORK_MESSAGE_BYTES = 4096

# Phases of a child's work in which it can be asked to stop at a checkpoint; in any other there is nothing to keep.
RESUMABLE = frozenset({"training", "predicting", "embedding"})

STOP = "stop"  # the only command: write a checkpoint and exit; why is the supervisor's business


@dataclass(frozen=True, slots=True)
class Assignment:
    """All a child knows: no database, no broker, only a specification and files."""

    job_id: str
    attempt: int
    kind: str
    directory: str
    spec: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)
    base: str | None = None
    start: str | None = None
    resume: dict[str, str] = field(default_factory=dict)  # run -> checkpoint directory
    max_runtime_s: float | None = None  # of all attempts together

    def to_line(self) -> str:
        """Return the assignment as the first line of the child's input."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Assignment:
        """Read the first line of input."""
        return cls(**json.loads(line))
