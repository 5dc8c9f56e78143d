"""A file whose age tells from outside whether a worker's event loop still turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery import Celery, bootsteps

PERIOD_S = 5.0


def keep_alive_file(app: Celery, path: Path) -> None:
    """Touch `path` every 5 seconds while the worker's event loop turns, and remove it at the end."""

    class Liveness(bootsteps.StartStopStep):
        requires = ("celery.worker.components:Timer",)

        def start(self, worker: Any) -> None:
            path.touch()
            self._beat = worker.timer.call_repeatedly(PERIOD_S, path.touch)

        def stop(self, worker: Any) -> None:
            self._beat.cancel()
            path.unlink(missing_ok=True)

    app.steps["worker"].add(Liveness)
