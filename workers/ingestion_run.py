"""What an ingestion job's child does: read a foreign file within limits, write the canonical table, describe it."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

from learning.ingestion import IngestOptions, ingest, quarantine_path
from workers.child import Channel

# A parser that runs wild meets these, not the machine's end. Address space counts mapped files too.
MEMORY_BYTES = 8 << 30
CPU_SECONDS = 3600
# What each phase usually takes of the whole, in the order of the phases.
SHARES = {"inferring types": 0.3, "reading": 0.5, "statistics": 0.2}
SOON_S, LITTLE = 1.0, 0.02


def run_ingestion(channel: Channel) -> int:
    """Ingest the uploaded file; returns the exit code."""
    limit(resource.RLIMIT_AS, MEMORY_BYTES)
    limit(resource.RLIMIT_CPU, CPU_SECONDS)
    limit(resource.RLIMIT_CORE, 0)
    given = channel.assignment
    filename = given.spec["filename"]
    options = IngestOptions(
        format=given.spec.get("format"),
        on_bad_rows=given.spec.get("on_bad_rows") or "fail",
        column_types=given.spec.get("column_types") or {},
        split=given.spec.get("split"),
    )
    table = Path(given.directory) / "table.arrow"
    clock = Clock()
    description = ingest(
        Path(given.files["source"]),
        filename,
        table,
        options,
        lambda phase, fraction: channel.send("progress", **clock.progress(phase, fraction)),
    )
    files = {"table": table, "quarantine": quarantine_path(table)}
    written = {name: str(path) for name, path in files.items() if path.exists()}
    channel.send("result", files=written, description=description.to_dict())
    return 0


class Clock:
    """Says how long an ingestion will still take, from its own rate so far."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None

    def progress(self, phase: str, fraction: float) -> dict[str, Any]:
        """Return the progress to report; `eta_seconds` is None until there is a rate to go by."""
        earlier = list(SHARES)[: list(SHARES).index(phase)]
        done = sum(SHARES[name] for name in earlier) + SHARES[phase] * min(1.0, fraction)
        now = time.monotonic()
        # A format that skips the first phase starts later, not faster.
        since, first = self._began = self._began or (now, done)
        eta = None
        if now - since > SOON_S and done - first > LITTLE:
            eta = round((1 - done) * (now - since) / (done - first), 1)
        return {"phase": phase, "fraction": fraction, "eta_seconds": eta}


def limit(kind: int, value: int) -> None:
    """Bound what this process may take of something, by a constant of `resource`."""
    _, hard = resource.getrlimit(kind)
    ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (ceiling, hard))
