"""What an ingestion job's child does: read a foreign file within limits, write the canonical table, describe it."""

from __future__ import annotations

import resource
from pathlib import Path

from learning.ingestion import IngestOptions, ingest
from workers.child import Channel

# A parser that runs wild meets these, not the machine's end. Address space counts mapped files too.
MEMORY_BYTES = 8 << 30
CPU_SECONDS = 3600


def run_ingestion(channel: Channel) -> int:
    """Ingest the uploaded file; returns the exit code."""
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    _limit(resource.RLIMIT_CPU, CPU_SECONDS)
    _limit(resource.RLIMIT_CORE, 0)
    given = channel.assignment
    filename = given.spec["filename"]
    options = IngestOptions(
        format=given.spec.get("format"),
        on_bad_rows=given.spec.get("on_bad_rows") or "fail",
        column_types=given.spec.get("column_types") or {},
    )
    table = Path(given.directory) / "table.arrow"
    description = ingest(
        Path(given.files["source"]),
        filename,
        table,
        options,
        lambda phase, fraction: channel.send("progress", phase=phase, fraction=fraction),
    )
    channel.send("result", files={"table": str(table)}, description=description.to_dict())
    return 0


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (ceiling, hard))
