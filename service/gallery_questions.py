"""What a gallery is asked: who is this, and are these the same.

A subject's score is the cosine to the nearest of the files that it was enrolled by.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from pydantic import BaseModel, Field, model_validator
from starlette.types import Receive

from service.computing import RequestTimeout, check_count, compute, deadline, parse
from service.dependencies import PredictKey
from service.errors import ApiError
from service.gallery_embedding import (
    Looked,
    Read,
    Vectors,
    embedded,
    in_thread,
    loaded_for,
    look,
    recognizable,
    vectors_of,
    with_threshold,
)
from service.gallery_subjects import bodies
from service.gallery_thresholds import ThresholdView
from service.job_requests import Request
from service.predictions import InputError, InputWarningView, PredictedBy
from service.state import Opened, State
from store.errors import NotFound

router = APIRouter(prefix="/galleries/{gallery}", tags=["galleries"])

Score = Annotated[float, Field(ge=-1, le=1)]
Threshold = Annotated[Score | None, Field(description="Instead of the gallery's.")]


class IdentifyFields(Request):
    """How to ask."""

    top_k: int = Field(5, ge=1, le=100, description="Most candidates of each input.")
    threshold: Threshold = None


class IdentifyRequest(IdentifyFields):
    """Whom to look for."""

    inputs: list[Any] = Field(min_length=1, description="As for the model's predict.")


class Candidate(BaseModel):
    """A subject, and how near it is."""

    id: str
    name: str
    score: float


class Identified(BaseModel):
    """Who an input shows: the first candidate if its score reaches the threshold, null for somebody unknown."""

    subject: Candidate | None
    known: bool | None
    candidates: list[Candidate]


class IdentifyResponse(BaseModel):
    """Answers in the order of the inputs, null where that input has an error."""

    object: Literal["identification"] = "identification"
    gallery: str
    model: PredictedBy
    threshold: ThresholdView | None
    outputs: list[Identified | None]
    errors: list[InputError]
    warnings: list[InputWarningView]


class VerifyFields(Request):
    """What to compare with."""

    subject: str | None = Field(None, max_length=200, description="Id or name of a subject, in place of a second file.")
    threshold: Threshold = None


class VerifyRequest(VerifyFields):
    """What to compare."""

    inputs: list[Any] = Field(min_length=1, max_length=2, description="Two files, or one and a subject.")

    @model_validator(mode="after")
    def _is_a_pair(self) -> VerifyRequest:
        require_pair(len(self.inputs), self.subject)
        return self


class VerifyResponse(BaseModel):
    """Whether two files, or a file and a subject, are the same; null without a threshold."""

    object: Literal["verification"] = "verification"
    gallery: str
    model: PredictedBy
    threshold: ThresholdView | None
    subject: Candidate | None
    score: float
    verified: bool | None
    warnings: list[InputWarningView]


def require_pair(files: int, subject: str | None) -> None:
    """Raise ValueError unless there is a pair to compare."""
    if files + (subject is not None) != 2:
        raise ValueError("give two files to compare, or one file and a subject")


def _threshold_of(looked: Looked, given: float | None) -> ThresholdView | None:
    if given is not None:
        return ThresholdView(
            value=given, source="given", false_accept_rate=None, true_accept_rate=None, split=None, pairs=None
        )
    return ThresholdView(**looked.gallery.threshold) if looked.gallery.threshold else None


def _candidates(vectors_QE: Vectors, looked: Looked, top_k: int) -> list[list[Candidate]]:
    """Return each question's nearest subjects, the nearest first."""
    if not looked.known:
        return [[] for _ in vectors_QE]
    names = {one.subject_id: one.name for one in looked.known}
    position = {subject: number for number, subject in enumerate(names)}
    enrolled_NE = np.stack([np.frombuffer(one.embedding, "<f4") for one in looked.known])
    cosine_NQ = np.clip(enrolled_NE @ vectors_QE.T, -1, 1)
    score_SQ = np.full((len(names), len(vectors_QE)), -np.inf, dtype=np.float32)
    np.maximum.at(score_SQ, [position[one.subject_id] for one in looked.known], cosine_NQ)
    listed = list(names.items())
    found = []
    for score_S in score_SQ.T:
        nearest = np.argsort(-score_S, kind="stable")[:top_k]
        found.append([Candidate(id=listed[s][0], name=listed[s][1], score=float(score_S[s])) for s in nearest])
    return found


def _identified(candidates: list[Candidate], threshold: ThresholdView | None) -> Identified:
    if threshold is None:
        return Identified(subject=None, known=None, candidates=candidates)
    known = bool(candidates) and candidates[0].score >= threshold.value
    return Identified(subject=candidates[0] if known else None, known=known, candidates=candidates)


