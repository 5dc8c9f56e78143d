"""The Celery application and the task's name: the one thing that service and workers share.

The broker only nudges. A message says "job X may be due"; losing, doubling or delaying one is harmless, because
the jobs row is the outbox from which the sweeper announces a job again until somebody has claimed it.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue

from store.embedded_broker import broker_options
from store.settings import StoreSettings

RUN_JOB = "anneal.run_job"
# Two queues, so that an upload is read while the only training worker is busy for hours.
TRAIN, INGEST = "train", "ingest"
QUEUES = (TRAIN, INGEST)
# Kinds of jobs that read what comes from elsewhere, and wait for no training.
READING = (INGEST, "import")

_REDIS_OPTIONS: dict[str, Any] = {
    "socket_timeout": 10,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 25,
    "retry_on_timeout": True,
}


def create_celery(settings: StoreSettings) -> Celery:
    """Return the application, publishing and consuming by the configured broker."""
    app = Celery("anneal", set_as_current=False)
    app.conf.update(
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Not acknowledged: a nudge that is lost comes again. With Celery 5.7 a worker whose acknowledgement was lost
        # with the connection waits for it for ever, deaf to the broker that is back.
        task_queues=[Queue(name, no_ack=True) for name in QUEUES],
        task_default_queue=TRAIN,
        enable_utc=True,
    )
    if settings.broker_url:
        app.conf.update(broker_url=settings.broker_url, broker_transport_options=_REDIS_OPTIONS)
    else:
        app.conf.update(broker_options(settings.broker_dir))
    return app


def queue_of(kind: str) -> str:
    """Return the queue on which jobs of a kind wait."""
    return INGEST if kind in READING else TRAIN


def publish(app: Celery, job_id: str, kind: str) -> None:
    """Announce a job; raises at once when the broker cannot be reached, since the sweeper will repeat it."""
    app.send_task(RUN_JOB, args=[job_id], queue=queue_of(kind), retry=False, ignore_result=True)


def ping(app: Celery, timeout_s: int = 2) -> None:
    """Raise when the broker does not answer."""
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, timeout=timeout_s)
