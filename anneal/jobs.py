"""Jobs: submit, watch, stop."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, Self

from anneal.datasets import PATIENT, Dataset, poll_seconds
from anneal.errors import JobFailed, describe
from anneal.events import TERMINAL, EventStream
from anneal.page import Page, fetch_page
from anneal.transport import Transport
from anneal.view import View

SHORTEST_POLL_S = 0.2
LOG_POLL_S = 1.0

JobCallback = Callable[["Job"], None]
"""Called with the job each time its state or progress has changed."""


class Job(View):
    """One request to pretrain or finetune, and its life: id, status, progress, result, error."""

    __slots__ = ("_etag", "_transport")
    _transport: Transport
    _etag: str | None
    id: str
    status: str

    def __init__(self, data: Mapping[str, Any], transport: Transport) -> None:
        super().__init__(data)
        object.__setattr__(self, "_transport", transport)
        object.__setattr__(self, "_etag", None)

    @property
    def has_ended(self) -> bool:
        """Whether the job has succeeded, failed or been cancelled."""
        return self.status in TERMINAL

    def refresh(self) -> Self:
        """Ask for the present state and return self."""
        self._replace(self._transport.json("GET", f"/jobs/{self.id}"))
        return self

    def wait(self, *, progress: bool | JobCallback = False, timeout: float | None = None) -> Self:
        """Wait until the job has ended (seconds at most) and return self; raise JobFailed, WaitTimeout.

        `progress` is True for a bar on stderr or a function of the job. A cancelled job is returned.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with _watching(progress) as callback:
            while not self.has_ended:
                if self._poll(deadline) and callback:
                    callback(self)
        if self.status == "failed":
            raise failed(self)
        return self

    def events(self, *, follow: bool = True, after: int = 0) -> Iterator[View]:
        """Iterate over the events after a sequence number, live to the job's end or as stored so far."""
        stream = EventStream(self._transport, self.id, after)
        return stream.follow() if follow else stream.stored()

    def metrics(self, run: str | None = None, *, points: int | None = None) -> list[View]:
        """Return the measured series: run, step, epoch, split, values; `job["metrics"]` has the latest.

        `points` (4 to 1000) thins each run and split out for a plot, keeping its ends, peaks and valleys.
        """
        if points is not None:
            path, params = f"/jobs/{self.id}/metrics", _given({"run": run, "points": points})
            return [View(point) for point in self._transport.json("GET", path, params=params)["data"]]
        page = fetch_page(self._transport, f"/jobs/{self.id}/metrics", View, run=run, limit=100)
        return list(page.all())

    def logs(self, tail: int | None = None) -> str:
        """Return what the job has logged so far, or its last so many lines."""
        return self._transport.request("GET", f"/jobs/{self.id}/logs", params=_given({"tail": tail})).text

    def follow_logs(self, tail: int | None = None) -> Iterator[str]:
        """Iterate over pieces of the log as they come, until the job has ended; at first the last lines alone."""
        printed = 0
        if tail is not None:
            lines = (text := self.logs()).splitlines(keepends=True)
            printed = len(text)
            yield "".join(lines[-tail:])
        while True:
            ended = self.refresh().has_ended
            text = self.logs()
            printed = printed if printed <= len(text) else 0  # a new attempt has begun a new log
            if len(text) > printed:
                yield text[printed:]
                printed = len(text)
            if ended:
                return
            time.sleep(LOG_POLL_S)

    def save_output(self, path: str | PathLike[str] = ".") -> Path:
        """Save the file that a prediction job has made, in a folder or as the file named, and return its path."""
        target = Path(path)
        if target.is_dir():
            form = (self.to_dict().get("resolved") or {}).get("format", "jsonl")
            target = target / f"{self.id}.{form}"
        return self._transport.download(f"/jobs/{self.id}/output", target)

    def checkpoints(self) -> list[View]:
        """Return the checkpoints that are kept, oldest first: id, run, step, score, is_best, metrics, bytes."""
        return [View(entry) for entry in self._transport.json("GET", f"/jobs/{self.id}/checkpoints")["data"]]

    def promote(
        self,
        checkpoint_id: str,
        *,
        model: str | None = None,
        aliases: Sequence[str] = (),
        weights: str | None = None,
    ) -> View:
        """Register a model version from a checkpoint and return it; the job goes on.

        `weights` is "best" (up to that checkpoint, the default) or "last".
        """
        path = f"/jobs/{self.id}/checkpoints/{checkpoint_id}/promote"
        body = _given({"model": model, "weights": weights, "aliases": list(aliases) or None})
        return View(self._transport.json("POST", path, json=body))

    def cancel(self, mode: str | None = None) -> Self:
        """Stop the job for good; `mode` says what is kept: keep_best (default), checkpoint_now, discard."""
        return self._change("cancel", mode=mode)

    def pause(self) -> Self:
        """Stop the job at a checkpoint, to be resumed."""
        return self._change("pause")

    def resume(self, *, hyperparameters: Mapping[str, Any] | None = None, max_runtime_s: float | None = None) -> Self:
        """Queue a paused job again, if wanted with other epochs, learning_rate, weight_decay and the like."""
        return self._change("resume", hyperparameters=hyperparameters, max_runtime_s=max_runtime_s)

    def retry(self, *, from_start: bool = False, max_runtime_s: float | None = None) -> "Job":
        """Submit a failed or cancelled job again, from its last checkpoint, and return the new job."""
        start = "start" if from_start else "last_checkpoint"
        return self._submit("retry", **{"from": start}, max_runtime_s=max_runtime_s)

    def clone(self, **overrides: Any) -> "Job":
        """Submit the same request again with some fields replaced, objects merged, and return the new job."""
        return self._submit("clone", overrides=overrides)

    def _submit(self, verb: str, **body: Any) -> "Job":
        return Job(self._transport.json("POST", f"/jobs/{self.id}/{verb}", json=_given(body)), self._transport)

    def _change(self, verb: str, **body: Any) -> Self:
        self._replace(self._transport.json("POST", f"/jobs/{self.id}/{verb}", json=_given(body)))
        return self

    def _poll(self, deadline: float | None) -> bool:
        """Long-poll once; True when something changed."""
        wait_s = poll_seconds(deadline, f"Job {self.id} has not ended yet ({self.status}).")
        began = time.monotonic()
        response = self._transport.request(
            "GET",
            f"/jobs/{self.id}",
            params={"wait": wait_s},
            headers={"If-None-Match": self._etag} if self._etag else {},
            timeout=self._transport.timeout_s + wait_s,
            policy=PATIENT,
        )
        changed = response.status_code != 304
        if changed:
            self._replace(response.json())
            object.__setattr__(self, "_etag", response.headers.get("etag"))
        if not self.has_ended:
            # Progress may change many times a second; nobody reads it that fast.
            time.sleep(max(0.0, SHORTEST_POLL_S - (time.monotonic() - began)))
        return changed


