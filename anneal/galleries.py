"""Galleries: subjects enrolled by files, told apart by a model's embeddings."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anneal.jobs import Job
from anneal.page import Page, fetch_page
from anneal.transport import Transport
from anneal.view import View

File = str | PathLike[str] | bytes
"""A path, or what is in the file."""


class Gallery(View):
    """A gallery: name, model, threshold, subjects, samples."""


class Subject(View):
    """Somebody a gallery knows: id, name, samples; just enrolled also warnings, of the files that were sent."""


class Galleries:
    """The galleries of the project: `client.galleries`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str, model: str, **options: Any) -> Gallery:
        """Make a gallery that knows its subjects by the version that a ref means now.

        `options` are threshold ("auto", "evaluation", "enrolled" or a number), false_accept_rate, metadata.
        """
        return Gallery(self._transport.json("POST", "/galleries", json={"name": name, "model": model, **options}))

    def get(self, name: str) -> Gallery:
        """Return one gallery; raise NotFound."""
        return Gallery(self._transport.json("GET", _path(name)))

    def list(self, *, limit: int | None = None, **params: Any) -> Page[Gallery]:
        """List galleries, a page of `limit` (1 to 100) at a time."""
        return fetch_page(self._transport, "/galleries", Gallery, limit=limit, **params)

    def change(self, name: str, **changes: Any) -> Gallery:
        """Change threshold, false_accept_rate or metadata; another model takes a move."""
        return Gallery(self._transport.json("PATCH", _path(name), json=changes))

    def move(self, name: str, model: str, **options: Any) -> Job:
        """Submit the job that embeds all files by another version, which the gallery has once it has succeeded.

        `options` are fields of the request: threshold, false_accept_rate, threads, name, priority, metadata.
        """
        return Job(
            self._transport.json("POST", f"{_path(name)}/move", json={"model": model, **options}), self._transport
        )

    def delete(self, name: str) -> None:
        """Delete a gallery with its subjects, their files and embeddings."""
        self._transport.request("DELETE", _path(name))

    def enrol(
        self, name: str, subject: str, files: Sequence[File] | File, metadata: Mapping[str, Any] | None = None
    ) -> Subject:
        """Enrol a subject by one file or several."""
        body = {"name": subject, "inputs": _inputs(files), "metadata": dict(metadata or {})}
        return Subject(self._transport.json("POST", f"{_path(name)}/subjects", json=body))

    def add_samples(self, name: str, subject_id: str, files: Sequence[File] | File) -> Subject:
        """Enrol a subject that is known by further files."""
        path = f"{_subject(name, subject_id)}/samples"
        return Subject(self._transport.json("POST", path, json={"inputs": _inputs(files)}))

    def subjects(
        self, name: str, *, called: str | None = None, limit: int | None = None, **params: Any
    ) -> Page[Subject]:
        """List whom a gallery knows, or the one subject that is called so."""
        if called is not None:
            params["name"] = called
        return fetch_page(self._transport, f"{_path(name)}/subjects", Subject, limit=limit, **params)

    def subject(self, name: str, subject_id: str) -> Subject:
        """Return one subject; raise NotFound."""
        return Subject(self._transport.json("GET", _subject(name, subject_id)))

    def forget(self, name: str, subject_id: str) -> None:
        """Delete a subject with its files and embeddings."""
        self._transport.request("DELETE", _subject(name, subject_id))

    def identify(self, name: str, files: Sequence[File] | File, **options: Any) -> View:
        """Say whom each file shows: `outputs` in their order, None where `errors` has an entry.

        `warnings` say what of a file is not read as it is. `options` are top_k and threshold.
        """
        body = {"inputs": _inputs(files), **options}
        return View(self._transport.json("POST", f"{_path(name)}/identify", json=body))

    def verify(
        self, name: str, file: File, other: File | None = None, *, subject: str | None = None, **options: Any
    ) -> View:
        """Say whether two files show one subject, or whether a file shows a subject, by its id or name."""
        files = [file] if other is None else [file, other]
        body = {"inputs": _inputs(files), "subject": subject, **options}
        return View(self._transport.json("POST", f"{_path(name)}/verify", json=body))


def _path(name: str) -> str:
    return f"/galleries/{quote(name, safe='')}"


def _subject(name: str, subject_id: str) -> str:
    return f"{_path(name)}/subjects/{quote(subject_id, safe='')}"


def _inputs(files: Sequence[File] | File) -> list[str]:
    several = [files] if isinstance(files, str | bytes | PathLike) else files
    return [base64.b64encode(one if isinstance(one, bytes) else Path(one).read_bytes()).decode() for one in several]
