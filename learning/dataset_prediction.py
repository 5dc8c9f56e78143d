"""Answers for every row of a dataset, in blocks whose bounds never change: a run that was stopped makes the same file.

Answers lie in segments, files of JSON lines for whole blocks, named by their rows. What a segment holds is not computed
again; the file that the caller gets is made of all segments at the end (`prediction_files`).
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import orjson
import pyarrow as pa

from learning.config import Columns
from learning.errors import InvalidInput, LearningError, UnknownName, did_you_mean
from learning.interfaces import InputWarning
from learning.model import Design
from learning.prediction import Answer, Parsed, Predictor

# Rows computed together. Answers in another batch differ in their last digits, so this is part of what they are.
BLOCK_ROWS = 256


class Rows(Protocol):
    """What is to be answered: a number of inputs, any part of which can be read again."""

    @property
    def count(self) -> int:
        """Return N."""
        ...

    def inputs(self, start: int, stop: int) -> list[Any]:
        """Return some as predict takes them."""
        ...

    def kept(self, start: int, stop: int) -> list[dict[str, Any]] | None:
        """Return what is to be repeated beside their answers, if anything is."""
        ...


class TableRows:
    """The rows of a dataset's table, by the columns that a model reads."""

    def __init__(self, table: pa.Table, design: Design, text: str | None = None, keep: Sequence[str] = ()) -> None:
        """Find the columns; IncompatibleModel names one that is missing, UnknownName one that is to be kept."""
        for name in keep:
            if name not in table.column_names:
                raise UnknownName(
                    f'Column "{name}" not found.{did_you_mean(name, table.column_names)}',
                    hint=f"Columns: {', '.join(table.column_names)}.",
                    param="keep",
                )
        try:
            found = design.modality.reuse(table, Columns(text=text), design.inputs)
        except LearningError as error:
            error.param = "text" if error.param == "columns.text" else "dataset"
            error.hint = error.hint and error.hint.replace("columns.text", "text")
            raise
        # A text may stand in a column of another name here.
        self._read = table.select(list(design.modality.column_names(found)))
        self._read = self._read.rename_columns(list(design.modality.column_names(design.inputs)))
        self._kept = table.select(list(keep)) if keep else None

    @property
    def count(self) -> int:
        """Return N."""
        return int(self._read.num_rows)

    @property
    def kept_schema(self) -> pa.Schema | None:
        """The columns that are repeated, if any are."""
        return None if self._kept is None else self._kept.schema

    def inputs(self, start: int, stop: int) -> list[Any]:
        """Return rows as objects."""
        rows = self._read.slice(start, stop - start).to_pylist()
        return [{name: _as_input(value) for name, value in row.items()} for row in rows]

    def kept(self, start: int, stop: int) -> list[dict[str, Any]] | None:
        """Return the columns to keep."""
        if self._kept is None:
            return None
        rows: list[dict[str, Any]] = self._kept.slice(start, stop - start).to_pylist()
        return rows


def _as_input(value: Any) -> Any:
    if isinstance(value, dict):
        return value["bytes"]  # of an image or a recording; what is known of it beside is not the model's business
    return value.isoformat() if isinstance(value, datetime.date) else value


@dataclass(frozen=True, slots=True)
class ListedRows:
    """Inputs that came with the request."""

    listed: Sequence[Any]

    @property
    def count(self) -> int:
        """Return N."""
        return len(self.listed)

    def inputs(self, start: int, stop: int) -> list[Any]:
        """Return some."""
        return list(self.listed[start:stop])

    def kept(self, start: int, stop: int) -> None:
        """Return nothing."""


class Segment(NamedTuple):
    """Answers to the rows from `start` to before `stop`, so many of which are errors instead."""

    start: int
    stop: int
    errors: int
    path: Path

    @property
    def name(self) -> str:
        """The name of its file, which says all but where it is."""
        return f"{self.start}-{self.stop}-{self.errors}.jsonl"

    @classmethod
    def at(cls, path: Path) -> Segment:
        """Return the segment that a file is."""
        start, stop, errors = (int(part) for part in path.stem.split("-"))
        return cls(start, stop, errors, path)


