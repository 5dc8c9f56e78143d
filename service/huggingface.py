"""What `huggingface_hub.InferenceClient(model=URL)` asks of a model: a table in columns, or inputs."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from service.dependencies import Authorization, Scheme
from service.errors import ApiError
from service.known import Meaning
from service.predictions import RequestTimeout, check_count, compute, deadline, in_use
from service.state import Opened

router = APIRouter(prefix="/hf", tags=["hugging face"])

_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")


async def _meaning(ref: str, state: Opened, _: Scheme, authorization: Authorization = "") -> Meaning:
    return await state.known.of(authorization, ref)


class InferenceRequest(BaseModel):
    """A table by column, or inputs as the native endpoint takes them."""

    table: dict[str, list[Any]] | None = Field(None, description="Values of each column; numbers may be texts.")
    inputs: list[Any] | None = Field(None, description="One entry for each prediction; see the model's schema.")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="What is asked of the answers; see the model's schema."
    )


@router.post("/models/{ref}", response_model=list[Any])
async def infer_hugging_face(
    asked: InferenceRequest,
    request: Request,
    state: Opened,
    meant: Annotated[Meaning, Depends(_meaning)],
    timeout_s: RequestTimeout = None,
) -> JSONResponse:
    """Return a label or number for each row of a table, or an answer for each input; a wrong row fails the request."""
    async with deadline(timeout_s), in_use(state, meant) as (loaded, load_ms):
        predictor = loaded.predictor
        options = predictor.options(asked.parameters)
        inputs = _inputs(asked, predictor.design.modality.schema(predictor.design.inputs))
        check_count(inputs, state)
        parsed = predictor.parse(inputs)
        if parsed.errors:
            first = parsed.errors[0]
            raise ApiError(400, first.code, first.message, hint=first.hint, param=first.param)
        waiting = await compute(loaded, parsed, request.receive)
    answers = [options.apply(answer) for answer in waiting.answers] if waiting is not None else []
    headers = {"Model-State": "cold" if load_ms else "loaded"}
    return JSONResponse([_short(one) for one in answers] if asked.table is not None else answers, headers=headers)


def _inputs(asked: InferenceRequest, schema: dict[str, Any]) -> list[Any]:
    if (asked.table is None) == (asked.inputs is None):
        raise ApiError(
            400, "invalid_request", "The body has neither or both of table and inputs.", hint='Send {"table": {...}}.'
        )
    if asked.table is None:
        return asked.inputs or []
    lengths = {name: len(values) for name, values in asked.table.items()}
    if len(set(lengths.values())) > 1:
        raise ApiError(400, "invalid_request", f"The table's columns have different lengths: {lengths}.")
    columns = {
        name: [_number(value) for value in values] if _is_number(schema, name) else values
        for name, values in asked.table.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _is_number(schema: dict[str, Any], name: str) -> bool:
    return "number" in schema.get("properties", {}).get(name, {}).get("type", ())


def _number(value: Any) -> Any:
    """Return the number that a text spells: Hugging Face's tables are of texts."""
    if isinstance(value, str):
        if not value.strip():
            return None
        if _NUMBER.fullmatch(value):
            return float(value)
    return value


def _short(answer: dict[str, Any]) -> Any:
    """Return what the client's tabular methods expect: the label, the number, or the numbers."""
    return next((answer[name] for name in ("label", "value", "values") if name in answer), answer)
