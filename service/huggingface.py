"""What `huggingface_hub.InferenceClient(model=URL)` asks of a model: a table in columns, or inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.datastructures import Headers
from starlette.types import Receive

from service.chosen_route import media_type
from service.computing import RequestTimeout, check_all_fit, check_count, deadline, every_answer, in_use, parse
from service.dependencies import Authorization, Scheme
from service.embeddings import alike
from service.errors import ApiError
from service.huggingface_generation import GenerationParameters, TokenEvents, only_prompt
from service.huggingface_translation import TranslationParameters
from service.input_bodies import ContentRoute, Given, inputs_of
from service.job_requests import Request
from service.known import Meaning
from service.library import importing
from service.predictions import STREAMED, opened_stream
from service.predictors import Loaded
from service.state import Opened, State
from service.table_values import number

if TYPE_CHECKING:
    from learning.prediction import Parsed

router = APIRouter(prefix="/hf", tags=["hugging face"])


class FileRoute(ContentRoute):
    """A route for bodies that are no JSON; the client says of a file's bytes nothing at all."""

    @staticmethod
    def is_for(headers: Headers) -> bool:
        """Return whether the body is a file, a form or a text, or of no named type."""
        return not media_type(headers) or ContentRoute.is_for(headers)


content = APIRouter(prefix="/hf", route_class=FileRoute, include_in_schema=False)

_OF_ENTITY = ("start", "end", "score")


async def _meaning(ref: str, state: Opened, _: Scheme, authorization: Authorization = "") -> Meaning:
    return await state.known.of(authorization, ref)


Meant = Annotated[Meaning, Depends(_meaning)]


class InferenceRequest(Request):
    """A table by column, or an input as the native endpoint takes it, or several."""

    table: dict[str, list[Any]] | None = Field(None, description="Values of each column; numbers may be texts.")
    inputs: Any = Field(None, description="A text, an object, or a list of them; see the model's schema.")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="What is asked of the answers; see the model's schema."
    )
    stream: bool | None = Field(None, description="Send a text as it is written, as server-sent events.")


@router.post("/models/{ref}", response_model=list[Any], responses=STREAMED)
async def infer_hugging_face(
    asked: InferenceRequest,
    request: HttpRequest,
    state: Opened,
    meant: Meant,
    timeout_s: RequestTimeout = None,
) -> Response:
    """Return a label or number for each row of a table, or what fits each input; a wrong one fails the request.

    For an input that is classified that is its labels and their scores, the highest first; for an image on which
    objects are found, these, each with its `box`; for one whose entities are found, these; for a recording that is
    written down its `text`, with its words as `chunks`; for one of a base model its embedding; for one that goes on,
    the text as `generated_text`; for one that is translated, `translation_text`; else the native answer. There is
    nothing around the answer to a single file, or around a single text's entities. For {"source_sentence",
    "sentences"}: how like each sentence is to the source.
    """
    if asked.stream:
        return await _streamed(asked, state, meant, timeout_s)
    async with deadline(timeout_s), in_use(state, meant) as (loaded, load_ms):
        headers = {"Model-State": "cold" if load_ms else "loaded"}
        if (compared := _compared(asked.inputs)) is not None:
            source, sentences = compared
            check_count(sentences, state)
            found = await alike(loaded, [source], sentences, request.receive)
            return JSONResponse(found[0].tolist(), headers=headers)
        design = loaded.predictor.design
        inputs = _inputs(asked, design.modality.schema(design.inputs))
        if loaded.predictor.goes_on:
            written = _translated if _translates(loaded) else _written
            return JSONResponse(await written(asked, state, loaded, inputs, request.receive), headers=headers)
        takes_files = _takes_files(loaded)
        answers = await every_answer(state, loaded, inputs, asked.parameters, request.receive)
    form = _ranked if asked.table is None else _short
    content = [form(one) for one in answers]
    alone = asked.table is None and not isinstance(asked.inputs, list) and (takes_files or "entities" in answers[0])
    return JSONResponse(content[0] if alone else content, headers=headers)


async def _written(
    asked: InferenceRequest, state: State, loaded: Loaded, inputs: list[Any], receive: Receive
) -> list[dict[str, Any]]:
    parameters = GenerationParameters.read(asked.parameters)
    answers = await every_answer(state, loaded, inputs, parameters.native(), receive)
    return [parameters.written(_text(one), answer) for one, answer in zip(inputs, answers, strict=True)]


def _translates(loaded: Loaded) -> bool:
    """Return whether a model that writes writes another text, and does not go on."""
    with importing:
        from learning.capabilities import Transducing

    return isinstance(loaded.predictor.design.task, Transducing)


async def _translated(
    asked: InferenceRequest, state: State, loaded: Loaded, inputs: list[Any], receive: Receive
) -> list[dict[str, Any]]:
    parameters = TranslationParameters.read(asked.parameters)
    answers = await every_answer(state, loaded, inputs, parameters.native(), receive)
    return [{"translation_text": answer["translation"]} for answer in answers]


