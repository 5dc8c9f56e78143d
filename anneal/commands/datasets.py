"""`anneal datasets`: upload, list, show, errors, delete."""

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

app = typer.Typer(help="Upload and inspect datasets.", no_args_is_help=True)

DatasetId = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's id, ds_...")]


@app.command()
def upload(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="csv, jsonl or parquet.")],
    *,
    name: Annotated[str | None, typer.Option(help="A name; else the file's.")] = None,
    format: Annotated[str | None, typer.Option(help="The format, where it cannot be recognised.")] = None,
    on_bad_rows: Annotated[str | None, typer.Option(help="fail (the default) or skip.", metavar="WHAT")] = None,
    column_type: Annotated[
        list[str] | None, typer.Option(help="A column's type, as column=type; again for more.")
    ] = None,
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
            progress=not as_json,
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
    status: Annotated[str | None, typer.Option(help="processing, ready or invalid.")] = None,
    name: Annotated[str | None, typer.Option(help="Only those with this name.")] = None,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
) -> None:
    """List datasets, newest first."""
    with client() as service:
        page = service.datasets.list(status=status, name=name, limit=limit).to_dict()
    if as_json:
        return print_json(page)
    rows = [
        (
            d["id"],
            d.get("name"),
            d["status"],
            d.get("num_rows"),
            size(d.get("bytes")),
            age(d.get("created_at")),
        )
        for d in page["data"]
    ]
    print_table(
        ["id", "name", "status", "rows", "size", "made"],
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
