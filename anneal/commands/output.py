"""How the commands answer: JSON as the API sent it, or tables for people."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from anneal.client import Client

JsonOption = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]
LimitOption = Annotated[int, typer.Option(min=1, max=100, help="How many at most.")]


def client() -> "Client":
    """Connect to the service that the environment and --url name."""
    from anneal.client import Client

    return Client()


def print_json(value: Any) -> None:
    """Print JSON to stdout."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print rows as a table, or the sentence `empty` when there are none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, header in enumerate(headers):
        # An id in two halves cannot be copied.
        table.add_column(header, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(shown(value)) for value in row))
    # Nobody reads a pipe on a screen of a certain width.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table if table.row_count else empty)


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print one object's fields, leaving out those without a value."""
    rows = [(name, value) for name, value in fields.items() if value not in (None, "", [], {})]
    print_table(["field", "value"], rows, empty="Nothing to show.")


def tell(text: str) -> None:
    """Say something to the person, on stderr: stdout is for the answer."""
    print(text, file=sys.stderr)


def shown(value: Any) -> str:
    """Write a JSON value for a person."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(item)}" for name, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(shown, value)) or "-"
    return str(value)


def figures(measured: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return metrics by part for a person: their numbers, and only the names of tables, too long for a line."""
    if measured is None:
        return None
    found: dict[str, Any] = {}
    for part, values in measured.items():
        tables = [name for name, value in values.items() if _is_table(value)]
        numbers = {name: value for name, value in values.items() if name not in tables}
        found[part] = numbers | ({"with --json": tables} if tables else {})
    return found


def _is_table(value: Any) -> bool:
    return isinstance(value, list) or (
        isinstance(value, dict) and any(isinstance(one, dict | list) for one in value.values())
    )


def age(time: str | None) -> str:
    """Write how long ago an RFC 3339 time was."""
    if not time:
        return "-"
    from anneal.progress import duration

    try:
        return f"{duration((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds())} ago"
    except (TypeError, ValueError):
        return time


def size(count: int | None) -> str:
    """Write a number of bytes for a person."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
