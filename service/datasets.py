"""Datasets: upload a file, learn what is in it, file it under a name and tags, delete it."""

from __future__ import annotations

import time
from typing import Literal

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from service.changes import Seen
from service.dataset_requests import Asked, DatasetChange, Tag, made, openapi_body, read_request, require_format
from service.dataset_views import DatasetView
from service.dependencies import DatasetsKey, IdempotencyKey, Listing, Paged, Wait
from service.state import Opened, State
from store import datasets, idempotency, uploads
from store.datasets import PROCESSING, Dataset
from store.keys import Principal
from store.records import DatasetRecord

router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.post("", status_code=201, openapi_extra=openapi_body())
async def upload(
    request: Request, state: Opened, caller: DatasetsKey, response: Response, key: IdempotencyKey = None
) -> DatasetView:
    """Store a file and queue its ingestion; poll the dataset until it is ready or invalid."""
    asked = await read_request(request, state)
    view = await to_thread.run_sync(_create, state, caller, key, asked)
    state.sweeper.wake()
    response.headers["Location"] = view.urls["self"]
    return view


def _create(state: State, caller: Principal, key: str | None, asked: Asked) -> DatasetView:
    require_format(asked.wanted.format)
    wanted, came = asked.wanted, asked.source.sha256 if asked.source else ""
    fingerprint = idempotency.fingerprint(came, asked.filename or "", wanted.model_dump_json())
    with state.database.write() as session:
        earlier = idempotency.begin(session, caller.project, key, fingerprint) if key else None
        if earlier is not None:
            return DatasetView.of(datasets.get(session, caller.project, earlier.resource_id or ""))
        filename, source = asked.filename, asked.source
        if source is None or filename is None:
            filename, source = uploads.source(session, caller.project, wanted.upload_id or "")
        state.artifacts.register(session, source)
        dataset = made(session, caller.project, wanted, filename, source)
        if key:
            idempotency.finish(session, caller.project, key, dataset.record.id)
        return DatasetView.of(dataset)


@router.get("")
def list_datasets(
    state: Opened,
    caller: DatasetsKey,
    page: Paged,
    name: str | None = None,
    status: Literal["processing", "ready", "invalid"] | None = None,
    format: str | None = None,
    tag: Tag | None = None,
) -> Listing[DatasetView]:
    """Return the project's datasets, newest first."""
    require_format(format)
    with state.database.read() as session:
        query = datasets.listing(session, caller.project, name=name, status=status, format=format, tag=tag)
        rows = session.execute(page.apply(query, DatasetRecord.id)).all()
        return Listing[DatasetView].of([DatasetView.of(Dataset(*row)) for row in rows], page)


@router.get("/{dataset_id}")
async def get_dataset(dataset_id: str, state: Opened, caller: DatasetsKey, wait: Wait = 0) -> DatasetView:
    """Return a dataset; with `wait` not before its processing has ended or the time is over."""
    until = time.monotonic() + wait
    while True:
        view, job_id, seen = await to_thread.run_sync(_look, state, caller, dataset_id, limiter=state.pollers)
        left_s = until - time.monotonic()
        if view.status != PROCESSING or left_s <= 0:
            return view
        await state.changes.wait(job_id, seen, left_s)


def _look(state: State, caller: Principal, dataset_id: str) -> tuple[DatasetView, str, Seen]:
    with state.database.read() as session:
        dataset = datasets.get(session, caller.project, dataset_id)
        return DatasetView.of(dataset), dataset.job.id, Seen(dataset.job.last_sequence)


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: str, state: Opened, caller: DatasetsKey) -> None:
    """Delete a dataset that no unfinished job reads."""
    with state.database.write() as session:
        datasets.remove(session, caller.project, dataset_id)


@router.patch("/{dataset_id}")
def change_dataset(dataset_id: str, body: DatasetChange, state: Opened, caller: DatasetsKey) -> DatasetView:
    """Change a dataset's name, tags or metadata; under another name it is that name's next version."""
    with state.database.write() as session:
        dataset = datasets.change(
            session, caller.project, dataset_id, name=body.name, tags=body.tags, user_metadata=body.metadata
        )
        return DatasetView.of(dataset)


@router.get("/{dataset_id}/versions")
def dataset_versions(dataset_id: str, state: Opened, caller: DatasetsKey, page: Paged) -> Listing[DatasetView]:
    """Return the datasets of the same name, the newest first."""
    with state.database.read() as session:
        name = datasets.get(session, caller.project, dataset_id).record.name
        query = datasets.listing(session, caller.project, name=name)
        rows = session.execute(page.apply(query, DatasetRecord.id)).all()
        return Listing[DatasetView].of([DatasetView.of(Dataset(*row)) for row in rows], page)
