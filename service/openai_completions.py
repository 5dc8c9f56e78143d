"""OpenAI's completions: how texts go on, whole or as they are written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from service import job_requests
from service.answer_stream import Streamed
from service.computing import RequestTimeout, check_all_fit, check_count, compute, deadline, in_use, parse
from service.dependencies import Authorization, Scheme
from service.errors import ApiError
from service.library import importing
from service.openai_models import Usage
from service.predictions import STREAMED, opened_stream
from service.predictors import Loaded
from service.state import Opened
from store import ids

if TYPE_CHECKING:
    from learning.model import Design
    from learning.prediction import Parsed

serving = APIRouter(prefix="/v1", tags=["openai"])

MOST_CHOICES = 128
_SEEDS = 2**63
_LEAST_TEMPERATURE = 0.01  # below it, the likeliest token is all that is ever drawn
StopString = Annotated[str, Field(min_length=1, max_length=200)]
Nothing = Annotated[Literal[0] | None, Field(description="Only 0.")]


class StreamOptions(job_requests.Request):
    """What a stream has beside."""

    include_usage: bool = Field(False, description="End with a chunk that counts tokens.")
    include_obfuscation: Literal[False] | None = None


class CompletionRequest(job_requests.Request):
    """What is to go on, and how."""

    model: str
    prompt: str | list[str] = Field(description="A text, or several.")
    max_tokens: int | None = Field(16, ge=1, le=100_000, description="Most tokens to write.")
    temperature: float | None = Field(1.0, ge=0, le=10)
    top_p: float | None = Field(1.0, gt=0, le=1)
    n: int | None = Field(1, ge=1, le=MOST_CHOICES, description="Texts for each prompt.")
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = None
    seed: int | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    top_k: int | None = Field(None, ge=1, description="Of ours: draw among so many of the likeliest tokens.")
    repetition_penalty: float = Field(1.0, gt=0, le=10, description="Of ours, see predict.")
    user: str | None = None
    echo: Literal[False] | None = None
    best_of: int | None = Field(None, ge=1, le=1, description="Only 1.")
    logprobs: None = None
    suffix: None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=0)
    presence_penalty: Nothing = None
    frequency_penalty: Nothing = None

    @property
    def prompts(self) -> list[str]:
        """The texts."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    @property
    def choices(self) -> int:
        """Texts for each prompt."""
        return self.n or 1

    def parameters(self, choice: int = 0) -> dict[str, Any]:
        """Return what predict calls these options; every choice has a seed of its own."""
        asked = {
            "max_new_tokens": self.max_tokens,
            "temperature": self.temperature if self.temperature is None else _temperature(self.temperature),
            "top_p": self.top_p,
            "top_k": self.top_k,
            "repetition_penalty": self.repetition_penalty,
            "stop": self.stop,
            "seed": None if self.seed is None else (self.seed + choice) % _SEEDS,
        }
        defaults = {"max_new_tokens": 16, "temperature": 1.0}
        return {**defaults, **{name: value for name, value in asked.items() if value is not None}}


def _temperature(given: float) -> float:
    return 0.0 if given < _LEAST_TEMPERATURE else given


class Choice(BaseModel):
    """One text."""

    text: str
    index: int
    logprobs: None = None
    finish_reason: Literal["stop", "length"] | None


class CompletionUsage(Usage):
    """Tokens that were read and written."""

    completion_tokens: int


class Completion(BaseModel):
    """Texts, those of each prompt together."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage


@serving.post("/completions", response_model=Completion, responses=STREAMED)
async def create_completion(
    asked: CompletionRequest,
    request: Request,
    state: Opened,
    _: Scheme,
    authorization: Authorization = "",
    timeout_s: RequestTimeout = None,
) -> Response:
    """Return how prompts go on; with `stream`, as chunks. One prompt that does not fit fails the request."""
    if not asked.prompts:
        raise ApiError(400, "invalid_request", "prompt is empty.", hint="Send at least one.", param="prompt")
    check_count(asked.prompts * asked.choices, state)
    meant = await state.known.of(authorization, asked.model)

    async def read(loaded: Loaded) -> Parsed:
        return await _parsed(loaded, asked)

    if asked.stream:
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        chunks = Chunks(meant.version.ref, asked.choices, usage)
        return await opened_stream(state, meant, read, chunks, timeout_s)
    async with deadline(timeout_s), in_use(state, meant) as (loaded, _load_ms):
        parsed = await read(loaded)
        waiting = await compute(loaded.batcher, parsed, request.receive)
    assert waiting is not None
    body = completion_body(waiting.answers, asked.choices, meant.version.ref)
    return Response(orjson.dumps(body), media_type="application/json")


async def _parsed(loaded: Loaded, asked: CompletionRequest) -> Parsed:
    """Return a row for each choice of each prompt."""
    check_writes(loaded.predictor.design, loaded.ref)
    options = [loaded.predictor.options(asked.parameters(choice)) for choice in range(asked.choices)]
    parsed = await parse(loaded, asked.prompts)
    check_all_fit(parsed)
    parsed.rows = [one.asked(row) for row in parsed.rows for one in options]
    parsed.positions = list(range(len(parsed.rows)))
    return parsed


def check_writes(design: Design, ref: str) -> None:
    """Raise 400 for a model that does not go on with texts token by token."""
    with importing:
        from learning.capabilities import Generative, Transducing

    if not isinstance(design.task, Generative) or isinstance(design.task, Transducing):
        raise ApiError(
            400,
            "invalid_request",
            f"{ref} does not write texts that go on: its task is {design.task.name}.",
            hint="Ask a model of next-token-prediction or text-generation, or use predict.",
            param="model",
        )


def completion_body(answers: Sequence[dict[str, Any]], choices: int, ref: str) -> dict[str, Any]:
    """Return a Completion of the answers to each choice of each prompt."""
    return {
        **_about(ref),
        "choices": [_choice(index, one["text"], one["finish_reason"]) for index, one in enumerate(answers)],
        "usage": _usage(answers, choices),
    }


def _about(ref: str) -> dict[str, Any]:
    created = int(time.time())
    return {"id": f"cmpl-{ids.new_id(ids.PREDICTION)}", "object": "text_completion", "created": created, "model": ref}


def _choice(index: int, text: str, reason: str | None = None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}


def _usage(answers: Sequence[dict[str, Any]], choices: int) -> dict[str, int]:
    """Count a prompt's tokens once, however many texts go on from it."""
    prompt = sum(one["prompt_tokens"] for one in answers[::choices])
    completion = sum(one["completion_tokens"] for one in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


@dataclass(frozen=True, slots=True)
class Chunks:
    """A streamed completion."""

    ref: str
    choices: int
    usage: bool
    about: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "about", _about(self.ref))

    def text(self, index: int, text: str) -> bytes:
        """Return a chunk of a choice's text."""
        return self._chunk([_choice(index, text)])

    def end(self, streamed: Streamed) -> bytes:
        """Return why each choice has ended, the count of tokens if it is wanted, and the protocol's end."""
        return b"".join(self._last(streamed.answers))

    def _last(self, answers: Sequence[dict[str, Any]]) -> Iterator[bytes]:
        for index, one in enumerate(answers):
            yield self._chunk([_choice(index, "", one["finish_reason"])])
        if self.usage:
            yield self._chunk([], usage=_usage(answers, self.choices))
        yield b"data: [DONE]\n\n"

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: %s\n\n" % orjson.dumps({**self.about, "choices": choices, **more})

    def error(self, problem: bytes) -> bytes:
        """Return what went wrong, which the client raises."""
        return b"data: %s\n\n" % problem
