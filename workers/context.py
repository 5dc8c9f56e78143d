"""What a worker process has open: made after the fork, never before."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from store.artifacts import ArtifactStore
from store.database import Database
from store.settings import StoreSettings
from workers.draining import DrainSignal


@dataclass(frozen=True, slots=True)
class Context:
    """The resources of one worker process."""

    settings: StoreSettings
    database: Database
    artifacts: ArtifactStore
    drain: DrainSignal
    name: str

    @classmethod
    def open(cls, settings: StoreSettings, drain: DrainSignal) -> Context:
        """Open the resources."""
        return cls(
            settings=settings,
            database=Database(settings.resolved_database_url),
            artifacts=ArtifactStore(settings.artifacts_dir),
            drain=drain,
            name=f"{socket.gethostname()}:{os.getpid()}",
        )
