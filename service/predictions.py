"""Predictions: the ref resolved, its version loaded once, the inputs of whoever waits answered together."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from anyio import to_thread
from fastapi import APIRouter, Depends, Response
from fastapi import Request as HttpRequest
from pydantic import BaseModel, BeforeValidator, Field
from starlette.types import Receive

from service.answer_stream import AnswerStream, Events, Streamed, check_streams, event, expire, submitted
from service.batching import Waiting
from service.computing import RequestTimeout, check_count, compute, deadline, in_use, parse, too_late
from service.dependencies import Authorization, Scheme
from service.job_requests import Request
from service.known import Meaning
from service.library import importing
from service.predictors import Loaded
from service.state import Opened, State
from store import ids

if TYPE_CHECKING:
    from learning.errors import InvalidInput
    from learning.interfaces import InputWarning, PredictionOptions
    from learning.prediction import Parsed

router = APIRouter(prefix="/models", tags=["predictions"])


def _writable(text: str) -> str:
    """Return text that UTF-8 can spell: an input may hold half of a surrogate pair, and messages repeat it."""
    return text.encode("utf-8", "backslashreplace").decode()


Text = Annotated[str, BeforeValidator(_writable)]


class PredictRequest(Request):
    """What to predict for."""

    inputs: list[Any] = Field(min_length=1, description="One entry for each prediction; see the model's schema.")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="What is asked of the answers; see the model's schema."
    )
    stream: bool = Field(
        False,
        description="Send texts as they are written, as server-sent events; for models that write, or write down.",
    )


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

    @classmethod
    def of(cls, error: InvalidInput) -> InputError:
        """Return the view of an input's error."""
        return cls(index=error.index, code=error.code, message=error.message, param=error.param, hint=error.hint)


class InputWarningView(BaseModel):
    """What to know about one input."""

    index: int
    code: str
    message: Text

    @classmethod
    def of(cls, warning: InputWarning) -> InputWarningView:
        """Return the view of an input's warning."""
        return cls(index=warning.index, code=warning.code, message=warning.message)


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


async def _meaning(ref: str, state: Opened, _: Scheme, authorization: Authorization = "") -> Meaning:
    return await state.known.of(authorization, ref)


Meant = Annotated[Meaning, Depends(_meaning)]


# What is no JSON is read in input_bodies.
CONTENTS = {
    kind: {"schema": {"type": "string", "format": "binary"}}
    for kind in ("text/plain", "text/csv", "application/jsonl", "image/*", "audio/*")
} | {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {
                "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
                "parameters": {"type": "string", "description": "A JSON object."},
            },
        }
    }
}
BODIES = {"requestBody": {"content": CONTENTS}}


STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "With `stream`, events."}
}


@router.post("/{ref}/predict", response_model=PredictResponse, openapi_extra=BODIES, responses=STREAMED)
async def predict(
    asked: PredictRequest, request: HttpRequest, state: Opened, meant: Meant, timeout_s: RequestTimeout = None
) -> Response:
    """Answer for each input; one that does not fit gets an error and leaves the others alone.

    With `stream`, each piece of a text is an event `text` with the input's index, and the last event, `answer`, is what
    the answer is without `stream`; an `error` ends the stream too.
    """
    check_count(asked.inputs, state)
    if asked.stream:

        async def read(loaded: Loaded) -> Parsed:
            options = loaded.predictor.options(asked.parameters) if asked.parameters else None
            return await parse(loaded, asked.inputs, options)

        return await opened_stream(state, meant, read, NativeEvents(meant), timeout_s)
    async with deadline(timeout_s), in_use(state, meant) as (loaded, load_ms):
        body = await answer(meant, loaded, load_ms, asked.inputs, asked.parameters, request.receive)
    return Response(body, media_type="application/json", headers={"Model-State": "cold" if load_ms else "loaded"})


async def answer(
    meant: Meaning,
    loaded: Loaded,
    load_ms: float,
    inputs: Sequence[Any],
    parameters: dict[str, Any],
    receive: Receive,
) -> bytes:
    """Return the body of a PredictResponse."""
    options = loaded.predictor.options(parameters) if parameters else None
    parsed = await parse(loaded, inputs, options)
    return written(meant, parsed, await compute(loaded.batcher, parsed, receive), load_ms, options)