def _takes_files(loaded: Loaded) -> bool:
    """Return whether inputs are images or recordings: the client expects nothing around the answer to one of them."""
    with importing:
        from learning.capabilities import Filed

    return isinstance(loaded.predictor.design.modality, Filed)


def _text(given: Any) -> str:
    """Return an input that fits as the text that it is."""
    return given if isinstance(given, str) else next(iter(given.values()))


async def _streamed(asked: InferenceRequest, state: State, meant: Meaning, timeout_s: float | None) -> Response:
    prompt = only_prompt(_inputs(asked, {}))
    parameters = GenerationParameters.read(asked.parameters)

    async def read(loaded: Loaded) -> Parsed:
        if not loaded.predictor.goes_on or _translates(loaded):
            raise ApiError(
                422,
                "invalid_request",
                f"Only texts that go on are streamed here; this model's task is {loaded.predictor.design.task.name}.",
                hint='Leave stream out, or send {"inputs": [...], "stream": true} to /models/{name}/predict.',
                param="stream",
            )
        parsed = await parse(loaded, [prompt], loaded.predictor.options(parameters.native()))
        check_all_fit(parsed)
        return parsed

    return await opened_stream(state, meant, read, TokenEvents(parameters, prompt), timeout_s)


@content.post("/models/{ref}")
async def infer_from_bytes(
    request: HttpRequest, state: Opened, meant: Meant, timeout_s: RequestTimeout = None
) -> Response:
    """Return what fits one input that is the body, such as an image, without a list around it."""
    given = await Given.read(request)
    async with deadline(timeout_s), in_use(state, meant) as (loaded, load_ms):
        inputs = await inputs_of(given, loaded, state)
        answers = await every_answer(state, loaded, inputs, given.parameters, request.receive)
    found = [_ranked(one) for one in answers]
    headers = {"Model-State": "cold" if load_ms else "loaded"}
    return JSONResponse(found[0] if len(found) == 1 else found, headers=headers)


def _compared(inputs: Any) -> tuple[Any, list[Any]] | None:
    """Return what is to be compared with what, if the inputs are those of sentence similarity."""
    if not isinstance(inputs, dict) or inputs.keys() != {"source_sentence", "sentences"}:
        return None
    sentences = inputs["sentences"]
    if not isinstance(sentences, list) or not sentences:
        raise ApiError(400, "invalid_request", "inputs.sentences is no list of texts.", hint='Send ["a text", ...].')
    return inputs["source_sentence"], sentences


def _inputs(asked: InferenceRequest, schema: dict[str, Any]) -> list[Any]:
    if (asked.table is None) == (asked.inputs is None):
        raise ApiError(
            400, "invalid_request", "The body has neither or both of table and inputs.", hint='Send {"table": {...}}.'
        )
    if asked.table is None:
        return asked.inputs if isinstance(asked.inputs, list) else [asked.inputs]
    lengths = {name: len(values) for name, values in asked.table.items()}
    if len(set(lengths.values())) > 1:
        raise ApiError(400, "invalid_request", f"The table's columns have different lengths: {lengths}.")
    columns = {
        name: [number(value) for value in values] if _is_number(schema, name) else values
        for name, values in asked.table.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _is_number(schema: dict[str, Any], name: str) -> bool:
    return "number" in schema.get("properties", {}).get(name, {}).get("type", ())


def _ranked(answer: dict[str, Any]) -> Any:
    """Return what the client expects of an input: labels with scores, highest first, or what was found or heard."""
    if "label" in answer or "labels" in answer:
        return _labels(answer)
    if "entities" in answer:
        return [
            {"entity_group": entity["label"], "word": entity["text"], **{name: entity[name] for name in _OF_ENTITY}}
            for entity in answer["entities"]
        ]
    if "objects" in answer:
        return [{"label": one["label"], "score": one["score"], "box": _corners(one)} for one in answer["objects"]]
    if "words" in answer:
        chunks = [{"text": one["word"], "timestamp": [one["start"], one["end"]]} for one in answer["words"]]
        return {"text": answer["text"], "chunks": chunks}
    return answer.get("embedding", answer)


def _labels(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return labels with scores, the likeliest first; none where none of them was likely enough."""
    if "labels" in answer:
        shares = answer.get("probabilities", dict.fromkeys(answer["labels"]))
    elif answer["label"] is None and "probabilities" not in answer:
        shares = {}
    else:
        shares = answer.get("probabilities", {answer["label"]: answer.get("score")})
    return [{"label": label, "score": score} for label, score in shares.items()]


def _corners(one: dict[str, Any]) -> dict[str, int]:
    """Return a box by its corners, in whole pixels."""
    right, low = one["x"] + one["width"], one["y"] + one["height"]
    return {"xmin": round(one["x"]), "ymin": round(one["y"]), "xmax": round(right), "ymax": round(low)}


def _short(answer: dict[str, Any]) -> Any:
    """Return what the client's tabular methods expect: the label, the number, or the numbers."""
    return next((answer[name] for name in ("label", "labels", "value", "values") if name in answer), answer)
