"""The application: made from settings, nothing at import."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import CapacityLimiter
from fastapi import APIRouter, FastAPI

from service import (
    catalogue,
    checkpoints,
    dataset_content,
    datasets,
    errors,
    health,
    job_commands,
    jobs,
    keys,
    models,
    predictions,
    quarantine,
    queue_view,
    uploads,
    webhooks,
)
from service.changes import Changes
from service.deliveries import Deliverer
from service.event_stream import EventStreams
from service.guard import Guard
from service.predictors import Predictors
from service.settings import ServiceSettings
from service.state import State
from store import queue
from store.artifacts import ArtifactStore
from store.database import Database
from store.parts import PartStore
from store.upkeep import Sweeper

VERSION = "0.1.0"
POLLER_THREADS = 2
# Bodies that are files.
UPLOADS = re.compile(r"/api/v1/(datasets|uploads/[^/]+/parts/[^/]+)")
# A multipart body is the file and some lines around it.
MULTIPART_OVERHEAD_BYTES = 1 << 20


def create_app(settings: ServiceSettings) -> FastAPI:
    """Return the application; what it needs is opened when the server starts it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = _open(settings)
        app.state.opened = state
        state.sweeper.start()
        state.deliverer.start()
        # torch takes longer to import than everything else together: ready first, then warm.
        threading.Thread(target=_import_learning, name="warm-up", daemon=True).start()
        yield
        state.sweeper.stop()
        state.deliverer.stop()
        state.database.close()

    app = FastAPI(
        title="Anneal",
        version=VERSION,
        summary="Pretrain on unlabelled data, finetune on a few labels, serve the model.",
        lifespan=lifespan,
        docs_url="/docs" if settings.docs else None,
        redoc_url=None,
        responses={"default": {"description": "A problem (RFC 9457).", "content": {"application/problem+json": {}}}},
    )
    api = APIRouter(prefix="/api/v1")
    # Routes are tried in this order: jobs are polled more than all else is asked for.
    for part in (
        jobs,
        predictions,
        uploads,
        datasets,
        dataset_content,
        quarantine,
        job_commands,
        checkpoints,
        models,
        catalogue,
        keys,
        queue_view,
        webhooks,
    ):
        api.include_router(part.router)
    api.include_router(jobs.submission)
    app.include_router(api)
    app.include_router(health.router)
    app.add_middleware(
        Guard,
        hosts=settings.host_names,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes + MULTIPART_OVERHEAD_BYTES,
        uploads=UPLOADS,
    )
    errors.install(app)
    return app


def _open(settings: ServiceSettings) -> State:
    database = Database(settings.resolved_database_url)
    artifacts = ArtifactStore(settings.artifacts_dir)
    celery = queue.create_celery(settings)
    changes, pollers = Changes(database), CapacityLimiter(POLLER_THREADS)
    return State(
        settings=settings,
        database=database,
        artifacts=artifacts,
        parts=PartStore(settings.uploads_dir),
        celery=celery,
        sweeper=Sweeper(database, celery, settings),
        deliverer=Deliverer(database, private_addresses=settings.webhook_private_addresses),
        predictors=Predictors(artifacts, settings.predictor_memory_bytes),
        changes=changes,
        streams=EventStreams(database, changes, pollers),
        pollers=pollers,
    )


def _import_learning() -> None:
    import learning.prediction  # noqa: F401


def openapi() -> dict[str, Any]:
    """Return the OpenAPI document of the default settings."""
    return create_app(ServiceSettings()).openapi()
