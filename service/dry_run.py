"""A job that is only looked at: everything that is wrong with it, or what it would be and take. Nothing is written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from sqlalchemy.orm import Session

from learning.config import TrainingSpec
from learning.errors import LearningError
from service import job_requests
from service.authorization import authorize
from service.errors import ApiError, field_errors
from service.job_requests import JobCreate
from service.library import importing
from service.state import State
from store import checkpoints, models
from store.artifacts import ArtifactStore
from store.errors import StoreError
from store.jobs import NewJob
from store.records import DatasetRecord


class RangeView(BaseModel):
    """Between what a number is expected."""

    low: float
    high: float


class DryRun(BaseModel):
    """What a request would become; without `valid`, `errors` holds everything that is wrong with it."""

    valid: bool
    errors: list[dict[str, Any]] = []
    warnings: list[str] = []
    resolved: dict[str, Any] | None = None
    steps: int | None = None
    train_rows: int | None = None
    weights: int | None = None
    seconds: RangeView | None = None
    memory_bytes: RangeView | None = None


class Findings:
    """Collects errors where otherwise the first would be raised."""

    def __init__(self) -> None:
        self.errors: list[dict[str, Any]] = []

    @contextmanager
    def collect(self, field: str) -> Iterator[None]:
        """Keep the error that the block raises, if any; about a field, unless it names another."""
        try:
            yield
        except (ApiError, StoreError, LearningError) as error:
            self.errors.append(
                {
                    "code": error.code,
                    "message": error.message,
                    "pointer": "/" + (error.param or field).replace(".", "/"),
                    "hint": error.hint,
                }
            )


def dry_run(state: State, project: str, asked: JobCreate) -> DryRun:
    """Return what a well-formed request would become."""
    findings = Findings()
    with state.database.read() as session:
        new = job_requests.resolve(session, project, asked, findings.collect)
        if new is None or findings.errors:
            return DryRun(valid=False, errors=findings.errors)
        with tempfile.TemporaryDirectory(prefix="anneal-dry-run-") as directory:
            files = _files(session, state.artifacts, new, Path(directory))
            with findings.collect("dataset"):
                return _estimated(new, *files)
    return DryRun(valid=False, errors=findings.errors)


def _files(
    session: Session, artifacts: ArtifactStore, new: NewJob, directory: Path
) -> tuple[dict[str, Path], Path | None, Path | None]:
    tables = {
        role: artifacts.path(session.get_one(DatasetRecord, dataset_id).table_sha256 or "")
        for role, dataset_id in new.datasets.items()
    }
    base = start = None
    if new.base_version_id is not None:
        base = directory / "base"
        artifacts.copy_to(models.loadable(session, new.base_version_id), base)
    if new.start_checkpoint_id is not None:
        start = directory / "start"
        artifacts.copy_to(checkpoints.files(session, new.start_checkpoint_id), start)
    return tables, base, start


def _estimated(new: NewJob, tables: dict[str, Path], base: Path | None, start: Path | None) -> DryRun:
    spec = TrainingSpec.model_validate(new.resolved)
    whole = DryRun(valid=True, resolved=spec.model_dump(mode="json"))
    if new.base_job_id is not None and base is None:
        return whole.model_copy(
            update={"warnings": ["The base model is not trained yet, so steps, time and memory are not known."]}
        )
    with importing:
        from learning.estimation import estimate  # torch comes with it

    found = estimate(spec, tables, base=base, start=start)
    numbers = found.resolved.model_dump()
    hyperparameters = spec.hyperparameters.model_dump(mode="json")
    hyperparameters |= {name: value for name, value in numbers.items() if name in hyperparameters}
    sampled = [f"Estimated from a sample of the {found.train_rows} training rows."] if found.sampled else []
    return whole.model_copy(
        update={
            "resolved": {**(whole.resolved or {}), "hyperparameters": hyperparameters},
            "steps": found.resolved.total_steps,
            "train_rows": found.train_rows,
            "weights": found.weights,
            "seconds": RangeView(low=found.seconds.low, high=found.seconds.high),
            "memory_bytes": RangeView(low=found.memory_bytes.low, high=found.memory_bytes.high),
            "warnings": [*found.warnings, *sampled],
        }
    )


class DryRunRoute(APIRoute):
    """A route whose malformed bodies are an answer too when only a dry run was asked for."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Return the handler."""
        handle = super().get_route_handler()

        async def look(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                wanted = request.query_params.get("dry_run", "").lower() in ("true", "1", "yes", "on")
                if not wanted or not isinstance(error.body, Mapping):
                    raise
                return JSONResponse(_malformed(request, error).model_dump())

        return look


def _malformed(request: Request, error: RequestValidationError) -> DryRun:
    """Return every error of the form, and what else is wrong with the fields that are well formed."""
    errors = field_errors(error.errors())
    wrong = {entry["pointer"].split("/")[1] for entry in errors}
    rest = {name: value for name, value in dict(error.body).items() if name not in wrong}
    state: State = request.app.state.opened
    try:
        asked = JobCreate.model_validate({"kind": "finetune", "dataset": "", **rest})
    except ValidationError:
        return DryRun(valid=False, errors=errors)
    findings = Findings()
    with state.database.read() as session:
        project = authorize(session.connection(), request.headers.get("authorization", ""), "jobs").project
        job_requests.resolve(session, project, asked, findings.collect)
    # What follows from a field that was left out here is no finding.
    errors += [entry for entry in findings.errors if entry["pointer"].split("/")[1] not in wrong]
    return DryRun(valid=False, errors=errors)
