"""`anneal jobs`: submit, list, show, logs, checkpoints, promote, cancel, pause, resume, retry, clone."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from anneal.commands.output import (
    JsonOption,
    LimitOption,
    age,
    client,
    figures,
    print_fields,
    print_json,
    print_table,
    size,
    tell,
)
from anneal.commands.specification import assignment, job_spec

if TYPE_CHECKING:
    from anneal.jobs import Job

app = typer.Typer(help="Submit and watch training jobs.", no_args_is_help=True)

SettingOption = Annotated[
    list[str] | None, typer.Option("--set", help="A hyperparameter, as name=value.", metavar="NAME=VALUE")
]
RuntimeOption = Annotated[float | None, typer.Option(help="Seconds that the job may run in all.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, job_...")]


@app.command()
def submit(
    file: Annotated[str | None, typer.Argument(metavar="[FILE]", help="A JSON request, or - for stdin.")] = None,
    *,
    kind: Annotated[str | None, typer.Option(help="pretrain or finetune.")] = None,
    task: Annotated[str | None, typer.Option(help="For example tabular-classification.")] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="A dataset's id, or role=id for train, validation, test.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="The column to predict.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Start from this model: name, name:3, name@alias.")] = None,
    architecture: Annotated[str | None, typer.Option(help="The network, for example mlp.")] = None,
    model: Annotated[str | None, typer.Option(help="The name the result gets.")] = None,
    set_: SettingOption = None,
    depends_on: Annotated[list[str] | None, typer.Option(help="A job that must succeed first.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher runs earlier; -100 to 100.")] = None,
    max_runtime: RuntimeOption = None,
    seed: Annotated[int | None, typer.Option(help="The seed of everything random.")] = None,
    compare: Annotated[bool | None, typer.Option(help="Train a twin from scratch beside it.")] = None,
    name: Annotated[str | None, typer.Option(help="A name for the job.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is wrong, or what it would take.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the job's end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Submit a job, from a JSON file or from options; options win over the file."""
    options = {
        "kind": kind,
        "task": task,
        "base_model": base_model,
        "architecture": architecture,
        "seed": seed,
        "compare": compare,
        "name": name,
        "depends_on": depends_on,
        "priority": priority,
    }
    spec = job_spec(
        file,
        options,
        datasets=dataset or [],
        targets=target or [],
        model=model,
        hyperparameters=set_ or [],
        max_runtime_s=max_runtime,
    )
    with client() as service:
        if dry_run:
            return _foretell(service.jobs.dry_run(spec).to_dict(), as_json)
        job = service.jobs.submit(spec)
        if wait:
            _wait(job, as_json)
    _answer(job, as_json)
    if wait and job.status != "succeeded":
        raise typer.Exit(1)
    return None


@app.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="For example running.")] = None,
    kind: Annotated[str | None, typer.Option(help="pretrain or finetune.")] = None,
    name: Annotated[str | None, typer.Option(help="Only those with this name.")] = None,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    from anneal.progress import note, phase

    with client() as service:
        page = service.jobs.list(status=status, kind=kind, name=name, limit=limit).to_dict()
    if as_json:
        return print_json(page)
    rows = [
        (j["id"], j.get("name"), j["kind"], j.get("task"), phase(j), note(j), age(j.get("created_at")))
        for j in page["data"]
    ]
    headers = ["id", "name", "kind", "task", "status", "", "made"]
    print_table(headers, rows, empty="No jobs. Submit one: anneal jobs submit --help")
    return None


@app.command()
def show(job_id: JobId, as_json: JsonOption = False) -> None:
    """Show a job: state, progress, metrics, result or error."""
    with client() as service:
        _answer(service.jobs.get(job_id), as_json)


@app.command()
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    tail: Annotated[int | None, typer.Option(help="Only the last so many lines, of those that are there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the job's events, one JSON a line.")] = False,
) -> None:
    """Print what a job has logged."""
    import json

    with client() as service:
        job = service.jobs.get(job_id)
        if as_json:
            for event in job.events(follow=follow):
                print(json.dumps(event.to_dict(), ensure_ascii=False), flush=True)
            return
        for text in job.follow_logs(tail) if follow else [job.logs(tail)]:
            print(text, end="", flush=True)


@app.command()
def checkpoints(job_id: JobId, as_json: JsonOption = False) -> None:
    """List the checkpoints that are kept of a job."""
    with client() as service:
        found = [entry.to_dict() for entry in service.jobs.ref(job_id).checkpoints()]
    if as_json:
        return print_json(found)
    rows = [
        (c["id"], c["run"], c["step"], c["score"], c["is_best"], size(c["bytes"]), age(c["created_at"])) for c in found
    ]
    headers = ["id", "run", "step", "score", "best", "size", "made"]
    print_table(headers, rows, empty="No checkpoints yet.")
    return None


