"""Models of the registry: names, versions, aliases, files, predictions."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anneal.errors import NotFound
from anneal.jobs import Job
from anneal.page import Page, fetch_page
from anneal.transport import Transport
from anneal.view import View

Input = Mapping[str, Any] | str


class Model(View):
    """A name in the registry: task, latest_version, aliases."""


class ModelVersion(View):
    """An immutable entry under a model's name: ref, metrics, files."""


class Models:
    """The models of the service: `client.models`. A ref is `name`, `name:3` or `name@alias`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, name: str) -> Model:
        """Return one model; raise NotFound."""
        return Model(self._transport.json("GET", f"/models/{_quoted(name)}"))

    def list(self, *, limit: int | None = None, **params: Any) -> Page[Model]:
        """List models, a page of `limit` (1 to 100) at a time."""
        return fetch_page(self._transport, "/models", Model, limit=limit, **params)

    def versions(self, name: str, *, limit: int | None = None, **params: Any) -> Page[ModelVersion]:
        """List a model's versions."""
        path = f"/models/{_quoted(name)}/versions"
        return fetch_page(self._transport, path, ModelVersion, limit=limit, **params)

    def version(self, ref: str) -> ModelVersion:
        """Return the version that a ref stands for; a bare name stands for the latest."""
        name, number = self._resolve(ref)
        return ModelVersion(self._transport.json("GET", f"/models/{_quoted(name)}/versions/{number}"))

    def alias(self, name: str, alias: str, version: int) -> View:
        """Point an alias at a version, moving it if it exists."""
        path = f"/models/{_quoted(name)}/aliases/{_quoted(alias)}"
        return View(self._transport.json("PUT", path, json={"version": version}))

    def remove_alias(self, name: str, alias: str) -> None:
        """Remove an alias; the version stays."""
        self._transport.request("DELETE", f"/models/{_quoted(name)}/aliases/{_quoted(alias)}")

    def schema(self, ref: str) -> View:
        """Return what a model takes and gives: JSON Schemas `input`, `output`, an `example`, a `curl`."""
        return View(self._transport.json("GET", f"/models/{_quoted(ref)}/schema"))

    def download(self, ref: str, path: str | PathLike[str] = ".") -> Path:
        """Save a version's files as one zip, in a folder or as the file named, and return its path."""
        name, number = self._resolve(ref)
        target = Path(path)
        if target.is_dir():
            target = target / f"{name}-{number}.zip"
        return self._transport.download(f"/models/{_quoted(name)}/versions/{number}/download", target)

    def predict(
        self,
        ref: str,
        inputs: Sequence[Input] | Input,
        parameters: Mapping[str, Any] | None = None,
    ) -> View:
        """Predict one input or several: `outputs` in their order, None where `errors` has an entry.

        An input is a row by column; for a model of texts also a string.
        """
        body: dict[str, Any] = {"inputs": _listed(inputs)}
        if parameters:
            body["parameters"] = dict(parameters)
        return View(self._transport.json("POST", f"/models/{_quoted(ref)}/predict", json=body))

    def predict_dataset(self, ref: str, dataset: str, *, format: str = "jsonl", **options: Any) -> Job:
        """Submit a job that predicts for every row of a dataset and makes a file: see `Job.save_output`.

        `options` are fields of the request: keep, parameters, text, name, priority, metadata.
        """
        body = {"dataset": dataset, "format": format, **options}
        path = f"/models/{_quoted(ref)}/predict-dataset"
        return Job(self._transport.json("POST", path, json=body), self._transport)

    def embed(self, ref: str, inputs: Sequence[Input] | Input, *, normalize: bool = False) -> View:
        """Return `embeddings` of one input or several in their order, None where `errors` has an entry."""
        body = {"inputs": _listed(inputs), "normalize": normalize}
        return View(self._transport.json("POST", f"/models/{_quoted(ref)}/embed", json=body))

    def similarity(
        self, ref: str, inputs: Sequence[Input] | Input, others: Sequence[Input] | Input | None = None
    ) -> Sequence[Sequence[float]]:
        """Return the cosines of the inputs' embeddings with the others', or with each other's."""
        body = {"inputs": _listed(inputs), "others": None if others is None else _listed(others)}
        answer = self._transport.json("POST", f"/models/{_quoted(ref)}/similarity", json=body)
        found: Sequence[Sequence[float]] = answer["similarities"]
        return found

    def _resolve(self, ref: str) -> tuple[str, int]:
        name, _, number = ref.partition(":")
        if number.isdigit():
            return name, int(number)
        name, _, alias = ref.partition("@")
        model = self.get(name)
        if not alias:
            return name, int(model.latest_version)
        aliases = model.to_dict().get("aliases") or {}
        if alias not in aliases:
            known = ", ".join(aliases) or "none"
            raise NotFound(f'Model "{name}" has no alias "{alias}". Aliases: {known}.', status=404)
        return name, int(aliases[alias])


def _listed(inputs: Sequence[Input] | Input) -> list[Any]:
    rows = [inputs] if isinstance(inputs, str | Mapping) else inputs
    return [row if isinstance(row, str) else dict(row) for row in rows]


def _quoted(ref: str) -> str:
    return quote(ref, safe=":@")
