"""What a worker process has open: made after the fork, never before."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from store.artifacts import ArtifactStore
from store.database import Database
from store.queue import INGEST, TRAIN
from store.settings import StoreSettings
from workers.draining import DrainSignal
from workers.forking import make_starter
from workers.protocol import INGESTION, TRAINING
from workers.supervision import Starter

_IMPORTS = {TRAIN: TRAINING, INGEST: INGESTION}


@dataclass(frozen=True, slots=True)
class Context:
    """The resources of one worker process."""

    settings: StoreSettings
    database: Database
    artifacts: ArtifactStore
    drain: DrainSignal
    starter: Starter
    name: str

    @classmethod
    def open(cls, settings: StoreSettings, drain: DrainSignal, queues: Sequence[str]) -> Context:
        """Open the resources of a process that serves these queues."""
        return cls(
            settings=settings,
            database=Database(settings.resolved_database_url),
            artifacts=ArtifactStore(settings.artifacts_dir),
            drain=drain,
            starter=make_starter([_IMPORTS[queue] for queue in queues]),
            name=f"{socket.gethostname()}:{os.getpid()}",
        )

    def close(self) -> None:
        """Close what was opened; a child that still runs finds out by itself."""
        self.database.close()
        self.starter.close()
