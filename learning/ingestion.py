"""From an uploaded file to a dataset: its canonical Arrow file and its description."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from learning.column_type import ColumnType
from learning.dataset_warnings import DatasetWarning, dataset_warnings
from learning.errors import InvalidConfig, InvalidDataset, LearningError, RowError
from learning.formats import Recognised, recognised
from learning.formats.format import Misjudged, ReadOptions, ignore_progress
from learning.formats.quarantine import Quarantine
from learning.formats.row_errors import RowErrors, invalid_file
from learning.formats.wrong_bytes import marks_for
from learning.label_conflicts import MOST_ROWS, LabelConflicts, label_conflicts
from learning.row_hashes import Duplicates, look
from learning.statistics import Column, TableStatistics
from learning.task_candidates import Facts, TaskCandidate, task_candidates

# Fewer, larger batches make taking scattered rows from the file faster; these bound the memory.
_WRITE_ROWS = 65_536
_WRITE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How to read an upload; a `format` of None means to recognise it, `split` is the default of the dataset's jobs."""

    format: str | None = None
    on_bad_rows: Literal["fail", "skip", "quarantine"] = "fail"
    column_types: Mapping[str, ColumnType] = field(default_factory=dict)
    split: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.on_bad_rows not in {"fail", "skip", "quarantine"}:
            message = f'on_bad_rows is "{self.on_bad_rows}"; it must be "fail", "skip" or "quarantine".'
            raise InvalidConfig(message, param="on_bad_rows")


@dataclass(frozen=True, slots=True)
class Validation:
    """What checking the file found; `errors` are the first hundred of the rows that were skipped."""

    ok: bool
    error_count: int
    warning_count: int
    errors: list[RowError]
    errors_by_rule: dict[str, int]


@dataclass(slots=True)
class _Found:
    """What is known so far of a file that is being read; a file that is refused is described by it."""

    filename: str
    source: Recognised | None = None
    num_rows: int | None = None
    statistics: TableStatistics | None = None

    def describes(self, error: LearningError) -> None:
        """Give the error a description of what it refuses: of the columns what the rows without an error say."""
        known: dict[str, Any] = {"num_rows": self.num_rows}
        if self.source:
            known |= {
                "format": self.source.format.name,
                "format_reason": self.source.reason,
                "encoding": self.source.encoding,
            }
        if self.statistics:
            known["columns"] = [asdict(column.column(None)) for column in self.statistics.columns]
        known["validation"] = asdict(self._validation(error))
        error.description = known

    def _validation(self, error: LearningError) -> Validation:
        if isinstance(error, InvalidDataset):
            return Validation(False, error.error_count, 0, error.errors, dict(error.errors_by_rule))
        # What the caller asked for does not fit the file: that is one error, of the file as a whole.
        remedy = error.hint or f"Correct {error.param or 'the request'} and upload the file again."
        single = RowError(error.code, error.message, remedy, self.filename)
        return Validation(False, 1, 0, [single], {error.code: 1})


@dataclass(frozen=True, slots=True)
class DatasetDescription:
    """What is known of a dataset once it is ready; `encoding` is None for a file that is not text."""

    format: str
    format_reason: str
    encoding: str | None
    num_rows: int
    duplicates: Duplicates
    splits: dict[str, int] | None
    columns: list[Column]
    task_candidates: list[TaskCandidate]
    warnings: list[DatasetWarning]
    validation: Validation

    def to_dict(self) -> dict[str, Any]:
        """The description as JSON."""
        return asdict(self)


def ingest(
    source: Path,
    filename: str,
    destination: Path,
    options: IngestOptions,
    report: Callable[[str, float], None] = ignore_progress,
) -> DatasetDescription:
    """Check a file, write its rows to `destination` as an Arrow file and describe them.

    `filename` is the caller's name for the file; `report` gets each phase ("inferring types", "reading",
    "statistics") with the fraction of it done. With on_bad_rows "quarantine" the bad rows, if there are any, are
    written to `quarantine_path(destination)`. Raises InvalidDataset with every row error, and leaves no file then; any
    LearningError has a `description` of what was found before it.
    """
    found = _Found(filename)
    partial, copy, aside = (destination.with_name(destination.name + end) for end in (".partial", ".utf8", ".aside"))
    try:
        found.source = source_file = recognised(source, filename, options.format, copy)
        read = ReadOptions(filename, options.column_types, report)
        try:
            if source_file.refusal:
                raise source_file.refusal
            errors, statistics = _read(found, read, options, partial, aside)
        except InvalidDataset as refusal:
            encoding = source_file.encoding
            marks = marks_for(refusal, source, encoding, copy) if encoding else None
            if marks is None:
                raise
            found.source = replace(source_file, path=copy)
            errors, statistics = _read(found, replace(read, marks=marks), options, partial, aside)
        description = _described(source_file, errors, statistics, partial, (read, options.split))
        partial.replace(destination)
        if errors.count and aside.exists():
            aside.replace(quarantine_path(destination))
    except LearningError as error:
        found.describes(error)
        raise
    finally:
        for left in (partial, copy, aside):
            left.unlink(missing_ok=True)
    return description


