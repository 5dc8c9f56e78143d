"""Statistics of a dataset's columns, gathered while its rows are written, within bounded memory."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from learning.column_type import AnyType, is_media
from learning.formats.format import ARROW_TYPES
from learning.media_statistics import Media, MediaStatistics, digests
from learning.tag_check import TagCheck, TagErrors
from learning.value_counts import LengthCounts, ValueCounts

TOP = 10
_SHOWN_LENGTH = 256
# All columns together count so many different values of so many bytes, each at least and at most these.
_VALUES, _LEAST_VALUES, _MOST_VALUES = 2_000_000, 200, 100_000
_BYTES, _LEAST_BYTES, _MOST_BYTES = 128 << 20, 16 << 10, 16 << 20
# Words with a space between, or two characters of a script that has no spaces.
_PROSE = r"\S\s+\S|[^\x00-\x{2E7F}]{2}"
_PROSE_SAMPLE = 1_000
_LISTS_COMPARED = 8

_KINDS: dict[pa.DataType, AnyType] = {arrow: kind for kind, arrow in ARROW_TYPES.items()}


@dataclass(frozen=True, slots=True)
class TopValue:
    """A value and how many rows have it; a string longer than 256 characters is cut, with an ellipsis."""

    value: str | int | bool
    count: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long values are: strings in characters, lists in items."""

    min: int
    mean: float
    p50: int
    p95: int
    max: int


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a dataset.

    `unique` counts different values, of lists their different items; above a limit of at most 100,000 it is an
    estimate, within about two percent, and `unique_estimated` says so. `min` and `max` are given for numbers and, as
    ISO 8601, for timestamps; `mean` for numbers; `top`, the most frequent values or items, for strings, lists,
    booleans and integers; `lengths` for strings and lists. `prose` says of strings whether most are several words
    rather than a name or a code. `media` is what is known of images, recordings or marked objects.
    """

    name: str
    type: AnyType
    nullable: bool
    missing: int
    unique: int
    unique_estimated: bool
    min: int | float | str | None
    max: int | float | str | None
    mean: float | None
    top: list[TopValue]
    lengths: Lengths | None
    prose: bool | None
    media: Media | None


class ColumnStatistics:
    """Gathers what is known of one column."""

    def __init__(self, name: str, kind: AnyType, columns: int) -> None:
        self.name = name
        self.kind = kind
        self.present = 0
        self.missing = 0
        share = min(max(_VALUES // columns, _LEAST_VALUES), _MOST_VALUES)
        self._media = MediaStatistics(kind) if is_media(kind) else None
        counted: AnyType = "string" if kind == "strings" else "integer" if self._media else kind
        self.counts = ValueCounts(ARROW_TYPES[counted], share, min(max(_BYTES // columns, _LEAST_BYTES), _MOST_BYTES))
        self._lengths = LengthCounts() if kind in {"string", "strings"} else None
        self._low: Any = None
        self._high: Any = None
        self._sums: list[float] = []
        self._sum = 0
        self._looked = self._prose = 0
        self.tags = TagCheck() if kind == "strings" else None

    def add(self, cells: pa.Array, first_row: int) -> None:
        """Look at some cells of the column; `first_row` is the number of the first one's row."""
        self.missing += cells.null_count
        self.present += len(cells) - cells.null_count
        values = cells.drop_null() if cells.null_count else cells
        if not len(values):
            return
        if self.kind in {"integer", "number", "timestamp"}:
            self._measure(values)
        if self.kind == "number":
            values = pc.add(values, 0.0)  # minus zero is zero
        if self._lengths:
            self._lengths.add(pc.utf8_length(values) if self.kind == "string" else pc.list_value_length(values))
        if self.kind == "string":
            self._look_for_prose(values)
        if self.tags:
            self.tags.add(cells, first_row)
        if self._media:
            self._media.add(values)
            values = digests(values)
        self.counts.add(values.flatten() if self.kind == "strings" else values)

    def _measure(self, values: pa.Array) -> None:
        ends = pc.min_max(values)
        low, high = ends["min"], ends["max"]
        if self.kind == "timestamp":
            low, high = low.cast(pa.int64()), high.cast(pa.int64())
        low, high = low.as_py(), high.as_py()
        self._low = low if self._low is None else min(self._low, low)
        self._high = high if self._high is None else max(self._high, high)
        if self.kind == "integer":
            numbers = values.to_numpy(zero_copy_only=False)
            # In two halves, each of which cannot overflow.
            self._sum += (int((numbers >> 32).sum()) << 32) + int((numbers & 0xFFFFFFFF).sum())
        elif self.kind == "number":
            self._sums.append(pc.sum(values).as_py())

    def _look_for_prose(self, values: pa.Array) -> None:
        if self._looked < _PROSE_SAMPLE:
            some = values.slice(0, 4 * _PROSE_SAMPLE)
            some = some.filter(pc.greater(pc.binary_length(some), 0)).slice(0, _PROSE_SAMPLE)
            self._looked += len(some)
            self._prose += pc.sum(pc.match_substring_regex(some, _PROSE)).as_py() or 0

    @property
    def prose(self) -> bool:
        """Whether most of the values looked at are several words."""
        return self._looked > 0 and 2 * self._prose >= self._looked

    def column(self, estimate: int | None) -> Column:
        """Return what was found; `estimate` is the number of different values where they were too many to count."""
        counts, kind = self.counts, self.kind
        shown = kind not in {"number", "timestamp"} and self._media is None
        summary = self._lengths.summary() if self._lengths else None
        return Column(
            name=self.name,
            type=kind,
            nullable=self.missing > 0,
            missing=self.missing,
            unique=counts.unique if estimate is None else min(max(estimate, counts.unique), counts.total),
            unique_estimated=not counts.exact,
            min=self._end(self._low),
            max=self._end(self._high),
            mean=self._mean(),
            top=[TopValue(_shown(value), count) for value, count in counts.top(TOP)] if shown else [],
            lengths=Lengths(**summary) if summary else None,  # type: ignore[arg-type]
            prose=self.prose if kind == "string" else None,
            media=self._media.summary() if self._media else None,
        )

    def _end(self, value: Any) -> Any:
        if self.kind != "timestamp" or value is None:
            return value
        moment: datetime = pa.scalar(value, ARROW_TYPES["timestamp"]).as_py()
        return moment.isoformat()

    def _mean(self) -> float | None:
        if not self.present or self.kind not in {"integer", "number"}:
            return None
        return self._sum / self.present if self.kind == "integer" else math.fsum(self._sums) / self.present


