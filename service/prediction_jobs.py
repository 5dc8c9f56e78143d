"""Predictions as jobs: for every row of a dataset, and for inputs whose caller does not want to wait."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson
from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session
from starlette.datastructures import Headers

from service.authorization import authorize
from service.changes import Seen
from service.chosen_route import ChosenRoute
from service.computing import check_count
from service.dependencies import Authorization, IdempotencyKey, JobsKey, PredictKey, Scheme, Wait
from service.job_requests import CHECKPOINT_EVERY_S, RunOptions, naming, ready_dataset
from service.job_views import JobView
from service.library import importing, read_design
from service.predictions import InputError, InputWarningView, PredictRequest
from service.ranges import check_range
from service.state import Opened, State
from service.submission import submitted
from service.times import rfc3339
from store import datasets, files, jobs, models
from store.artifacts import Artifact
from store.errors import IllegalTransition, NotFound
from store.jobs import NewJob
from store.keys import Principal
from store.models import Version
from store.records import JobRecord
from store.states import TERMINAL

if TYPE_CHECKING:
    from learning.model import Design

router = APIRouter(tags=["predictions"])

LOOK_AGAIN_S = 5.0
ASSIGNED = ("operation", "parameters", "format", "keep", "text", "threads")  # what a worker has to know
MEDIA_TYPES = {".jsonl": "application/jsonl", ".csv": "text/csv", ".parquet": "application/vnd.apache.parquet"}


class DatasetPredict(RunOptions):
    """Which rows to predict for, and the file that is wanted."""

    dataset: str = Field(description="A dataset's id; every row of it is answered.")
    format: Literal["jsonl", "csv", "parquet"] = Field("jsonl", description="Of the file that is made.")
    operation: Literal["predict", "embed"] = Field("predict", description="Answers, or embeddings.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="As for predict; see the model's schema.")
    keep: list[str] = Field(
        default_factory=list, max_length=1000, description="Columns of the dataset to repeat beside each answer."
    )
    text: str | None = Field(None, description="The column with the text, where a dataset has several.")


@router.post("/models/{ref}/predict-dataset", status_code=202)
def predict_dataset(
    ref: str,
    asked: DatasetPredict,
    state: Opened,
    caller: JobsKey,
    response: Response,
    key: IdempotencyKey = None,
) -> JobView:
    """Queue a job that answers for every row of a dataset and makes a file of the answers."""

    def submit(session: Session) -> JobRecord:
        version = models.resolve(session, caller.project, ref)
        with naming("dataset"):
            rows = ready_dataset(datasets.get(session, caller.project, asked.dataset), "rows")
        design = read_design(state.artifacts, models.files(session, version.record.id))
        with naming("dataset"):
            _check(design, asked, state.artifacts.path(rows.record.table_sha256 or ""))
        spec = {"model": ref, **asked.model_dump(mode="json"), "dataset": {"rows": asked.dataset}}
        resolved: dict[str, Any] = {
            name: spec[name] for name in ("operation", "parameters", "format", "keep", "text", "threads")
        }
        resolved["checkpoint_every_s"] = asked.checkpoint_every_s
        new = _new_job(caller, version, spec, resolved)
        return jobs.submit(session, new)

    return submitted(state, caller, response, key, ("predict-dataset", ref, asked.model_dump_json()), submit)


def _new_job(caller: Principal, version: Version, spec: dict[str, Any], resolved: dict[str, Any]) -> NewJob:
    return NewJob(
        kind=jobs.PREDICT,
        project=caller.project,
        task=version.record.task,
        name=spec.get("name"),
        spec=spec,
        resolved={**resolved, "version_id": version.record.id, "ref": version.ref},
        datasets=spec.get("dataset") or {},
        priority=spec.get("priority", 0),
        user_metadata=spec.get("metadata") or {},
    )


def _check(design: Design, asked: DatasetPredict, table: Path) -> None:
    """Raise for parameters that the task does not take, and for columns that are not there."""
    with importing:
        from learning.data import open_table
        from learning.dataset_prediction import TableRows

    _check_options(design, asked.parameters)
    TableRows(open_table(table), design, asked.text, asked.keep)


def _check_options(design: Design, parameters: dict[str, Any]) -> None:
    with importing:
        from learning.model import configure

    configure(design.task.Options, parameters, "parameters")


@router.get("/jobs/{job_id}/output", response_class=FileResponse)
def job_output(job_id: str, request: Request, state: Opened, caller: JobsKey) -> FileResponse:
    """Return the file that a prediction job has made; ranges are served."""
    with state.database.read() as session:
        job = jobs.get(session, caller.project, job_id)
        file = files.of_job(session, job_id, files.OUTPUT)
    if file is None:
        raise _no_output(job)
    path = state.artifacts.path(file.sha256)
    check_range(request, path.stat().st_size)
    media_type = MEDIA_TYPES.get(Path(file.filename).suffix, "application/octet-stream")
    return FileResponse(path, media_type=media_type, filename=file.filename)


def _no_output(job: JobRecord) -> Exception:
    if job.kind != jobs.PREDICT:
        return NotFound(f"Job {job.id} makes no file.", hint=f"Its result is in GET /api/v1/jobs/{job.id}.")
    return IllegalTransition(
        f"Job {job.id} is {job.state} and has no file.", hint=f"Wait for it: GET /api/v1/jobs/{job.id}?wait=30."
    )


class LaterRoute(ChosenRoute):
    """A route for requests whose caller does not want to wait (RFC 7240)."""

    @staticmethod
    def is_for(headers: Headers) -> bool:
        """Return whether the request prefers that."""
        given = ",".join(headers.getlist("prefer")).lower().split(",")
        return "respond-async" in (one.partition(";")[0].strip() for one in given)


later = APIRouter(tags=["predictions"], route_class=LaterRoute, include_in_schema=False)


class PredictionView(BaseModel):
    """A prediction that nobody waited for: `outputs` once its status is succeeded."""

    id: str
    object: Literal["prediction"] = "prediction"
    status: str
    model: str
    task: str | None
    outputs: list[Any] | None = None
    errors: list[InputError] = []
    warnings: list[InputWarningView] = []
    error: dict[str, Any] | None = None
    created_at: str | None
    finished_at: str | None
    urls: dict[str, str]

    @classmethod
    def of(cls, job: JobRecord, lines: list[dict[str, Any]] | None = None) -> PredictionView:
        """Return the view of a job; `lines` are its file's, once there is one."""
        view = cls(
            id=job.id,
            status=job.state,
            model=(job.resolved or {})["ref"],
            task=job.task,
            error=job.error,
            created_at=rfc3339(job.created_at),
            finished_at=rfc3339(job.finished_at),
            urls={"self": f"/api/v1/predictions/{job.id}"},
        )
        if lines is not None:
            view.outputs = [line["output"] for line in lines]
            view.errors = [InputError(index=line["index"], **line["error"]) for line in lines if line["error"]]
            view.warnings = [
                InputWarningView(index=line["index"], **warning) for line in lines for warning in line["warnings"]
            ]
        return view


