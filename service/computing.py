"""What every protocol that predicts does: has a version in use, parses, computes, and gives up when it is time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from anyio import to_thread
from fastapi import Header
from starlette.types import Receive

from service.batching import Batching, Waiting
from service.errors import ApiError, ClientGone
from service.known import Meaning
from service.predictors import Loaded
from service.state import State

if TYPE_CHECKING:
    from learning.interfaces import PredictionOptions
    from learning.prediction import Parsed

LONGEST_WAIT_S = 3600.0
MOST_PARSED_ON_LOOP = 100

RequestTimeout = Annotated[
    float | None,
    Header(
        alias="X-Request-Timeout",
        gt=0,
        le=LONGEST_WAIT_S,
        description="Seconds after which the answer is of no use any more; what has not been computed by then is not.",
    ),
]


def check_count(inputs: Sequence[Any], state: State) -> None:
    """Raise 413 for more inputs than one request may have."""
    most = state.settings.max_predict_inputs
    if len(inputs) > most:
        raise ApiError(
            413,
            "too_many_inputs",
            f"{len(inputs)} inputs in one request; at most {most} are taken.",
            hint="Send them in several requests.",
            param="inputs",
        )


@asynccontextmanager
async def deadline(timeout_s: float | None) -> AsyncIterator[None]:
    """Give up after so many seconds with 504; what waits for the device then is left out of its batch."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        if timeout_s is None:
            raise
        raise too_late(timeout_s) from None


def too_late(timeout_s: float) -> ApiError:
    """Return the error of a request whose time has passed."""
    return ApiError(
        504,
        "deadline_exceeded",
        f"There was no answer within the {timeout_s:g} s that the request allows.",
        hint="Raise X-Request-Timeout, or try again when the service is less busy.",
    )


@asynccontextmanager
async def in_use(state: State, meant: Meaning) -> AsyncIterator[tuple[Loaded, float]]:
    """Load a version unless it is there, and keep it until the block ends; gives the milliseconds of loading too."""
    loaded, load_ms = await state.predictors.use(meant.version, meant.caller.project, meant.files)
    try:
        yield loaded, load_ms
    finally:
        state.predictors.give_back(loaded)


async def every_answer(
    state: State, loaded: Loaded, inputs: Sequence[Any], parameters: dict[str, Any], receive: Receive
) -> list[dict[str, Any]]:
    """Return an answer to each input, for protocols in which one that is wrong fails the request (400)."""
    options = loaded.predictor.options(parameters)
    check_count(inputs, state)
    answers = await all_computed(loaded, loaded.batcher, inputs, receive, options)
    return [options.apply(one) for one in answers]


async def all_computed(
    loaded: Loaded,
    batcher: Batching,
    inputs: Sequence[Any],
    receive: Receive,
    options: PredictionOptions | None = None,
) -> list[dict[str, Any]]:
    """Return what a batcher makes of each input; the first that does not fit fails the request (400)."""
    parsed = await parse(loaded, inputs, options)
    check_all_fit(parsed)
    waiting = await compute(batcher, parsed, receive)
    return waiting.answers if waiting is not None else []


def check_all_fit(parsed: Parsed) -> None:
    """Raise 400 with the first error of an input, if there is one."""
    if parsed.errors:
        first = parsed.errors[0]
        raise ApiError(400, first.code, first.message, hint=first.hint, param=first.param)


async def parse(loaded: Loaded, inputs: Sequence[Any], options: PredictionOptions | None = None) -> Parsed:
    """Return the inputs as rows; what takes a while, such as tokenising, leaves the loop to others."""
    read = partial(loaded.predictor.parse, inputs, options=options)
    if _is_parsed_at_once(loaded, inputs):
        return read()
    return await to_thread.run_sync(read, abandon_on_cancel=True, limiter=loaded.parsers)


def _is_parsed_at_once(loaded: Loaded, inputs: Sequence[Any]) -> bool:
    return loaded.predictor.parses_at_once and len(inputs) <= MOST_PARSED_ON_LOOP


def begin(loaded: Loaded, inputs: Sequence[Any], options: PredictionOptions | None) -> tuple[Parsed, Waiting] | None:
    """Submit inputs that are answered before the loop looks at the network again, or return None for any others."""
    if not (loaded.batcher.is_immediate and _is_parsed_at_once(loaded, inputs)):
        return None
    parsed = loaded.predictor.parse(inputs, options=options)
    return (parsed, loaded.batcher.submit(parsed.rows)) if parsed.rows else None


async def compute(batcher: Batching, parsed: Parsed, receive: Receive) -> Waiting | None:
    """Return the rows' answers once the device has computed them; None when there is no row.

    Cancelled with the request: by its deadline, or because nobody listens any more.
    """
    if not parsed.rows:
        return None
    waiting = batcher.submit(parsed.rows)
    try:
        if batcher.is_immediate:
            await waiting.answered
        else:
            await _unless_gone(waiting.answered, receive)
    finally:
        waiting.answered.cancel()  # of no effect on one that is done
    return waiting


async def _unless_gone(answered: asyncio.Future[Any], receive: Receive) -> None:
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((answered, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answered.done():
            raise ClientGone
        answered.result()
    finally:
        leaving.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)
