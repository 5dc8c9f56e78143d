"""A dataset as callers see it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from learning.errors import RowError
from service.times import rfc3339
from store.datasets import INVALID, PROCESSING, Dataset

PARTS = ("preview", "schema", "errors", "content", "versions")


def validation_of(dataset: Dataset) -> dict[str, Any] | None:
    """Return what checking the file found; where checking itself was ended, that is the one error."""
    found: dict[str, Any] | None = (dataset.record.description or {}).get("validation")
    error = dataset.job.error
    if found or dataset.status != INVALID or not error:
        return found
    single = RowError(error["code"], error["message"], error.get("hint") or "Upload it again.", dataset.record.filename)
    by_rule = {single.rule: 1}
    return {
        "ok": False,
        "error_count": 1,
        "warning_count": 0,
        "errors": [single.to_dict()],
        "errors_by_rule": by_rule,
    }


class Lineage(BaseModel):
    """Where a dataset comes from: the version before it under its name."""

    previous: str | None


class DatasetView(BaseModel):
    """A dataset as callers see it."""

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    version: int
    filename: str
    status: Literal["processing", "ready", "invalid"]
    format: str | None
    format_reason: str | None
    encoding: str | None
    sha256: str
    bytes: int
    num_rows: int | None
    split: dict[str, Any] | None
    splits: dict[str, int] | None
    duplicates: dict[str, Any] | None
    columns: list[dict[str, Any]]
    task_candidates: list[dict[str, Any]]
    validation: dict[str, Any] | None
    warnings: list[Any]
    progress: dict[str, Any] | None
    error: dict[str, Any] | None
    ingestion_job_id: str
    created_at: str | None
    tags: list[str]
    metadata: dict[str, Any]
    lineage: Lineage
    urls: dict[str, str]

    @classmethod
    def of(cls, dataset: Dataset) -> DatasetView:
        """Return the view of a dataset."""
        record, job = dataset.record, dataset.job
        known = record.description or {}
        url = f"/api/v1/datasets/{record.id}"
        parts = (*PARTS, "quarantine") if record.quarantine_sha256 else PARTS
        return cls(
            id=record.id,
            name=record.name,
            version=record.version,
            filename=record.filename,
            status=dataset.status,
            format=known.get("format"),
            format_reason=known.get("format_reason"),
            encoding=known.get("encoding"),
            sha256=record.source_sha256,
            bytes=dataset.bytes,
            num_rows=known.get("num_rows"),
            split=record.options.get("split"),
            splits=known.get("splits"),
            duplicates=known.get("duplicates"),
            columns=known.get("columns", []),
            task_candidates=known.get("task_candidates", []),
            validation=validation_of(dataset),
            warnings=known.get("warnings", []),
            progress=job.progress if dataset.status == PROCESSING else None,
            error=job.error,
            ingestion_job_id=job.id,
            created_at=rfc3339(record.created_at),
            tags=record.tags,
            metadata=record.user_metadata,
            lineage=Lineage(previous=record.previous_id),
            urls={"self": url, **{part: f"{url}/{part}" for part in parts}},
        )