class Jobs:
    """The jobs of the service: `client.jobs`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        kind: str,
        *,
        dataset: str | Dataset | Mapping[str, str | Dataset],
        task: str | None = None,
        target: str | Sequence[str] | None = None,
        base_model: str | None = None,
        architecture: str | Mapping[str, Any] | None = None,
        model: str | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        compare: bool | None = None,
        seed: int | None = None,
        **more: Any,
    ) -> Job:
        """Submit a job of kind "pretrain" or "finetune" and return it, queued.

        `dataset` is one, or {"train", "validation", "test"}. `target` is the column to predict, `model` the
        name that the result gets. `more` goes into the request as it is: columns, split, early_stopping,
        resources, output, continue_from, depends_on, priority, name, metadata.
        """
        fields = {
            "kind": kind,
            "task": task,
            "dataset": _dataset_ids(dataset),
            "base_model": base_model,
            "architecture": architecture,
            "hyperparameters": dict(hyperparameters) if hyperparameters else None,
            "compare": compare,
            "seed": seed,
            **more,
        }
        spec = _given(fields)
        if target is not None:
            named = {"target": target} if isinstance(target, str) else {"targets": list(target)}
            spec["columns"] = {**spec.get("columns", {}), **named}
        if model is not None:
            spec["output"] = {**spec.get("output", {}), "model": model}
        return self.submit(spec)

    def submit(self, spec: Mapping[str, Any]) -> Job:
        """Submit a job by its whole request body and return it, queued; raise InvalidRequest."""
        return self._make(self._transport.json("POST", "/jobs", json=dict(spec)))

    def dry_run(self, spec: Mapping[str, Any]) -> View:
        """Ask what a request would become, without submitting it.

        The answer has valid, errors (all of them, each with its pointer), steps, seconds and memory_bytes (low, high),
        resolved, warnings.
        """
        return View(self._transport.json("POST", "/jobs", json=dict(spec), params={"dry_run": "true"}))

    def ref(self, job_id: str) -> Job:
        """Return a job by its id without asking for it: enough to tell it something."""
        return self._make({"id": job_id})

    def get(self, job_id: str) -> Job:
        """Return one job; raise NotFound."""
        return self._make(self._transport.json("GET", f"/jobs/{job_id}"))

    def list(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        limit: int | None = None,
        **params: Any,
    ) -> Page[Job]:
        """List jobs, a page of `limit` (1 to 100) at a time."""
        return fetch_page(
            self._transport, "/jobs", self._make, status=status, kind=kind, name=name, limit=limit, **params
        )

    def _make(self, data: dict[str, Any]) -> Job:
        return Job(data, self._transport)


def failed(job: Job) -> JobFailed:
    """Make the error for a job that has failed, with the service's own explanation."""
    data = job.to_dict()
    problem = data.get("error") or {}
    reason = describe(problem, data.get("status_reason") or "No reason was given.")
    error = JobFailed(f"Job {data['id']} failed: {reason}", problem=problem)
    error.job = job
    return error


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def _dataset_ids(dataset: str | Dataset | Mapping[str, str | Dataset]) -> str | dict[str, str]:
    if isinstance(dataset, Mapping):
        return {role: part if isinstance(part, str) else part.id for role, part in dataset.items()}
    return dataset if isinstance(dataset, str) else dataset.id


def _watching(progress: bool | JobCallback) -> AbstractContextManager[JobCallback | None]:
    if progress is True:
        from anneal.progress import job_bar

        return job_bar()
    return nullcontext(progress if callable(progress) else None)
