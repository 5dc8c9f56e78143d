"""What is allowed in a dataset but probably not meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from learning.formats.row_errors import RowErrors
from learning.images import CONVERTED_MODES
from learning.label_conflicts import LabelConflicts
from learning.leaks import leaks
from learning.media_statistics import ImageSizes
from learning.row_hashes import Duplicates
from learning.sampling import sample
from learning.statistics import Column, TableStatistics
from learning.tag_check import TagErrors
from learning.task_candidates import Facts, TaskCandidate
from learning.transcript_room import too_long

_ENOUGH_ROWS = 20
_TARGETS = 3


@dataclass(frozen=True, slots=True)
class DatasetWarning:
    """Something that is allowed but probably not meant."""

    code: str
    message: str
    column: str | None = None


def dataset_warnings(
    facts: Facts,
    statistics: TableStatistics,
    candidates: Sequence[TaskCandidate],
    *,
    duplicates: Duplicates,
    conflicts: LabelConflicts,
    errors: RowErrors,
    table: Any,
) -> list[DatasetWarning]:
    """Return every warning; `table` is the Arrow table, from which some rows are read."""
    targets = list(dict.fromkeys(one.target for one in candidates if one.target))[:_TARGETS]
    return [
        *_bad_rows(errors, facts.num_rows),
        *(DatasetWarning(code, message) for code, message in errors.remarks),
        *_header(facts.columns),
        *(found for column in facts.columns for found in _column(column, facts)),
        *_duplicates(duplicates, facts),
        *_conflicts(conflicts, candidates),
        *(found for name, wrong in statistics.tag_errors().items() for found in _tags(name, wrong)),
        *_once([one for one in candidates if one.target in targets]),
        *_leaks(targets, facts, table),
        *_transcripts(candidates, table),
    ]


def _bad_rows(errors: RowErrors, num_rows: int) -> Iterator[DatasetWarning]:
    if errors.count:
        skipped = errors.rows_seen - num_rows
        done, code = ("set aside", "quarantined_rows") if errors.keeps_all else ("skipped", "skipped_rows")
        message = f"{skipped} of {errors.rows_seen} rows were {done}; the first: {errors.first()[0].message}"
        yield DatasetWarning(code, message)


def _header(columns: Sequence[Column]) -> Iterator[DatasetWarning]:
    if all(_is_number(column.name) for column in columns):
        message = "Every column name is a number: if the file has no header, its first row was taken for one."
        yield DatasetWarning("numbers_as_header", message)


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _column(column: Column, facts: Facts) -> Iterator[DatasetWarning]:
    name = column.name
    if not column.unique:
        yield DatasetWarning("empty_column", f'Column "{name}" has no values.', name)
    elif column.unique == 1 and not column.missing and facts.num_rows > 1 and column not in facts.media:
        yield DatasetWarning("constant_column", f'Column "{name}" has the same value in every row.', name)
    elif isinstance(column.media, ImageSizes) and (odd := _converted(column.media)):
        what = ", ".join(f"{count} of mode {mode}" for mode, count in odd.items())
        yield DatasetWarning(
            "converted_images", f'Column "{name}": images are read as 8 bits of grey or colour: {what}.', name
        )
    elif others := _beside_booleans(column, facts):
        message = (
            f'Column "{name}" is one of strings: most of its values are true or false, but {others[1]} of '
            f'{facts.present(column)} are not, such as "{others[0]}".'
        )
        yield DatasetWarning("nearly_boolean", message, name)
    elif listing := _listing(column):
        message = (
            f'Column "{name}" has values such as "{listing}": if they are several labels of a row, upload the file '
            f'with column_types={{"{name}": "strings"}}.'
        )
        yield DatasetWarning("maybe_lists", message, name)
    elif _is_id(column, facts):
        message = f'Column "{name}" has another value in every row, as an id has: leave it out with columns.ignore.'
        yield DatasetWarning("id_column", message, name)


def _listing(column: Column) -> str | None:
    """Return one of the most frequent values of a column of strings, if many of these are written as lists are."""
    if column.type != "string" or column.prose:
        return None
    values = [str(top.value) for top in column.top]
    listings = [value for value in values if "|" in value.strip("|") or value.startswith('["')]
    return listings[0] if 4 * len(listings) >= len(values) > 0 else None


def _beside_booleans(column: Column, facts: Facts) -> tuple[str, int] | None:
    """Return a value that is neither true nor false, and how many there are, of strings most of which are."""
    if column.type != "string":
        return None
    booleans = [str(top.value).lower() in {"true", "false"} for top in column.top]
    count = sum(top.count for top, boolean in zip(column.top, booleans, strict=True) if boolean)
    if all(booleans) or 4 * count < 3 * facts.present(column):
        return None
    return str(column.top[booleans.index(False)].value), facts.present(column) - count


def _converted(sizes: ImageSizes) -> dict[str, int]:
    return {mode: count for mode, count in sizes.modes.items() if mode in CONVERTED_MODES}


def _is_id(column: Column, facts: Facts) -> bool:
    if facts.num_rows < _ENOUGH_ROWS or column.missing or len(facts.columns) == 1 or facts.media:
        return False
    if column.unique < (0.95 if column.unique_estimated else 1) * facts.num_rows:
        return False
    if column.type == "integer":
        # A quantity has gaps; numbers that count rows have next to none.
        return int(column.max or 0) - int(column.min or 0) < 2 * facts.num_rows
    return column.type == "string" and not column.prose


def _duplicates(duplicates: Duplicates, facts: Facts) -> Iterator[DatasetWarning]:
    # Lines of a text repeat, the blank ones above all.
    if duplicates.count and not (len(facts.columns) == 1 and facts.columns[0].type == "string"):
        rows = ", ".join(str(row) for row in duplicates.rows)
        more = ", …" if duplicates.count > len(duplicates.rows) else ""
        message = f"{duplicates.count} of {facts.num_rows} rows repeat an earlier row: {rows}{more}."
        yield DatasetWarning("duplicate_rows", message)


def _conflicts(conflicts: LabelConflicts, candidates: Sequence[TaskCandidate]) -> Iterator[DatasetWarning]:
    if conflicts.count:
        target = candidates[0].target
        rows = ", ".join(str(row) for row in conflicts.rows)
        message = (
            f'{conflicts.count} of the values to learn from occur with more than one "{target}"; the first rows with '
            f"such a value: {rows}. One of its labels is probably wrong."
        )
        yield DatasetWarning("conflicting_labels", message, target)


def _tags(name: str, wrong: TagErrors) -> Iterator[DatasetWarning]:
    first = wrong.first[0]
    after = f'follows "{first.before}"' if first.before is not None else "begins the row"
    where = f'Row {first.row}, column "{name}", position {first.position}: "{first.tag}" {after}'
    others = f" {wrong.count - 1} more in the file." if wrong.count > 1 else ""
    message = (
        f"{where}, which is not valid IOB2: an entity begins with B- and goes on with I- of the same type.{others}"
    )
    yield DatasetWarning("invalid_tags", message, name)


def _once(candidates: Sequence[TaskCandidate]) -> Iterator[DatasetWarning]:
    told = set()
    for one in candidates:
        if one.balance and one.balance.once and one.target not in told:
            told.add(one.target)
            labels = ", ".join(f'"{label}"' for label in one.balance.once_first)
            more = ", …" if one.balance.once > len(one.balance.once_first) else ""
            count = f"{one.balance.once} label{' occurs' if one.balance.once == 1 else 's occur'}"
            message = (
                f'Column "{one.target}": {count} only once, so not both in training and in a test: {labels}{more}.'
            )
            yield DatasetWarning("labels_once", message, one.target)


def _leaks(targets: Sequence[str], facts: Facts, table: Any) -> Iterator[DatasetWarning]:
    if facts.num_rows < _ENOUGH_ROWS:
        return
    some = sample(table)
    for target in targets:
        for column, how in leaks(some, target):
            message = (
                f'Column "{column}" {how} "{target}". If it is not known when a prediction is asked for, leave it '
                f'out with columns.ignore=["{column}"].'
            )
            yield DatasetWarning("leaking_column", message, column)


def _transcripts(candidates: Sequence[TaskCandidate], table: Any) -> Iterator[DatasetWarning]:
    for one in candidates:
        if one.task != "speech-recognition" or one.target is None or not one.inputs:
            continue
        found = too_long(table, one.inputs[0], one.target)
        if found.count:
            rows, more = ", ".join(str(row) for row in found.rows), ", …" if found.count > len(found.rows) else ""
            what = "transcript is" if found.count == 1 else "transcripts are"
            message = (
                f'Column "{one.target}": {found.count} {what} too long for the recording, of which speech-recognition '
                f"tells 25 positions a second apart: rows {rows}{more}. A job on such a row fails. Correct them, leave "
                'these rows out or, if they are said so fast, use architecture "deepspeech", with 50 a second.'
            )
            yield DatasetWarning("long_transcripts", message, one.target)