@app.command()
def promote(
    job_id: JobId,
    checkpoint_id: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="The checkpoint's id, ck_...")],
    *,
    model: Annotated[str | None, typer.Option(help="The name it gets; else the job's.")] = None,
    alias: Annotated[list[str] | None, typer.Option(help="An alias to move to it.")] = None,
    weights: Annotated[str | None, typer.Option(help="best (default) or last.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a model version out of a checkpoint, also while the job runs."""
    with client() as service:
        version = service.jobs.ref(job_id).promote(checkpoint_id, model=model, aliases=alias or (), weights=weights)
    if as_json:
        return print_json(version.to_dict())
    tell(f"{version.ref} is made of {checkpoint_id}.")
    return None


@app.command()
def cancel(
    job_id: JobId,
    mode: Annotated[
        str | None, typer.Option(help="What is kept of it: keep_best (default), checkpoint_now, discard.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Stop a job for good."""
    with client() as service:
        _changed(service.jobs.ref(job_id).cancel(mode), as_json)


@app.command()
def pause(job_id: JobId, as_json: JsonOption = False) -> None:
    """Stop a job at a checkpoint."""
    with client() as service:
        _changed(service.jobs.ref(job_id).pause(), as_json)


@app.command()
def resume(
    job_id: JobId, set_: SettingOption = None, max_runtime: RuntimeOption = None, as_json: JsonOption = False
) -> None:
    """Go on with a paused job, if wanted with other epochs, learning_rate and the like."""
    changes = dict(assignment(text) for text in set_) if set_ else None
    with client() as service:
        job = service.jobs.ref(job_id).resume(hyperparameters=changes, max_runtime_s=max_runtime)
        _changed(job, as_json)


@app.command()
def retry(
    job_id: JobId,
    from_start: Annotated[bool, typer.Option("--from-start", help="Not from its last checkpoint.")] = False,
    max_runtime: RuntimeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a failed or cancelled job again, as a new job, from its last checkpoint."""
    with client() as service:
        _changed(service.jobs.ref(job_id).retry(from_start=from_start, max_runtime_s=max_runtime), as_json)


@app.command()
def clone(
    job_id: JobId,
    set_: SettingOption = None,
    name: Annotated[str | None, typer.Option(help="Its name.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a job's request again, as a new job, with other hyperparameters if wanted."""
    overrides: dict[str, Any] = {"hyperparameters": dict(assignment(text) for text in set_)} if set_ else {}
    if name is not None:
        overrides["name"] = name
    with client() as service:
        _changed(service.jobs.ref(job_id).clone(**overrides), as_json)


def _foretell(found: dict[str, Any], as_json: bool) -> None:
    from anneal.progress import duration

    if as_json:
        print_json(found)
    elif found["errors"]:
        rows = [(error["pointer"], error["message"], error.get("hint")) for error in found["errors"]]
        print_table(["where", "what is wrong", "what to do"], rows, empty="")
    else:
        seconds, memory = found["seconds"], found["memory_bytes"]
        print_fields(
            {
                "training rows": found["train_rows"],
                "steps": found["steps"],
                "weights": found["weights"],
                "time": seconds and f"{duration(seconds['low'])} to {duration(seconds['high'])}",
                "memory": memory and f"{size(round(memory['low']))} to {size(round(memory['high']))}",
                "warnings": found["warnings"],
            }
        )
    if not found["valid"]:
        raise typer.Exit(1)


def _wait(job: "Job", as_json: bool) -> None:
    from anneal.errors import JobFailed

    try:
        job.wait(progress=True)
    except JobFailed:
        if as_json:
            print_json(job.to_dict())
        raise


def _answer(job: "Job", as_json: bool) -> None:
    if as_json:
        print_json(job.to_dict())
    else:
        _print_job(job.to_dict())


def _changed(job: "Job", as_json: bool) -> None:
    if as_json:
        print_json(job.to_dict())
    else:
        tell(f"{job.id} is {job.status}.")


def _print_job(job: dict[str, Any]) -> None:
    from anneal.progress import note, waits_for

    error = job.get("error") or {}
    result = job.get("result") or {}
    comparison = result.get("comparison") or {}
    print_fields(
        {
            "id": job["id"],
            "name": job.get("name"),
            "kind": job["kind"],
            "task": job.get("task"),
            "status": job["status"],
            "reason": job.get("status_reason") or waits_for(job),
            "made": age(job.get("created_at")),
            "progress": job.get("progress") if job["status"] == "running" else None,
            "speed": note(job),
            "latest metrics": (job.get("metrics") or {}).get("latest"),
            "model": result.get("ref") or result.get("model"),
            "result": figures(result.get("metrics")),
            "against scratch": comparison.get("verdict"),
            "warnings": [w.get("message", w) if isinstance(w, dict) else w for w in job.get("warnings") or []],
            "error": error.get("message"),
            "what to do": error.get("hint"),
        }
    )