class TableStatistics:
    """Gathers what is known of all columns of a table."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.num_rows = 0
        self.columns = [ColumnStatistics(field.name, _KINDS[field.type], len(schema)) for field in schema]
        lists = [place for place, column in enumerate(self.columns) if column.kind == "strings"]
        self.paired = set(itertools.combinations(lists[:_LISTS_COMPARED], 2))

    def add(self, batch: pa.RecordBatch) -> None:
        """Look at some rows."""
        for column, cells in zip(self.columns, batch.columns, strict=True):
            column.add(cells, self.num_rows + 1)
        for pair in list(self.paired):
            lengths = [pc.fill_null(pc.list_value_length(batch.column(place)), -1) for place in pair]
            if not lengths[0].equals(lengths[1]):
                self.paired.discard(pair)
        self.num_rows += batch.num_rows

    @property
    def uncounted(self) -> list[int]:
        """The positions of the columns with too many different values to count."""
        return [place for place, column in enumerate(self.columns) if column.counts.unique and not column.counts.exact]

    def tag_errors(self) -> dict[str, TagErrors]:
        """Return, by column of tags, the places that are not IOB2."""
        return {column.name: column.tags.errors for column in self.columns if column.tags and column.tags.errors.count}


def _shown(value: Any) -> Any:
    return value[:_SHOWN_LENGTH] + "…" if isinstance(value, str) and len(value) > _SHOWN_LENGTH else value
