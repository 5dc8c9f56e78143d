"""Models of the registry: names, versions, aliases, files, predictions."""

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anneal.errors import NotFound
from anneal.jobs import Job
from anneal.model_archive import archive_of
from anneal.page import Page, fetch_page
from anneal.transport import Transport
from anneal.upload import UploadCallback, WatchedFile, watching
from anneal.uploads import PARTS_ABOVE, upload_in_parts
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

    def import_model(
        self,
        path: str | PathLike[str],
        *,
        model: str,
        aliases: Sequence[str] = (),
        progress: bool | UploadCallback = False,
        parts_above: int = PARTS_ABOVE,
        **options: Any,
    ) -> Job:
        """Send a model's folder or zip archive, as Transformers saves one, and return the job that registers it.

        Of a folder only what is read is sent: configuration, tokenizer, safetensors. `options` are fields of the
        request: name, priority, metadata.
        """
        wanted = {"model": model, "aliases": list(aliases), **options}
        with archive_of(Path(path)) as file, watching(file, progress) as callback:
            if file.stat().st_size > parts_above:
                upload_id = upload_in_parts(self._transport, file, callback)
                return self._imported({"json": {"upload_id": upload_id, **wanted}})
            form = {**wanted, "aliases": ",".join(aliases), "metadata": json.dumps(wanted.get("metadata") or {})}
            with file.open("rb") as opened:
                watched = WatchedFile(opened, callback)
                return self._imported({"data": form, "files": {"file": (file.name, watched)}})

    def import_path(self, path: str, *, model: str, aliases: Sequence[str] = (), **options: Any) -> Job:
        """Have the service read a model in its own folder of models (ANNEAL_IMPORT_DIR), and return the job."""
        return self._imported({"json": {"path": path, "model": model, "aliases": list(aliases), **options}})

    def _imported(self, body: dict[str, Any]) -> Job:
        return Job(self._transport.json("POST", "/models", **body), self._transport)

    def download(self, ref: str, path: str | PathLike[str] = ".") -> Path:
        """Save a version's files as one zip, in a folder or as the file named, and return its path."""
        name, number = self._resolve(ref)
        target = Path(path)
        if target.is_dir():
            target = target / f"{name}-{number}.zip"
        return self._transport.download(f"/models/{_quoted(name)}/versions/{number}/download", target)

    def pictures(self, ref: str, directory: str | PathLike[str] = ".") -> Sequence[Path]:
        """Save the pictures that show how good a version is, as SVG files in a folder, and return their paths."""
        name, number = self._resolve(ref)
        version = self.version(f"{name}:{number}").to_dict()
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        return [
            self._transport.download(
                f"/models/{_quoted(name)}/versions/{number}/files/pictures/{_quoted(picture)}.svg",
                folder / f"{name}-{number}-{Path(picture).name}.svg",
            )
            for picture in version["pictures"]
        ]

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
