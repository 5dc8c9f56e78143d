"""What a worker process has open: made after the fork, never before."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from store.artifacts import ArtifactStore
from store.database import Database
from store.queue import INGEST, TRAIN
from store.settings import StoreSettings
from store.workers import Presence
from workers.draining import DrainSignal
from workers.forking import make_starter
from workers.presence import Beacon, device
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
    beacon: Beacon
    name: str
    queues: tuple[str, ...]

    @classmethod
    def open(cls, settings: StoreSettings, drain: DrainSignal, queues: tuple[str, ...]) -> Context:
        """Open the resources of a process that serves these queues."""
        database = Database(settings.resolved_database_url)
        hostname, pid = socket.gethostname(), os.getpid()
        name = f"{hostname}:{pid}"
        return cls(
            settings=settings,
            database=database,
            artifacts=ArtifactStore(settings.artifacts_dir),
            drain=drain,
            starter=make_starter([_IMPORTS[queue] for queue in queues]),
            beacon=Beacon(database, Presence(name, hostname, pid, queues, device())),
            name=name,
            queues=queues,
        )

    def close(self) -> None:
        """Close what was opened; a child that still runs finds out by itself."""
        self.beacon.close()
        self.starter.close()
        self.database.close()
