"""Inputs for predictions, read from a file."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anneal.errors import AnnealError

NUMERIC = frozenset({"number", "integer"})


def read_rows(path: Path, schema: Mapping[str, Any] | None = None) -> list[Any]:
    """Read the rows of a .csv, .jsonl or .json file; raise AnnealError naming the line at fault.

    A CSV holds text only, so the model's input schema says which columns are numbers; without one, what
    looks like a number is one. An empty cell is null.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        fix = " Save it as UTF-8 text." if isinstance(error, UnicodeDecodeError) else ""
        raise AnnealError(f"Cannot read {path}: {error}.{fix}") from error
    if path.suffix.lower() == ".csv":
        rows = _csv_rows(text, path, column_types(schema))
    elif path.suffix.lower() == ".json":
        rows = as_rows(text, str(path))
    else:
        # Not splitlines: it also ends a line at characters that texts have within.
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        rows = [row for number, line in lines for row in as_rows(line, f"{path}, line {number}")]
    if not rows:
        raise AnnealError(f"{path} has no rows, so there is nothing to predict. Give it one row for each input.")
    return rows


def _csv_rows(text: str, path: Path, types: Mapping[str, set[str]]) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        return [{name: cell(value, types.get(name)) for name, value in row.items() if name} for row in reader]
    except csv.Error as error:
        raise AnnealError(f"{path}, line {reader.line_num + 1}: {error}.") from error


def as_rows(text: str, where: str) -> list[Any]:
    """Parse JSON that is one input or a list of inputs; raise AnnealError that says where it is not."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise AnnealError(f'{where}: not JSON ({error}). Write each input as {{"column": value}}.') from error
    rows = value if isinstance(value, list) else [value]
    if not all(isinstance(row, dict | str) for row in rows):
        raise AnnealError(f'{where}: an input is an object like {{"column": value}}, or a string for a model of texts.')
    return rows


def column_types(schema: Mapping[str, Any] | None) -> dict[str, set[str]]:
    """Return each column's JSON types from the schema of one input or of a list of them."""
    schema = schema or {}
    forms = [schema, schema.get("items") or {}, *schema.get("anyOf", [])]
    properties: Mapping[str, Any] = next((form["properties"] for form in forms if form.get("properties")), {})
    types: dict[str, set[str]] = {}
    for name, about in properties.items():
        options = [about, *about.get("anyOf", [])]
        found = [option.get("type", []) for option in options]
        types[name] = {kind for kinds in found for kind in ([kinds] if isinstance(kinds, str) else kinds)}
    return types


def cell(text: str | None, types: set[str] | None = None) -> Any:
    """Turn a CSV cell into the JSON value that a column of these types takes."""
    if text is None or text == "":
        return None
    if types and not types & NUMERIC:
        return {"true": True, "false": False}.get(text.lower(), text) if "boolean" in types else text
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
