"""Embeddings: what a version's backbone makes of inputs, and how alike inputs are by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from anyio import to_thread
from fastapi import APIRouter, Response
from fastapi import Request as HttpRequest
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from starlette.types import Receive

from service.computing import RequestTimeout, all_computed, check_count, compute, deadline, in_use, parse
from service.job_requests import Request
from service.known import Meaning
from service.predictions import BODIES, InputError, InputWarningView, Meant, PredictedBy, Timing, reported
from service.predictors import Loaded
from service.state import Opened

if TYPE_CHECKING:
    from learning.prediction import Parsed

router = APIRouter(prefix="/models", tags=["predictions"])

Vectors = NDArray[np.float32]  # (N inputs, D width)


class EmbedRequest(Request):
    """What to embed."""

    inputs: list[Any] = Field(min_length=1, description="As for predict; see the model's schema.")
    normalize: bool = Field(False, description="Give each embedding the length 1.")


class EmbedResponse(BaseModel):
    """Embeddings in the order of the inputs, null where that input has an error."""

    id: str
    model: PredictedBy
    task: str
    width: int | None
    embeddings: list[list[float] | None]
    errors: list[InputError]
    warnings: list[InputWarningView]
    timing: Timing


@router.post("/{ref}/embed", response_model=EmbedResponse, openapi_extra=BODIES)
async def embed(
    asked: EmbedRequest, request: HttpRequest, state: Opened, meant: Meant, timeout_s: RequestTimeout = None
) -> Response:
    """Return the features that the model's backbone gives each input, as a vector: the mean over its positions."""
    check_count(asked.inputs, state)
    async with deadline(timeout_s), in_use(state, meant) as (loaded, load_ms):
        body = await embedded(meant, loaded, load_ms, asked.inputs, asked.normalize, request.receive)
    return Response(body, media_type="application/json", headers={"Model-State": "cold" if load_ms else "loaded"})


async def embedded(
    meant: Meaning, loaded: Loaded, load_ms: float, inputs: Sequence[Any], normalize: bool, receive: Receive
) -> bytes:
    """Return the body of an EmbedResponse."""
    parsed = await parse(loaded, inputs)
    waiting = await compute(loaded.embedder, parsed, receive)
    answers = waiting.answers if waiting is not None else []

    def written() -> bytes:
        content = _listed(answers, parsed, normalize)
        return orjson.dumps(reported(meant, parsed, waiting, load_ms, content), option=orjson.OPT_SERIALIZE_NUMPY)

    return await to_thread.run_sync(written)


def _listed(answers: Sequence[dict[str, Any]], parsed: Parsed, normalize: bool) -> dict[str, Any]:
    found: list[Any] = [None] * parsed.count
    if answers:
        vectors_ND = _vectors(answers, normalize)
        for position, vector in zip(parsed.positions, vectors_ND, strict=True):
            found[position] = vector
    return {"width": vectors_ND.shape[1] if answers else None, "embeddings": found}


def _vectors(answers: Sequence[dict[str, Any]], normalize: bool) -> Vectors:
    vectors_ND = np.array([one["embedding"] for one in answers], dtype=np.float32)
    if normalize:
        lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        vectors_ND /= np.where(lengths_N1 == 0, 1, lengths_N1)
    return vectors_ND


class SimilarityRequest(Request):
    """What to compare."""

    inputs: list[Any] = Field(min_length=1, description="As for predict; see the model's schema.")
    others: list[Any] | None = Field(None, min_length=1, description="What to compare them with; default: each other.")


class SimilarityResponse(BaseModel):
    """Cosine similarities, from -1 to 1: a row for each of the inputs, an entry for each of the others."""

    model: PredictedBy
    similarities: list[list[float]]


@router.post("/{ref}/similarity", response_model=SimilarityResponse)
async def similarity(
    asked: SimilarityRequest, request: HttpRequest, state: Opened, meant: Meant, timeout_s: RequestTimeout = None
) -> Response:
    """Return how alike inputs are: the cosine of their embeddings. One that does not fit fails the request."""
    every = [*asked.inputs, *(asked.others or ())]
    check_count(every, state)
    async with deadline(timeout_s), in_use(state, meant) as (loaded, load_ms):
        found = await alike(loaded, asked.inputs, asked.others, request.receive)
    body = orjson.dumps({"model": meant.about, "similarities": found}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json", headers={"Model-State": "cold" if load_ms else "loaded"})


async def alike(loaded: Loaded, inputs: Sequence[Any], others: Sequence[Any] | None, receive: Receive) -> Vectors:
    """Return the cosines of the inputs' embeddings with the others', or with each other's."""
    answers = await all_computed(loaded, loaded.embedder, [*inputs, *(others or ())], receive)
    vectors_ND = _vectors(answers, normalize=True)
    rows, columns = vectors_ND[: len(inputs)], vectors_ND[len(inputs) :] if others else vectors_ND
    cosines: Vectors = np.clip(rows @ columns.T, -1, 1)
    return cosines
