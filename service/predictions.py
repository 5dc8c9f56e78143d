"""Predictions: the version is resolved, its predictor loaded once, the inputs answered one by one or together."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, Response
from fastapi import Request as HttpRequest
from pydantic import BaseModel, BeforeValidator, Field

from service.dependencies import PredictKey
from service.errors import ApiError
from service.job_requests import Request
from service.state import Opened, State
from store import ids, models
from store.keys import Principal
from store.models import Version
from store.records import ArtifactRecord

router = APIRouter(prefix="/models", tags=["predictions"])


def _writable(text: str) -> str:
    """Return text that UTF-8 can spell: an input may hold half of a surrogate pair, and messages repeat it."""
    return text.encode("utf-8", "backslashreplace").decode()


Text = Annotated[str, BeforeValidator(_writable)]


class PredictRequest(Request):
    """What to predict for."""

    inputs: list[Any] = Field(min_length=1, description="One entry for each prediction; see the model's schema.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Options of the task; none so far.")


class PredictedBy(BaseModel):
    """The version that answered."""

    name: str
    version: int
    alias: str | None


class InputError(BaseModel):
    """What is wrong with one input."""

    index: int
    code: str
    message: Text
    param: Text | None
    hint: str | None


class InputWarningView(BaseModel):
    """What to know about one input."""

    index: int
    code: str
    message: Text


class Timing(BaseModel):
    """Where the time went."""

    queue_ms: float
    batch_size: int
    inference_ms: float
    load_ms: float


class PredictResponse(BaseModel):
    """Answers in the order of the inputs, null where that input has an error."""

    id: str
    model: PredictedBy
    task: str
    outputs: list[Any]
    errors: list[InputError]
    warnings: list[InputWarningView]
    timing: Timing


@router.post("/{ref}/predict")
def predict(ref: str, asked: PredictRequest, state: Opened, caller: PredictKey) -> PredictResponse:
    """Answer for each input; one that does not fit gets an error and leaves the others alone."""
    arrived = time.perf_counter()
    _check_request(asked, state)
    version, files, size = _resolve(state, caller, ref)
    predictor, load_ms = state.predictors.get(version.record.id, files, size)
    waited_ms = (time.perf_counter() - arrived) * 1000 - load_ms
    result = predictor.predict(asked.inputs)
    return PredictResponse(
        id=ids.new_id(ids.PREDICTION),
        model=PredictedBy(name=version.model.name, version=version.record.number, alias=version.alias),
        task=version.record.task,
        outputs=result.outputs,
        errors=[
            InputError(index=error.index, code=error.code, message=error.message, param=error.param, hint=error.hint)
            for error in result.errors
        ],
        warnings=[
            InputWarningView(index=warning.index, code=warning.code, message=warning.message)
            for warning in result.warnings
        ],
        timing=Timing(
            queue_ms=max(waited_ms, 0.0),
            batch_size=len(asked.inputs) - len(result.errors),
            inference_ms=result.inference_ms,
            load_ms=load_ms,
        ),
    )


def _check_request(asked: PredictRequest, state: State) -> None:
    most = state.settings.max_predict_inputs
    if len(asked.inputs) > most:
        raise ApiError(
            413,
            "too_many_inputs",
            f"{len(asked.inputs)} inputs in one request; at most {most} are taken.",
            hint="Send them in several requests.",
            param="inputs",
        )
    if asked.parameters:
        raise ApiError(
            422,
            "invalid_request",
            f'Unknown parameter "{next(iter(asked.parameters))}": this task has none.',
            hint="Leave parameters out.",
            param="parameters",
        )


def _resolve(state: State, caller: Principal, ref: str) -> tuple[Version, dict[str, ArtifactRecord], int]:
    with state.database.read() as session:
        version = models.resolve(session, caller.project, ref)
        files = models.files(session, version.record.id)
    return version, files, sum(file.bytes for file in files.values())


class SchemaResponse(BaseModel):
    """What a model takes and gives."""

    model: PredictedBy
    input: dict[str, Any]
    output: dict[str, Any]
    example: Any
    curl: str


@router.get("/{ref}/schema")
def schema(ref: str, request: HttpRequest, state: Opened, caller: PredictKey, response: Response) -> SchemaResponse:
    """Return JSON Schemas of an input and an answer, an example, and a curl line that works as printed."""
    from learning.prediction import describe

    version, files, size = _resolve(state, caller, ref)
    predictor, _ = state.predictors.get(version.record.id, files, size)
    described = describe(predictor.design)
    body = json.dumps({"inputs": [described["example"]]}).replace("'", "'\\''")
    url = f"{str(request.base_url).rstrip('/')}/api/v1/models/{ref}/predict"
    return SchemaResponse(
        model=PredictedBy(name=version.model.name, version=version.record.number, alias=version.alias),
        curl=f"curl -s '{url}' -H \"Authorization: Bearer $ANNEAL_API_KEY\" "
        f"-H 'Content-Type: application/json' -d '{body}'",
        **described,
    )
