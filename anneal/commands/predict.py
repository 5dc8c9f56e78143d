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


def predict(
    ref: Annotated[str, typer.Argument(metavar="MODEL", help="name, name:3 or name@alias.")],
    input: Annotated[str | None, typer.Option(help="One input as JSON, or a list of them.")] = None,
    file: Annotated[Path | None, typer.Option(help="A .jsonl, .json or .csv file of inputs.")] = None,
    parameters: Annotated[str | None, typer.Option(help="The prediction's parameters as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict one input or a file of them; more than 100 go in several requests, one JSON answer each."""
    if (input is None) == (file is None):
        raise typer.BadParameter("Give either --input or --file.", param_hint="--input")
    options = _json_object(parameters)
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
