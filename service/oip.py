"""The Open Inference Protocol, version 2: health, metadata, infer, repository, statistics.

A model's name here is a ref: `name`, `name:3` or `name@alias`; the protocol's version is the number alone.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version as installed
from typing import Annotated, Any

import orjson
from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import select

from service import oip_tensors
from service.computing import RequestTimeout, deadline, every_answer, in_use
from service.dependencies import Authorization, PredictKey, Scheme
from service.errors import ApiError
from service.known import Meaning
from service.oip_tensors import InferRequest, TensorSpec
from service.predictors import Loaded
from service.state import Opened, State
from store.records import ModelRecord, VersionRecord

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

EXTENSIONS = ["binary_tensor_data", "model_repository", "statistics"]
MOST_READ_ON_LOOP = 1 << 16  # bytes; more of them leave the loop to others
HEADER_LENGTH = "Inference-Header-Content-Length"
BODY = {
    "requestBody": {
        "content": {
            "application/json": {"schema": {"type": "object", "required": ["inputs"]}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        }
    }
}


async def _latest(name: str, state: Opened, _: Scheme, authorization: Authorization = "") -> Meaning:
    return await state.known.of(authorization, name)


async def _numbered(name: str, version: str, state: Opened, _: Scheme, authorization: Authorization = "") -> Meaning:
    return await state.known.of(authorization, f"{name}:{version}")


async def _to_keep(name: str, state: Opened, _: Scheme, authorization: Authorization = "") -> Meaning:
    return await state.known.of(authorization, name, scope="models")


Latest = Annotated[Meaning, Depends(_latest)]
Numbered = Annotated[Meaning, Depends(_numbered)]
ToKeep = Annotated[Meaning, Depends(_to_keep)]


@router.get("/health/live")
async def server_is_live() -> Response:
    """Answer as long as the process does."""
    return Response()


@router.get("/health/ready")
def server_is_ready(state: Opened) -> Response:
    """Answer when the database does; 503 otherwise."""
    state.database.ping()
    return Response()


class ServerMetadata(BaseModel):
    """Who answers."""

    name: str
    version: str
    extensions: list[str]


@router.get("")
async def server_metadata(_: PredictKey) -> ServerMetadata:
    """Return name, version and extensions."""
    return ServerMetadata(name="anneal", version=installed("anneal"), extensions=EXTENSIONS)


class Statistics(BaseModel):
    """What the loaded versions have done; fewer executions than inferences: rows shared batches."""

    model_stats: list[dict[str, Any]]


# Before the paths with a name in this place.
@router.get("/models/stats")
async def all_statistics(state: Opened, caller: PredictKey) -> Statistics:
    """Return the statistics of every version in memory."""
    ledger = state.predictors.ledger()
    return Statistics(model_stats=[_statistics(loaded) for loaded, _ in ledger if loaded.project == caller.project])


@router.get("/models/{name}/ready")
async def model_is_ready(meant: Latest) -> Response:
    """Answer when there is such a model: one that is not in memory is loaded when it is asked."""
    return Response()


@router.get("/models/{name}/versions/{version}/ready")
async def version_is_ready(meant: Numbered) -> Response:
    """Answer when there is such a version."""
    return Response()


class TensorMetadata(BaseModel):
    """A tensor that a model takes or gives; -1 is the number of rows."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, str] = Field(default_factory=dict)


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


@router.get("/models/{name}")
async def model_metadata(name: str, state: Opened, meant: Latest) -> ModelMetadata:
    """Return a model's versions and tensors."""
    return await _metadata(name, state, meant)


@router.get("/models/{name}/versions/{version}")
async def version_metadata(name: str, state: Opened, meant: Numbered) -> ModelMetadata:
    """Return a version's tensors."""
    return await _metadata(name, state, meant)


async def _metadata(name: str, state: State, meant: Meaning) -> ModelMetadata:
    async with in_use(state, meant) as (loaded, _):
        inputs, outputs = _specs(loaded)
    numbers = await to_thread.run_sync(_numbers, state, meant)
    return ModelMetadata(
        name=name,
        versions=[str(number) for number in numbers],
        platform=f"anneal_{meant.version.record.architecture}",
        inputs=[TensorMetadata(**spec.metadata()) for spec in inputs],
        outputs=[TensorMetadata(**spec.metadata()) for spec in outputs],
    )


