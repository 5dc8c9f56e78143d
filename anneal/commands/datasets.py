"""`anneal datasets`: upload, list, show, update, versions, diff, errors, delete."""

from pathlib import Path
from typing import Annotated, Any

import typer

from anneal.commands.output import (
    JsonOption,
    LimitOption,
    age,
    client,
    print_fields,
    print_json,
    print_table,
    shown,
    size,
    tell,
)
from anneal.commands.specification import assignment

app = typer.Typer(help="Upload and inspect datasets.", no_args_is_help=True)

DatasetId = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's id, ds_...")]


@app.command()
def upload(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="csv, jsonl, parquet, text, conll, or a zip of images or recordings.")
    ],
    *,
    name: Annotated[str | None, typer.Option(help="A name; else the file's.")] = None,
    format: Annotated[str | None, typer.Option(help="The format, where it cannot be recognised.")] = None,
    on_bad_rows: Annotated[
        str | None, typer.Option(help="fail (the default), skip or quarantine.", metavar="WHAT")
    ] = None,
    column_type: Annotated[
        list[str] | None, typer.Option(help="A column's type, as column=type; again for more.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="The split of its jobs, as test=0.2 or column=part; again for more.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; again for more.")] = None,
    parts_above: Annotated[
        int, typer.Option(help="A larger file goes in parts, and the same command again goes on.", metavar="BYTES")
    ] = 64 << 20,
    wait: Annotated[bool, typer.Option(help="Wait until the dataset is validated.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Send a file and wait for its validation."""
    from anneal.errors import DatasetInvalid

    with client() as service:
        dataset = service.datasets.upload(
            path,
            name=name,
            format=format,
            on_bad_rows=on_bad_rows,
            column_types=dict(_pair(text) for text in column_type) if column_type else None,
            split=dict(assignment(text, "--split") for text in split) if split else None,
            tags=tag,
            progress=not as_json,
            parts_above=parts_above,
        )
        try:
            if wait:
                dataset.wait(progress=not as_json)
        except DatasetInvalid:
            if as_json:
                print_json(dataset.to_dict())
            raise
    if as_json:
        print_json(dataset.to_dict())
    else:
        _print_dataset(dataset.to_dict())


@app.command("list")
def list_datasets(
    *,
    status: Annotated[str | None, typer.Option(help="processing, ready or invalid.")] = None,
    name: Annotated[str | None, typer.Option(help="Only those with this name.")] = None,
    format: Annotated[str | None, typer.Option(help="Only those in this format.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
) -> None:
    """List datasets, newest first."""
    with client() as service:
        page = service.datasets.list(status=status, name=name, format=format, tag=tag, limit=limit).to_dict()
    return _print_page(page, as_json)


def _print_page(page: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return print_json(page)
    rows = [
        (
            d["id"],
            d.get("name"),
            d.get("version"),
            d["status"],
            d.get("num_rows"),
            size(d.get("bytes")),
            age(d.get("created_at")),
        )
        for d in page["data"]
    ]
    print_table(
        ["id", "name", "version", "status", "rows", "size", "made"],
        rows,
        empty="No datasets. Send one: anneal datasets upload FILE",
    )
    return None


@app.command()
def show(
    dataset_id: DatasetId,
    rows: Annotated[int, typer.Option(help="How many rows to show.", min=0, max=100)] = 5,
    as_json: JsonOption = False,
) -> None:
    """Show a dataset: its columns, what it can be used for, its first rows."""
    with client() as service:
        dataset = service.datasets.get(dataset_id)
        if as_json:
            return print_json(dataset.to_dict())
        _print_dataset(dataset.to_dict())
        if rows and dataset.status == "ready":
            preview = dataset.preview(rows).to_dict()
            names = [c["name"] if isinstance(c, dict) else c for c in preview["columns"]]
            print()
            lines = [[_short(row.get(n)) for n in names[:8]] for row in preview["rows"]]
            print_table(names[:8], lines, empty="No rows.")
            if len(names) > 8:
                print(f"... and {len(names) - 8} more columns")
    return None


@app.command()
def update(
    dataset_id: DatasetId,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="The tags from now on; again for more.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Change a dataset's name or tags."""
    with client() as service:
        dataset = service.datasets.get(dataset_id).update(name=name, tags=tag).to_dict()
    if as_json:
        print_json(dataset)
    else:
        _print_dataset(dataset)


@app.command()
def versions(dataset_id: DatasetId, as_json: JsonOption = False) -> None:
    """List the datasets of the same name, newest first."""
    with client() as service:
        _print_page(service.datasets.get(dataset_id).versions().to_dict(), as_json)


@app.command()
def diff(
    dataset_id: DatasetId,
    against: Annotated[str, typer.Argument(metavar="AGAINST", help="The dataset to compare with.")],
    as_json: JsonOption = False,
) -> None:
    """Show what changed from another dataset to this one."""
    with client() as service:
        found = service.datasets.get(dataset_id).diff(against).to_dict()
    if as_json:
        return print_json(found)
    rows, columns = found["rows"], found["columns"]
    print_fields(
        {
            "rows": f"{rows['before']} before, {rows['after']} after",
            "rows added": rows["added"],
            "rows removed": rows["removed"],
            "columns added": columns["added"],
            "columns removed": columns["removed"],
            "other type": [f"{name}: {before}, now {after}" for name, (before, after) in columns["retyped"].items()],
        }
    )
    lines = [
        (name, what, before, after)
        for name, changes in columns["changed"].items()
        for what, (before, after) in changes.items()
    ]
    if lines:
        print()
        print_table(["column", "", "before", "after"], lines, empty="")
    return None


@app.command()
def errors(dataset_id: DatasetId, as_json: JsonOption = False) -> None:
    """Show what validation found wrong, row by row."""
    from anneal.errors import remedies

    with client() as service:
        found = service.datasets.errors(dataset_id).to_dict()
    if as_json:
        return print_json(found)
    rows = [
        (e.get("file"), e.get("row"), e.get("column"), e.get("value"), e.get("message"))
        for e in found.get("errors", [])
    ]
    print_table(["file", "row", "column", "value", "error"], rows, empty="No errors.")
    if found.get("error_count", 0) > len(rows):
        print(f"... {found['error_count']} errors in all")
    for remedy in remedies(found.get("errors", [])):
        print(remedy)
    return None


@app.command()
def delete(dataset_id: DatasetId, as_json: JsonOption = False) -> None:
    """Delete a dataset that nothing uses."""
    with client() as service:
        service.datasets.delete(dataset_id)
    if not as_json:
        tell(f"Deleted {dataset_id}.")


def _print_dataset(dataset: dict[str, Any]) -> None:
    candidates = [
        f"{c['task']}" + (f" of {c['target']}" if c.get("target") else "") for c in dataset.get("task_candidates") or []
    ]
    print_fields(
        {
            "id": dataset["id"],
            "name": dataset.get("name"),
            "version": dataset.get("version"),
            "tags": dataset.get("tags"),
            "status": dataset["status"],
            "format": dataset.get("format"),
            "rows": dataset.get("num_rows"),
            "size": size(dataset.get("bytes")),
            "made": age(dataset.get("created_at")),
            "usable for": candidates,
            "warnings": [w.get("message", w) if isinstance(w, dict) else w for w in dataset.get("warnings") or []],
        }
    )
    columns = dataset.get("columns") or []
    if columns:
        print()
        fields = ["name", "type", "missing", "unique", "min", "max", "mean"]
        print_table(fields, [[c.get(f) for f in fields] for c in columns], empty="")


def _short(value: Any) -> str:
    text = shown(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f'"{text}" is not of the form column=type.', param_hint="--column-type")
    return name, value
