"""`anneal models`: list, show, import, alias, download."""

from pathlib import Path
from typing import Annotated, Any

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
    tell,
)

app = typer.Typer(help="Look into the model registry.", no_args_is_help=True)


@app.command("list")
def list_models(limit: LimitOption = 20, as_json: JsonOption = False) -> None:
    """List models, newest first."""
    with client() as service:
        page = service.models.list(limit=limit).to_dict()
    if as_json:
        return print_json(page)
    rows = [
        (m["name"], m.get("task"), m.get("latest_version"), m.get("aliases"), age(m.get("created_at")))
        for m in page["data"]
    ]
    headers = ["name", "task", "latest", "aliases", "made"]
    print_table(headers, rows, empty="No models. Train one: anneal jobs submit --help")
    return None


@app.command()
def show(
    ref: Annotated[str, typer.Argument(metavar="MODEL", help="name, name:3 or name@alias.")],
    as_json: JsonOption = False,
) -> None:
    """Show a model and its versions, or one version."""
    one = ":" in ref or "@" in ref
    with client() as service:
        found = service.models.version(ref).to_dict() if one else service.models.get(ref).to_dict()
        if as_json:
            return print_json(found)
        if one:
            _print_version(found)
            return None
        versions = service.models.versions(ref, limit=100).to_dict()["data"]
    print_fields({name: found.get(name) for name in ("name", "task", "latest_version", "aliases")})
    print()
    rows = [
        (v["ref"], v.get("kind"), v.get("architecture"), figures(v.get("metrics")), v.get("job_id")) for v in versions
    ]
    print_table(["version", "kind", "architecture", "metrics", "job"], rows, empty="No versions.")
    return None


@app.command("import")
def import_model(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A model's folder or zip archive.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Its name in the registry.")],
    alias: Annotated[list[str] | None, typer.Option("--alias", help="Alias to point at it; may be repeated.")] = None,
    on_server: Annotated[bool, typer.Option("--on-server", help="PATH lies in the server's folder of models.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is registered.")] = True,
    *,
    as_json: JsonOption = False,
) -> None:
    """Register a model from elsewhere: one that Transformers saved (BERT, Megatron-BERT, GPT-2, Marian, ResNet), or one
    downloaded here.
    """
    with client() as service:
        if on_server:
            job = service.models.import_path(path, model=model, aliases=alias or ())
        else:
            job = service.models.import_model(path, model=model, aliases=alias or (), progress=not as_json)
        if wait:
            job.wait()
        found = job.to_dict()
    if as_json:
        return print_json(found)
    for warning in found.get("warnings") or []:
        tell(f"Note: {warning}")
    tell(f"Imported {found['result']['ref']}." if found.get("result") else f"Job {found['id']} is {found['status']}.")
    return None


@app.command()
def alias(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")],
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="For example production.")],
    version: Annotated[int | None, typer.Argument(metavar="[VERSION]", help="The version's number.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Point an alias at a version, or remove it."""
    if remove == (version is not None):
        raise typer.BadParameter("Give a version, or --remove.", param_hint="VERSION")
    with client() as service:
        if version is None:
            service.models.remove_alias(name, alias)
            answer = None
        else:
            answer = service.models.alias(name, alias, version).to_dict()
    if not as_json:
        tell(f"{name}@{alias} is removed." if version is None else f"{name}@{alias} is {name}:{version}.")
    elif answer is not None:
        print_json(answer)


@app.command()
def download(
    ref: Annotated[str, typer.Argument(metavar="MODEL", help="name, name:3 or name@alias.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder, or the file to write.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Save a version's files as a zip."""
    with client() as service:
        version = service.models.version(ref).to_dict()
        path = service.models.download(f"{version['model']}:{version['version']}", output)
    if as_json:
        print_json(version)
    else:
        tell(f"Saved {path}.")


@app.command()
def pictures(
    ref: Annotated[str, typer.Argument(metavar="MODEL", help="name, name:3 or name@alias.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Save the pictures of how good a version is - confusion matrix, curves, worst mistakes - as SVG files."""
    with client() as service:
        paths = [str(path) for path in service.models.pictures(ref, output)]
    if as_json:
        return print_json(paths)
    for path in paths:
        tell(f"Saved {path}.")
    if not paths:
        tell("There are no pictures of this version: it learned without labels, or was imported.")
    return None


def _print_version(version: dict[str, Any]) -> None:
    names = ("ref", "kind", "task", "architecture", "metrics", "aliases", "job_id")
    fields = {name: version.get(name) for name in names}
    fields["metrics"] = figures(version.get("metrics"))
    fields["files"] = [file["path"] for file in version.get("files") or []]
    fields["pictures"] = list(version.get("pictures") or {})
    print_fields(fields | {"made": age(version.get("created_at"))})
