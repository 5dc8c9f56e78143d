"""`anneal galleries`: create, list, show, move, delete, enrol, subjects, forget, identify, verify."""

from pathlib import Path
from typing import Annotated, Any

import typer

from anneal.commands.output import JsonOption, LimitOption, age, client, print_json, print_table, shown, tell

app = typer.Typer(help="Know people, or things, by pictures or recordings of them.", no_args_is_help=True)

Gallery = Annotated[str, typer.Argument(metavar="GALLERY", help="The gallery's name.")]
Files = Annotated[list[Path], typer.Argument(metavar="FILES...", help="The files.", exists=True, dir_okay=False)]
Threshold = Annotated[float | None, typer.Option(help="Least score that counts as the same; else the gallery's.")]


@app.command()
def create(
    name: Gallery,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="name, name:3 or name@alias.")],
    threshold: Annotated[str, typer.Option(help="auto, evaluation, enrolled, or a number.")] = "auto",
    false_accept_rate: Annotated[float, typer.Option(help="Rate at which the threshold is chosen.")] = 0.01,
    as_json: JsonOption = False,
) -> None:
    """Make a gallery that knows its subjects by a model's embeddings."""
    with client() as service:
        asked: Any = _number_or_name(threshold)
        made = service.galleries.create(name, model, threshold=asked, false_accept_rate=false_accept_rate).to_dict()
    _print_gallery(made, as_json=as_json)


@app.command("list")
def list_galleries(limit: LimitOption = 20, as_json: JsonOption = False) -> None:
    """List galleries, newest first."""
    with client() as service:
        page = service.galleries.list(limit=limit).to_dict()
    if as_json:
        return print_json(page)
    rows = [(g["name"], g["model"], g["subjects"], g["samples"], age(g["created_at"])) for g in page["data"]]
    print_table(["name", "model", "subjects", "samples", "made"], rows, empty="No galleries.")
    return None


@app.command()
def show(name: Gallery, as_json: JsonOption = False) -> None:
    """Show a gallery and its threshold."""
    with client() as service:
        found = service.galleries.get(name).to_dict()
    _print_gallery(found, as_json=as_json)


@app.command()
def move(
    name: Gallery,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="name, name:3 or name@alias.")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the gallery has moved.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Move a gallery to another version, by which all its files are embedded anew."""
    with client() as service:
        job = service.galleries.move(name, model)
        if wait:
            job.wait()
        found = service.galleries.get(name).to_dict()
    _print_gallery(found, as_json=as_json)


@app.command()
def delete(name: Gallery) -> None:
    """Delete a gallery with its subjects, their files and embeddings."""
    with client() as service:
        service.galleries.delete(name)
    tell(f"Deleted {name}.")


@app.command()
def enrol(
    name: Gallery,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="The subject's name.")],
    files: Files,
    as_json: JsonOption = False,
) -> None:
    """Enrol a subject by files; one that is known already gets them too."""
    with client() as service:
        known = service.galleries.subjects(name, called=subject).to_dict()["data"]
        if known:
            enrolled = service.galleries.add_samples(name, known[0]["id"], files).to_dict()
        else:
            enrolled = service.galleries.enrol(name, subject, files).to_dict()
    if as_json:
        return print_json(enrolled)
    tell(f"{name} knows {subject} ({enrolled['id']}) by {len(enrolled['samples'])} files.")
    _tell_warnings(files, enrolled)
    return None


@app.command()
def subjects(name: Gallery, limit: LimitOption = 20, as_json: JsonOption = False) -> None:
    """List whom a gallery knows, newest first."""
    with client() as service:
        page = service.galleries.subjects(name, limit=limit).to_dict()
    if as_json:
        return print_json(page)
    rows = [(s["id"], s["name"], len(s["samples"]), age(s["created_at"])) for s in page["data"]]
    print_table(["id", "name", "files", "enrolled"], rows, empty="Nobody is enrolled.")
    return None


@app.command()
def forget(
    name: Gallery, subject_id: Annotated[str, typer.Argument(metavar="SUBJECT", help="The subject's id, sub_...")]
) -> None:
    """Delete a subject with its files and embeddings."""
    with client() as service:
        service.galleries.forget(name, subject_id)
    tell(f"{name} does not know {subject_id} any more.")


@app.command()
def identify(
    name: Gallery,
    files: Files,
    top_k: Annotated[int, typer.Option(min=1, max=100, help="Most candidates of each file.")] = 5,
    threshold: Threshold = None,
    as_json: JsonOption = False,
) -> None:
    """Say whom files show, the nearest first; exit with 1 when a file cannot be read."""
    with client() as service:
        answer = service.galleries.identify(name, files, top_k=top_k, threshold=threshold).to_dict()
    if as_json:
        print_json(answer)
    else:
        rows = [
            (file.name, _who(output), ", ".join(f"{one['name']} {shown(one['score'])}" for one in output["candidates"]))
            for file, output in zip(files, answer["outputs"], strict=True)
            if output is not None
        ]
        print_table(["file", "subject", "candidates"], rows, empty="No file could be read.")
        for error in answer["errors"]:
            tell(f"{files[error['index']]}: {error['message']}")
        _tell_warnings(files, answer)
    if answer["errors"]:
        raise typer.Exit(1)


@app.command()
def verify(
    name: Gallery,
    files: Files,
    subject: Annotated[str | None, typer.Option(help="Id or name of a subject, in place of a second file.")] = None,
    threshold: Threshold = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether two files, or a file and a subject, are the same; exit with 1 when they are not."""
    if len(files) + (subject is not None) != 2:
        raise typer.BadParameter("Give two files, or one and --subject.", param_hint="FILES")
    with client() as service:
        other = files[1] if len(files) == 2 else None
        answer = service.galleries.verify(name, files[0], other, subject=subject, threshold=threshold).to_dict()
    if as_json:
        print_json(answer)
    else:
        said = {True: "the same", False: "not the same", None: "undecided, since there is no threshold"}
        tell(f"{said[answer['verified']]}: score {shown(answer['score'])}")
        _tell_warnings(files, answer)
    if not answer["verified"]:
        raise typer.Exit(1)


def _tell_warnings(files: list[Path], answer: dict[str, Any]) -> None:
    for warning in answer.get("warnings") or []:
        tell(f"{files[warning['index']]}, warning: {warning['message']}")


def _who(output: dict[str, Any]) -> str:
    if output["subject"] is not None:
        return str(output["subject"]["name"])
    return "unknown" if output["known"] is False else "undecided"


def _number_or_name(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _print_gallery(gallery: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(gallery)
        return
    tell(
        f"{gallery['name']}: {gallery['subjects']} subjects by {gallery['samples']} files, known by {gallery['model']}."
    )
    if gallery["move"]:
        tell(f"It is being moved to {gallery['move']['model']} by job {gallery['move']['job']}.")
    threshold = gallery["threshold"]
    if threshold is None:
        tell("There is no threshold yet: too few pairs to choose one by.")
        return
    rate = threshold["false_accept_rate"]
    at = "" if rate is None else f" at a false accept rate of {100 * rate:g} %"
    tell(f"Threshold {shown(threshold['value'])}, {threshold['source']}{at}.")
