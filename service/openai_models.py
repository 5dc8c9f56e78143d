"""OpenAI's models and embeddings."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import orjson
from anyio import to_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import select

from service import job_requests
from service.computing import RequestTimeout, check_all_fit, check_count, compute, deadline, in_use, parse
from service.dependencies import Authorization, ModelsKey, Scheme
from service.errors import ApiError
from service.openai_objects import Deleted
from service.state import Opened
from store import models
from store.models import Version
from store.records import ModelRecord, VersionRecord

router = APIRouter(prefix="/v1", tags=["openai"])
serving = APIRouter(prefix="/v1", tags=["openai"])


class ModelObject(BaseModel):
    """A version; its id is a ref."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str

    @classmethod
    def of(cls, version: Version) -> ModelObject:
        """Return a version as a model."""
        return cls(id=version.ref, created=int(version.record.created_at), owned_by=version.model.project)


class ModelList(BaseModel):
    """All of a project's models."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


@router.get("/models")
def list_openai_models(state: Opened, caller: ModelsKey) -> ModelList:
    """Return every version, newest first: the protocol knows no pages of models."""
    query = (
        select(VersionRecord, ModelRecord)
        .join(ModelRecord, VersionRecord.model_id == ModelRecord.id)
        .where(ModelRecord.project == caller.project)
        .order_by(VersionRecord.id.desc())
    )
    with state.database.read() as session:
        return ModelList(data=[ModelObject.of(Version(*row)) for row in session.execute(query)])


@router.get("/models/{ref}")
def get_openai_model(ref: str, state: Opened, caller: ModelsKey) -> ModelObject:
    """Return the version that a ref means."""
    with state.database.read() as session:
        return ModelObject.of(models.resolve(session, caller.project, ref))


@router.delete("/models/{ref}")
def delete_openai_model(ref: str, state: Opened, caller: ModelsKey) -> Deleted:
    """Delete a version that no alias points at."""
    with state.database.write() as session:
        version = models.resolve(session, caller.project, ref)
        models.remove_version(session, version)
        return Deleted(id=version.ref, object="model")


class EmbeddingRequest(job_requests.Request):
    """What to embed."""

    model: str
    input: str | list[Any] = Field(description="An input as the model takes it, or several.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="Only the width that the model has.")
    user: str | None = None


class EmbeddingObject(BaseModel):
    """One embedding: numbers, or base64 of them as little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(BaseModel):
    """Embeddings in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    usage: Usage


@serving.post("/embeddings", response_model=EmbeddingResponse)
async def create_embeddings(
    asked: EmbeddingRequest,
    request: Request,
    state: Opened,
    _: Scheme,
    authorization: Authorization = "",
    timeout_s: RequestTimeout = None,
) -> Response:
    """Return embeddings by a version's backbone; one input that does not fit fails the request."""
    inputs = asked.input if isinstance(asked.input, list) else [asked.input]
    if not inputs:
        raise ApiError(400, "invalid_request", "input is empty.", hint="Send at least one.", param="input")
    check_count(inputs, state)
    meant = await state.known.of(authorization, asked.model)
    async with deadline(timeout_s), in_use(state, meant) as (loaded, _load_ms):
        parsed = await parse(loaded, inputs)
        check_all_fit(parsed)
        waiting = await compute(loaded.embedder, parsed, request.receive)
        tokens = sum(map(loaded.predictor.positions, parsed.rows))
    assert waiting is not None
    vectors = [one["embedding"] for one in waiting.answers]
    check_width(asked.dimensions, len(vectors[0]))
    body = await to_thread.run_sync(embedding_body, vectors, meant.version.ref, tokens, asked.encoding_format)
    return Response(orjson.dumps(body), media_type="application/json")


def check_width(wanted: int | None, width: int) -> None:
    """Raise 400 for embeddings of another width than the model has."""
    if wanted not in (None, width):
        raise ApiError(400, "invalid_request", f"This model's embeddings have {width} dimensions.", param="dimensions")


def embedding_body(vectors: Sequence[Sequence[float]], ref: str, tokens: int, encoding: str) -> dict[str, Any]:
    """Return an EmbeddingResponse."""
    written: Sequence[Any] = vectors
    if encoding == "base64":
        written = [base64.b64encode(np.asarray(one, dtype="<f4").tobytes()).decode() for one in vectors]
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(written)],
        "model": ref,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
