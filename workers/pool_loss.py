"""A worker whose pool process was killed ends as well, where its pool cannot go on without it.

Where the broker is not asynchronous, as the embedded one is not, the pool's processes share one queue and its lock, and
one that waits for work holds the lock: killed then, it keeps the lock for ever, and its successors wait for it. Nor is
known whether it had taken a message. Whoever started the worker starts it again.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import structlog
from celery import Celery, bootsteps

log = structlog.get_logger(__name__)


def end_with_pool_process(app: Celery) -> None:
    """Have the worker end by SIGKILL, as its pool process did; those that remain see that and drain."""

    class PoolLoss(bootsteps.StartStopStep):
        requires = ("celery.worker.components:Pool",)

        def start(self, worker: Any) -> None:
            if not worker.use_eventloop:  # else each process has a pipe of its own
                worker.pool._pool.on_process_down = _down

    app.steps["worker"].add(PoolLoss)


def _down(process: Any) -> None:
    if process.exitcode is not None and process.exitcode < 0:
        reason = signal.Signals(-process.exitcode).name
        log.error("a pool process was killed; this worker ends and is to be started again", killed_by=reason)
        os.kill(os.getpid(), signal.SIGKILL)
