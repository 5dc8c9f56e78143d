"""The file of a dataset's predictions, made of segments of JSON lines: JSON lines again, CSV, or Parquet.

The columns of the last two follow from the JSON Schema of an answer, not from the answers, so that every file of a
model has the same ones.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from learning.answer_labels import labels_in

FileFormat = Literal["jsonl", "csv", "parquet"]
# Lines that are in memory together; also the rows of a row group, so it is part of what a Parquet file is.
GROUP_ROWS = 16_384
_TYPES = {"number": pa.float64(), "integer": pa.int64(), "boolean": pa.bool_(), "string": pa.string()}


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of a flat file: its name, its Arrow type, and how a line has it."""

    name: str
    type: pa.DataType
    of: Callable[[Mapping[str, Any]], Any]


def write(
    form: FileFormat, segments: Sequence[Path], path: Path, schema: Mapping[str, Any], kept: pa.Schema | None = None
) -> None:
    """Write the lines of the segments, which are in order, as one file.

    `schema` is that of an answer, `kept` has the columns that are repeated from the dataset.
    """
    if form == "jsonl":
        with path.open("wb") as target:
            for segment in segments:
                with segment.open("rb") as source:
                    shutil.copyfileobj(source, target, 1 << 20)
        return
    columns = [
        _Column("index", pa.int64(), lambda line: line["index"]),
        *_kept_columns(kept),
        *_columns(schema),
        _Column("error", pa.string(), lambda line: (line["error"] or {}).get("message")),
    ]
    lines = chain.from_iterable(map(_lines, segments))
    groups = iter(lambda: list(islice(lines, GROUP_ROWS)), [])
    if form == "csv":
        _write_csv(columns, groups, path)
    else:
        _write_parquet(columns, groups, path)


def _lines(segment: Path) -> Iterator[dict[str, Any]]:
    with segment.open("rb") as file:
        for line in file:
            yield orjson.loads(line)


def _write_csv(columns: Sequence[_Column], groups: Iterator[list[dict[str, Any]]], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([column.name for column in columns])
        for group in groups:
            writer.writerows([_cell(column.of(line)) for column in columns] for line in group)


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _write_parquet(columns: Sequence[_Column], groups: Iterator[list[dict[str, Any]]], path: Path) -> None:
    schema = pa.schema([(column.name, column.type) for column in columns])
    with pq.ParquetWriter(path, schema) as writer:
        for group in groups:
            arrays = [pa.array([column.of(line) for line in group], column.type) for column in columns]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=GROUP_ROWS)


def _kept_columns(kept: pa.Schema | None) -> Iterator[_Column]:
    for field in kept or ():
        plain = field.type if field.type in _TYPES.values() or pa.types.is_list(field.type) else pa.string()
        yield _Column(field.name, plain, lambda line, name=field.name: line["kept"][name])  # type: ignore[misc]


def _columns(schema: Mapping[str, Any]) -> Iterator[_Column]:
    """Yield the columns of an answer: one for each number and text in it, JSON for whatever else there is."""
    properties = schema.get("properties", {})
    labels = labels_in(schema)
    for name, field in properties.items():
        kind = field.get("type")
        kind = next((one for one in kind if one != "null"), None) if isinstance(kind, list) else kind
        inner = list(field.get("properties", ())) or list(labels if "additionalProperties" in field else ())
        if kind == "object" and inner:
            for key in inner:
                yield _Column(f"{name}.{key}", pa.float64(), _inner(name, key))
        elif kind == "array" and field.get("items", {}).get("type") == "number":
            yield _Column(name, pa.list_(pa.float64()), _part(name))
        elif kind in _TYPES:
            yield _Column(name, _TYPES[kind], _part(name))
        else:
            yield _Column(name, pa.string(), _as_json(_part(name)))
    if not properties:
        yield _Column("output", pa.string(), _as_json(lambda line: line["output"]))


def _part(name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda line: (line["output"] or {}).get(name)


def _inner(name: str, key: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda line: ((line["output"] or {}).get(name) or {}).get(key)


def _as_json(part: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], str | None]:
    def text(line: Mapping[str, Any]) -> str | None:
        value = part(line)
        return None if value is None else orjson.dumps(value).decode()

    return text
