"""A look at a dataset's rows, and the schema that they fit."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from learning import audio, images
from learning.errors import InvalidInput

if TYPE_CHECKING:
    from learning.model import Design

# So many batches are mapped at once to know how many rows they have.
_MAPPED = 16
_JSON_TYPES: dict[str, dict[str, Any]] = {
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "timestamp": {"type": "string", "format": "date-time"},
    "string": {"type": "string"},
    "strings": {"type": "array", "items": {"type": "string"}},
    "image": {
        "type": "object",
        "properties": {
            "format": {"type": "string"},
            "mode": {"type": "string"},
            "width": {"type": "integer"},
            "height": {"type": "integer"},
            "thumbnail": {"type": "string", "description": "A small PNG as a data URL."},
        },
    },
    "audio": {
        "type": "object",
        "properties": {
            "format": {"type": "string"},
            "seconds": {"type": "number"},
            "rate": {"type": "integer"},
            "channels": {"type": "integer"},
            "waveform": {"type": "string", "description": "A small PNG as a data URL."},
        },
    },
    "objects": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "label": {"type": "string"},
                **{name: {"type": "number"} for name in ("x", "y", "width", "height")},
            },
        },
    },
}


def preview_rows(path: Path, count: int, seed: int | None) -> dict[str, Any]:
    """Return `columns`, `rows` and their `indices` in an Arrow file: the first, or some drawn with a seed, ascending.

    Only the pages around the rows that are shown are mapped, and these a batch at a time: a page that is touched may
    bring megabytes with it.
    """
    columns, starts = _starts(path, count if seed is None else None)
    count = min(count, starts[-1])
    indices = list(range(count))
    if seed is not None:
        indices = sorted(np.random.default_rng(seed).choice(starts[-1], count, replace=False).tolist())
    rows = [_shown(row.to_pylist()[0]) for row in _picked(path, indices, starts)]
    return {"columns": columns, "rows": json.loads(json.dumps(rows, default=str)), "indices": indices}


def _picked(path: Path, indices: Sequence[int], starts: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """Yield each of some rows, ascending; one is mapped until the next is asked for."""
    for number, (start, end) in enumerate(itertools.pairwise(starts)):
        if wanted := [index - start for index in indices if start <= index < end]:
            with _mapped(path) as reader:
                batch = reader.get_batch(number)
                yield from (batch.slice(place, 1) for place in wanted)
                del batch


@contextmanager
def _mapped(path: Path) -> Iterator[pa.RecordBatchFileReader]:
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
        yield reader


def _starts(path: Path, enough: int | None) -> tuple[list[str], list[int]]:
    """Return the columns, and at which row each batch begins and the last one ends; of no more than have `enough`."""
    starts = [0]
    while True:
        with _mapped(path) as reader:
            names = reader.schema.names
            for number in range(len(starts) - 1, min(len(starts) - 1 + _MAPPED, reader.num_record_batches)):
                starts.append(starts[-1] + reader.get_batch(number).num_rows)
                if enough is not None and starts[-1] >= enough:
                    return names, starts
            if len(starts) > reader.num_record_batches:
                return names, starts


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with what is known of its images and recordings, and a small picture, instead of their bytes."""
    return {name: _media(cell) if isinstance(cell, dict) else cell for name, cell in row.items()}


def _media(cell: dict[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in cell.items() if name != "bytes"}
    if "width" in cell:
        small = images.thumbnail(cell["bytes"], cell["width"], cell["height"])
        return {**known, "thumbnail": images.data_url(small)}
    return {**known, "waveform": images.data_url(audio.waveform(cell["bytes"]))}


def seen_rows(path: Path, indices: Sequence[int], design: Design) -> list[dict[str, Any]]:
    """Return what a model sees of rows of an Arrow file: tokens, features or pixels, with warnings; or an error.

    IncompatibleModel names a column that it reads and that is not there.
    """
    from learning.dataset_prediction import TableRows  # torch comes with it

    _, starts = _starts(path, indices[-1] + 1 if indices else 0)
    seen = []
    for index, row in zip(indices, _picked(path, indices, starts), strict=True):
        (value,) = TableRows(pa.Table.from_batches([row]), design).inputs(0, 1)
        seen.append(_seen(value, index, design))
    return seen


def _seen(value: Any, index: int, design: Design) -> dict[str, Any]:
    try:
        row, warnings = design.parse(value, index)
    except InvalidInput as error:
        return {"error": str(error)}
    return {**design.modality.shown(row, design.inputs), "warnings": [warning.message for warning in warnings]}


def row_schema(columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the JSON Schema of a row with such columns (name, type, nullable)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {column["name"]: _value_schema(column) for column in columns},
        "required": [column["name"] for column in columns],
        "additionalProperties": False,
    }


def _value_schema(column: Mapping[str, Any]) -> dict[str, Any]:
    schema = _JSON_TYPES.get(column["type"], {})
    if not column["nullable"] or not schema:
        return schema
    return {**schema, "type": [schema["type"], "null"]}