def written(
    meant: Meaning, parsed: Parsed, waiting: Waiting | None, load_ms: float, options: PredictionOptions | None
) -> bytes:
    """Return the body of a PredictResponse to inputs that were computed."""
    answers = waiting.answers if waiting is not None else []
    if options is not None:
        answers = [options.apply(one) for one in answers]
    return orjson.dumps(reported(meant, parsed, waiting, load_ms, {"outputs": parsed.answered(answers)}))


async def opened_stream(
    state: State,
    meant: Meaning,
    read: Callable[[Loaded], Awaitable[Parsed]],
    events: Events,
    timeout_s: float | None,
) -> AnswerStream:
    """Return the answer to what `read` makes of a request as a stream; what is wrong with the request is raised."""
    started, stack = perf_counter(), AsyncExitStack()
    try:
        async with deadline(timeout_s):
            loaded, load_ms = await stack.enter_async_context(in_use(state, meant))
            batcher = check_streams(loaded.batcher)
            streamed, pieces = submitted(batcher, await read(loaded), load_ms)
    except BaseException:
        await stack.aclose()
        raise
    if timeout_s is not None and streamed.waiting is not None:
        expire(streamed.waiting, timeout_s - (perf_counter() - started), too_late(timeout_s))
    return AnswerStream(streamed, pieces, events, stack)


@dataclass(frozen=True, slots=True)
class NativeEvents:
    """The events of a streamed prediction."""

    meant: Meaning

    def text(self, index: int, text: str) -> bytes:
        """Return what is new of an input's answer."""
        return event("text", orjson.dumps({"index": index, "text": text}))

    def end(self, streamed: Streamed) -> bytes:
        """Return the answer."""
        outputs = {"outputs": streamed.parsed.answered(streamed.answers)}
        return event(
            "answer", orjson.dumps(reported(self.meant, streamed.parsed, streamed.waiting, streamed.load_ms, outputs))
        )

    def error(self, problem: bytes) -> bytes:
        """Return what went wrong."""
        return event("error", problem)


def reported(
    meant: Meaning, parsed: Parsed, waiting: Waiting | None, load_ms: float, content: dict[str, Any]
) -> dict[str, Any]:
    """Return what an answer says beside its content: who answered, what was wrong, and where the time went."""
    return {
        "id": ids.new_id(ids.PREDICTION),
        "model": meant.about,
        "task": meant.task,
        **content,
        "errors": [InputError.of(one).model_dump() for one in parsed.errors],
        "warnings": [InputWarningView.of(one).model_dump() for one in parsed.warnings],
        "timing": {
            "queue_ms": waiting.queue_ms if waiting is not None else 0.0,
            "batch_size": waiting.batch_size if waiting is not None else 0,
            "inference_ms": waiting.inference_ms if waiting is not None else 0.0,
            "load_ms": load_ms,
        },
    }


class SchemaResponse(BaseModel):
    """What a model takes and gives."""

    model: PredictedBy
    input: dict[str, Any]
    parameters: dict[str, Any]
    output: dict[str, Any]
    example: Any
    curl: str


@router.get("/{ref}/schema")
async def schema(ref: str, request: HttpRequest, state: Opened, meant: Meant) -> SchemaResponse:
    """Return JSON Schemas of an input and an answer, an example, and a curl line that works as printed."""
    async with in_use(state, meant) as (loaded, _):
        described = await to_thread.run_sync(_described, loaded)
    body = json.dumps({"inputs": [described["example"]]}).replace("'", "'\\''")
    url = f"{str(request.base_url).rstrip('/')}/api/v1/models/{ref}/predict"
    return SchemaResponse(
        model=PredictedBy.model_validate(meant.about),
        curl=f"curl -s '{url}' -H \"Authorization: Bearer $ANNEAL_API_KEY\" "
        f"-H 'Content-Type: application/json' -d '{body}'",
        **described,
    )


def _described(loaded: Loaded) -> dict[str, Any]:
    with importing:
        from learning.prediction import describe

    return describe(loaded.predictor.design)
