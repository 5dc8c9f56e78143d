"""The Celery worker: registers the task under the name that the service sends.

torch is never imported here or in what this imports: a pool process only supervises.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown, worker_shutting_down
from celery.worker.request import Request

from store import queue
from store.settings import StoreSettings
from workers import assignment, tasks
from workers.context import Context
from workers.draining import DrainSignal
from workers.pool_loss import end_with_pool_process

WORKER_OPTIONS = ("--pool=prefork", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO")


class Nudge(Request):
    """A message that the broker has forgotten on handing it over, so that there is nobody to tell of its arrival."""

    acknowledged = True


def create_worker(settings: StoreSettings, queues: tuple[str, ...]) -> Celery:
    """Return the application with its task and the hooks that open and close what a pool process needs."""
    app = queue.create_celery(settings)
    drain = DrainSignal()
    opened: list[Context] = []
    end_with_pool_process(app)

    @app.task(name=queue.RUN_JOB, ignore_result=True, Request=Nudge)
    def run_job(job_id: str) -> None:
        # Whichever job was announced: the most urgent one is next.
        tasks.run_jobs(opened[0])

    @worker_process_init.connect(weak=False)
    def open_context(**_: Any) -> None:
        drain.forked()
        opened.append(Context.open(settings, drain, queues))
        assignment.remove_leftovers(opened[0])

    @worker_process_shutdown.connect(weak=False)
    def close_context(**_: Any) -> None:
        while opened:
            opened.pop().close()

    @worker_shutting_down.connect(weak=False)
    def request_drain(**_: Any) -> None:
        drain.request()

    return app


def worker_arguments(settings: StoreSettings, queues: tuple[str, ...], concurrency: int) -> list[str]:
    """Return the command line of the Celery worker."""
    # A busy worker must not hold a message that an idle one could run; only Redis needs to be told.
    prefetch = ("--disable-prefetch",) if settings.broker_url else ()
    served = (f"--concurrency={concurrency}", f"--queues={','.join(queues)}")
    return ["--quiet", "worker", *WORKER_OPTIONS, *prefetch, *served]