def _described(
    source: Recognised,
    errors: RowErrors,
    statistics: TableStatistics,
    path: Path,
    asked: tuple[ReadOptions, Mapping[str, Any] | None],
) -> DatasetDescription:
    read, split = asked

    def say(fraction: float) -> None:
        read.report("statistics", fraction)

    duplicates, estimates = look(path, statistics.schema, statistics.num_rows, statistics.uncounted, say)
    columns = [column.column(estimates.get(place)) for place, column in enumerate(statistics.columns)]
    facts = Facts(statistics, columns)
    candidates = task_candidates(facts)
    with pa.memory_map(str(path)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
        conflicts = _conflicts(path, facts, candidates)
        warnings = dataset_warnings(
            facts, statistics, candidates, duplicates=duplicates, conflicts=conflicts, errors=errors, table=table
        )
        splits, beside = _split(path, table, split, candidates[0].target if candidates else None)
        warnings += beside
    say(1.0)
    return DatasetDescription(
        format=source.format.name,
        format_reason=source.reason,
        encoding=source.encoding,
        num_rows=statistics.num_rows,
        duplicates=duplicates,
        splits=splits,
        columns=columns,
        task_candidates=candidates,
        warnings=warnings,
        validation=Validation(True, errors.count, len(warnings), errors.first(), dict(errors.by_rule)),
    )


def _conflicts(path: Path, facts: Facts, candidates: Sequence[TaskCandidate]) -> LabelConflicts:
    """Look at what the surest candidate would learn from, if that is one file or text with one label."""
    first = candidates[0] if candidates else None
    if first is None or first.balance is None or not first.inputs or facts.num_rows > MOST_ROWS:
        return LabelConflicts()
    assert first.target
    return label_conflicts(path, first.inputs, first.target)


def _split(
    path: Path, table: pa.Table, split: Mapping[str, Any] | None, target: str | None
) -> tuple[dict[str, int] | None, list[DatasetWarning]]:
    """Return how many rows each part has, and warnings of them; raises for a column that is not there."""
    if not split:
        return None, []
    from learning.config import Split  # pydantic comes with it
    from learning.drift import split_warnings
    from learning.splits import split_rows

    wanted = Split.model_validate(dict(split))
    parts = split_rows(table, wanted, target)
    splits = {name: len(getattr(parts, name)) for name in ("train", "validation", "test")}
    return splits, list(split_warnings(path, table, parts, wanted.column, target)) if wanted.column else []


def quarantine_path(destination: Path) -> Path:
    """Return where the bad rows of a dataset are beside its Arrow file."""
    return destination.with_suffix(".quarantine.jsonl")


def _read(
    found: _Found, read: ReadOptions, options: IngestOptions, partial: Path, aside: Path
) -> tuple[RowErrors, TableStatistics]:
    """Write the clean rows and set the others aside if that is wanted; return the errors and what is in the rows."""
    assert found.source
    source = found.source
    try:
        errors, statistics = _read_once(source, read, options, partial, aside)
    except Misjudged as misjudged:
        again = replace(read, known_types=misjudged.types)
        errors, statistics = _read_once(source, again, options, partial, aside)
    found.num_rows, found.statistics = errors.rows_seen, statistics
    if errors.count and options.on_bad_rows == "fail":
        raise errors.exception()
    if statistics is None:
        raise _none_left(errors)
    return errors, statistics


def _read_once(
    source: Recognised, read: ReadOptions, options: IngestOptions, partial: Path, aside: Path
) -> tuple[RowErrors, TableStatistics | None]:
    with Quarantine(aside) if options.on_bad_rows == "quarantine" else nullcontext() as quarantine:
        errors = RowErrors(read.filename, quarantine)
        statistics = _write(source.format.read(source.path, read, errors), partial)
        errors.settle(math.inf)
    return errors, statistics


def _write(batches: Iterator[pa.RecordBatch], path: Path) -> TableStatistics | None:
    """Write the batches as an Arrow file, uncompressed so that it can be mapped; return what is in them, if any is."""
    statistics: TableStatistics | None = None
    writer: pa.RecordBatchFileWriter | None = None
    with pa.OSFile(str(path), "wb") as sink:
        try:
            for batch in _merged(batches):
                writer = writer or pa.ipc.new_file(sink, batch.schema)
                writer.write_batch(batch)
                statistics = statistics or TableStatistics(batch.schema)
                statistics.add(batch)
        finally:
            if writer:
                writer.close()
    return statistics


def _merged(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if batch.num_rows:
            pending.append(batch)
            rows += batch.num_rows
            size += batch.nbytes
        if rows >= _WRITE_ROWS or size >= _WRITE_BYTES:
            yield pa.concat_batches(pending)
            pending, rows, size = [], 0, 0
    if pending:
        yield pa.concat_batches(pending)


def _none_left(errors: RowErrors) -> Exception:
    if errors.count:
        return errors.exception(f"No row is left: all {errors.rows_seen} rows have errors. ")
    return invalid_file("no_rows", "The file has no rows.", "Add at least one row.", file=errors.file)