def _numbers(state: State, meant: Meaning) -> list[int]:
    query = select(VersionRecord.number).where(VersionRecord.model_id == meant.version.model.id)
    with state.database.read() as session:
        return list(session.scalars(query.order_by(VersionRecord.number)))


def _specs(loaded: Loaded) -> tuple[list[TensorSpec], list[TensorSpec]]:
    design = loaded.predictor.design
    inputs = oip_tensors.input_specs(design.modality.schema(design.inputs))
    return inputs, oip_tensors.output_specs(design.task.schema(design.targets))


@router.post("/models/{name}/infer", openapi_extra=BODY)
async def infer(
    name: str, request: Request, state: Opened, meant: Latest, timeout_s: RequestTimeout = None
) -> Response:
    """Return the output tensors for input tensors, JSON or binary; one wrong row fails the request."""
    return await _infer(name, request, state, meant, timeout_s)


@router.post("/models/{name}/versions/{version}/infer", openapi_extra=BODY)
async def infer_by_version(
    name: str, request: Request, state: Opened, meant: Numbered, timeout_s: RequestTimeout = None
) -> Response:
    """Do the same with one version."""
    return await _infer(name, request, state, meant, timeout_s)


async def _infer(name: str, request: Request, state: State, meant: Meaning, timeout_s: float | None) -> Response:
    body, encoding = await request.body(), request.headers.get("content-encoding", "")
    read = partial(_read, body, encoding, _header_length(request), state.settings.max_body_bytes)
    is_small = len(body) <= MOST_READ_ON_LOOP and not encoding
    asked, raw = read() if is_small else await to_thread.run_sync(read, abandon_on_cancel=True)
    waits_s = min((one for one in (timeout_s, asked.timeout_s) if one is not None), default=None)
    async with deadline(waits_s), in_use(state, meant) as (loaded, load_ms):
        inputs, outputs = _specs(loaded)
        make = partial(oip_tensors.to_inputs, asked, raw, inputs)
        values = make() if is_small else await to_thread.run_sync(make, abandon_on_cancel=True)
        answers = await every_answer(state, loaded, values, asked.options, request.receive)
    tensors, blobs = oip_tensors.to_outputs(asked, answers, outputs)
    answer = {"model_name": name, "model_version": str(meant.version.record.number), "outputs": tensors}
    if asked.id is not None:
        answer["id"] = asked.id
    headers = {"Model-State": "cold" if load_ms else "loaded"}
    return _deflated(orjson.dumps(answer), blobs, request.headers.get("accept-encoding", ""), headers)


def _read(body: bytes, encoding: str, header_length: int | None, most: int) -> tuple[InferRequest, memoryview]:
    return oip_tensors.parse(_inflated(body, encoding, most), header_length)


def _header_length(request: Request) -> int | None:
    given = request.headers.get(HEADER_LENGTH)
    if given is None:
        return None
    if not given.isdecimal() or len(given) > 12:
        raise ApiError(400, "invalid_request", f'{HEADER_LENGTH} is no number of bytes: "{given[:80]}".')
    return int(given)


def _inflated(body: bytes, encoding: str, most: int) -> bytes:
    """Return the body as it was before compression, which may not hide more than a body may have."""
    bits = {"": None, "identity": None, "gzip": 31, "deflate": 15}
    if encoding.lower() not in bits:
        raise ApiError(
            415, "unsupported_media_type", f'Content-Encoding "{encoding[:80]}" is none of: gzip, deflate, identity.'
        )
    window = bits[encoding.lower()]
    if window is None:
        return body
    inflating = zlib.decompressobj(window)
    try:
        inflated = inflating.decompress(body, most + 1)
    except zlib.error:
        raise ApiError(400, "invalid_request", f"The body is not what {encoding} writes.") from None
    if len(inflated) > most:
        raise ApiError(
            413, "too_large", f"The body has more than {most} bytes once it is decompressed.", hint="Send fewer rows."
        )
    if not inflating.eof:
        raise ApiError(400, "invalid_request", f"The body's {encoding} data end too soon.")
    return inflated


