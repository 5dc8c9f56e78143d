"""The rows of a dataset that were set aside because something is wrong with them."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from service.dependencies import DatasetsKey
from service.errors import ApiError
from service.ranges import check_range
from service.state import Opened
from store import datasets

router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.get("/{dataset_id}/quarantine", response_class=FileResponse)
def quarantine(dataset_id: str, request: Request, state: Opened, caller: DatasetsKey) -> FileResponse:
    """Return the bad rows as JSON lines: row, values or text, errors; ranges are served."""
    with state.database.read() as session:
        record = datasets.get(session, caller.project, dataset_id).record
    if record.quarantine_sha256 is None:
        raise ApiError(
            404,
            "not_found",
            f"Dataset {dataset_id} has no quarantine: no row was set aside.",
            hint='Upload with on_bad_rows="quarantine" to keep bad rows.',
        )
    path = state.artifacts.path(record.quarantine_sha256)
    check_range(request, path.stat().st_size)
    return FileResponse(
        path,
        media_type="application/x-ndjson",
        filename=f"{record.name}.quarantine.jsonl",
    )
