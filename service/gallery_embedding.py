"""What a gallery's version makes of files: of those to enrol, to identify, to verify, and of those enrolled before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from anyio import to_thread
from numpy.typing import NDArray
from sqlalchemy.orm import Session
from starlette.types import Receive

from learning.errors import EmptyInput
from service import gallery_thresholds as thresholds
from service.computing import check_all_fit, compute
from service.errors import ApiError
from service.library import importing, read_design
from service.predictors import Files, Loaded
from service.state import State
from store import galleries, models
from store.galleries import Known
from store.models import Version
from store.records import GalleryRecord

if TYPE_CHECKING:
    from learning.prediction import Parsed

T = TypeVar("T")
Vectors = NDArray[np.float32]  # (N files, E width), each of length 1
Read = Callable[[Loaded], Sequence[Any]]
"""What gives a request's inputs, once it is known what the version takes."""

_SHOW_SOMEBODY = "Leave it out, or send a file in which the subject can be heard or seen."


@dataclass(frozen=True, slots=True)
class Looked:
    """A gallery as it was when it was looked at."""

    gallery: GalleryRecord
    version: Version
    files: Files
    known: Sequence[Known]

    @property
    def about(self) -> dict[str, Any]:
        """The version as an answer names it."""
        return {"name": self.version.model.name, "version": self.version.record.number, "alias": None}


def look(state: State, project: str, name: str, *, everybody: bool = False) -> Looked:
    """Return a gallery, its version, and on request whom it knows, of one moment."""
    with state.database.read() as session:
        gallery = galleries.get(session, project, name)
        while True:
            looked_at = (gallery.id, gallery.revision)
            version = galleries.version_of(session, gallery)
            known = galleries.everybody(session, gallery.id) if everybody else []
            gallery = galleries.get(session, project, name)
            # A transaction may see what others commit meanwhile: embeddings are compared only with those of the same
            # version, and a threshold is that of the samples it was chosen by.
            if (gallery.id, gallery.revision) == looked_at:
                return Looked(gallery, version, models.loadable(session, version.record.id), known)


def with_threshold(state: State, project: str, looked: Looked | None, name: str) -> Looked:
    """Return a gallery with its threshold, chosen anew if what it is chosen by has changed since.

    Here, and not by whoever changes it: reading all embeddings, and comparing each two, is no work for a transaction
    that others wait for. `looked` is the gallery with everybody it knows, if it was looked at so.
    """
    if looked is None:
        looked = look(state, project, name)
        if galleries.has_threshold(looked.gallery):
            return looked
        looked = look(state, project, name, everybody=True)
    gallery, known = looked.gallery, looked.known
    if not galleries.has_threshold(gallery):
        gallery.threshold = thresholds.kept(gallery.threshold_from, looked.version.record.metrics, lambda: known)
        with state.database.write() as session:
            galleries.keep_threshold(session, gallery, gallery.threshold)
    return looked


@asynccontextmanager
async def loaded_for(state: State, project: str, looked: Looked) -> AsyncIterator[Loaded]:
    """Keep a gallery's version in memory until the block ends."""
    loaded, _ = await state.predictors.use(looked.version, project, looked.files)
    try:
        yield loaded
    finally:
        state.predictors.give_back(loaded)


async def embedded(loaded: Loaded, parsed: Parsed, receive: Receive) -> Vectors:
    """Return the embeddings of inputs; the first that does not fit fails the request (400), or holds nobody (422)."""
    check_all_fit(parsed)
    for error in recognizable(parsed).errors:
        raise error
    waiting = await compute(loaded.embedder, parsed, receive)
    return vectors_of(waiting.answers if waiting is not None else [])


def vectors_of(answers: Sequence[dict[str, Any]]) -> Vectors:
    """Return a version's answers as vectors."""
    return np.array([one["embedding"] for one in answers], dtype="<f4")


def recognizable(parsed: Parsed) -> Parsed:
    """Return a request's inputs, with an error for each that holds nobody instead of its warning.

    What is embedded of silence is near to all other silence, whoever is silent.
    """
    empty = {
        one.index: EmptyInput(f"{one.message} Nobody can be known by it.", index=one.index, hint=_SHOW_SOMEBODY)
        for one in parsed.warnings
        if one.is_empty
    }
    if not empty:
        return parsed
    kept = [pair for pair in zip(parsed.positions, parsed.rows, strict=True) if pair[0] not in empty]
    return replace(
        parsed,
        positions=[position for position, _ in kept],
        rows=[row for _, row in kept],
        errors=sorted([*parsed.errors, *empty.values()], key=lambda error: error.index),
        warnings=[one for one in parsed.warnings if not one.is_empty],
    )


def contents(loaded: Loaded, inputs: Sequence[Any]) -> list[bytes]:
    """Return the files of inputs."""
    design = loaded.predictor.design
    modality: Any = design.modality  # which are files, or no gallery would be there
    return [modality.content(value, index, design.inputs) for index, value in enumerate(inputs)]


def require_comparable(state: State, session: Session, version: Version) -> None:
    """Raise 422 unless a version's answers are embeddings of files by which subjects are told apart."""
    with importing:
        from learning.capabilities import Comparable, Filed

    design = read_design(state.artifacts, models.files(session, version.record.id))
    if not (isinstance(design.task, Comparable) and isinstance(design.modality, Filed)):
        raise ApiError(
            422,
            "no_embedder",
            f'{version.ref} is a model of the task "{version.record.task}", whose answers are no embeddings of files '
            "by which subjects are told apart.",
            hint='Train one with the task "image-embedding" or "speaker-embedding".',
            param="model",
        )


async def in_thread(work: Callable[[], T]) -> T:
    """Return what some work on the database gives, done beside the loop."""
    return await to_thread.run_sync(work)