async def identified(
    state: State, project: str, name: str, read: Read, asked: IdentifyFields, receive: Receive
) -> IdentifyResponse:
    """Answer who each input shows; one that does not fit gets an error and leaves the others alone."""
    looked = await in_thread(lambda: look(state, project, name, everybody=True))
    if asked.threshold is None:
        looked = await in_thread(lambda: with_threshold(state, project, looked, name))
    async with loaded_for(state, project, looked) as loaded:
        inputs = await in_thread(lambda: read(loaded))
        check_count(inputs, state)
        parsed = recognizable(await parse(loaded, inputs))
        waiting = await compute(loaded.embedder, parsed, receive)
    threshold = _threshold_of(looked, asked.threshold)
    outputs: list[Identified | None] = [None] * len(inputs)
    if waiting is not None:
        vectors_QE = vectors_of(waiting.answers)
        every = await in_thread(lambda: _candidates(vectors_QE, looked, asked.top_k))
        for position, candidates in zip(parsed.positions, every, strict=True):
            outputs[position] = _identified(candidates, threshold)
    return IdentifyResponse(
        gallery=name,
        model=PredictedBy(**looked.about),
        threshold=threshold,
        outputs=outputs,
        errors=[InputError.of(one) for one in parsed.errors],
        warnings=[InputWarningView.of(one) for one in parsed.warnings],
    )


async def verified(
    state: State, project: str, name: str, read: Read, asked: VerifyFields, receive: Receive
) -> VerifyResponse:
    """Answer whether two files, or a file and a subject, are the same; one that does not fit fails the request."""
    looked = await in_thread(lambda: _looked_for(state, project, name, asked))
    async with loaded_for(state, project, looked) as loaded:
        inputs = await in_thread(lambda: read(loaded))
        try:
            require_pair(len(inputs), asked.subject)
        except ValueError as error:
            raise ApiError(422, "invalid_request", f"inputs: {error}.", param="inputs") from None
        parsed = await parse(loaded, inputs)
        vectors_QE = await embedded(loaded, parsed, receive)
    subject = None
    if asked.subject is not None:
        (nearest,) = _candidates(vectors_QE, _only(looked, asked.subject), 1)
        subject = nearest[0]
    score = subject.score if subject else float(np.clip(vectors_QE[0] @ vectors_QE[1], -1, 1))
    threshold = _threshold_of(looked, asked.threshold)
    return VerifyResponse(
        gallery=name,
        model=PredictedBy(**looked.about),
        threshold=threshold,
        subject=subject,
        score=score,
        verified=None if threshold is None else score >= threshold.value,
        warnings=[InputWarningView.of(one) for one in parsed.warnings],
    )


def _looked_for(state: State, project: str, name: str, asked: VerifyFields) -> Looked:
    """Return the gallery with what a question needs of it: whom it knows, and its threshold."""
    looked = look(state, project, name, everybody=True) if asked.subject is not None else None
    if asked.threshold is None:
        return with_threshold(state, project, looked, name)
    return looked or look(state, project, name)


def _only(looked: Looked, subject: str) -> Looked:
    """Return the gallery as if it knew one subject alone, given by its id or its name; 404 for nobody."""
    known = [one for one in looked.known if one.subject_id == subject]
    known = known or [one for one in looked.known if one.name == subject.strip()]  # as it was enrolled
    if not known:
        raise NotFound(
            f'Gallery "{looked.gallery.name}" has no subject "{subject}".',
            hint=f"List them with GET /api/v1/galleries/{looked.gallery.name}/subjects.",
            param="subject",
        )
    return Looked(looked.gallery, looked.version, looked.files, known)


@router.post("/identify", openapi_extra=bodies("top_k", "threshold"))
async def identify(
    gallery: str,
    asked: IdentifyRequest,
    request: HttpRequest,
    state: Opened,
    caller: PredictKey,
    timeout_s: RequestTimeout = None,
) -> IdentifyResponse:
    """Return the subjects nearest to each input, and which of them it is, if any."""
    async with deadline(timeout_s):
        return await identified(state, caller.project, gallery, lambda _: asked.inputs, asked, request.receive)


@router.post("/verify", openapi_extra=bodies("subject", "threshold"))
async def verify(
    gallery: str,
    asked: VerifyRequest,
    request: HttpRequest,
    state: Opened,
    caller: PredictKey,
    timeout_s: RequestTimeout = None,
) -> VerifyResponse:
    """Return whether two files show one subject, or whether a file shows the subject that is named."""
    async with deadline(timeout_s):
        return await verified(state, caller.project, gallery, lambda _: asked.inputs, asked, request.receive)
