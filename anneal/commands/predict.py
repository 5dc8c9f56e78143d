"""`anneal predict`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anneal.commands.output import JsonOption, client, print_json, print_table, shown, tell

if TYPE_CHECKING:
    from anneal.client import Client

BATCH = 100
FORMATS = ("jsonl", "csv", "parquet")


def predict(
    ref: Annotated[str, typer.Argument(metavar="MODEL", help="name, name:3 or name@alias.")],
    *,
    input: Annotated[str | None, typer.Option(help="One input as JSON, or a list of them.")] = None,
    file: Annotated[Path | None, typer.Option(help="A .jsonl, .json or .csv file of inputs.")] = None,
    dataset: Annotated[str | None, typer.Option(help="A dataset's id: predict every row of it, as a job.")] = None,
    output: Annotated[Path | None, typer.Option(help="With --dataset: the .jsonl, .csv or .parquet to save.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="With --dataset: a column to repeat beside answers.")] = None,
    parameters: Annotated[str | None, typer.Option(help="The prediction's parameters as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict one input, a file of them, or a dataset; of a file more than 100 go in several requests."""
    if sum(given is not None for given in (input, file, dataset)) != 1:
        raise typer.BadParameter("Give one of --input, --file and --dataset.", param_hint="--input")
    options = _json_object(parameters)
    if dataset is not None:
        _predict_dataset(ref, dataset, output, keep or [], options, as_json=as_json)
        return
    failed = 0
    with client() as service:
        rows = _rows(service, ref, input, file)
        for start in range(0, len(rows), BATCH):
            answer = service.predict(ref, rows[start : start + BATCH], options).to_dict()
            failed += len(answer.get("errors") or [])
            if as_json:
                print_json(answer)
            else:
                _print_answer(answer, start)
    if failed:
        tell(f"{failed} of {len(rows)} inputs failed.")
        raise typer.Exit(1)


def _predict_dataset(
    ref: str, dataset: str, output: Path | None, keep: list[str], parameters: dict[str, Any] | None, *, as_json: bool
) -> None:
    path = output or Path("predictions.jsonl")
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise typer.BadParameter(f"{path.name} ends in none of: {', '.join(FORMATS)}.", param_hint="--output")
    with client() as service:
        job = service.models.predict_dataset(ref, dataset, format=form, keep=keep, parameters=parameters or {})
        job.wait(progress=not as_json)
        saved = job.save_output(path)
        if as_json:
            print_json(job.to_dict())
        else:
            tell(f"{job.result['rows']} rows, {job.result['errors']} of them with an error, are in {saved}.")
        for warning in job.to_dict().get("warnings") or []:
            tell(str(warning))


def _rows(service: "Client", ref: str, text: str | None, file: Path | None) -> list[Any]:
    from anneal.rows import as_rows, read_rows

    if file is None:
        return as_rows(text or "", "--input")
    schema = service.models.schema(ref).to_dict().get("input") if file.suffix.lower() == ".csv" else None
    return read_rows(file, schema)


def _print_answer(answer: dict[str, Any], start: int) -> None:
    outputs: Sequence[Any] = answer.get("outputs") or []
    rows = [(start + index, *_described(output)) for index, output in enumerate(outputs) if output is not None]
    print_table(["input", "prediction", "score"], rows, empty="No predictions.")
    for error in answer.get("errors") or []:
        hint = f" {error['hint']}" if error.get("hint") else ""
        # The service counts within one request, this command within the file.
        what = str(error["message"]).removeprefix(f"Input {error['index']}").lstrip(":, ")
        tell(f"Input {start + error['index']}: {what}{hint}")
    for warning in answer.get("warnings") or []:
        tell(f"Input {start + warning.get('index', 0)}, warning: {warning.get('message')}")


def _described(output: Any) -> tuple[str, str]:
    if isinstance(output, dict) and "label" in output:
        return str(output["label"]), shown(output.get("score"))
    if isinstance(output, dict) and "labels" in output:
        shares = output.get("probabilities", {})
        return ", ".join(output["labels"]), ", ".join(shown(shares.get(label)) for label in output["labels"])
    if isinstance(output, dict) and len(output) == 1:
        return shown(next(iter(output.values()))), ""
    return shown(output), ""


def _json_object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"not JSON ({error}).", param_hint="--parameters") from error
    if not isinstance(value, dict):
        raise typer.BadParameter("not a JSON object.", param_hint="--parameters")
    return value