@dataclass(frozen=True, slots=True)
class Operation:
    """How inputs are parsed, what is done with the rows, and the JSON Schema of what comes of one."""

    parse: Callable[[Sequence[Any], int], Parsed]
    answer: Callable[[Sequence[Any]], list[Answer]]
    schema: Mapping[str, Any]

    @classmethod
    def named(
        cls, name: Literal["predict", "embed", "complete"], predictor: Predictor, parameters: dict[str, Any]
    ) -> Operation:
        """Return what a predictor does; an embedding comes with the number of positions that were read.

        To complete is to predict where each input is an object with `input` and `parameters` of its own.
        """
        if name == "embed":
            return cls(predictor.parse, lambda rows: _embedded(predictor, rows), _EMBEDDING)
        schema = predictor.design.task.schema(predictor.design.targets)
        if name == "complete":
            return cls(lambda inputs, first: _each_parsed(predictor, inputs, first), predictor.answer, schema)
        options = predictor.options(parameters)
        return cls(
            lambda inputs, first: predictor.parse(inputs, first, options),
            lambda rows: [options.apply(one) for one in predictor.answer(rows)],
            schema,
        )


_EMBEDDING = {
    "properties": {
        "embedding": {"type": "array", "items": {"type": "number"}},
        "positions": {"type": "integer"},
    }
}


def _each_parsed(predictor: Predictor, inputs: Sequence[Any], first: int) -> Parsed:
    parsed = predictor.parse([one["input"] for one in inputs], first)
    asked = [predictor.options(inputs[position]["parameters"]) for position in parsed.positions]
    parsed.rows = [options.asked(row) for options, row in zip(asked, parsed.rows, strict=True)]
    return parsed


def _embedded(predictor: Predictor, rows: Sequence[Any]) -> list[Answer]:
    pairs = zip(predictor.embed(rows), rows, strict=True)
    return [{**one, "positions": predictor.positions(row)} for one, row in pairs]


class DatasetPrediction:
    """Answers the rows that no segment has yet, block by block."""

    def __init__(self, operation: Operation, rows: Rows, directory: Path) -> None:
        self._parse, self._answer = operation.parse, operation.answer
        self._rows = rows
        self._directory = directory

    def run(self, segments: Sequence[Segment], is_due: Callable[[int], bool]) -> Iterator[Segment]:
        """Yield new segments as they are written: one for each gap, ended early whenever `is_due`.

        `is_due` is asked after each block with the number of rows answered in this run. Whoever wants to stop takes no
        further segment.
        """
        done = 0
        for first, last in gaps(segments, self._rows.count):
            at = first
            while at < last:
                start, errors = at, 0
                partial = self._directory / f"{start}.partial"
                with partial.open("wb") as file:
                    due = False
                    while at < last and not due:
                        stop = min(at + BLOCK_ROWS, last)
                        lines, wrong = self._block(at, stop)
                        file.writelines(lines)
                        errors += wrong
                        done += stop - at
                        at = stop
                        due = is_due(done)
                    file.flush()
                    os.fsync(file.fileno())
                named = Segment(start, at, errors, partial)
                yield named._replace(path=partial.rename(self._directory / named.name))

    def _block(self, start: int, stop: int) -> tuple[list[bytes], int]:
        """Return a line for each row, and how many of them are errors."""
        parsed = self._parse(self._rows.inputs(start, stop), start)
        answers = self._answer(parsed.rows) if parsed.rows else []
        errors = {error.index: _error(error) for error in parsed.errors}
        warnings: dict[int, list[dict[str, str]]] = {}
        for warning in parsed.warnings:
            warnings.setdefault(warning.index, []).append(_warning(warning))
        kept = self._rows.kept(start, stop)
        lines = [
            orjson.dumps(
                {
                    "index": index,
                    **({"kept": kept[index - start]} if kept is not None else {}),
                    "output": output,
                    "error": errors.get(index),
                    "warnings": warnings.get(index, []),
                },
                option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS,
            )
            for index, output in enumerate(parsed.answered(answers), start)
        ]
        return lines, len(errors)


def gaps(segments: Sequence[Segment], count: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of rows that no segment covers, in order."""
    at = 0
    for segment in sorted(segments):
        if segment.start > at:
            yield at, segment.start
        at = max(at, segment.stop)
    if at < count:
        yield at, count


def _error(error: InvalidInput) -> Mapping[str, Any]:
    return {"code": error.code, "message": error.message, "param": error.param, "hint": error.hint}


def _warning(warning: InputWarning) -> dict[str, str]:
    return {"code": warning.code, "message": warning.message}
