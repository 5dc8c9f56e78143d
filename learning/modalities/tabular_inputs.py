"""Prediction inputs of tabular models: checked value by value, with an error that says what does not fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from learning.errors import InvalidInput, did_you_mean
from learning.interfaces import InputWarning
from learning.modalities.tabular_columns import CategoryColumn, DateColumn, NumberColumn

ROW_TYPES = {"number": pa.float64(), "category": pa.string(), "date": pa.timestamp("us")}
_Column = NumberColumn | CategoryColumn | DateColumn


def parse_row(value: Any, index: int, columns: Sequence[_Column]) -> tuple[dict[str, Any], list[InputWarning]]:
    """Return the values of the known columns; InvalidInput for the first that is missing or of another type."""
    if not isinstance(value, dict):
        raise InvalidInput(
            f"Input {index} is not an object with a value for each column.",
            index=index,
            hint='Send {"inputs": [{"column": value, ...}]}.',
        )
    row: dict[str, Any] = {}
    warnings: list[InputWarning] = []
    for column in columns:
        if column.name not in value:
            raise _missing(value, index, column.name)
        row[column.name] = _parse_value(value[column.name], index, column, warnings)
    return row, warnings


def _missing(value: dict[str, Any], index: int, name: str) -> InvalidInput:
    return InvalidInput(
        f'Input {index}: column "{name}" is missing.{did_you_mean(name, value)}',
        index=index,
        hint=f'Add "{name}"; send null if its value is not known.',
        param=name,
    )


def _parse_value(value: Any, index: int, column: _Column, warnings: list[InputWarning]) -> Any:
    if value is None:
        return None
    if isinstance(column, NumberColumn):
        return _parse_number(value, index, column.name)
    if isinstance(column, DateColumn):
        return _parse_date(value, index, column.name)
    return _parse_category(value, index, column, warnings)


def _parse_number(value: Any, index: int, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _wrong_type(value, index, name, "a number")
    return float(value)


def _parse_date(value: Any, index: int, name: str) -> datetime:
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            # Stored without a zone, in UTC, as ingestion stores them.
            return parsed if parsed.tzinfo is None else parsed.astimezone(UTC).replace(tzinfo=None)
    raise _wrong_type(value, index, name, f"a date such as {date(2026, 1, 31)} or 2026-01-31T12:00:00")


def _parse_category(value: Any, index: int, column: CategoryColumn, warnings: list[InputWarning]) -> str:
    if isinstance(value, bool):
        value = "true" if value else "false"
    if not isinstance(value, str):
        raise _wrong_type(value, index, column.name, "true or false" if column.boolean else "a string")
    if value not in column.values:
        warnings.append(
            InputWarning(
                index,
                "unknown_category",
                f'Input {index}, column "{column.name}": "{value}" did not occur in training and counts as '
                f"unknown.{did_you_mean(value, column.values)}",
            )
        )
    return value


def _wrong_type(value: Any, index: int, name: str, wanted: str) -> InvalidInput:
    return InvalidInput(
        f'Input {index}, column "{name}": {_shown(value)} is not {wanted}.',
        index=index,
        hint="Correct the value; send null if it is not known.",
        param=name,
    )


def _shown(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def row_schema(columns: Sequence[_Column]) -> dict[str, Any]:
    """Return the JSON Schema of a row with an example that predicts."""
    properties = {column.name: _value_schema(column) for column in columns}
    return {
        "type": "object",
        "required": [column.name for column in columns],
        "properties": properties,
        "example": {name: schema["examples"][0] for name, schema in properties.items()},
    }


def _value_schema(column: _Column) -> dict[str, Any]:
    if isinstance(column, NumberColumn):
        # A value from the middle of what was seen, whatever the scaling.
        middle = (column.low + column.high) / 2
        example = round(middle) if column.integer else float(f"{middle:.4g}")
        return {"type": ["number", "null"], "examples": [example]}
    if isinstance(column, DateColumn):
        return {"type": ["string", "null"], "format": "date-time", "examples": [column.low.replace(" ", "T")]}
    if column.boolean:
        return {"type": ["boolean", "null"], "examples": [True]}
    return {"type": ["string", "null"], "examples": list(column.values[:1])}
