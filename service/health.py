"""Whether the process lives, whether it can serve, and what it counts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from migrations import revision
from service.dependencies import AdminKey
from service.state import Opened, State
from store import jobs, queue

ALIVE = {"status": "ok"}
router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """Return ok as long as the process answers; looks at nothing else."""
    return ALIVE


@router.get("/readyz")
def readyz(state: Opened, response: Response) -> dict[str, Any]:
    """Return ok when the database, its schema and the broker are there; 503 says which is not."""
    checks = {
        "database": _check(state.database.ping),
        "migrations": _check(lambda: _require_current(state)),
        "broker": _check(lambda: queue.ping(state.celery)),
    }
    # Jobs are accepted and kept without a broker; only the start of them waits. So it is reported, not required.
    ready = checks["database"] == checks["migrations"] == "ok"
    response.status_code = 200 if ready else 503
    # The launcher tells its own service by this from another one that listens where it wants to.
    return {"status": "ok" if ready else "unavailable", "process": os.getpid(), "checks": checks}


def _check(look: Callable[[], None]) -> str:
    try:
        look()
    except Exception as error:  # whatever a driver raises is what the operator needs to read
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'failed'}"
    return "ok"


def _require_current(state: State) -> None:
    if not revision.is_current(state.database.engine):
        raise RuntimeError("the schema is not current; run: python -m migrations upgrade")


@router.get("/metrics", response_class=Response)
def metrics(state: Opened, _: AdminKey) -> Response:
    """Return Prometheus metrics: jobs by state."""
    registry = CollectorRegistry()
    gauge = Gauge("anneal_jobs", "Jobs that are not finished, by state.", ["state"], registry=registry)
    with state.database.read() as session:
        for name, count in jobs.queue_depth(session).items():
            gauge.labels(state=name).set(count)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
