"""What a person sees while waiting; all of it on stderr, so that stdout stays the answer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TransferSpeedColumn,
)
from rich.status import Status

from anneal.view import View


def stderr() -> Console:
    """Return the console that waiting is shown on."""
    return Console(stderr=True)


@contextmanager
def upload_bar(name: str, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of bytes sent and yield the function that moves it."""
    columns = (
        TextColumn("uploading {task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console or stderr()) as progress:
        bar = progress.add_task(name, total=None)
        yield lambda sent, total: progress.update(bar, completed=sent, total=total)


def spinner(text: str, console: Console | None = None) -> Status:
    """Show a turning sign with a text, as a context."""
    return (console or stderr()).status(escape(text))


@contextmanager
def job_bar(label: str = "", console: Console | None = None) -> Iterator[Callable[[View], None]]:
    """Show a job's phase, fraction, rate and time left, and yield the function that takes its states."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console or stderr()) as progress:
        bar = progress.add_task(label or "waiting", total=1.0, note="")

        def show(job: View) -> None:
            state = job.to_dict()
            now = state.get("progress") or {}
            done = 1.0 if state["status"] == "succeeded" else now.get("fraction") or 0.0
            text = f"{label or state.get('name') or state['id']}: {phase(state)}"
            progress.update(bar, completed=done, description=text, note=note(state))

        yield show


def phase(job: dict[str, Any]) -> str:
    """Say in a word or two what a job is doing."""
    now = job.get("progress") or {}
    if job["status"] != "running" or not now.get("phase"):
        return str(job["status"])
    return f"{now['phase']} ({now['run']})" if now.get("run") else str(now["phase"])


def note(job: dict[str, Any]) -> str:
    """Say how fast a job goes and how long it will take, or why it waits."""
    queue = job.get("queue")
    if queue and job["status"] == "queued":
        return f"position {queue.get('position')}, {waits_for(job)}"
    if job["status"] != "running":
        return ""
    now = job.get("progress") or {}
    parts = []
    if now.get("examples_per_second"):
        parts.append(f"{now['examples_per_second']:,.0f} examples/s")
    if now.get("eta_seconds") is not None:
        parts.append(f"{duration(now['eta_seconds'])} left")
    return ", ".join(parts)


def waits_for(job: dict[str, Any]) -> str:
    """Say why a queued job does not run yet."""
    queue = job.get("queue") or {}
    reason = str(queue.get("reason") or "").replace("_", " ")
    if queue.get("jobs"):
        return f"waiting for {', '.join(queue['jobs'])}"
    return f"{reason} until {queue['until']}" if queue.get("until") else reason


def duration(seconds: float) -> str:
    """Write seconds as people do: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