def _deflated(head: bytes, blobs: Sequence[bytes], accepted: str, headers: dict[str, str]) -> Response:
    """Return the response, compressed if the client says that it may be."""
    content, kind = head, "application/json"
    if blobs:
        headers[HEADER_LENGTH] = str(len(head))
        content, kind = head + b"".join(blobs), "application/octet-stream"
    offered = [one.partition(";")[0].strip().lower() for one in accepted.split(",")]
    if "gzip" in offered:
        content, headers["Content-Encoding"] = gzip.compress(content, 1), "gzip"
    elif "deflate" in offered:
        content, headers["Content-Encoding"] = zlib.compress(content, 1), "deflate"
    return Response(content, headers=headers, media_type=kind)


class IndexRequest(BaseModel):
    """Which models are to be listed."""

    ready: bool = False


class IndexEntry(BaseModel):
    """One version of a model."""

    name: str
    version: str
    state: str
    reason: str


@router.post("/repository/index", openapi_extra={"requestBody": {"content": {"application/json": {}}}})
async def repository_index(request: Request, state: Opened, caller: PredictKey) -> list[IndexEntry]:
    """List every version: READY when it is in memory, UNAVAILABLE when it will be loaded when it is asked."""
    body = await request.body()
    try:
        asked = IndexRequest.model_validate_json(body) if body else IndexRequest()
    except ValidationError:
        raise ApiError(400, "invalid_request", 'The body is neither empty nor like {"ready": true}.') from None
    rows = await to_thread.run_sync(_versions, state, caller.project)
    loaded = {one.version_id for one, _ in state.predictors.ledger()}
    return [
        IndexEntry(
            name=name,
            version=str(number),
            state="READY" if version_id in loaded else "UNAVAILABLE",
            reason="" if version_id in loaded else "not in memory; loaded when it is asked",
        )
        for version_id, name, number in rows
        if version_id in loaded or not asked.ready
    ]


def _versions(state: State, project: str) -> list[tuple[str, str, int]]:
    query = (
        select(VersionRecord.id, ModelRecord.name, VersionRecord.number)
        .join(ModelRecord, VersionRecord.model_id == ModelRecord.id)
        .where(ModelRecord.project == project)
        .order_by(ModelRecord.name, VersionRecord.number)
    )
    with state.database.read() as session:
        return [(version_id, name, number) for version_id, name, number in session.execute(query)]


@router.post("/repository/models/{name}/load")
async def load(state: Opened, meant: ToKeep) -> Response:
    """Load a model into memory."""
    async with in_use(state, meant):
        return Response()


@router.post("/repository/models/{name}/unload")
async def unload(state: Opened, meant: ToKeep) -> Response:
    """Take a model out of memory; asked again, it is loaded again."""
    state.predictors.unload(meant.version_id)
    return Response()


@router.get("/models/{name}/stats")
async def model_statistics(state: Opened, meant: Latest) -> Statistics:
    """Return a model's statistics since it was loaded; nothing when it is not in memory."""
    return _statistics_of(state, meant)


@router.get("/models/{name}/versions/{version}/stats")
async def version_statistics(state: Opened, meant: Numbered) -> Statistics:
    """Return a version's statistics since it was loaded."""
    return _statistics_of(state, meant)


def _statistics_of(state: State, meant: Meaning) -> Statistics:
    ledger = state.predictors.ledger()
    return Statistics(model_stats=[_statistics(one) for one, _ in ledger if one.version_id == meant.version_id])


def _statistics(loaded: Loaded) -> dict[str, Any]:
    name, _, number = loaded.ref.partition(":")
    counts = loaded.batcher.counts
    none = {"count": 0, "ns": 0}

    def spent(count: int, seconds: float) -> dict[str, int]:
        return {"count": count, "ns": round(seconds * 1e9)}

    return {
        "name": name,
        "version": number,
        "last_inference": round(loaded.last_used * 1000),
        "inference_count": counts.rows,
        "execution_count": counts.batches,
        "inference_stats": {
            "success": spent(counts.requests, counts.queue_s + counts.inference_s),
            "fail": spent(counts.failures, 0.0),
            "queue": spent(counts.requests, counts.queue_s),
            "compute_input": none,
            "compute_infer": spent(counts.batches, counts.inference_s),
            "compute_output": none,
        },
        "batch_stats": [],
    }
