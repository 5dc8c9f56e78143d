"""A pool process's word that it lives: a row in the database, renewed every few seconds by a thread."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from store import workers
from store.database import Database
from store.workers import BEAT_S, Presence

log = structlog.get_logger(__name__)

GPUS = Path("/proc/driver/nvidia/gpus")


class Beacon:
    """Writes a worker's presence from its start to its end; a database that is away costs it nothing."""

    def __init__(self, database: Database, presence: Presence) -> None:
        self._database = database
        self._presence = presence
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and take the row away."""
        self._over.set()
        self._thread.join(timeout=BEAT_S)
        try:
            with self._database.write() as session:
                workers.leave(session, self._presence.name)
        except SQLAlchemyError as error:
            log.warning("could not sign off; the worker is taken for gone in a while", error=str(error))

    def _run(self) -> None:
        while True:
            try:
                with self._database.write() as session:
                    if not workers.beat(session, self._presence.name):
                        workers.arrive(session, self._presence)
            except SQLAlchemyError as error:
                log.warning("could not say that this worker lives; will try again", error=str(error))
            if self._over.wait(BEAT_S):
                return


def device() -> dict[str, Any]:
    """Return what a child of this process will compute on, found without torch: type, cpus and the GPUs' names."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [] if visible in ("", "-1") else [_model(entry / "information") for entry in sorted(GPUS.glob("*"))]
    return {"type": "cuda" if names else "cpu", "cpus": len(os.sched_getaffinity(0)), "gpus": names}


def _model(information: Path) -> str:
    lines = information.read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("Model:")), "unknown")