@later.post("/models/{ref}/predict", status_code=202)
def predict_later(
    ref: str,
    asked: PredictRequest,
    state: Opened,
    caller: PredictKey,
    response: Response,
    key: IdempotencyKey = None,
) -> PredictionView:
    """Queue a prediction, to be looked at later."""
    check_count(asked.inputs, state)
    inputs = state.artifacts.write([orjson.dumps(asked.inputs)])

    def submit(session: Session) -> JobRecord:
        version = models.resolve(session, caller.project, ref)
        design = read_design(state.artifacts, models.files(session, version.record.id))
        _check_options(design, asked.parameters)
        spec = {"model": ref, "parameters": asked.parameters}
        return submit_listed(state, session, caller, version, spec, inputs)

    made = submitted(state, caller, response, key, ("predict", ref, asked.model_dump_json()), submit)
    with state.database.read() as session:
        view = PredictionView.of(jobs.get(session, caller.project, made.id))
    response.headers["Location"] = view.urls["self"]
    response.headers["Preference-Applied"] = "respond-async"
    return view


def submit_listed(
    state: State,
    session: Session,
    caller: Principal,
    version: Version,
    spec: dict[str, Any],
    inputs: Artifact,
    operation: Literal["predict", "embed", "complete"] = "predict",
) -> JobRecord:
    """Queue a job for inputs that were stored as a JSON list."""
    state.artifacts.register(session, inputs)
    session.flush()
    file = files.add(session, project=caller.project, filename="inputs.json", purpose=files.INPUTS, artifact=inputs)
    resolved: dict[str, Any] = {
        "operation": operation,
        "parameters": spec.get("parameters", {}),
        "inputs_file": file.id,
        "format": "jsonl",
        "keep": [],
        "text": None,
        "threads": None,
        "checkpoint_every_s": CHECKPOINT_EVERY_S,
    }
    job = jobs.submit(session, _new_job(caller, version, spec, resolved))
    file.job_id = job.id
    return job


@router.get("/predictions/{prediction_id}")
async def get_prediction(
    prediction_id: str, state: Opened, _: Scheme, authorization: Authorization = "", wait: Wait = 0
) -> PredictionView:
    """Return a prediction that was asked for with `Prefer: respond-async`; with `wait`, not before it has ended."""
    until = time.monotonic() + wait
    while True:
        view, seen, ended = await to_thread.run_sync(_look, state, authorization, prediction_id)
        left_s = until - time.monotonic()
        if ended or left_s <= 0:
            return view
        await state.changes.wait(prediction_id, seen, min(left_s, LOOK_AGAIN_S))


def _look(state: State, authorization: str, prediction_id: str) -> tuple[PredictionView, Seen, bool]:
    with state.database.read() as session:
        project = authorize(session.connection(), authorization, "predict").project
        job = session.get(JobRecord, prediction_id)
        asked = (job.resolved or {}) if job is not None and job.project == project else {}
        # Others have listed inputs too, such as a batch of embeddings, which a key for predictions may not see.
        if job is None or "inputs_file" not in asked or asked["operation"] != "predict":
            raise NotFound(f'No prediction "{prediction_id}".', hint="Ask for one with Prefer: respond-async.")
        file = files.of_job(session, job.id, files.OUTPUT)
    lines = None
    if file is not None:
        lines = [orjson.loads(line) for line in state.artifacts.path(file.sha256).read_bytes().splitlines()]
    return PredictionView.of(job, lines), Seen(job.last_sequence, job.updated_at), job.state in TERMINAL
