"""The wrong rows of one file: all are counted, the first hundred are kept."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pyarrow as pa

from learning.errors import InvalidDataset, RowError
from learning.formats.quarantine import Quarantine

KEPT = 100
_VALUE_LENGTH = 80


class RowErrors:
    """Collects the row errors of one file while it is read.

    `rows_seen` is the number of records read so far, right and wrong ones. With a quarantine every error and what
    stands in its row go there too.
    """

    def __init__(self, file: str, quarantine: Quarantine | None = None) -> None:
        self.file = file
        self._quarantine = quarantine
        self.rows_seen = 0
        self.by_rule: Counter[str] = Counter()
        self.remarks: list[tuple[str, str]] = []
        self._by_place: Counter[tuple[str, str | None]] = Counter()
        self._kept: list[RowError] = []
        self._before: float = math.inf  # only errors of earlier rows than this are still kept

    @property
    def count(self) -> int:
        """The number of errors found, kept or not."""
        return self.by_rule.total()

    def add(
        self,
        rule: str,
        message: str,
        remedy: str,
        *,
        row: int,
        column: str | None = None,
        value: str | None = None,
        text: str | None = None,
    ) -> None:
        """Record one error; `text` is the whole row as it is written."""
        error = RowError(rule, message, remedy, self.file, row, column, shortened(value))
        self.add_all(rule, column, 1, [error])
        if self._quarantine and text is not None:
            self._quarantine.keep(row, text=text)

    def remark(self, code: str, message: str) -> None:
        """Note something of the file that is no error of a row: it becomes a warning of the dataset."""
        self.remarks.append((code, message))

    @property
    def keeps_all(self) -> bool:
        """Whether every error is wanted as an example."""
        return self._quarantine is not None

    def set_aside(self, rows: Iterable[Any], columns: pa.RecordBatch) -> None:
        """Keep what stands in bad rows, if anybody wants it."""
        if self._quarantine:
            for row, values in zip(rows, columns.to_pylist(), strict=True):
                self._quarantine.keep(int(row), values=values)

    def settle(self, row: float) -> None:
        """Say that no more errors will be found in the rows up to this one."""
        if self._quarantine:
            self._quarantine.settle(row)

    def add_all(self, rule: str, column: str | None, count: int, examples: Iterable[RowError]) -> None:
        """Record `count` errors of one rule in one column; `examples` are the first, or all when all are kept."""
        examples = list(examples)
        if self._quarantine:
            for error in examples:
                self._quarantine.note(error)
        self.by_rule[rule] += count
        self._by_place[rule, column] += count
        # A reader may run ahead of the checks on values, so a later call can bring an earlier row.
        wanted = [error for error in examples if (error.row or 0) < self._before]
        if wanted:
            self._kept.extend(wanted)
            self._trim()

    def first(self) -> list[RowError]:
        """Return the errors of the first rows, each message with how many rows share its kind."""
        return [replace(error, message=f"{error.message} {self._share(error)}") for error in self._kept]

    def exception(self, opening: str = "") -> InvalidDataset:
        """Return the exception that names the first error, after an opening, and carries the rest."""
        first = self.first()
        others = self.count - 1
        more = f" {others} more error{'s' if others > 1 else ''} in the file." if others else ""
        message = opening + first[0].message + more
        by_rule = dict(self.by_rule)
        return InvalidDataset(message, first, error_count=self.count, errors_by_rule=by_rule, hint=first[0].remedy)

    def _share(self, error: RowError) -> str:
        return f"{self._by_place[error.rule, error.column]} of {self.rows_seen} rows."

    def _trim(self) -> None:
        self._kept.sort(key=lambda error: error.row or 0)
        del self._kept[KEPT:]
        if len(self._kept) == KEPT:
            self._before = self._kept[-1].row or 0


def shortened(value: str | None) -> str | None:
    """Cut a value so that a message stays readable."""
    if value is None or len(value) <= _VALUE_LENGTH:
        return value
    return value[:_VALUE_LENGTH] + "…"


def invalid_file(
    rule: str,
    message: str,
    remedy: str,
    *,
    file: str,
    row: int | None = None,
    column: str | None = None,
    value: str | None = None,
) -> InvalidDataset:
    """Return the exception for a file that cannot be read at all, for one reason."""
    error = RowError(rule, message, remedy, file, row, column, shortened(value))
    return InvalidDataset(message, [error], error_count=1, errors_by_rule={rule: 1}, hint=remedy)
