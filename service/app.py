"""The application: made from settings, nothing at import."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import CapacityLimiter
from fastapi import APIRouter, FastAPI
from starlette.types import Receive, Scope, Send

from service import (
    catalogue,
    checkpoints,
    dataset_content,
    datasets,
    embeddings,
    errors,
    galleries,
    gallery_content,
    gallery_moves,
    gallery_questions,
    gallery_subjects,
    health,
    huggingface,
    input_bodies,
    job_commands,
    jobs,
    keys,
    library,
    loaded_models,
    model_import,
    models,
    oip,
    openai_batches,
    openai_completions,
    openai_files,
    openai_jobs,
    openai_models,
    prediction_jobs,
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
from service.known import Known
from service.predictors import Predictors
from service.settings import Role, ServiceSettings
from service.state import State
from store import queue
from store.artifacts import ArtifactStore
from store.database import Database
from store.parts import PartStore
from store.upkeep import Sweeper

VERSION = "0.1.0"
POLLER_THREADS = 2
NATIVE = "/api/v1"
# Bodies that are files.
UPLOADS = re.compile(r"/api/v1/(datasets|models|uploads/[^/]+/parts/[^/]+)|/v1/(files|uploads/[^/]+/parts)")
# The native API, a resource each. Routes are tried in this order: jobs are polled more than all else is asked for.
PARTS = (
    *(jobs, input_bodies, predictions, embeddings, prediction_jobs, uploads, datasets, dataset_content),
    *(quarantine, job_commands, checkpoints, loaded_models, model_import, models, catalogue, keys),
    *(queue_view, webhooks),
    *(gallery_content, gallery_subjects, gallery_questions, gallery_moves, galleries),
)
# What a process of the role predict has of it, and one of the role api has not.
PREDICTING = (
    *(input_bodies, predictions, embeddings, loaded_models),
    *(gallery_content, gallery_subjects, gallery_questions, gallery_moves, galleries),
)
# A multipart body is the file and some lines around it.
MULTIPART_OVERHEAD_BYTES = 1 << 20


class Application(FastAPI):
    """FastAPI's application, with what every request passes first before it."""

    guard: Guard

    def guarded(self, **options: Any) -> None:
        """Put the guard before all else."""
        self.guard = Guard(super().__call__, **options)

    def opened(self) -> State | None:
        """Return what the application has open while it runs."""
        found: State | None = getattr(self.state, "opened", None)
        return found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self.guard(scope, receive, send)


def create_app(settings: ServiceSettings) -> Application:
    """Return the application; what it needs is opened when the server starts it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = _open(settings)
        app.state.opened = state
        if settings.role != "predict":  # jobs are the others' business
            state.sweeper.start()
            state.deliverer.start()
        # torch takes longer to import than everything else together: ready first, then warm.
        threading.Thread(target=library.warm, name="warm-up", daemon=True).start()
        yield
        if settings.role != "predict":
            state.sweeper.stop()
            state.deliverer.stop()
        state.predictors.close()
        state.known.close()
        state.database.close()

    app = Application(
        title="Anneal",
        version=VERSION,
        summary="Pretrain on unlabelled data, finetune on a few labels, serve the model.",
        lifespan=lifespan,
        docs_url="/docs" if settings.docs else None,
        redoc_url=None,
        responses={"default": {"description": "A problem (RFC 9457).", "content": {"application/problem+json": {}}}},
    )
    for prefix, router in _routers(settings.role):
        app.include_router(router, prefix=prefix)
    app.guarded(
        hosts=settings.host_names,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes + MULTIPART_OVERHEAD_BYTES,
        uploads=UPLOADS,
    )
    errors.install(app)
    return app


def _routers(role: Role) -> Iterator[tuple[str, APIRouter]]:
    """Yield what a process of a role answers and where, in the order in which it is tried.

    Each straight into the application: a router in a router would be worked out at the start, a fifth of a second for
    all, where FastAPI leaves the outermost ones to the first request.
    """
    yield "", health.router  # first: what asks whether the process is ready should not wait for the others
    if role != "api":
        yield NATIVE, prediction_jobs.later  # before what answers the same path at once
    for part in PARTS:
        if role == "all" or (part in PREDICTING) == (role == "predict"):
            yield NATIVE, part.router
    if role != "predict":
        yield NATIVE, jobs.submission
    if role != "api":
        serving = (openai_models.serving, openai_completions.serving)
        yield from (("", each) for each in (huggingface.content, oip.router, huggingface.router, *serving))
    if role != "predict":
        yield from (("", part.router) for part in (openai_files, openai_jobs, openai_models, openai_batches))


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
        known=Known(database),
        predictors=Predictors(artifacts, settings.predictor_memory_bytes, settings.max_waiting_inputs),
        changes=changes,
        streams=EventStreams(database, changes, pollers),
        pollers=pollers,
    )


def openapi() -> dict[str, Any]:
    """Return the OpenAPI document of the default settings."""
    return create_app(ServiceSettings()).openapi()
